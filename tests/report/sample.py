"""A page with every kind of part, small enough to make in a blink."""

import io

from PIL import Image

from phosphene.report.page import Bar, Figure, Page, Section, Table

from .test_math import CLASS_IMAGE, FOOLING, GRAD_CAM, GUIDED, ROBUST, SALIENCY, SOFTMAX

EVIL = "<script>alert('x')</script>"
LONG = "a_very_long_name_without_any_space_" * 4


def figure(width: int = 32, height: int = 24, caption: str = "", wide: bool = False, alt: str = "A picture") -> Figure:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(buffer, "PNG")
    return Figure(
        image=buffer.getvalue(),
        media_type="image/png",
        alt=alt,
        caption=caption,
        width=width,
        height=height,
        wide=wide,
        pixelated=width < 20,
    )


def section(key: str, count: int = 1, **parts: object) -> Section:
    fields: dict[str, object] = {
        "title": f"The section {key}",
        "slide": f"The slide {key}",
        "command": f"phosphene {key} 'my photo.jpg' --seed 0",
        "seconds": 0.5,
        "words": (f"What {key} is: `code` and *emphasis*.",),
        "figures": tuple(figure(caption=f"Picture {index} of {key}") for index in range(count)),
    }
    return Section(key=key, **{**fields, **parts})  # type: ignore[arg-type]


def page() -> Page:
    explained = Table(("Method", "Deletion", LONG), (("Saliency", "0.2", "0.3"), ("Grad-CAM", "0.1", "0.4")), "AUC")
    return Page(
        title="What a network sees in my photo.jpg",
        lead="A lecture, told with *one* photograph, `my photo.jpg`.",
        hero=figure(60, 40, caption="my photo.jpg"),
        facts=(("The network says", "tabby cat, 52.3%"), ("Network", "EfficientNet-Lite0"), ("File", LONG)),
        sections=(
            section(
                "predict",
                1,
                formula=(SOFTMAX,),
                bars=(Bar("tabby", 0.523, True), Bar(LONG, 0.2), Bar(EVIL, 0.0001)),
            ),
            section("filters", 0, figures=(figure(16, 8, wide=True),), note="A remark with `code`."),
            section("activations", 8, command="phosphene activations " + LONG),
            section("explain", 3, formula=(SALIENCY, GUIDED, GRAD_CAM), tables=(explained,)),
            section("visualize", 2, formula=(CLASS_IMAGE,)),
            section("fool", 4, formula=(FOOLING, ROBUST)),
            section("bare", 0, words=(), command="", slide="", bars=(Bar("alone", 1.0),)),
        ),
        footer=(
            ("Phosphene", "0.1.0"),
            ("Seed", "0"),
            ("Device", "cpu"),
            ("SHA-256", "0123456789abcdef" * 4),
        ),
    )
