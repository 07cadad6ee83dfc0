"""Score-CAM.

    L_c = ReLU( sum_k w_k^c A^k ),    w^c = softmax_k( S_c(I * s(U(A^k))) )

U brings a map to the input's size and s scales it to [0, 1]; no gradient is needed.
Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.cam import at_input_size, cam_layer
from phosphene.explain.target import Aim, Target, aim_at, values
from phosphene.models import Network


def score_cam(network: Network, images: Tensor, target: Target, layer: str | None = None) -> Attribution:
    """Heat map of a class: each map of a layer counts as much as the score of the image seen through it.

    One forward pass per channel; the channels that are silent for an image show a black image all of them, and share one.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`; a unit's most active place is the one in the image itself.
        layer: any layer with a spatial output; default: the last one (of those before the unit).

    Returns:
        Attribution with `layer_maps [N, h, w] >= 0` and `maps [N, H, W]`, the same, bilinear at input size.

    Raises:
        LayerError: the layer has no spatial output.
        LabelError: no such class.
        NetworkError: NaN on the way.
    """
    aim = aim_at(network, images, target, hold=True)
    layer = cam_layer(network, images, aim, layer)
    images = images.to(network.mean)
    cams = []
    for image, own in _one_by_one(images, aim):
        activation = network.record(image, [layer])[layer][0]
        weights = _channel_scores(network, image, activation, own).softmax(0)
        cams.append(torch.einsum("ck,chw->khw", weights, activation).relu())
    cam = torch.stack(cams)
    scores = values(network, images, aim)
    return attribution("score-cam", aim, at_input_size(cam, images), scores, layer=layer, layer_maps=cam)


def _channel_scores(network: Network, image: Tensor, activation: Tensor, aim: Aim) -> Tensor:
    """`[C, K]`: the scores of the image seen through each channel `[C, h, w]`."""
    silent = values(network, torch.zeros_like(image), aim)
    scores = silent.repeat(len(activation), 1)
    speaking = (activation.amax((1, 2)) > activation.amin((1, 2))).nonzero()[:, 0]
    for channels in speaking.split(network.batch_size(image.shape[-2:])) if len(speaking) else ():
        grown = F.interpolate(activation[None, channels], image.shape[-2:], mode="bilinear", align_corners=True)[0]
        low, high = grown.amin((1, 2), keepdim=True), grown.amax((1, 2), keepdim=True)
        mask = (grown - low) / (high - low).clamp(min=1e-30)
        scores[channels] = values(network, image * mask[:, None], aim.of(torch.zeros_like(channels)))
    return scores


def _one_by_one(images: Tensor, aim: Aim) -> list[tuple[Tensor, Aim]]:
    return [(images[place : place + 1], aim.of(slice(place, place + 1))) for place in range(len(images))]
