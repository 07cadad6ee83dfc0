"""What is written is what is read back, whole or not at all, the same bytes each time."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from phosphene import images
from phosphene.errors import ImageError, OutputError

ENDINGS = ["png", "jpg", "jpeg", "webp", "tif", "tiff"]
NOTE = '{"λ": 0.1, "norm": "‖x − x′‖", "emoji": "😀", "empty": "", "back\\\\slash": "\\n"}\nline two'


def picture(height: int = 9, width: int = 13, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


_shapes = st.tuples(st.just(3), st.integers(4, 12), st.integers(4, 12))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, _shapes, elements=st.floats(-0.5, 1.5, width=32)),
    st.sampled_from(["png", "webp", "tiff"]),
)
def test_lossless_formats_give_the_quantized_image(values: np.ndarray, format: str) -> None:
    image = torch.from_numpy(values)
    assert torch.equal(images.decode(images.encode(image, format))[0], images.quantize(image))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("note", [None, NOTE, "", "plain ascii"])
def test_file_round_trip(tmp_path: Path, ending: str, note: str | None) -> None:
    path = tmp_path / f"a.{ending.upper()}"
    image = picture()
    assert images.save(image, path, note=note) == path
    assert images.read_note(path) == note
    assert leftovers(tmp_path) == [path.name]
    back = images.read(path)[0]
    if ending.startswith("jp"):
        assert (back - image).abs().mean() < 0.03
    else:
        assert torch.equal(back, images.quantize(image))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.sampled_from(ENDINGS))
def test_any_note_comes_back(tmp_path_factory: pytest.TempPathFactory, note: str, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"note.{ending}"
    images.save(picture(4, 4), path, note=note)
    assert images.read_note(path) == note


def test_long_notes(tmp_path: Path) -> None:
    long = "λ" * 2_000_000
    for ending in ("png", "webp", "tiff"):
        images.save(picture(), tmp_path / f"a.{ending}", note=long)
        assert images.read_note(tmp_path / f"a.{ending}") == long
    with pytest.raises(OutputError, match=r"a JPEG holds 65,000: save as \.png"):
        images.save(picture(), tmp_path / "a.jpg", note=long)
    assert not (tmp_path / "a.jpg").exists()


def test_only_our_notes_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0taken at noon"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif", description="a scan")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.bmp")
    for name in ("a.jpg", "a.tif", "a.bmp"):
        assert images.read_note(tmp_path / name) is None
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ImageError, match="is not an image"):
        images.read_note(tmp_path / "a.txt")
    with pytest.raises(ImageError, match="does not exist"):
        images.read_note(tmp_path / "none.png")


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_same_image_same_bytes(format: str) -> None:
    image = picture(32, 32)
    assert images.encode(image, format, note=NOTE) == images.encode(image[None], format, note=NOTE)


def test_rounding_not_truncation() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 255
    image = (levels - 0.4 / 255).float().expand(3, 4, 256)
    assert np.array_equal(images.to_uint8(image)[0, :, 0], np.arange(256))
    assert images.to_uint8(image).shape == (4, 256, 3)
    assert images.to_pil(image).size == (256, 4)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_and_gradients(kind: torch.dtype) -> None:
    image = torch.full((3, 4, 4), 0.5, dtype=kind, requires_grad=True)
    assert images.quantize(image).dtype == torch.float32
    assert images.to_uint8(image)[0, 0, 0] == 128


def test_jpeg_keeps_colour_at_full_resolution() -> None:
    stripes = torch.zeros(3, 32, 32)
    stripes[0, :, ::2], stripes[2, :, 1::2] = 1, 1
    coarse, fine = images.encode(stripes, "jpeg", quality=50), images.encode(stripes, "jpeg", quality=100)
    assert len(coarse) < len(fine)
    assert (images.decode(fine)[0] - stripes).abs().max() < 0.06
    with Image.open(io.BytesIO(fine)) as opened:
        assert opened.info.get("icc_profile") is None


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (torch.full((3, 8, 8), torch.nan), "NaN"),
        (torch.zeros(1, 8, 8), r"expected one image .* got \[1, 8, 8\]"),
        (torch.zeros(2, 3, 8, 8), r"got \[2, 3, 8, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "float image"),
        (torch.zeros(3, 0, 8), r"got \[3, 0, 8\]"),
    ],
)
def test_not_an_image(image: torch.Tensor, says: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=says):
        images.save(image, tmp_path / "a.png")
    assert leftovers(tmp_path) == []


def test_infinity_is_clipped() -> None:
    image = torch.tensor([torch.inf, -torch.inf, 2.0])[:, None, None].expand(3, 4, 4)
    assert images.to_uint8(image)[0, 0].tolist() == [255, 0, 255]


def test_options_out_of_range(tmp_path: Path) -> None:
    for name in ("a.bmp", "a", "a.png.txt"):
        with pytest.raises(ImageError, match=r"use \.png, \.jpg, \.jpeg, \.webp, \.tif or \.tiff"):
            images.save(picture(), tmp_path / name)
    with pytest.raises(ImageError, match="quality 0 is out of range"):
        images.save(picture(), tmp_path / "a.jpg", quality=0)
    with pytest.raises(OutputError, match="lone surrogates"):
        images.save(picture(), tmp_path / "a.png", note="\ud800")
    with pytest.raises(OutputError, match="holds a NUL"):
        images.save(picture(), tmp_path / "a.tif", note="a\0b")
    with pytest.raises(OutputError, match="can't be written as WEBP"):
        images.save(torch.zeros(3, 4, 17000), tmp_path / "a.webp")
    assert leftovers(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    (tmp_path / "folder.png").mkdir()
    for name, says in [
        ("none/a.png", "the folder .*none does not exist, make it first"),
        ("folder.png", "it is a folder"),
        ("old.png/a.png", "does not exist"),
        ("x" * 300 + ".png", "File name too long"),
    ]:
        with pytest.raises(OutputError, match=says) as caught:
            images.save(picture(), tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(OutputError, match=r"old\.png exists"):
        images.save(picture(), tmp_path / "old.png", overwrite=False)
    assert (tmp_path / "old.png").read_bytes() == b"old"
    images.save(picture(), tmp_path / "old.png")
    assert leftovers(tmp_path) == ["folder.png", "old.png"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = images.save(picture(), tmp_path / "a.png")
    old = path.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        images.save(picture(seed=1), path)
    assert path.read_bytes() == old and leftovers(tmp_path) == ["a.png"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = images.save(picture(), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
