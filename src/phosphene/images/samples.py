"""Pictures that are on every machine: scikit-image's, and a painting of our own. `sample:NAME` names them as a file would."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from phosphene.errors import ImageError, did_you_mean

PREFIX = "sample:"
SAMPLES: dict[str, tuple[str, str]] = {
    "painting": ("phosphene", "synthesize/data/painting.jpg"),
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "stars": ("skimage", "data/hubble_deep_field.jpg"),
}
"""Name -> package and the file in it."""


ALL = PREFIX + "all"
"""A folder, as it were, of the samples that are photographs."""


def sample_photographs() -> list[Path]:
    """The files of `sample:all`, in the order of their names. Raises what `sample_file` does."""
    return [sample_file(PREFIX + name) for name in sorted(SAMPLES) if name != "painting"]


def sample_file(name: str) -> Path:
    """The file of `sample:NAME`.

    Raises:
        ImageError: no such sample, or the package that it comes with is not installed whole.
    """
    known = SAMPLES.get(name.removeprefix(PREFIX))
    if known is None:
        hint = did_you_mean(name.removeprefix(PREFIX), SAMPLES) or ":"
        raise ImageError(f"there is no sample '{name}'{hint} There are {', '.join(PREFIX + each for each in SAMPLES)}")
    spec = find_spec(known[0])
    path = Path(spec.origin).parent / known[1] if spec is not None and spec.origin else Path(known[1])
    if not path.is_file():
        raise ImageError(f"'{name}' comes with {known[0]}, which has no '{known[1]}' here: give a file of your own")
    return path
