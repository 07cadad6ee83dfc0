"""The package `neural-style` (0.5.7) with the VGG-16 that lies in `../shared/weights`, as its command line runs it.

Run as a process of its own: `python neural_style_peer.py CONTENT STYLE SIZE ITERATIONS WEIGHTS OUT`. Prints one line of JSON:
its loss by iteration, seconds, and peak memory in MB.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (123.68, 116.779, 103.939)  # of red, green and blue, which the package takes off


def caffe_form(file: str) -> dict[str, torch.Tensor]:
    """The same convolutions for BGR images from 0 to 256 without a mean, which is what the package feeds its networks."""
    state = load_file(file)
    weight, bias = state["features.0.weight"], state["features.0.bias"]
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    shift = (torch.tensor(CAFFE_MEAN) / 256 - mean) / std
    state["features.0.bias"] = bias + (weight * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    state["features.0.weight"] = (weight / std.view(1, 3, 1, 1) / 256)[:, [2, 1, 0]].contiguous()
    return state


def main() -> None:
    content, style, size, iterations, weights, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vgg16-00b39a1b.pth"  # the package knows an architecture by its file's name
        torch.save(caffe_form(weights), file)
        sys.argv = [
            "neural-style", "-content_image", content, "-style_image", style, "-model_file", str(file), "-gpu", "c",
            "-backend", "mkl", "-image_size", size, "-init", "image", "-num_iterations", iterations, "-print_iter", "10",
            "-save_iter", "0", "-output_image", out, "-disable_check",
        ]  # fmt: skip
        from neural_style import neural_style  # pyright: ignore[reportMissingImports]

        said = io.StringIO()
        begun = time.perf_counter()
        with contextlib.redirect_stdout(said):
            neural_style.main()
        seconds = time.perf_counter() - begun
    losses = [float(found) for found in re.findall(r"Total loss: ([0-9.e+]+)", said.getvalue())]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"losses": losses, "seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main()
