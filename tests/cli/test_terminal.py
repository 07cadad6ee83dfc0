"""What a terminal shows while a job runs."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from phosphene.cli import terminal
from phosphene.cli.options import Said, split
from phosphene.progress import Finished, Job, Started, Step

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(*words: str, **options: Any) -> tuple[int, str]:
    """Run the program with a terminal for its stderr: its exit code and what the terminal got."""
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=slave, env=env, **options)
    os.close(slave)
    got = b""
    while True:
        ready, _, _ = select.select([master], [], [], 60)
        try:
            data = os.read(master, 4096) if ready else b""
        except OSError:
            break
        if not data:
            break
        got += data
    os.close(master)
    text = ESCAPES.sub("", got.decode())
    return process.wait(), text


def test_a_bar_with_rate_and_time_left(here: Path) -> None:
    code, text = in_a_terminal("-m", "phosphene", "visualize", "--class", "3", "--steps", "12", "--size", "32")
    assert code == 0, text
    assert "visualize" in text and "12/12" in text
    assert re.search(r"\d+\.\d steps/s|\d+\.\d s/step", text)
    assert re.search(r"left\s+0:\d\d:\d\d", text)


def test_an_error_in_a_terminal_is_one_line(here: Path) -> None:
    code, text = in_a_terminal("-m", "phosphene", "explain", "gone.png")
    assert (code, text.strip()) == (2, "phosphene: gone.png does not exist: check the path")


class _Terminal:
    """stderr that says it is one."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += ESCAPES.sub("", text)
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Terminal]:
    found = _Terminal()
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield found


def on(screen: _Terminal, job: Job[Any], said: Said) -> Any:
    with redirect_stderr(screen):  # type: ignore[type-var]
        return terminal.run(job, said)


def _job() -> Job[str]:
    yield Started("of [/unknown] [red]size", None, "byte")
    for done in (0, 1_000_000, 2_000_000):
        time.sleep(0.02)
        yield Step(done)
    yield Finished()
    yield Started("nothing", 0)
    yield Started("second", 2, "image")
    yield Step(1, loss=float("nan"))
    yield Step(2)
    return "result"


def test_any_events_drive_the_bar(screen: _Terminal) -> None:
    assert on(screen, _job(), Said()) == "result"
    assert "of [/unknown] [red]size" in screen.text  # a class may be called anything
    assert "MB/s" in screen.text and "second" in screen.text and "2/2" in screen.text


@pytest.mark.parametrize("said", [Said(quiet=True), Said(json=True)])
def test_no_bar_where_it_would_disturb(screen: _Terminal, said: Said) -> None:
    assert on(screen, _job(), said) == "result"
    assert screen.text == ""


def test_no_bar_in_a_pipe(capfd: pytest.CaptureFixture[str]) -> None:
    assert terminal.run(_job(), Said()) == "result"
    assert capfd.readouterr() == ("", "")


def test_a_job_that_fails_under_the_bar(screen: _Terminal) -> None:
    def failing() -> Job[None]:
        yield Started("doomed", 3)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        on(screen, failing(), Said())
    assert "doomed" in screen.text


@pytest.mark.parametrize(
    ("speed", "unit", "text"),
    [(None, "step", ""), (0.0, "step", ""), (4.0, "step", "4.0 steps/s"), (0.5, "image", "2.0 s/image"),
     (2.5e6, "byte", "2.5 MB/s")],
)  # fmt: skip
def test_rates(speed: float | None, unit: str, text: str) -> None:
    assert terminal._rate(speed, unit) == text


def test_tables_are_never_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 60
    terminal.table(("name", "count"), [(long.strip(), "7"), ("[red]", "12")])
    out = capsys.readouterr().out
    assert long.strip() in out and "[red]" in out


def test_lists_by_comma_and_by_repetition() -> None:
    assert split(["a,b", " c ", ""]) == ["a", "b", "c"]
    assert split(None) == []
