"""Rows of a long job, appended to a JSONL file as they are made, so that a run that was killed goes on from there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from phosphene import processes
from phosphene.errors import OutputError

PART = ".part.jsonl"


class Journal:
    """The rows in `path`, each a JSON object with a `key` of its own and the `plan` that it was made by.

    Of several processes each appends to a file of its own; `finish` brings them together.

    Args:
        path: the file.
        plan: tells rows of this job from those of another; rows of other plans are replaced.
        overwrite: whether they may be.

    Attributes:
        known: rows of this plan that are there already, by key, without their plan.

    Raises:
        OutputError: rows of another plan, which are to stay.
    """

    def __init__(self, path: Path, plan: str, overwrite: bool) -> None:
        self.path, self.plan = path, plan
        rows = [row for file in (path, *self._parts()) for row in lines(file)]
        told = [
            {name: value for name, value in row.items() if name != "plan"} for row in rows if row.get("plan") == plan
        ]
        self.known: dict[str, dict[str, Any]] = {row["key"]: row for row in told if "key" in row}
        self._foreign = any(row.get("plan") != plan for row in rows) or (not rows and _is_foreign(path))
        if self._foreign and not overwrite:
            raise OutputError(
                f"'{path}' holds what was made otherwise, which is kept: give --overwrite, or another --out"
            )
        self._file = path if processes.first() else path.with_suffix(f".{processes.rank()}{PART}")
        self._gap = "\n" if _torn(self._file) else ""

    def keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows. What lies there of another plan is replaced only now, by the first row of this one."""
        if self._foreign and processes.first():
            _write(self.path, [{"plan": self.plan, **row} for row in self.known.values()])
            self._foreign, self._gap = False, ""
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(self._gap + "".join(json.dumps({"plan": self.plan, **row}) + "\n" for row in rows))
        self._gap = ""

    def finish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows in their order, with those of this plan that were not asked for after them, into one file."""
        told = {row["key"] for row in rows}
        rest = [row for key, row in self.known.items() if key not in told]
        _write(self.path, [{"plan": self.plan, **row} for row in (*rows, *rest)])
        for part in self._parts():
            part.unlink(missing_ok=True)

    def rows(self) -> list[dict[str, Any]]:
        """What the file holds now."""
        return lines(self.path)

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}.*{PART}"))


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line that was cut short is left out, and so is a file that isn't there."""
    found = []
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def _is_foreign(path: Path) -> bool:
    """Whether a file without rows is somebody's: it is not empty, and no first row that was cut short."""
    with suppress(OSError):
        data = path.read_bytes()
        begin = b'{"plan": "'[: len(data)]
        return b"\n" in data or not data.startswith(begin)
    return path.exists()


def _torn(path: Path) -> bool:
    """Whether the last line of a file was cut short."""
    with suppress(OSError):
        return not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    return False


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from phosphene.images.save import write_whole

    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows).encode(), overwrite=True)
