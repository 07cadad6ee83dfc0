"""Commands in processes of their own that begin at once: they are forks of one that has imported everything.

Run as a script this is that process: it reads requests from its input, a JSON on each line, and answers each with one.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 100
"""Seconds after which a command is killed that does not end."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: `code` is negative for a signal, as subprocess has it."""

    code: int
    out: str
    err: str
    seconds: float


Start = Callable[..., Ended]


@contextmanager
def starter(folder: Path, environment: dict[str, str]) -> Iterator[Start]:
    """A function that runs a command in `folder`.

    Its options, for accidents in a training: `kill`, after how many seconds it is killed; `every`, seconds between states;
    `hit`, a step after which it is sent `signal`; `alarm`, after how many states, and seconds then, SIGALRM kills it; `torn`
    and `full`, how many states it can write before it is killed in the middle of one, or the disk is full; `nan`, which steps
    of all that are tried give a loss that is no number. And in an attack on a folder: `together`, how many photographs are
    attacked at once; `rows`, after how many of its notes it is killed, with so many letters of the last one missing.
    """
    server = subprocess.Popen(
        [sys.executable, __file__], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip

    def start(*words: str | Path, **options: Any) -> Ended:
        assert server.stdin is not None and server.stdout is not None
        print(json.dumps({"words": [str(word) for word in words], **options}), file=server.stdin, flush=True)
        return Ended(**json.loads(server.stdout.readline()))

    try:
        yield start
    finally:
        server.communicate()


def serve() -> None:
    import torch

    import phosphene.cli
    import phosphene.jobs.finetune
    import phosphene.jobs.probe
    import phosphene.report.training  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    out, err = Path(f".out-{os.getpid()}"), Path(f".err-{os.getpid()}")
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(request, out, err)
    timer = threading.Timer(request.get("kill", PATIENCE), os.kill, (child, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    timer.join()  # the next fork has one thread again
    answer = {
        "code": os.waitstatus_to_exitcode(status), "out": out.read_text(errors="replace"),
        "err": err.read_text(errors="replace"), "seconds": time.monotonic() - begun,
    }  # fmt: skip
    out.unlink()
    err.unlink()
    return answer


def _child(request: dict[str, Any], out: Path, err: Path) -> None:
    code = 1
    try:
        for place, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), place)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare(request)
        from phosphene.cli import main

        main(request["words"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def prepare(request: dict[str, Any]) -> None:
    """Arrange for the accidents that are asked for."""
    from phosphene.cli import runs

    if "every" in request:
        runs.EVERY = request["every"]
    if "hit" in request:
        _hit(request["hit"], signal.Signals[request.get("signal", "SIGINT")])
    if "alarm" in request:
        _alarm(*request["alarm"])
    if "torn" in request:
        _fail_to_write(request["torn"], torn=True)
    if "full" in request:
        _fail_to_write(request["full"], torn=False)
    if "nan" in request:
        _lose_the_loss(request["nan"])
    if "together" in request:
        from phosphene.jobs import attack, robustness

        attack.TOGETHER = robustness.TOGETHER = request["together"]
    if "rows" in request:
        _kill_at_a_row(*request["rows"])


def _hit(step: int, kind: signal.Signals) -> None:
    from phosphene.cli.runs import Run

    save = Run.save

    def hit(self: Run, make: Any, ended: bool, key: str) -> None:
        save(self, make, ended, key)
        if make().progress["step"] == step:
            signal.raise_signal(kind)

    Run.save = hit


def _alarm(count: int, seconds: float) -> None:
    """The kernel ends the process, wherever it is: Python has no handler of this signal."""
    from phosphene.cli.runs import Run

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if not count:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return
    save, done = Run.save, 0

    def alarmed(self: Run, make: Any, ended: bool, key: str) -> None:
        nonlocal done
        save(self, make, ended, key)
        done += 1
        if done == count:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    Run.save = alarmed


def _fail_to_write(after: int, *, torn: bool) -> None:
    from phosphene.cli.runs import STATE

    replace, done = os.replace, 0

    def failing(source: Any, target: Any) -> None:
        nonlocal done
        if Path(target).name == STATE:
            done += 1
            if done > after:
                os.truncate(source, os.path.getsize(source) // 2)
                if torn:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    os.replace = failing


def _kill_at_a_row(after: int, missing: int) -> None:
    from phosphene.cli.journal import Journal

    keep, done = Journal.keep, 0

    def killed(self: Journal, rows: Any) -> None:
        nonlocal done
        done += 1
        if after:
            keep(self, rows)
        if done >= after:
            if missing:
                os.truncate(self._file, os.path.getsize(self._file) - missing)
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.keep = killed


def _lose_the_loss(steps: list[int]) -> None:
    from phosphene.training.finetune import _Training

    step, tried = _Training.step, 0

    def losing(self: _Training, places: Any, batch: Any) -> float:
        nonlocal tried
        tried += 1
        if tried > 100:
            raise RuntimeError(f"no end after {tried} steps")
        loss = step(self, places, batch)
        return float("nan") if tried in steps else loss

    _Training.step = losing


if __name__ == "__main__":
    serve()
