"""Long work that goes on where it was interrupted: a file beside the picture, gone when the picture is done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import OutputError

if TYPE_CHECKING:
    from phosphene.synthesize.style import Checkpoint

EVERY = 20.0  # seconds between two writings


class Unfinished:
    """The file `.PICTURE.unfinished`, written now and then while a job runs.

    Args:
        picture: where the picture will be.
        verb, parameters: of the job: a file of another one is refused.
        files: paths that it reads, which must not have changed.
    """

    def __init__(self, picture: Path, verb: str, parameters: Mapping[str, Any], files: list[str]) -> None:
        self.path = picture.with_name(f".{picture.name}.unfinished")
        self._key = _key(verb, parameters, files)
        self._last = time.monotonic()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write where the job is, if the last time is long ago or it ends here."""
        progress = checkpoint.progress
        assert progress is not None
        if not progress.halted and time.monotonic() - self._last < EVERY:
            return
        import io

        import torch

        from phosphene.images.save import write_whole
        from phosphene.jobs.style_parts import packed

        buffer = io.BytesIO()
        torch.save({"key": self._key, "job": packed(checkpoint)}, buffer)
        write_whole(self.path, buffer.getvalue(), overwrite=True)
        self._last = time.monotonic()

    def load(self) -> dict[str, Any]:
        """What was saved last. Raises OutputError if nothing was, or by another job."""
        if not self.path.is_file():
            raise OutputError(f"nothing to resume: there is no '{self.path}'; leave --resume out to begin")
        import torch

        try:
            held = torch.load(self.path, weights_only=True)
            key, job = held["key"], held["job"]
        except Exception as problem:  # bytes from outside
            raise OutputError(
                f"'{self.path}' can't be read, so it can't be resumed: delete it and begin anew"
            ) from problem
        if key != self._key:
            raise OutputError(
                f"'{self.path}' was left by a run with other options, pictures or versions: give the same ones, or leave"
                " --resume out to begin anew"
            )
        return job

    def done(self) -> None:
        """The picture is whole: the file goes."""
        self.path.unlink(missing_ok=True)


def _key(verb: str, parameters: Mapping[str, Any], files: list[str]) -> str:
    import torch

    from phosphene.jobs.workshop import code_file
    from phosphene.recipe import hash_file, versions

    read = [code_file(path) or path for path in files]
    hashes = {path: hash_file(path) for path in read if Path(path).is_file()}
    known = [verb, dict(parameters), hashes, versions(), torch.get_num_threads()]
    text = json.dumps(known, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
