"""The page of a map: what is in it, that nothing can break out of it, and how it behaves in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phosphene.jobs.outcome import Outcome
from phosphene.observe import lattice, trust
from phosphene.report.embedding import page

COUNT = 30
EVIL = "</script><script>alert(1)</script><!-- & \"' .png"


def outcome(classes: bool = True, count: int = COUNT, names: tuple[str, ...] = ()) -> Outcome:
    """A map of thumbnails that each have a colour of their own."""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(count, 2)) * 10
    flat = generator.normal(size=(count, 2))
    near = trust.nearest(points, 4)
    kinds = ["ants", "bees", "<wasps>"] if classes else [None]
    known = [*names, *(f"photo_{place:02}.jpg" for place in range(len(names), count))]
    rows = [
        {"name": known[place], "class": kinds[place % len(kinds)], "x": x, "y": y}
        for place, (x, y) in enumerate(points.tolist())
    ]
    figures = {"preservation": 0.25, "trustworthiness": 0.875, "accuracy": 0.75 if classes else None}
    told = {"neighbours": 4, "chance": 0.125, "maps": {"tsne": figures, "pca": figures}}
    if classes:
        told |= {"voters": 5, "accuracy": 0.9, "largest_class": 1 / 3}
    facts = {
        "net": "small", "layer": "fc7", "method": "tsne", "images": count, "dimensions": 64, "perplexity": 9.0,
        "perplexity_asked": 30.0, "variance": 0.5, "neighbours": 4, "trust": told, "drawn": count, "points": rows,
        "skipped": {},
    }  # fmt: skip
    shades = torch.from_numpy(generator.integers(0, 256, (count, 3, 1, 1), dtype=np.uint8)).expand(-1, -1, 32, 32)
    arrays = {"tsne": points, "pca": flat, "grid": lattice.assign(points).astype(float)}
    arrays |= {"neighbours": near.places, "distances": near.distances}
    return Outcome((), facts, {"thumbnails": shades, **{key: torch.from_numpy(value) for key, value in arrays.items()}})


PARAMETERS = {"folder": "my photos", "net": "small", "seed": 0}


def data(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found
    return json.loads(found[1])


# -- what is in it --------------------------------------------------------------------------------------------------------


def test_it_asks_nobody_anything_and_runs_its_own_script_only() -> None:
    text = page(outcome(), PARAMETERS)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy and "default-src 'none'" in policy[1] and "img-src data:;" in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1 and text.count("<script") == 2
    assert base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode() in policy[1]
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert links and all(link.startswith("data:") for link in links) and "http:" not in text and "https:" not in text


def test_names_can_not_break_the_page() -> None:
    text = page(outcome(names=(EVIL,)), PARAMETERS)
    assert text.count("<script") == 2 and text.count("</script>") == 2 and "alert(1)</script>" not in text
    assert data(text)["names"][0] == EVIL and "&lt;wasps&gt;" in text and "<wasps>" not in text


def test_the_data_are_the_maps_and_the_neighbours() -> None:
    made = outcome()
    found = data(page(made, PARAMETERS))
    assert found["order"] == ["tsne", "pca", "grid"] and found["near"] == made.arrays["neighbours"].tolist()
    assert found["classes"] == ["<wasps>", "ants", "bees"] and found["kinds"][:4] == [1, 2, 0, 1]
    for name, places in found["maps"].items():
        assert max(places["wide"], places["high"]) == pytest.approx(1000)
        assert max(places["x"]) + places["side"] / 2 == pytest.approx(places["wide"] / 2, abs=0.1)
        assert min(places["y"]) - places["side"] / 2 == pytest.approx(-places["high"] / 2, abs=0.1), name
    cells = made.arrays["grid"].numpy()
    assert np.argmin(found["maps"]["grid"]["y"]) in np.flatnonzero(cells[:, 1] == 0)
    up = np.corrcoef(found["maps"]["tsne"]["y"], made.arrays["tsne"][:, 1].numpy())[0, 1]
    assert up < -0.95  # up in the map is up on the screen


def test_figures_and_the_command_are_told() -> None:
    text = page(outcome(), PARAMETERS)
    for words in (
        "25.0%",
        "0.875",
        "75.0%",
        "90.0%",
        "12.5%",
        "Perplexity 9, lowered from 30",
        "50.0% of the variance",
    ):
        assert words in text
    assert "phosphene embed &#39;my photos&#39; --net small" in text
    plain = page(outcome(classes=False), PARAMETERS)
    assert 'id="classes"' not in plain and "class found" not in plain and data(plain)["kinds"] is None


def test_images_without_a_cell_have_none() -> None:
    made = outcome()
    made.arrays["grid"][3] = torch.nan
    grid = data(page(made, PARAMETERS))["maps"]["grid"]
    assert grid["x"][3] is None and grid["x"].count(None) == 1


# -- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open the page: `visit()`. At the end nothing may have been logged or asked for."""
    contexts, complaints, requests = [], [], []

    def open_page(width: int = 1200, made: Outcome | None = None, **options: Any) -> Any:
        file = tmp_path / "index.html"
        file.write_text(page(made or outcome(), PARAMETERS), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if "getImageData" not in message.text else 0)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(file.as_uri())
        if options.get("java_script_enabled", True):
            tab.wait_for_selector("html[data-ready]")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def where(tab: Any, image: int) -> tuple[float, float]:
    x, y = tab.evaluate(f"document.getElementById('stage').where({image})")
    return x, y


