"""What the terminal shows: a progress bar with a rate and the time left, tables, JSON."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from phosphene import processes

if TYPE_CHECKING:
    from phosphene.cli.options import Said
    from phosphene.jobs.workshop import Workshop
    from phosphene.progress import Brake, Event, Job


def run(job: Job[Any], said: Said, workshop: Workshop | None = None) -> Any:
    """Drive a job to its end under a progress bar on stderr (none with --quiet, --json, or where it isn't a terminal).

    Ctrl-C ends it, at once or, where it keeps what there is, at its next step (a second Ctrl-C at once). Of several processes
    the first has the bar.
    """
    from phosphene.progress import Brake, Halt, braked
    from phosphene.progress import run as drive

    processes.begin()
    brake = workshop.brake if workshop is not None else Brake()
    try:
        with ExitStack() as stack:
            watch = stack.enter_context(_interruptible(brake, said))
            if said.quiet or said.json or not processes.first() or not sys.stderr.isatty():
                return drive(braked(job, brake), watch)
            listen = stack.enter_context(_bar())
            if workshop is not None:
                workshop.listen = listen  # downloads of weights show in the same bar
            return drive(braked(job, brake), lambda event: (watch(event), listen(event))[0])
    except Halt:
        raise KeyboardInterrupt from None


@contextmanager
def _interruptible(brake: Brake, said: Said) -> Iterator[Callable[[Event], None]]:
    """Ctrl-C pulls the brake while the job is in a part that keeps what there is; yields what has to see its events."""
    from phosphene.progress import Started

    keeps = False

    def watch(event: Event) -> None:
        nonlocal keeps
        if isinstance(event, Started):
            keeps = event.keeps

    def handle(*_: object) -> None:
        if not keeps or brake.pulled:
            raise KeyboardInterrupt
        brake.pulled = True
        warn("stopping after this step and keeping what there is; Ctrl-C again leaves at once", said)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield watch
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield watch
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar() -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )  # fmt: skip

    from phosphene.progress import Finished, Started, Step

    columns = (
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=28), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", style="dim"), TimeElapsedColumn(), TextColumn("left", style="dim"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task: TaskID | None = None
        unit = "step"

        def listen(event: Event) -> None:
            nonlocal task, unit
            if isinstance(event, Started):
                _complete(progress, task)
                unit = event.unit
                task = progress.add_task(event.what, total=event.total, rate="")
            elif isinstance(event, Step) and task is not None:
                progress.update(task, completed=event.done)
                speed = progress.tasks[-1].speed
                progress.update(task, rate=_rate(speed, unit))
            elif isinstance(event, Finished):
                _complete(progress, task)

        yield listen
        _complete(progress, task)


def _complete(progress: Any, task: Any) -> None:
    if task is not None:
        known = progress.tasks[-1]
        progress.update(task, total=known.total or known.completed, completed=known.total or known.completed)


def _rate(speed: float | None, unit: str) -> str:
    if not speed:
        return ""
    if unit == "byte":
        return f"{speed / 1e6:.1f} MB/s"
    return f"{speed:.1f} {unit}s/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """A table on stdout; the columns that hold numbers only are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for place, name in enumerate(header):
        numbers = bool(rows) and all(_is_number(row[place]) for row in rows)
        made.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:  # a pipe has no width: nothing may be cut
        console = Console(width=max(120, Console(width=100_000).measure(made).maximum))
    console.print(made)


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace(",", "").rstrip("%").strip("-").isdigit() or text in ("", "-")


def say(text: str, said: Said) -> None:
    """A line on stdout, unless --quiet or --json."""
    if not (said.quiet or said.json):
        print(text)


def warn(text: str, said: Said) -> None:
    """A line on stderr about something that was left out, unless --quiet. Of several processes the first says it."""
    if processes.first() and not said.quiet:
        print(f"phosphene: {text}", file=sys.stderr)


def facts(data: Any, said: Said) -> None:
    """JSON on stdout, with --json."""
    if said.json:
        print(json.dumps(data, indent=1, default=str))
