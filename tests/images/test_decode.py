"""Every mode and format decodes to the right values; every unreadable file gives one clear line."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from phosphene import images
from phosphene.errors import ImageError

SRGB: Any = ImageCms.createProfile("sRGB")


def pixels(shape: tuple[int, ...] = (9, 12, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(picture: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


def as_array(tensor: torch.Tensor) -> np.ndarray:
    assert tensor.ndim == 4 and tensor.shape[:2] == (1, 3) and tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    return tensor[0].permute(1, 2, 0).numpy()


def decoded(picture: Image.Image, format: str = "PNG", **options: Any) -> np.ndarray:
    return as_array(images.decode(encoded(picture, format, **options)))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def one_line(caught: pytest.ExceptionInfo[ImageError]) -> str:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "QOI"])
def test_lossless_rgb(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    raw = pixels()
    if format == "QOI":
        pytest.importorskip("PIL.QoiImagePlugin")
        if "QOI" not in Image.SAVE:
            pytest.skip("this Pillow does not write QOI")
    np.testing.assert_array_equal(
        decoded(Image.fromarray(raw), format, **options), raw.astype(np.float32) / np.float32(255)
    )


def test_jpeg_is_near() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (32, 1, 3))
    assert np.abs(decoded(Image.fromarray(ramp), "JPEG", quality=95) - ramp / 255).max() < 0.02


def test_grey_one_bit_and_palette() -> None:
    grey = pixels((8, 8))
    np.testing.assert_allclose(decoded(Image.fromarray(grey))[..., 1], grey / 255, atol=1e-7)
    bits = Image.fromarray(grey > 127)
    assert bits.mode == "1"
    np.testing.assert_array_equal(decoded(bits)[..., 2], (grey > 127).astype(np.float32))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 128, 255])
    np.testing.assert_allclose(decoded(palette)[2, 2], [0, 128 / 255, 1], atol=1e-7)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_precision(format: str) -> None:
    raw = (np.arange(256, dtype=np.uint16) * 257 - 3).astype(np.uint16).reshape(16, 16)
    result = decoded(Image.fromarray(raw), format)
    np.testing.assert_array_equal(result[..., 0], raw.astype(np.float32) / np.float32(65535))
    assert len(np.unique(result)) == 256


def test_big_endian_and_white_is_zero_tiff() -> None:
    raw = np.arange(0, 64000, 1000, dtype=np.uint16).reshape(8, 8)
    big = Image.frombytes("I;16B", (8, 8), raw.astype(">u2").tobytes())
    np.testing.assert_allclose(decoded(big, "TIFF")[..., 0], raw / 65535, atol=1e-7)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    data = bytearray(encoded(Image.fromarray(raw), "TIFF", tiffinfo=tags))
    entry = struct.pack("<HHI", 262, 3, 1)
    place = data.index(entry) + len(entry)
    data[place] = 0
    np.testing.assert_allclose(as_array(images.decode(bytes(data)))[..., 0], 1 - raw / 65535, atol=1e-6)


def test_integer_mode() -> None:
    raw = np.arange(0, 64000, 1000, dtype=np.int32).reshape(8, 8)
    np.testing.assert_allclose(decoded(Image.fromarray(raw), "TIFF")[..., 0], raw / 65535, atol=1e-7)
    with pytest.raises(ImageError, match=r"integer values from -5 to .*0\.\.65535"):
        decoded(Image.fromarray(raw - 5), "TIFF")


def test_sixteen_bit_grey_transparency_key() -> None:
    values = np.full((4, 4), 1000, dtype=">u2")
    values[0, 0] = 30000
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = png(4, 4, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 1000)))
    result = as_array(images.decode(data))
    assert result[1, 1, 0] == 1 and result[0, 0, 0] == np.float32(30000) / np.float32(65535)


def test_float_mode() -> None:
    raw = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    np.testing.assert_array_equal(decoded(Image.fromarray(raw), "TIFF")[..., 0], raw)
    with pytest.raises(ImageError, match=r"float values from .* scale them to 0\.\.1"):
        decoded(Image.fromarray(raw * 255), "TIFF")
    raw[0, 0] = np.nan
    with pytest.raises(ImageError, match="float values"):
        decoded(Image.fromarray(raw), "TIFF")


def test_alpha_is_composited_over_white() -> None:
    raw = pixels((8, 8, 4))
    raw[0, 0, 3], raw[0, 1, 3] = 0, 255
    colour, alpha = raw[..., :3] / 255, raw[..., 3:] / 255
    result = decoded(Image.fromarray(raw))
    np.testing.assert_allclose(result, colour * alpha + 1 - alpha, atol=1e-6)
    assert (result[0, 0] == 1).all()
    grey = decoded(Image.merge("LA", [Image.new("L", (4, 4), 51), Image.new("L", (4, 4), 102)]))
    np.testing.assert_allclose(grey, 0.2 * 0.4 + 0.6, atol=1e-6)


def test_transparent_palette_and_keys() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((0, 0), 0)
    result = decoded(palette, transparency=b"\x80\x00")
    np.testing.assert_allclose(result[0, 0], [1, 1 - 128 / 255, 1 - 128 / 255], atol=1e-6)
    assert (result[1, 1] == 1).all()
    keyed = Image.new("RGB", (4, 4), (10, 20, 30))
    assert (decoded(keyed, transparency=(10, 20, 30)) == 1).all()
    gif = decoded(palette, "GIF", transparency=1)
    assert (gif[1, 1] == 1).all() and gif[0, 0].tolist() == [1, 0, 0]


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    assert decoded(frames[0], "GIF", save_all=True, append_images=frames[1:])[3, 3].tolist() == [1, 0, 0]


def test_cmyk() -> None:
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_array_equal(decoded(picture, "TIFF")[0, 0], [1, 0, 0])
    np.testing.assert_allclose(decoded(picture, "JPEG", quality=100)[8, 8], [1, 0, 0], atol=0.02)


def test_ycbcr_and_lab() -> None:
    raw = Image.new("RGB", (16, 16), (200, 100, 50))
    ycbcr = decoded(raw.convert("YCbCr"), "TIFF", compression="jpeg")
    np.testing.assert_allclose(ycbcr[4, 4] * 255, [200, 100, 50], atol=2)
    lab = ImageCms.profileToProfile(raw, SRGB, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    np.testing.assert_allclose(decoded(lab, "TIFF")[4, 4] * 255, [200, 100, 50], atol=3)


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green primaries are exchanged."""
    data = ImageCms.ImageCmsProfile(SRGB).tobytes()
    return data.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_profile_is_converted_to_srgb(format: str) -> None:
    raw = pixels()
    options: dict[str, Any] = {"lossless": True} if format == "WEBP" else {}
    result = decoded(Image.fromarray(raw), format, icc_profile=swapped_profile(), **options)
    np.testing.assert_allclose(result * 255, raw[..., [1, 0, 2]], atol=2)
    same = decoded(Image.fromarray(raw), format, icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes(), **options)
    np.testing.assert_allclose(same * 255, raw, atol=1)


