"""The options that commands share: one name, one meaning, everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

NETWORK = Group("Network", sort_key=10)
OUTPUT = Group("Output", sort_key=20)
REPORT = Group("Terminal", sort_key=30)

Device = Literal["auto", "cpu", "cuda", "mps"]
Net = Annotated[
    str,
    Parameter(
        group=NETWORK,
        help="efficientnet_lite0, squeezenet1_1 (bundled), a torchvision name, timm:NAME, the folder of a trained network, or"
        " FILE.py:FUNCTION.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """Which weights and labels, and where to run."""

    weights: Annotated[Path | None, Parameter(group=NETWORK, help="Safetensors or torch state dict for it.")] = None
    labels: Annotated[Path | None, Parameter(group=NETWORK, help="Text file, a class name on each line.")] = None
    device: Annotated[Device, Parameter(group=NETWORK, help="Where to run; auto takes a GPU if there is one.")] = "auto"

    def parameters(self) -> dict[str, str | None]:
        """What a recipe records of it."""
        return {"weights": _text(self.weights), "labels": _text(self.labels)}


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """Where pictures go."""

    out: Annotated[
        Path, Parameter(group=OUTPUT, help="Folder for the pictures, or one file: .png .jpg .webp .tiff")
    ] = Path(".")
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace pictures that exist.")
    ] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Said:
    """What is printed."""

    quiet: Annotated[
        bool,
        Parameter(name=["--quiet", "-q"], group=REPORT, negative="", show_default=False, help="Print nothing."),
    ] = False
    json: Annotated[
        bool,
        Parameter(group=REPORT, negative="", show_default=False, help="Print JSON on stdout, and nothing else."),
    ] = False


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def split(values: list[str] | None) -> list[str]:
    """`["a,b", "c"]` to `["a", "b", "c"]`."""
    return [item.strip() for value in values or [] for item in value.split(",") if item.strip()]
