"""The command line. Importing it imports no torch; each command imports what it needs when it runs."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from cyclopts import App, CycloptsError, Group

from phosphene import __version__, processes
from phosphene.cli import (
    advising,
    attacking,
    bias,
    cues,
    embedding,
    fooling,
    for_all,
    hardening,
    judging,
    learning,
    moving,
    network,
    painting,
    recipes,
    robustness,
    see,
    tour,
)
from phosphene.errors import PhospheneError
from phosphene.memory import keep_memory

app = App(
    name="phosphene",
    help="See what convolutional networks see.",
    version=f"phosphene {__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
_START = Group("Begin here", sort_key=0)
_LOOK = Group("Look into a network", sort_key=1)
_MAKE = Group("Move the image", sort_key=2)
_TEACH = Group("Teach it something new", sort_key=3)
_FOOL = Group("Fool it, harden it", sort_key=4)
_KEEP = Group("Networks and recipes", sort_key=5)

app.command(tour.tour, group=_START)
app.command(network.predict, group=_START)
app.command(see.filters, group=_LOOK)
app.command(see.activations, group=_LOOK)
app.command(see.explain, group=_LOOK)
app.command(see.patches, group=_LOOK)
app.command(embedding.embed, group=_LOOK)
app.command(judging.randomise, group=_LOOK)
app.command(judging.judge_explanations, group=_LOOK)
app.command(bias.shape_bias, group=_LOOK)
app.command(network.layers, group=_LOOK)
app.command(moving.visualize, group=_MAKE)
app.command(moving.dream, group=_MAKE)
app.command(moving.invert, group=_MAKE)
app.command(painting.style, group=_MAKE)
app.command(painting.texture, group=_MAKE)
app.command(cues.cue_conflict, group=_MAKE)
app.command(learning.probe, group=_TEACH)
app.command(learning.finetune, group=_TEACH)
app.command(advising.advise, group=_TEACH)
app.command(fooling.fool, group=_FOOL)
app.command(attacking.attack, group=_FOOL)
app.command(for_all.universal, group=_FOOL)
app.command(for_all.patch, group=_FOOL)
app.command(robustness.robustness, group=_FOOL)
app.command(hardening.harden, group=_FOOL)
_models = App(name="models", group=_KEEP, help="Networks that Phosphene knows by itself; `models get` fetches weights.")
_models.default(network.models)
_models.command(network.models_get, name="get")
app.command(_models)
app.command(recipes.recipe, group=_KEEP)
app.command(recipes.rerun, group=_KEEP)
app.register_install_completion_command(group=_KEEP)

SHARED = ("attack", "embed", "explain", "finetune", "harden", "patches", "predict", "robustness")
"""The commands whose work several processes can share, under torchrun."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input is one line on stderr and exit code 2; Ctrl-C is exit code 130.

    Of several processes one prints such a line; those that have done their part end with exit code 0.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter still gets the rest
    keep_memory()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _check_shared(words)
        _run(words)
    except processes.Spectator:
        pass
    except (PhospheneError, CycloptsError) as problem:
        _fail(str(problem))
    except KeyboardInterrupt:
        if processes.first():
            print("phosphene: interrupted; nothing half-written was kept", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except (MemoryError, RuntimeError) as problem:
        if not isinstance(problem, MemoryError) and "alloc" not in str(problem) and "out of memory" not in str(problem):
            raise
        _fail("there is not enough memory for this: use a smaller picture, fewer targets or a smaller --size")
    except OSError as problem:
        where = f" '{problem.filename}'" if problem.filename else ""
        _fail(f"{problem.strerror or problem}{where}")


def _run(words: Sequence[str]) -> None:
    if processes.first():
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        app(words, exit_on_error=False, print_error=False, result_action="return_value")


def _check_shared(words: Sequence[str]) -> None:
    """Raise a PhospheneError for several processes and a command that is for one."""
    if processes.count() == 1:
        return
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb in set(app) and verb not in SHARED:
        raise PhospheneError(f"'{verb}' runs in one process: start it without torchrun")
    # torchrun ends the others when one fails: they take back what they have begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _fail(message: str) -> None:
    if processes.tells():
        print("phosphene: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
