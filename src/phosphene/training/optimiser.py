"""Groups of parameters with rates of their own, and how the rates move.

    rate_l(t) = rate decay^(stages above l) * min(t / warm-up, 1/2 (1 + cos(pi progress)))

Howard & Ruder, "Universal Language Model Fine-tuning", ACL 2018 (rates by depth); Loshchilov & Hutter, "SGDR", ICLR 2017
(cosine), and "Decoupled Weight Decay Regularization", ICLR 2019 (AdamW).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from phosphene.training.settings import FinetuneSettings


def optimiser(module: nn.Module, depths: Mapping[str, int], settings: FinetuneSettings) -> torch.optim.Optimizer:
    """An optimiser of the parameters named in `depths` (name -> stages between it and the new layer), others are frozen.

    Each group holds its full rate as `peak`.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in depths)
        if name in depths:
            groups.setdefault((depths[name], parameter.ndim > 1), []).append(parameter)
    made = [
        {
            "params": parameters,
            "peak": _peak(depth, settings),
            "lr": _peak(depth, settings),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (depth, decays), parameters in sorted(groups.items())
    ]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(made, lr=settings.peak, momentum=0.9)
    return torch.optim.AdamW(made, lr=settings.peak)


def _peak(depth: int, settings: FinetuneSettings) -> float:
    return settings.peak * (settings.head_rate if depth == 0 else settings.decay ** (depth - 1))


def schedule(step: int, steps: int, warmup: float) -> float:
    """The factor of all rates at `step` of 0 to steps - 1."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / max(1, steps - rising))


def set_rates(made: torch.optim.Optimizer, factor: float) -> None:
    """Every group's rate as `factor` of its full one."""
    for group in made.param_groups:
        group["lr"] = group["peak"] * factor
