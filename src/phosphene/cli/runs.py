"""The folder of a trained network: weights that `--net` takes, the record of how it was trained, pictures, a page."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import processes
from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.errors import OutputError, WeightsError
from phosphene.progress import BY_HAND

if TYPE_CHECKING:
    from phosphene.cli.options import Said
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop
    from phosphene.progress import Event
    from phosphene.training.state import State

RECORD, METRICS, STATE, PAGE, SAID = "run.json", "metrics.jsonl", "state.safetensors", "index.html", "val.csv"
SHEETS = ("depth", "curves", "confusion", "classes", "mistakes", "duplicates", "suspicious")
EVERY = 60.0  # seconds between two states inside of an epoch
_KEY = "phosphene"


def keep_apart(folder: Path, out: Path) -> None:
    """Raise an OutputError if `out` lies among the photographs: it would be taken for a class."""
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise OutputError(f"'{out}' lies among the photographs of '{folder}': give an --out elsewhere")


class Run:
    """One folder.

    Args:
        folder: it.
        verb, parameters: of the job.
        said: what to print.
        sheets: names of the pictures that it may have.
    """

    def __init__(
        self, folder: Path, verb: str, parameters: dict[str, Any], said: Said, sheets: Sequence[str] = SHEETS
    ) -> None:
        self.sheets = sheets
        self.folder, self.verb, self.parameters, self.said = folder, verb, parameters, said
        self._last = time.monotonic()
        self._warned = False
        self._now: tuple[Callable[[], State], str] | None = None

    @contextmanager
    def reserved(self, overwrite: bool, resume: bool) -> Iterator[None]:
        """Check before the work that everything can be written, and make the folder; take it back if nothing came of it.

        Raises:
            OutputError: it is a file, it holds a run that is to stay, or it can't be written to.
        """
        if not self.folder.is_dir() and (self.folder.exists() or _is_file_name(self.folder)):
            raise OutputError(f"'{self.folder}' is one file: --out needs a folder")
        if not processes.first():
            yield
            return
        from phosphene.models.saved import MODEL, saved_file

        keep_apart(Path(self.parameters["folder"]), self.folder)
        own = saved_file(self.parameters["net"])
        if own is not None and own.resolve().parent == self.folder.resolve():
            raise OutputError(f"'{self.folder}' holds the network itself, which is kept: give another --out")
        for name in (MODEL, RECORD, STATE):
            if (self.folder / name).is_dir():
                raise OutputError(f"'{self.folder / name}' is a folder: a file name is needed there")
            if (self.folder / name).exists() and not (overwrite or resume):
                more = "; --resume goes on with it" if name == STATE or (self.folder / STATE).exists() else ""
                raise OutputError(
                    f"'{self.folder}' holds a run, which is kept: give --overwrite to replace it, or another --out{more}"
                )
        mine = [self.folder / name for name in (METRICS, PAGE, SAID)]
        sheets = [self.folder / f"{name}.png" for name in self.sheets]
        with write.reserved([*mine, *sheets], overwrite or resume):
            # Of a process that was killed while it wrote: ours, and those that safetensors makes by itself.
            for pattern in (".*.safetensors.*.part", ".tmp??????"):
                for part in self.folder.glob(pattern):
                    part.unlink(missing_ok=True)
            yield

    def begun(self, event: Event) -> Event:
        """Told of each event of a run that isn't resumed: when it trains, a state of an earlier one is of no more use."""
        from phosphene.progress import Started

        if processes.first() and isinstance(event, Started) and event.keeps:
            for name in (STATE, METRICS):
                (self.folder / name).unlink(missing_ok=True)
        return event

    def finished(
        self,
        outcome: Outcome,
        workshop: Workshop,
        page: Callable[[Outcome, dict[str, Any]], str],
        accuracy: Callable[[Mapping[str, Any]], Any],
    ) -> list[Path]:
        """Write the network, the pictures, the page and the record.

        Args:
            outcome: with a network.
            workshop: that it was made in.
            page: draws the report.
            accuracy: what the network's file says of it, from the facts.
        """
        from phosphene.images.save import write_whole
        from phosphene.models.saved import save_network

        facts = dict(outcome.facts)
        assert outcome.network is not None
        about = {"verb": self.verb, "parameters": self.parameters, "accuracy": accuracy(facts)}
        made = [save_network(outcome.network, self.folder, about)]
        pictures = [
            (self.folder / f"{picture.name}.png", picture.image,
             workshop.recipe(self.verb, self.parameters, picture.name, outcome.notes).to_json())
            for picture in outcome.pictures
        ]  # fmt: skip
        sheets = [self.folder / f"{name}.png" for name in self.sheets]
        write.drop_stale(sheets, [path for path, _, _ in pictures], ["probe", "finetune", "harden"])
        made += write.write(pictures, overwrite=True)
        others = {
            PAGE: page(outcome, self.parameters).encode("utf-8", "replace"),
            **({SAID: _table(facts.pop("predictions"))} if "predictions" in facts else {}),
            RECORD: _json({**self._known(workshop), "finished": facts.get("stopped") != BY_HAND, **facts}),
        }
        if facts.get("epochs"):
            others[METRICS] = _lines(facts["epochs"])
        else:
            (self.folder / METRICS).unlink(missing_ok=True)
        for name, data in others.items():
            write_whole(self.folder / name, data, overwrite=True)
        if facts.get("stopped") != BY_HAND:
            (self.folder / STATE).unlink(missing_ok=True)
        elif self._now is not None:
            self._keep(*self._now)
        return [*made, *(self.folder / name for name in others)]

    def _known(self, workshop: Workshop) -> dict[str, Any]:
        from phosphene.recipe import versions

        return {
            "verb": self.verb,
            "parameters": self.parameters,
            "inputs": workshop.inputs,
            "networks": workshop.networks,
            "device": workshop.device.type,
            "processes": processes.started(),
            "versions": versions(),
        }

    def save(self, make: Callable[[], State], ended: bool, key: str) -> None:
        """Write where the training is, at the end of an epoch and now and then; a full disk leaves the old state."""
        self._now = make, key
        if ended or time.monotonic() - self._last >= EVERY:
            self._keep(make, key)

    def _keep(self, make: Callable[[], State], key: str) -> None:
        from phosphene.images.save import write_whole
        from phosphene.models.weights import save_state_dict

        state = make()
        progress = {**state.progress, "stopped": ""} if state.progress["stopped"] == BY_HAND else state.progress
        known = json.dumps({"key": key, "progress": progress})
        try:
            save_state_dict(state.tensors, self.folder / STATE, {_KEY: known})
            write_whole(self.folder / METRICS, _lines(state.progress["rows"]), overwrite=True)
        except OutputError as problem:
            if not self._warned:
                terminal.warn(f"{problem}; the checkpoint before it stays, and the training goes on", self.said)
            self._warned = True
        self._last = time.monotonic()

    def state(self) -> tuple[State, str]:
        """What was saved last, and its key. Raises OutputError if nothing was, or it can't be read."""
        from phosphene.models.weights import read_metadata, read_state_dict
        from phosphene.training.state import State

        path = self.folder / STATE
        if not path.is_file():
            raise OutputError(f"nothing to resume: there is no '{path}'; leave --resume out to begin")
        try:
            known = json.loads(read_metadata(path)[_KEY])
            return State(read_state_dict(path), known["progress"]), known["key"]
        except (WeightsError, KeyError, ValueError, TypeError) as problem:
            raise OutputError(
                f"'{path}' can't be read, so it can't be resumed: delete it, and begin anew with --overwrite"
            ) from problem


def _is_file_name(path: Path) -> bool:
    try:
        return write.is_file(path)
    except OutputError:  # a kind of file that no command writes
        return True


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, default=str) + "\n").encode()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _table(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    made = csv.DictWriter(text, ["image", "class", "said", "probability"], lineterminator="\n")
    made.writeheader()
    made.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