def colour(tab: Any, image: int) -> list[int]:
    """What is drawn in the middle of a picture."""
    return tab.evaluate(
        """(i) => {
          const stage = document.getElementById("stage"), box = stage.getBoundingClientRect();
          const [x, y] = stage.where(i), ratio = stage.width / box.width, pen = stage.getContext("2d");
          return [...pen.getImageData((x - box.left) * ratio, (y - box.top) * ratio, 1, 1).data].slice(0, 3);
        }""",
        image,
    )


def near(tab: Any) -> list[int]:
    return [int(button.get_attribute("data-image")) for button in tab.query_selector_all("#near button")]


def settle(tab: Any) -> None:
    tab.wait_for_timeout(150)


def choose(tab: Any, name: str) -> None:
    tab.locator(".maps label", has_text=name).click()
    settle(tab)


STILL = {"reduced_motion": "reduce"}


def test_pointing_at_a_picture_shows_it_and_its_neighbours(visit: Any) -> None:
    made = outcome()
    tab = visit(made=made, **STILL)
    choose(tab, "Grid")
    for image in (0, 17, 29):
        tab.mouse.move(*where(tab, image))
        settle(tab)
        assert tab.locator("#name").inner_text() == f"photo_{image:02}.jpg"
        assert near(tab) == made.arrays["neighbours"][image].tolist()
        assert tab.locator("#kind").inner_text() == ["ants", "bees", "<wasps>"][image % 3]
        wanted = made.arrays["thumbnails"][image, :, 0, 0].tolist()
        assert np.abs(np.array(colour(tab, image)) - wanted).max() < 12
    tab.mouse.move(*where(tab, 5))
    tab.mouse.click(*where(tab, 5))
    tab.mouse.move(*where(tab, 9))
    assert tab.locator("#name").inner_text() == "photo_05.jpg"  # held
    tab.locator("#near button").first.click()
    assert tab.locator("#name").inner_text() == f"photo_{int(made.arrays['neighbours'][5, 0]):02}.jpg"
    tab.keyboard.press("Escape")
    assert not tab.locator("#card").is_visible() and tab.locator("#hint").is_visible()


def test_places_change_with_the_map_and_pictures_glide_there(visit: Any) -> None:
    tab = visit()
    start = where(tab, 3)
    tab.locator(".maps label", has_text="PCA").click()
    tab.wait_for_timeout(400)
    between = where(tab, 3)
    tab.wait_for_timeout(1500)
    end = where(tab, 3)
    assert start != between != end and tab.locator("tr.now").inner_text().startswith("PCA")
    tab.locator(".maps label", has_text="t-SNE").click()
    tab.wait_for_timeout(2000)
    assert where(tab, 3) == pytest.approx(start, abs=1)


