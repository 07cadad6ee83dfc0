"""The loss of neural style: features of a content picture, second-order statistics of a style.

    L_content = 1/2 sum_ij (F^l_ij - P^l_ij)^2
    L_style   = sum_l w_l E_l,     E_l = 1 / (4 N_l^2 M_l^2) sum_ij (G^l_ij - A^l_ij)^2

Gatys, Ecker & Bethge, "A Neural Algorithm of Artistic Style", 2015, equations 1, 4 and 5. Where the style has another size
than the picture, A is that of M_l places of it: both Grams are divided by their own M_l before they are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from phosphene.models import Network
from phosphene.synthesize.blocks import Block, Reach, Span, blocks, reach_of
from phosphene.synthesize.gram import moments, weighted_sums

Penalty = Callable[[Tensor], Tensor]
"""A picture `[1, 3, H, W]` in [0, 1] to one number, for the whole of it."""


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts.

    Attributes:
        content: by layer.
        style: w_l, by layer.
        penalties: of the picture itself, each with its weight inside.
    """

    content: Mapping[str, float] = field(default_factory=dict)
    style: Mapping[str, float] = field(default_factory=dict)
    penalties: Sequence[Penalty] = ()

    @property
    def layers(self) -> list[str]:
        """All layers that are read."""
        return list(dict.fromkeys([*self.style, *self.content]))


@dataclass(frozen=True)
class Targets:
    """What a picture is compared with.

    Attributes:
        content: layer -> P, `[1, C, h, w]`.
        style: layer -> A / M, `[R, C, C]`: one for each region.
        guides: layer -> how much each place counts for each region, `[R, h, w]`; None: one region, the whole picture.
    """

    content: Mapping[str, Tensor] = field(default_factory=dict)
    style: Mapping[str, Tensor] = field(default_factory=dict)
    guides: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Evaluation:
    """The loss of one picture.

    Attributes:
        total: the weighted sum.
        content: layer -> `1/2 sum (F - P)^2`, without its weight.
        style: layer -> E_l, without its weight.
        gradient: of the total, `[1, 3, H, W]`.
    """

    total: float
    content: dict[str, float]
    style: dict[str, float]
    gradient: Tensor


