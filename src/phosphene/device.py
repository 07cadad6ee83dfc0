"""The one place that decides where tensors live."""

from __future__ import annotations

import torch

from phosphene import processes
from phosphene.errors import PhospheneError

CHOICES = ("auto", "cpu", "cuda", "mps")


def pick(device: str | torch.device = "auto") -> torch.device:
    """The device for `auto|cpu|cuda|cuda:N|mps`; `auto` takes CUDA, then MPS, then the CPU.

    Of several processes on one machine each takes another GPU for `auto` and `cuda`, as far as there are enough.

    Raises:
        PhospheneError: the name is not one of these, or this machine has no such device.
    """
    if isinstance(device, torch.device):
        return device
    kind = device.split(":")[0]
    if kind not in CHOICES or (kind == "auto" and device != kind):
        raise PhospheneError(f"unknown device '{device}': choose one of {', '.join(CHOICES)}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if kind == "auto":
        return _own(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if not available[kind]:
        usable = [name for name, there in available.items() if there]
        raise PhospheneError(f"this machine has no '{kind}' device for PyTorch: choose {' or '.join(usable)}")
    try:
        found = torch.device(device)
    except RuntimeError as problem:
        raise PhospheneError(f"'{device}' is no device: write {kind} or {kind}:NUMBER") from problem
    if kind == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise PhospheneError(
            f"this machine has {torch.cuda.device_count()} CUDA device(s), numbered from 0: no '{device}'"
        )
    return _own(kind) if found.index is None else found


def _own(kind: str) -> torch.device:
    """The device of this kind, and of this process where several share a job."""
    if kind == "cuda" and processes.started() > 1:
        return torch.device(kind, processes.local_rank() % torch.cuda.device_count())
    return torch.device(kind)
