"""lucent as its users run it: its default parametrisation, transformations and Adam, on our networks.

pip install kornia decorator ipython && pip install --no-deps torch-lucent
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene.models import Network

warnings.filterwarnings("ignore")


def prepared() -> Any:
    """lucent's `render_vis` and its modules, or SystemExit if it isn't installed."""
    try:
        import kornia  # pyright: ignore[reportMissingImports]
        from kornia.geometry import transform as geometry  # pyright: ignore[reportMissingImports]

        for name in ("get_rotation_matrix2d", "warp_affine"):  # where kornia had them when lucent was written
            if not hasattr(kornia, name):
                setattr(kornia, name, getattr(geometry, name))
        from lucent.optvis import objectives, param, render, transform  # pyright: ignore[reportMissingImports]
    except ImportError as problem:
        raise SystemExit(f"lucent is not installed ({problem}): {__doc__}") from problem
    return render, param, objectives, transform


def render(
    network: Network, objectives: Sequence[Any], *, steps: int, size: int, batch: bool = False, frozen: bool = False
) -> Tensor:
    """Pictures `[N, 3, size, size]` of lucent's objectives: one by one, or as a batch of one joint objective.

    `frozen`: freeze the module first, which spares lucent the gradients of the weights; its documentation doesn't.
    """
    renderer, param, _, transform = prepared()
    module = network.module.eval().requires_grad_(not frozen)
    transforms = [*transform.standard_transforms, network.normalise]
    if batch:
        joint = objectives[0]
        for other in objectives[1:]:
            joint = joint + other
        made = [_one(renderer, param, module, joint, steps, size, transforms, len(objectives))]
    else:
        made = [_one(renderer, param, module, objective, steps, size, transforms, 1) for objective in objectives]
    return torch.from_numpy(np.concatenate(made)).permute(0, 3, 1, 2).contiguous()


def _one(
    renderer: Any, param: Any, module: Any, objective: Any, steps: int, size: int, transforms: list[Any], count: int
) -> np.ndarray:
    return renderer.render_vis(
        module, objective, lambda: param.image(size, batch=count), transforms=transforms, thresholds=(steps,),
        preprocess=False, progress=False, show_image=False, fixed_image_size=size,
    )[0]  # fmt: skip
