"""The command line. Importing it imports no torch; each command imports what it needs when it runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from phosphene import __version__
from phosphene.cli import bias, cues, embedding, judging, moving, network, painting, recipes, see, tour
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
_KEEP = Group("Networks and recipes", sort_key=3)

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
app.command(moving.fool, group=_MAKE)
_models = App(name="models", group=_KEEP, help="Networks that Phosphene knows by itself; `models get` fetches weights.")
_models.default(network.models)
_models.command(network.models_get, name="get")
app.command(_models)
app.command(recipes.recipe, group=_KEEP)
app.command(recipes.rerun, group=_KEEP)
app.register_install_completion_command(group=_KEEP)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input is one line on stderr and exit code 2; Ctrl-C is exit code 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter still gets the rest
    keep_memory()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except (PhospheneError, CycloptsError) as problem:
        _fail(str(problem))
    except KeyboardInterrupt:
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


def _fail(message: str) -> None:
    print("phosphene: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
