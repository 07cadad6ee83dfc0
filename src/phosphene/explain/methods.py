"""All methods by name, with what a page or a command needs to know of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from phosphene.explain.attribution import Attribution
from phosphene.explain.deconvnet import deconvnet
from phosphene.explain.grad_cam import grad_cam
from phosphene.explain.grad_cam_plus_plus import grad_cam_plus_plus
from phosphene.explain.gradient import gradient
from phosphene.explain.gradient_x_input import gradient_x_input
from phosphene.explain.guided_backprop import guided_backprop
from phosphene.explain.guided_grad_cam import guided_grad_cam
from phosphene.explain.integrated_gradients import integrated_gradients
from phosphene.explain.layer_cam import layer_cam
from phosphene.explain.lrp import lrp
from phosphene.explain.occlusion import occlusion
from phosphene.explain.rise import rise
from phosphene.explain.saliency import saliency
from phosphene.explain.score_cam import score_cam
from phosphene.explain.smoothgrad import smoothgrad
from phosphene.explain.target import Target
from phosphene.models import Network


@dataclass(frozen=True)
class Method:
    """An explanation method; called, it explains: `method(network, images, target, **options)`.

    Attributes:
        name: as the command line writes it.
        title: as people write it.
        run: the function.
        idea: what its map shows, in a sentence.
        formula: in LaTeX.
        paper: where it comes from.
        signed: whether the sign of its map means something.
        takes_layer: whether it takes a `layer` with a map.
        random: whether it draws random numbers, and takes a `seed`.
        complete: whether its values promise to add up to something, and `error` says by how much they miss it.
        needs_rule: whether it is defined for some operations only, and raises a RuleError elsewhere.
        passes: about how many forward passes an image costs, or more: what makes it slow.
    """

    name: str
    title: str
    run: Callable[..., Attribution]
    idea: str
    formula: str
    paper: str
    signed: bool = True
    takes_layer: bool = False
    needs_rule: bool = False
    random: bool = False
    complete: bool = False
    passes: int = 3

    def __call__(self, network: Network, images: Tensor, target: Target, **options: Any) -> Attribution:
        """Run it."""
        return self.run(network, images, target, **options)


_ALL = (
    Method(
        "gradient", "Gradient", gradient,
        "how the score changes when a pixel becomes brighter",
        r"G = \frac{\partial S_c}{\partial I}",
        "Simonyan, Vedaldi & Zisserman 2014",
    ),
    Method(
        "saliency", "Saliency", saliency,
        "how much the score would change with each pixel",
        r"M_{ij} = \max_k \left| \frac{\partial S_c}{\partial I_{kij}} \right|",
        "Simonyan, Vedaldi & Zisserman 2014",
        signed=False,
    ),
    Method(
        "gradient-x-input", "Gradient x input", gradient_x_input,
        "the share of each pixel in the score, to first order",
        r"R = I \odot \frac{\partial S_c}{\partial I}",
        "Shrikumar et al. 2016",
    ),
    Method(
        "smoothgrad", "SmoothGrad", smoothgrad,
        "the mean gradient over noisy copies of the image",
        r"G = \frac{1}{n} \sum_{i=1}^n \frac{\partial S_c}{\partial I}(I + \epsilon_i),\quad"
        r" \epsilon_i \sim \mathcal{N}(0, \sigma^2)",
        "Smilkov et al. 2017",
        random=True, passes=75,
    ),
    Method(
        "integrated-gradients", "Integrated gradients", integrated_gradients,
        "gradients collected on the way from black to the image; the shares add up to the score",
        r"R = (I - I') \odot \int_0^1 \frac{\partial S_c}{\partial I}\big(I' + \alpha (I - I')\big)\,d\alpha",
        "Sundararajan, Taly & Yan 2017",
        complete=True, passes=150,
    ),
    Method(
        "guided-backprop", "Guided backpropagation", guided_backprop,
        "only positive gradients of active units through each ReLU",
        r"R^l_i = \mathbb{1}[f^l_i > 0]\,\mathbb{1}[R^{l+1}_i > 0]\,R^{l+1}_i",
        "Springenberg et al. 2015",
        needs_rule=True,
    ),
    Method(
        "deconvnet", "Deconvnet", deconvnet,
        "only positive gradients through each ReLU, whichever units are active",
        r"R^l_i = \mathbb{1}[R^{l+1}_i > 0]\,R^{l+1}_i",
        "Zeiler & Fergus 2014",
        needs_rule=True,
    ),
    Method(
        "grad-cam", "Grad-CAM", grad_cam,
        "where the last layer finds evidence",
        r"L_c = \mathrm{ReLU}\Big(\sum_k \alpha_k^c A^k\Big),\quad"
        r" \alpha_k^c = \frac{1}{Z}\sum_{i,j}\frac{\partial S_c}{\partial A^k_{ij}}",
        "Selvaraju et al. 2017",
        signed=False, takes_layer=True,
    ),
    Method(
        "grad-cam++", "Grad-CAM++", grad_cam_plus_plus,
        "where the last layer finds evidence, several objects counting alike",
        r"w_k^c = \sum_{i,j} \alpha_{ij}^{kc}\,\mathrm{ReLU}(g^k_{ij}),\quad"
        r" \alpha_{ij}^{kc} = \frac{(g^k_{ij})^2}{2 (g^k_{ij})^2 + \sum_{a,b} A^k_{ab} (g^k_{ij})^3}",
        "Chattopadhay et al. 2018",
        signed=False, takes_layer=True,
    ),
    Method(
        "layer-cam", "LayerCAM", layer_cam,
        "where a layer finds evidence, each place with its own weight",
        r"L_c = \mathrm{ReLU}\Big(\sum_k \mathrm{ReLU}\Big(\frac{\partial S_c}{\partial A^k_{ij}}\Big) A^k_{ij}\Big)",
        "Jiang et al. 2021",
        signed=False, takes_layer=True,
    ),
    Method(
        "score-cam", "Score-CAM", score_cam,
        "the maps of the last layer, each weighted by the score of the image seen through it",
        r"L_c = \mathrm{ReLU}\Big(\sum_k w_k^c A^k\Big),\quad w^c = \mathrm{softmax}_k\big(S_c(I \odot s(U(A^k)))\big)",
        "Wang et al. 2020",
        signed=False, takes_layer=True, passes=1000,
    ),
    Method(
        "guided-grad-cam", "Guided Grad-CAM", guided_grad_cam,
        "guided backpropagation where Grad-CAM finds the class",
        r"R = L_c \odot G_{\mathrm{guided}}",
        "Selvaraju et al. 2017",
        takes_layer=True, needs_rule=True, passes=5,
    ),
    Method(
        "lrp", "LRP", lrp,
        "the score handed down to the pixels, neuron by neuron, by their shares in it",
        r"R_i = \sum_j \frac{x_i w_{ij}}{z_j} R_j,\quad z_j = \sum_i x_i w_{ij} + b_j",
        "Bach et al. 2015",
        needs_rule=True, complete=True, passes=15,
    ),
    Method(
        "occlusion", "Occlusion", occlusion,
        "how much the score falls when a window covers the place",
        r"R_{ij} = \mathrm{mean}_{w \ni (i,j)}\; S_c(I) - S_c(I\ \text{with}\ w\ \text{covered})",
        "Zeiler & Fergus 2014",
        passes=169,
    ),
    Method(
        "rise", "RISE", rise,
        "the mean of random masks, weighted by what the network says of the image seen through them",
        r"R = \frac{1}{n p} \sum_{i=1}^n f_c(I \odot M_i)\, M_i",
        "Petsiuk, Das & Saenko 2018",
        signed=False, random=True, passes=2000,
    ),
)  # fmt: skip

METHODS = {method.name: method for method in _ALL}
