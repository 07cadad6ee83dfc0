"""Which pixels matter? One method a file; each is a pure function on a batch."""

from __future__ import annotations

from phosphene.explain.attribution import Attribution
from phosphene.explain.deconvnet import deconvnet
from phosphene.explain.fill import Fill
from phosphene.explain.grad_cam import grad_cam
from phosphene.explain.grad_cam_plus_plus import grad_cam_plus_plus
from phosphene.explain.gradient import gradient
from phosphene.explain.gradient_x_input import gradient_x_input
from phosphene.explain.guided_backprop import guided_backprop
from phosphene.explain.guided_grad_cam import guided_grad_cam
from phosphene.explain.integrated_gradients import integrated_gradients
from phosphene.explain.layer_cam import layer_cam
from phosphene.explain.lrp import lrp
from phosphene.explain.methods import METHODS, Method
from phosphene.explain.occlusion import occlusion
from phosphene.explain.rise import rise
from phosphene.explain.saliency import saliency
from phosphene.explain.score_cam import score_cam
from phosphene.explain.smoothgrad import smoothgrad
from phosphene.explain.target import LogProbability, Target

__all__ = [
    "METHODS",
    "Attribution",
    "Fill",
    "LogProbability",
    "Method",
    "Target",
    "deconvnet",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "integrated_gradients",
    "layer_cam",
    "lrp",
    "occlusion",
    "rise",
    "saliency",
    "score_cam",
    "smoothgrad",
]