def test_profile_with_alpha_grey_and_palette() -> None:
    profile = swapped_profile()
    red = Image.new("RGBA", (4, 4), (255, 0, 0, 51))
    np.testing.assert_allclose(decoded(red, icc_profile=profile)[0, 0], [0.8, 1, 0.8], atol=0.01)
    np.testing.assert_allclose(decoded(Image.new("L", (4, 4), 77), icc_profile=profile) * 255, 77, atol=1.5)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0])
    np.testing.assert_allclose(decoded(palette, icc_profile=profile)[0, 0], [0, 1, 0], atol=0.01)


def grey_profile(gamma: float) -> bytes:
    """A minimal ICC v2 grey profile with a gamma curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + b"\0" * 78 + b"\0"
    tags = [(b"wtpt", white), (b"kTRC", curve), (b"desc", text)]
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags:
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    total = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", total, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28
    head += struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_grey_profile_with_another_gamma() -> None:
    raw = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    result = decoded(Image.fromarray(raw), icc_profile=grey_profile(1.8))
    np.testing.assert_allclose(result[..., 0], srgb_curve((raw / 255) ** 1.8), atol=0.01)
    deep = (raw.astype(np.uint16) * 257).astype(np.uint16)
    result = decoded(Image.fromarray(deep), icc_profile=grey_profile(1.8))
    np.testing.assert_allclose(result[..., 0], srgb_curve((raw / 255) ** 1.8), atol=0.01)


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 500, swapped_profile()[:200]])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_broken_profile_is_ignored(profile: bytes, mode: str) -> None:
    picture = Image.fromarray(pixels((9, 12))).convert(mode)
    assert np.array_equal(decoded(picture, "TIFF", icc_profile=profile), decoded(picture, "TIFF"))


def test_profile_of_another_colour_space_is_ignored() -> None:
    picture = Image.fromarray(pixels())
    assert np.array_equal(decoded(picture, icc_profile=grey_profile(1.8)), decoded(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_orientation(orientation: int, format: str) -> None:
    raw = np.kron(pixels((2, 3, 3)), np.ones((8, 8, 1), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }.get(format, {})
    expected = {
        1: raw,
        2: np.fliplr(raw),
        3: np.rot90(raw, 2),
        4: np.flipud(raw),
        5: raw.transpose(1, 0, 2),
        6: np.rot90(raw, -1),
        7: np.rot90(raw, 2).transpose(1, 0, 2),
        8: np.rot90(raw),
    }[orientation]
    result = decoded(Image.fromarray(raw), format, exif=exif, **options)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result * 255, expected, atol=6 if format == "JPEG" else 1e-4)


def test_corrupt_exif_is_silent() -> None:
    data = encoded(Image.fromarray(pixels()), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images.decode(data)


def bomb(side: int = 30_000) -> bytes:
    row = b"\0" * (1 + side // 8)
    squeeze = zlib.compressobj(9)
    packed = b"".join(squeeze.compress(row * 1000) for _ in range(side // 1000)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_bomb_is_refused_before_decoding() -> None:
    data = bomb()
    images.decode(encoded(Image.fromarray(pixels())))  # Imports Pillow's plugins.
    limit = Image.MAX_IMAGE_PIXELS
    began = time.perf_counter()
    with warnings.catch_warnings(), pytest.raises(ImageError) as caught:
        warnings.simplefilter("error")
        images.decode(data, name="bomb.png")
    assert time.perf_counter() - began < 0.5
    assert "bomb.png is 30000 x 30000, more than 100,000,000 pixels" in one_line(caught)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_max_pixels_is_the_only_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(pixels((20, 20, 3))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow itself would refuse 400.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.decode(data, max_pixels=400).shape == (1, 3, 20, 20)
    with pytest.raises(ImageError, match="more than 399 pixels"):
        images.decode(data, max_pixels=399)


def test_too_small() -> None:
    with pytest.raises(ImageError, match="dot is 1 x 1 pixels: the least size is 4 x 4"):
        images.decode(encoded(Image.new("RGB", (1, 1))), name="dot")
    assert images.decode(encoded(Image.new("RGB", (1, 1))), min_side=1).shape == (1, 3, 1, 1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("careless", [False, True])
def test_truncated_is_never_half_a_picture(
    format: str, share: float, careless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", careless)  # Another library may have set it.
    data = encoded(Image.fromarray(pixels((64, 64, 3))), format)
    with pytest.raises(ImageError) as caught:
        images.decode(data[: round(len(data) * share)], name="half")
    assert "half is" in one_line(caught)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is careless


def test_truncated_tiff_with_compression() -> None:
    data = encoded(Image.fromarray(pixels((64, 64, 3))), "TIFF", compression="tiff_lzw")
    with pytest.raises(ImageError, match="half is cut short or damaged"):
        images.decode(data[: len(data) // 2], name="half")


@pytest.mark.parametrize("data", [b"hello, this is text", b"%PDF-1.7 ...", b"<svg/>", b"\0" * 100, b"?"])
def test_not_an_image(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        images.decode(data, name="letter.txt")
    assert one_line(caught).startswith("letter.txt is not an image that can be read: give a JPEG, PNG")


def test_postscript_is_not_run() -> None:
    with pytest.raises(ImageError, match="is not an image"):
        images.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


@pytest.mark.parametrize(
    "address",
    ["http://a.b/c.png", "https://a.b/c.png", "ftp://a/b.jpg", "data:image/png;base64,AAAA", "file:///a.png",
     "HTTPS://A.B/C.PNG", Path("https://a.b/c.png")],
)  # fmt: skip
def test_addresses_are_refused(address: str | Path) -> None:
    for function in (images.read, images.find, images.read_note):
        with pytest.raises(ImageError) as caught:
            function(address)
        assert "Phosphene does not download images: save it and give the file" in one_line(caught)


def test_file_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for path, says in [
        (tmp_path / "no.png", "no.png does not exist"),
        (tmp_path, "is a folder: give an image file"),
        (tmp_path / "empty.png", "empty.png is empty (0 bytes)"),
        (tmp_path / "pipe", "pipe is not a regular file"),
        (tmp_path / ("x" * 5000), "can't be read: File name too long"),
        (tmp_path / "new\nline", r"new\nline does not exist"),
        ("nul\0.png", r"nul\x00.png does not exist"),
    ]:
        with pytest.raises(ImageError) as caught:
            images.read(path)
        assert says in one_line(caught)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.fromarray(pixels())))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"secret\.png can't be read: permission denied"):
        images.read(path)


def test_streams(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(pixels()))
    stream = io.BytesIO(data)
    stream.seek(5)
    assert torch.equal(images.decode(stream), images.decode(data))

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert torch.equal(images.decode(Pipe(data)), images.decode(data))
    (tmp_path / "a.png").write_bytes(data)
    assert torch.equal(images.read(str(tmp_path / "a.png")), images.decode(data))


def test_threads_leave_no_filter_behind() -> None:
    data = encoded(Image.fromarray(pixels((200, 200, 3))))
    before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    threads = [threading.Thread(target=lambda: [images.decode(data) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before


_SOUND = [encoded(Image.fromarray(pixels((16, 16, 3))), name) for name in ("PNG", "JPEG", "GIF", "TIFF", "WEBP")]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_SOUND), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_damaged_bytes_give_a_picture_or_one_line(sound: bytes, damage: list[tuple[int, int]]) -> None:
    data = bytearray(sound)
    for place, value in damage:
        data[place % len(data)] = value
    try:
        result = as_array(images.decode(bytes(data), max_pixels=10_000))
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


def test_from_array() -> None:
    raw = pixels((5, 6, 3))
    result = images.from_array(raw)
    np.testing.assert_array_equal(as_array(result), raw.astype(np.float32) / np.float32(255))
    for grey in (raw[..., 0], raw[..., :1]):
        assert torch.equal(images.from_array(grey), result[:, :1].expand(1, 3, 5, 6))
    deep = raw[..., 0].astype(">u2") * 257
    np.testing.assert_allclose(as_array(images.from_array(deep)), raw[..., :1].repeat(3, 2) / 255, atol=1e-6)
    half = np.dstack([np.zeros((4, 4, 3)), np.full((4, 4), 0.25)])
    np.testing.assert_allclose(as_array(images.from_array(half)), 0.75)
    assert images.from_array(np.eye(4, dtype=bool)).sum() == 12
    raw_float = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    result = images.from_array(raw_float)
    result.zero_()
    assert raw_float.max() > 0  # A copy.


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 8, 8)), r"shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 2)), "HxWx3"),
        (np.zeros((0, 8)), "shape"),
        (np.zeros((8, 8), dtype=np.int64), "array of int64"),
        (np.full((8, 8), 255.0), r"scale it to \[0, 1\]"),
        (np.full((8, 8), np.nan), "from nan to nan"),
    ],
)
def test_from_array_errors(array: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        images.from_array(array)
    one_line(caught)


def test_find(tmp_path: Path) -> None:
    for name in (
        "b.PNG",
        "a.jpg",
        ".hidden.png",
        "notes.txt",
        "deep/c.webp",
        ".git/d.png",
        "page.pdf",
        "e.eps",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["a.jpg", "b.PNG", "deep/c.webp"]
    assert images.find([tmp_path]) == [tmp_path / name for name in names]
    assert images.find(str(tmp_path), recursive=False) == [tmp_path / name for name in names[:2]]
    odd = tmp_path / "notes.txt"
    assert images.find([odd, tmp_path / "deep"]) == [odd, tmp_path / "deep" / "c.webp"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty holds no image files"):
        images.find([tmp_path / "empty"])
    with pytest.raises(ImageError, match="nowhere does not exist"):
        images.find([tmp_path / "nowhere"])