def test_wheel_buttons_and_dragging_move_the_view(visit: Any) -> None:
    tab = visit(**STILL)
    x, y = where(tab, 7)
    other = where(tab, 8)
    tab.mouse.move(x, y)
    tab.mouse.wheel(0, -300)
    settle(tab)
    assert where(tab, 7) == pytest.approx((x, y), abs=1)  # what is pointed at stays
    ratio = np.hypot(*np.subtract(where(tab, 8), (x, y))) / np.hypot(*np.subtract(other, (x, y)))
    assert 1.3 < ratio < 2.5
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 40, steps=4)
    tab.mouse.up()
    assert where(tab, 7) == pytest.approx((x + 60, y + 40), abs=6)
    assert not tab.locator("#card").is_visible() or tab.locator("#name").inner_text()
    tab.get_by_role("button", name="Show all").click()
    settle(tab)
    assert where(tab, 8) == pytest.approx(other, abs=1)


def test_the_keyboard_is_enough(visit: Any) -> None:
    tab = visit(**STILL)
    choose(tab, "Grid")
    tab.locator("#stage").focus()
    tab.keyboard.press("ArrowRight")
    first = tab.locator("#name").inner_text()
    x, y = where(tab, int(first[6:8]))
    tab.keyboard.press("ArrowRight")
    second = tab.locator("#name").inner_text()
    right = where(tab, int(second[6:8]))
    assert second != first and right[0] > x + 5 and right[1] == pytest.approx(y, abs=1)
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#name").inner_text() == first
    tab.keyboard.press("/")
    tab.keyboard.type("PHOTO 1")
    assert tab.locator("#hits").inner_text() == "10 of 30"
    tab.keyboard.press("Enter")
    one = int(tab.locator("#name").inner_text()[6:8])
    tab.keyboard.press("Enter")
    assert 10 <= one < 20 and tab.locator("#name").inner_text() == f"photo_{10 + (one + 1) % 10}.jpg"


def test_a_class_can_be_singled_out(visit: Any) -> None:
    tab = visit(**STILL)
    choose(tab, "Grid")
    tab.mouse.move(1190, 790)
    bright = [colour(tab, image) for image in (1, 2)]
    tab.get_by_role("button", name="bees", exact=True).click()
    settle(tab)
    assert tab.locator("#classes [aria-pressed=true]").inner_text() == "bees"
    assert colour(tab, 1) == bright[0] and colour(tab, 2) != bright[1]
    tab.get_by_role("button", name="bees", exact=True).click()
    settle(tab)
    assert colour(tab, 2) == bright[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_and_takes_taps(visit: Any, scheme: str) -> None:
    tab = visit(width=360, has_touch=True, device_scale_factor=2, color_scheme=scheme, **STILL)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    places = [where(tab, image) for image in range(COUNT)]
    bottom = tab.evaluate("document.getElementById('stage').getBoundingClientRect().bottom")
    assert all(0 < x < 360 and 0 < y < bottom for x, y in places)
    choose(tab, "Grid")
    tab.touchscreen.tap(*where(tab, 12))
    settle(tab)
    assert tab.locator("#name").inner_text() == "photo_12.jpg" and len(near(tab)) == 4
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(250, 248, 243)" if scheme == "light" else "rgb(14, 20, 27)")


def test_without_scripts_it_says_where_to_look(visit: Any) -> None:
    tab = visit(java_script_enabled=False)
    assert "embed.png" in tab.locator("noscript").inner_text()


def test_images_without_a_cell_vanish_in_the_grid(visit: Any) -> None:
    made = outcome()
    made.arrays["grid"][3] = torch.nan
    tab = visit(made=made, **STILL)
    choose(tab, "Grid")
    tab.mouse.move(*where(tab, 4))
    settle(tab)
    assert tab.locator("#name").inner_text() == "photo_04.jpg"


def test_five_hundred_photographs_stay_small() -> None:
    noise = torch.randint(0, 256, (500, 3, 20, 20)).float()
    small = torch.nn.functional.interpolate(noise, 160, mode="bilinear").to(torch.uint8)
    made = outcome(count=500)
    text = page(Outcome((), made.facts, {**made.arrays, "thumbnails": small}), PARAMETERS)
    assert len(text) < 8e6
