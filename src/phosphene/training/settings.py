"""How a network is fine-tuned: every number that one may turn, with its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from phosphene.errors import PhospheneError
from phosphene.training.augment import KINDS, Kind

Start: TypeAlias = Literal["probe", "random"]
Norms: TypeAlias = Literal["frozen", "train"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
OptimiserName: TypeAlias = Literal["adamw", "sgd"]


CAREFUL, BOLD = 3e-5, 3e-4


@dataclass(frozen=True)
class FinetuneSettings:
    """How a network is fine-tuned.

    Attributes:
        layers: what is trained: `head`, `last:N`, `stage:NAME` or `all`.
        start: of the head: a linear probe's, so that the first steps don't spoil the features (LP-FT, Kumar et al.,
            "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022), or random.
        epochs: times that each photograph is seen.
        batch: photographs of a step, of all processes together.
        rate: learning rate of the last stage; the head's is `head_rate` times, that of each stage below `decay` times it.
            None: `CAREFUL` from a probe, which is right on most photographs before the first step, else `BOLD`.
        head_rate, decay: see there.
        optimiser: `adamw` or `sgd` (momentum 0.9).
        weight_decay: of weights; biases and norms have none.
        warmup: share of the steps in which the rates rise from 0; then they fall along a cosine.
        augment: `none`, `light` or `strong`.
        norms: statistics of trained batch norms: `frozen`, or `train` (from each batch, with a running mean).
        smoothing: label smoothing, 0 to 1.
        balanced: weigh classes as if each had as many photographs.
        ema: decay of an average of the weights over the steps, which is judged and kept in their place; 0: none.
        patience: epochs without a lower mean of the last `MEANS` validation losses after which it ends; 0: never.
        precision: `auto`: bfloat16 or float16 on CUDA devices that have it, else float32.
        seed: of order, augmentation and dropout.
    """

    layers: str = "last:2"
    start: Start = "probe"
    epochs: int = 10
    batch: int = 32
    rate: float | None = None
    head_rate: float = 1.0
    decay: float = 0.8
    optimiser: OptimiserName = "adamw"
    weight_decay: float = 1e-2
    warmup: float = 0.1
    augment: Kind = "light"
    norms: Norms = "frozen"
    smoothing: float = 0.0
    balanced: bool = True
    ema: float = 0.0
    patience: int = 5
    precision: Precision = "auto"
    seed: int = 0

    @property
    def peak(self) -> float:
        """The rate, also where none was given."""
        return self.rate if self.rate is not None else CAREFUL if self.start == "probe" else BOLD

    def check(self) -> None:
        """Raise a PhospheneError for a setting out of its range."""
        for name, least in (("epochs", 1), ("batch", 1), ("patience", 0)):
            if getattr(self, name) < least:
                raise PhospheneError(f"--{name} starts at {least}, got {getattr(self, name)}")
        for name, value in (("rate", self.peak), ("head-rate", self.head_rate), ("decay", self.decay)):
            if not 0 < value < float("inf"):
                raise PhospheneError(f"--{name} is a number above 0, got {value:g}")
        for name in ("warmup", "smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise PhospheneError(f"--{name} is at least 0 and below 1, got {getattr(self, name):g}")
        if not 0 <= self.weight_decay < float("inf"):
            raise PhospheneError(f"--weight-decay is at least 0, got {self.weight_decay:g}")
        for name, choices in (
            ("start", get_args(Start)), ("optimiser", get_args(OptimiserName)), ("augment", KINDS),
            ("norms", get_args(Norms)), ("precision", get_args(Precision)),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise PhospheneError(f"--{name} is one of {', '.join(choices)}, not '{getattr(self, name)}'")


MEANS = 3
"""Epochs over which validation losses are averaged: one alone goes up and down by chance."""
