"""Films: frames to MP4 (through PyAV) or to an animated WebP (through Pillow), whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from phosphene.errors import ImageError, OutputError
from phosphene.images.quantize import to_pil

FILMS = (".mp4", ".webp")


def check_film(path: Path) -> None:
    """Raise OutputError if no film can be written to `path`: another ending, or no writer for it installed."""
    if path.suffix.lower() not in FILMS:
        raise OutputError(f"a film is written as .mp4 or .webp, not as '{path.suffix or path.name}'")
    if path.suffix.lower() == ".mp4":
        try:
            import av  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise OutputError(
                "an MP4 needs PyAV, which is not installed: pip install 'phosphene[film]', or give --film webp"
            ) from None


class Film:
    """Takes frames `[3, H, W]` in [0, 1] one by one; written when the `with` block ends, also if that is early.

    An MP4 holds no more than a few frames in memory, a WebP all of them. H.264 has even sides, so an odd row or column is
    left out. Nothing is left if there was no frame.

    Args:
        path: `.mp4` or `.webp`; replaced if it exists.
        fps: frames a second.
        quality: 0 to 100.

    Raises:
        OutputError: it can't be written, or PyAV is missing.
    """

    def __init__(self, path: Path, fps: int = 25, quality: int = 80) -> None:
        check_film(path)
        self.path, self.fps, self.quality = path, fps, quality
        self.count = 0
        self._part = path.parent / f".phosphene-{secrets.token_hex(8)}.part"
        self._frames: list[Any] = []
        self._container: Any = None
        self._stream: Any = None
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> Film:
        return self

    def add(self, frame: Tensor) -> None:
        """One more frame; all have the size of the first. Raises ImageError for one that has not, or that is no picture."""
        picture = to_pil(frame)
        self._size = self._size or picture.size
        if picture.size != self._size:
            (width, height), (first, second) = picture.size, self._size
            raise ImageError(f"a frame of {width} x {height} pixels in a film of {first} x {second}")
        self.count += 1
        if self.path.suffix.lower() == ".webp":
            self._frames.append(picture)
            return
        import av  # pyright: ignore[reportMissingImports]

        if self.count == 1:
            self._open(picture.width // 2 * 2, picture.height // 2 * 2)
        picture = picture.crop((0, 0, self._stream.width, self._stream.height))
        for packet in self._stream.encode(av.VideoFrame.from_image(picture)):
            self._container.mux(packet)

    def _open(self, width: int, height: int) -> None:
        import av  # pyright: ignore[reportMissingImports]

        if not (width and height):
            raise OutputError(f"'{self.path}' can't be written: the frames of an MP4 have at least 2 x 2 pixels")
        try:
            # No threads and no dates: the same frames give the same bytes.
            self._container = av.open(str(self._part), "w", format="mp4", options={"fflags": "+bitexact"})
            stream = self._container.add_stream("libx264", rate=Fraction(self.fps))
        except (OSError, ValueError) as problem:
            raise OutputError(f"'{self.path}' can't be written: {problem}") from problem
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(round(40 - self.quality * 0.28)), "preset": "medium", "threads": "1"}
        self._stream = stream

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.count:
                self._finish()
                os.replace(self._part, self.path)
        except (OSError, ValueError, RuntimeError) as error:  # Pillow raises the latter for sides above 16383 pixels
            raise OutputError(f"'{self.path}' can't be written: {getattr(error, 'strerror', None) or error}") from error
        finally:
            if kind is not None and self._container is not None:
                with suppress(Exception):
                    self._container.close()
            self._part.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._container is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
            return
        first, *others = self._frames
        first.save(
            self._part, "WEBP", save_all=True, append_images=others, duration=round(1000 / self.fps), loop=0,
            quality=self.quality, method=4,
        )  # fmt: skip
