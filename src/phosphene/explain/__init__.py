"""Which pixels matter? One method a file; each is a pure function on a batch."""

from __future__ import annotations

from phosphene.explain.attribution import Attribution
from phosphene.explain.grad_cam import grad_cam
from phosphene.explain.guided_backprop import guided_backprop
from phosphene.explain.saliency import saliency
from phosphene.explain.target import Target

METHODS = {"saliency": saliency, "guided-backprop": guided_backprop, "grad-cam": grad_cam}

__all__ = ["METHODS", "Attribution", "Target", "grad_cam", "guided_backprop", "saliency"]
