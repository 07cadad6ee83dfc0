"""Write docs/support.md: on which networks each explanation method is right, and where it says that it has no rule.

Takes some minutes. Run it again when a method, a network of the list or a library changes::

    python tools/make_support_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import timm
import torch
import torchvision

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "support.md"
TEXT = """# Which networks are supported

On a CNN each explanation method either is right, or it refuses with an error that names the operation and the module.
{count} architectures of torchvision and timm are the evidence. Each method's maps, values per colour and scores are held
against a slow reference in float64, which runs an unfolded copy of the module, perturbs image by image, and takes its
backward rules from hooks on the nodes of the autograd graph.

- Weights are random: ten classes, batch norms with random scales and shifts, and statistics that fit the weights. The image
  is of coloured patches, as many pixels wide and high as the second column says; the class is the one with the highest
  score.
- SmoothGrad takes {samples} samples, integrated gradients {steps} steps, RISE {masks} masks, occlusion four windows. The CAMs
  look at their default layer, Score-CAM (one pass per channel) at the layer with the fewest. LRP is the default composite.
- torch {torch}, torchvision {torchvision}, timm {timm}, on a CPU. `tests/explain/test_architectures.py` repeats it for
  {quick} of them in each test run and for all in `make test-slow`; `tools/make_support_table.py` writes this page.

| mark | means |
|---|---|
| ✓ 1e-14 | right: no value is off by more than 1e-14 of the largest (of the column's worst method; the limit is {limit:g}) |
| no rule: X | raises a `RuleError` that names X, an operation that the rule isn't defined for, and the module that has it |
| gate | a product of two things made from the image, such as squeeze-and-excitation |
| attention | a matrix product of two things made from the image |

| column | methods |
|---|---|
{columns}

{summary}

| network | size | {names} |
|---|---|{lines}
{rows}
"""


def main() -> None:
    """Measure all networks and write the page."""
    sys.path.insert(0, str(ROOT / "tests" / "explain"))
    import architectures as lib  # pyright: ignore[reportMissingImports]

    from phosphene.explain import METHODS

    torch.set_num_threads(1)
    rows, supported = [], dict.fromkeys(lib.COLUMNS, 0)
    for one in lib.ARCHITECTURES:
        cells = lib.cells(lib.findings(one))
        for column, cell in zip(lib.COLUMNS, cells, strict=True):
            supported[column] += "✓" in cell
        rows.append(f"| {' | '.join([f'`{one.name}`', str(one.size), *cells])} |")
        print(rows[-1], flush=True)
    columns = [f"| {name} | {', '.join(METHODS[key].title for key in keys)} |" for name, keys in lib.COLUMNS.items()]
    text = TEXT.format(
        count=len(lib.ARCHITECTURES), quick=sum(not one.slow for one in lib.ARCHITECTURES), limit=lib.LIMIT,
        samples=lib.SAMPLES, steps=lib.STEPS, masks=lib.MASKS,
        torch=_release(torch.__version__), torchvision=_release(torchvision.__version__), timm=timm.__version__,
        columns="\n".join(columns), summary=_summary(supported, len(lib.ARCHITECTURES)),
        names=" | ".join(lib.COLUMNS), lines="---|" * len(lib.COLUMNS), rows="\n".join(rows),
    )  # fmt: skip
    OUTPUT.write_text(text, encoding="utf-8", newline="\n")


def _summary(supported: dict[str, int], count: int) -> str:
    return "Supported: " + ", ".join(f"{column} on {number} of {count}" for column, number in supported.items()) + "."


def _release(version: str) -> str:
    """Without what it was built for."""
    return version.partition("+")[0]


if __name__ == "__main__":
    main()
