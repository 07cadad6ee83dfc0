"""Films, read back: their frames, sizes and speed, and what is left where one fails."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from phosphene.errors import ImageError, OutputError
from phosphene.images.film import Film, check_film

HAS_AV = importlib.util.find_spec("av") is not None
ENDINGS = [".webp", pytest.param(".mp4", marks=pytest.mark.skipif(not HAS_AV, reason="needs PyAV"))]


def frames(count: int, height: int = 32, width: int = 48) -> list[Tensor]:
    """Smooth pictures, each of another colour: a bright bar moves to the right."""
    made = []
    for number in range(count):
        frame = torch.full((3, height, width), 0.2)
        frame[number % 3, :, number * width // count : (number + 1) * width // count] = 0.9
        frame[2] = torch.linspace(0, 1, height)[:, None].expand(height, width)
        made.append(frame)
    return made


def write(path: Path, pictures: list[Tensor], **options: Any) -> Path:
    with Film(path, **options) as film:
        for picture in pictures:
            film.add(picture)
    return path


def read(path: Path) -> tuple[list[Tensor], float]:
    """The frames `[3, H, W]` of a film and how many of them go in a second."""
    if path.suffix.lower() == ".webp":
        found, durations = [], []
        with Image.open(path) as film:
            for number in range(getattr(film, "n_frames", 1)):
                film.seek(number)
                found.append(np.asarray(film.convert("RGB")))
                durations.append(film.info["duration"])
        speed = 1000 / (sum(durations) / len(durations))
    else:
        import av  # pyright: ignore[reportMissingImports]

        with av.open(str(path)) as film:
            speed = float(film.streams.video[0].average_rate)
            found = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    return [torch.from_numpy(frame.copy()).permute(2, 0, 1) / 255 for frame in found], speed


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("fps", [10, 25])
def test_a_film_is_its_frames(tmp_path: Path, ending: str, fps: int) -> None:
    pictures = frames(7)
    found, speed = read(write(tmp_path / f"film{ending}", pictures, fps=fps, quality=95))
    assert len(found) == 7
    assert speed == pytest.approx(fps, rel=0.01)
    for ours, theirs in zip(pictures, found, strict=True):
        assert theirs.shape == (3, 32, 48)
        assert (ours - theirs).abs().mean() < 0.04
    assert (found[0] - pictures[1]).abs().mean() > 0.05  # so the order is told apart


def test_a_film_loops_for_ever(tmp_path: Path) -> None:
    with Image.open(write(tmp_path / "film.webp", frames(3))) as film:
        assert film.info["loop"] == 0


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_frame_is_a_film(tmp_path: Path, ending: str) -> None:
    with Film(tmp_path / f"film{ending}") as film:
        film.add(frames(1)[0])
    assert film.count == 1 and film.path.stat().st_size > 100


@pytest.mark.parametrize("size", [(33, 49), (32, 49), (33, 48), (2, 3)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_odd_sides(tmp_path: Path, ending: str, size: tuple[int, int]) -> None:
    found, _ = read(write(tmp_path / f"film{ending}", frames(3, *size)))
    wanted = size if ending == ".webp" else (size[0] // 2 * 2, size[1] // 2 * 2)
    assert [tuple(frame.shape[1:]) for frame in found] == [wanted] * 3


@pytest.mark.parametrize("size", [(1, 8), (8, 1)])
def test_a_webp_of_a_single_row(tmp_path: Path, size: tuple[int, int]) -> None:
    assert [frame.shape[1:] for frame in read(write(tmp_path / "film.webp", frames(2, *size)))[0]] == [size] * 2


@pytest.mark.skipif(not HAS_AV, reason="needs PyAV")
@pytest.mark.parametrize("size", [(1, 8), (8, 1)])
def test_an_mp4_of_a_single_row(tmp_path: Path, size: tuple[int, int]) -> None:
    """H.264 has no such pictures."""
    with pytest.raises(OutputError, match="at least 2 x 2 pixels"):
        write(tmp_path / "film.mp4", frames(2, *size))
    assert not list(tmp_path.iterdir())


def test_a_webp_larger_than_webp_allows(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written"):
        write(tmp_path / "film.webp", frames(2, 2, 16384))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, ending: str) -> None:
    first, same = (write(tmp_path / f"{name}{ending}", frames(12)).read_bytes() for name in ("a", "b"))
    assert first == same
    assert first != write(tmp_path / f"c{ending}", frames(11)).read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_more_quality_takes_more_bytes(tmp_path: Path, ending: str) -> None:
    noise = [torch.rand(3, 64, 64) for _ in range(4)]
    poor, good = (write(tmp_path / f"{q}{ending}", noise, quality=q).stat().st_size for q in (10, 95))
    assert good > 1.5 * poor


@pytest.mark.parametrize("ending", ENDINGS)
def test_it_replaces_what_was_there(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"film{ending}"
    path.write_text("old")
    write(path, frames(2))
    assert len(read(path)[0]) == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_where_it_fails(tmp_path: Path, ending: str, problem: type[BaseException]) -> None:
    path = tmp_path / f"film{ending}"
    path.write_text("old")
    with pytest.raises(problem), Film(path) as film:
        film.add(frames(1)[0])
        raise problem
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_frame_that_is_no_picture(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ImageError, match="NaN"), Film(tmp_path / f"film{ending}") as film:
        film.add(frames(1)[0])
        film.add(torch.full((3, 32, 48), float("nan")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_frame_of_another_size(tmp_path: Path, ending: str) -> None:
    with (
        pytest.raises(ImageError, match="a frame of 48 x 30 pixels in a film of 48 x 32"),
        Film(tmp_path / f"film{ending}") as film,
    ):
        film.add(frames(1)[0])
        film.add(frames(1, 30, 48)[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_frames_there_is_no_film(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"film{ending}", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_that_is_not_there(tmp_path: Path, ending: str) -> None:
    with pytest.raises(OutputError, match=r"film.* can't be written"):
        write(tmp_path / "nowhere" / f"film{ending}", frames(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_in_its_place(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"film{ending}"
    path.mkdir()
    with pytest.raises(OutputError, match="can't be written"):
        write(path, frames(2))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["film.gif", "film.avi", "film", "webp"])
def test_another_ending(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"written as \.mp4 or \.webp, not as '(\.gif|\.avi|film|webp)'"):
        Film(tmp_path / name)


@pytest.mark.parametrize("name", ["FILM.WEBP", pytest.param("Film.Mp4", marks=ENDINGS[1].marks)])  # type: ignore[union-attr]
def test_endings_in_capitals(tmp_path: Path, name: str) -> None:
    assert len(read(write(tmp_path / name, frames(2)))[0]) == 2


def test_without_pyav_an_mp4_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(OutputError, match=r"an MP4 needs PyAV.*phosphene\[film\].*--film webp"):
        check_film(tmp_path / "film.mp4")
    with pytest.raises(OutputError, match="PyAV"):
        Film(tmp_path / "film.mp4")
    write(tmp_path / "film.webp", frames(2))  # which does without
