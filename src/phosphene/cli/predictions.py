"""The table of `predict --csv`: a row for each picture, its classes side by side, the most probable first."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phosphene import processes
from phosphene.errors import OutputError


def check(path: Path, overwrite: bool, inputs: Sequence[str]) -> None:
    """Refuse before the work a table that could not be written after it.

    Raises:
        OutputError: the file exists and is to stay, is one of the `inputs`, or can't be written where it is.
    """
    if not processes.first():
        return  # which writes nothing
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder: --csv needs a file name")
    if not path.parent.is_dir():
        raise OutputError(f"can't write '{path}': there is no folder '{path.parent}'")
    if path.exists() and any(Path(given).exists() and path.samefile(given) for given in inputs):
        raise OutputError(f"'{path}' is read here, and is kept: give another --csv")
    if path.exists() and not overwrite:
        raise OutputError(f"'{path}' exists and is kept: give --overwrite to replace it, or another --csv")


def write(path: Path, predictions: Sequence[Mapping[str, Any]], overwrite: bool) -> None:
    """Write the predictions of `jobs.predict`: `image`, then `class_K`, `probability_K`, `index_K` for K = 1, 2, ...

    Raises:
        OutputError: the file can't be written, or exists and is to stay.
    """
    from phosphene.images.save import write_whole

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    most = max((len(row["classes"]) for row in predictions), default=0)
    rows.writerow(["image", *(f"{name}_{k}" for k in range(1, most + 1) for name in ("class", "probability", "index"))])
    for row in predictions:
        rows.writerow(
            [row["image"], *(found[name] for found in row["classes"] for name in ("name", "probability", "index"))]
        )
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"), overwrite=overwrite)