class StyleLoss:
    """The loss of a picture and its gradient, at once or block by block; equal up to rounding.

    Args:
        network: any network.
        weights: what counts how much.
        targets: what a picture is compared with.
        block: side of the blocks in pixels; None: the whole picture at once.
        wrap: take the picture for a torus, whose opposite edges touch; at once only.

    Raises:
        LayerError: no such layer; or, with blocks, one that can't be read in blocks.
    """

    def __init__(
        self, network: Network, weights: Weights, targets: Targets, *, block: int | None = None, wrap: bool = False
    ) -> None:
        self.network, self.weights, self.targets, self.block, self.wrap = network, weights, targets, block, wrap
        self._read = network.reader(weights.layers, swift=True)
        self._reaches = reaches(network, weights.layers) if block is not None or wrap else {}

    def __call__(self, image: Tensor) -> Evaluation:
        """The loss of `[1, 3, H, W]`."""
        return self._whole(image) if self.block is None else self._by_blocks(image, self.block)

    def _whole(self, image: Tensor) -> Evaluation:
        leaf = image.detach().requires_grad_()
        features = self._around(leaf) if self.wrap else self._read(leaf)
        content = {layer: content_loss(features[layer], self.targets.content[layer]) for layer in self.weights.content}
        style = {
            layer: style_energy(moments(features[layer], self._guides(layer)), self.targets.style[layer])
            for layer in self.weights.style
        }
        total = _weighted(content, self.weights.content) + _weighted(style, self.weights.style)
        total = total + sum(penalty(leaf) for penalty in self.weights.penalties)
        assert isinstance(total, Tensor)
        (gradient,) = torch.autograd.grad(total, leaf)
        return Evaluation(float(total.detach()), _numbers(content), _numbers(style), gradient)

    def _around(self, image: Tensor) -> dict[str, Tensor]:
        """The features of a torus: of the picture with as much of its other end around it as a place can see."""
        size = (image.shape[2], image.shape[3])
        stride = max(reach.stride for reach in self._reaches.values())
        margin = -(-max(reach.halo for reach in self._reaches.values()) // stride) * stride
        rows = torch.arange(-margin, size[0] + margin, device=image.device) % size[0]
        columns = torch.arange(-margin, size[1] + margin, device=image.device) % size[1]
        features = self._read(image[:, :, rows][..., columns])
        whole = (size[0] + 2 * margin, size[1] + 2 * margin)
        part = Block(
            Span(0, whole[0], margin, margin + size[0]),
            Span(0, whole[1], margin, margin + size[1]),
        )
        return {layer: part.core(found, self._reaches[layer], whole) for layer, found in features.items()}

    def _by_blocks(self, image: Tensor, side: int) -> Evaluation:
        """Statistics of all blocks first: the slope of the loss along each of them is then known for every block."""
        size = (image.shape[2], image.shape[3])
        parts = blocks(size, list(self._reaches.values()), side)
        sums = self._sums(image, parts, size)
        style, slopes = self._style_of(sums)
        gradient = torch.zeros_like(image)
        content = dict.fromkeys(self.weights.content, 0.0)
        for part in parts:
            found = self._gradient_of(image, part, size, slopes, content)
            gradient[..., part.rows.start : part.rows.stop, part.columns.start : part.columns.stop] += found
        total = sum(self.weights.content[layer] * value for layer, value in content.items())
        total += sum(self.weights.style[layer] * value for layer, value in style.items())
        for penalty in self.weights.penalties:
            leaf = image.detach().requires_grad_()
            value = penalty(leaf)
            gradient += torch.autograd.grad(value, leaf)[0]
            total += float(value.detach())
        return Evaluation(total, content, style, gradient)

    def _sums(self, image: Tensor, parts: Sequence[Block], size: tuple[int, int]) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> the sums of `F_i F_j` and of the weights of their places, for each region."""
        if not self.weights.style:
            return {}
        return summed(self._read, image, list(self.weights.style), parts, self._reaches, size, self.targets.guides)

    def _style_of(self, sums: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[dict[str, float], dict[str, Tensor]]:
        """E_l by layer, and the slope of `w_l E_l` along the sums of each region."""
        style, slopes = {}, {}
        for layer, (products, places) in sums.items():
            leaf = products.detach().requires_grad_()
            energy = style_energy(leaf / places[:, None, None], self.targets.style[layer])
            (slopes[layer],) = torch.autograd.grad(self.weights.style[layer] * energy, leaf)
            style[layer] = float(energy.detach())
        return style, slopes

    def _gradient_of(
        self,
        image: Tensor,
        part: Block,
        size: tuple[int, int],
        slopes: Mapping[str, Tensor],
        content: dict[str, float],
    ) -> Tensor:
        """The gradient that comes from the features of one block's core; adds its content losses."""
        leaf = part.cut(image).detach().requires_grad_()
        features = self._read(leaf)
        total = leaf.new_zeros(())
        for layer, slope in slopes.items():
            core = part.core(features[layer], self._reaches[layer], size)
            guide = _guide(self.targets.guides, layer, part, core, self._reaches[layer])
            total = total + (weighted_sums(core, guide) * slope).sum()
        for layer, weight in self.weights.content.items():
            core = part.core(features[layer], self._reaches[layer], size)
            rows, columns = part.place(core, self._reaches[layer])
            loss = content_loss(core, self.targets.content[layer][..., rows, columns])
            content[layer] += float(loss.detach())
            total = total + weight * loss
        return torch.autograd.grad(total, leaf)[0]

    def _guides(self, layer: str) -> Tensor | None:
        return None if self.targets.guides is None else self.targets.guides[layer]


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """`1/2 sum (F - P)^2`."""
    return 0.5 * (features - target).square().sum()


def style_energy(found: Tensor, target: Tensor) -> Tensor:
    """E_l of moments `G / M` and `A / M`, `[R, C, C]`: the sum of `1 / (4 N^2) sum (G / M - A / M)^2` over the regions."""
    return (found - target).square().sum() / (4 * found.shape[-1] ** 2)


def reaches(network: Network, layers: Sequence[str]) -> dict[str, Reach]:
    """The grid of each layer, for reading in blocks. Raises LayerError for a layer that can't be."""
    return {layer: reach_of(network, layer) for layer in layers}


def summed(
    read: Callable[[Tensor], dict[str, Tensor]],
    image: Tensor,
    layers: Sequence[str],
    parts: Sequence[Block],
    known: Mapping[str, Reach],
    size: tuple[int, int],
    guides: Mapping[str, Tensor] | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> `(sums of F_i F_j [R, C, C], sums of the places' weights [R])` over all blocks."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for part in parts:
        with torch.no_grad():
            features = read(part.cut(image))
            for layer in layers:
                core = part.core(features[layer], known[layer], size)
                guide = _guide(guides, layer, part, core, known[layer])
                places = core.new_tensor([core.shape[2] * core.shape[3]]) if guide is None else guide.sum((1, 2))
                products = weighted_sums(core, guide)
                before = found.get(layer, (torch.zeros_like(products), torch.zeros_like(places)))
                found[layer] = before[0] + products, before[1] + places
    return {layer: (products, places.clamp(min=1e-6)) for layer, (products, places) in found.items()}


def _guide(guides: Mapping[str, Tensor] | None, layer: str, part: Block, core: Tensor, reach: Reach) -> Tensor | None:
    if guides is None:
        return None
    rows, columns = part.place(core, reach)
    return guides[layer][:, rows, columns]


def _weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    found = [weights[layer] * loss for layer, loss in losses.items()]
    return torch.stack(found).sum() if found else torch.zeros(())


def _numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {layer: float(loss.detach()) for layer, loss in losses.items()}
