"""Where a training is: enough to go on from there to the same numbers, in tensors by name and a little JSON.

Random numbers need no state: order, augmentation and dropout of a step follow from the seed and the number of the step. So a
run may even go on with another number of processes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.errors import PhospheneError

_MODEL, _AVERAGE, _OPTIMISER = "model/", "average/", "optimiser/"


@dataclass
class Progress:
    """The little JSON.

    Attributes:
        step: steps that are done.
        sums: of the epoch that has begun: loss, right ones, photographs.
        seconds: that training has taken so far.
        rows: one for each epoch that is done.
        slower: factor of the rates, below 1 after the loss was no number.
        repairs: steps at which it wasn't.
        stopped: why it ended before its last epoch.
        scaler: the scale of float16's gradients.
        notes: what a kind of training has to remember of its own.
    """

    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    slower: float = 1.0
    repairs: list[int] = field(default_factory=list)
    stopped: str = ""
    scaler: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """A moment of a training: `tensors` by name, on the CPU, and its `progress` as JSON."""

    tensors: Mapping[str, Tensor]
    progress: Mapping[str, Any]


def taken(module: nn.Module, average: Mapping[str, Tensor] | None, made: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of all tensors: of the module, of its average, and of the optimiser."""
    found = {_MODEL + name: value for name, value in module.state_dict().items()}
    found |= {_AVERAGE + name: value for name, value in (average or {}).items()}
    for place, parameter in enumerate(_parameters(made)):
        for name, value in made.state.get(parameter, {}).items():
            found[f"{_OPTIMISER}{place}/{name}"] = torch.as_tensor(value)
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in found.items()}


def given_back(
    tensors: Mapping[str, Tensor], module: nn.Module, average: dict[str, Tensor] | None, made: torch.optim.Optimizer
) -> None:
    """Put what `taken` took into module, average and optimiser.

    Raises:
        PhospheneError: it is of another network or optimiser.
    """
    try:
        module.load_state_dict({n.removeprefix(_MODEL): v for n, v in tensors.items() if n.startswith(_MODEL)})
        if average is not None:
            for name, value in average.items():
                value.copy_(tensors[_AVERAGE + name])
        _checked(tensors, made)
        parameters = _parameters(made)
        for parameter in parameters:
            made.state.pop(parameter, None)
        for name, value in tensors.items():
            if name.startswith(_OPTIMISER):
                place, _, key = name.removeprefix(_OPTIMISER).partition("/")
                parameter = parameters[int(place)]
                where = parameter.device if value.ndim else value.device  # a count of steps stays on the CPU
                made.state[parameter][key] = value.to(where, copy=True)
    except (RuntimeError, KeyError, IndexError, ValueError) as problem:
        line = " ".join(str(problem).split())[:160]
        raise PhospheneError(f"this state is of another network or other settings: {line}") from problem


def progress_of(state: State) -> Progress:
    """A copy of its progress. Raises PhospheneError if it is of another version."""
    try:
        return Progress(**copy.deepcopy(dict(state.progress)))
    except TypeError as problem:
        raise PhospheneError(f"this state was written by another version of Phosphene: {problem}") from problem


def _checked(tensors: Mapping[str, Tensor], made: torch.optim.Optimizer) -> None:
    """Raise a ValueError if the state is of another optimiser, or of some of the parameters only."""
    wanted = {"momentum_buffer"} if isinstance(made, torch.optim.SGD) else {"step", "exp_avg", "exp_avg_sq"}
    names = [name.removeprefix(_OPTIMISER).split("/") for name in tensors if name.startswith(_OPTIMISER)]
    held = {key for _, key in names}
    if names and (held != wanted or len({place for place, _ in names}) != len(_parameters(made))):
        raise ValueError(f"it holds {', '.join(sorted(held))} where {', '.join(sorted(wanted))} are needed")


def _parameters(made: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in made.param_groups for parameter in group["params"]]
