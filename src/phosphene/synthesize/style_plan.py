"""What a style transfer or a texture consists of at each size: targets, weights, canvas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from phosphene.errors import LayerError, PhospheneError
from phosphene.images import palette
from phosphene.images.resize import resize
from phosphene.memory import available
from phosphene.models import Network
from phosphene.models.pooling import with_average_pooling
from phosphene.synthesize import priors
from phosphene.synthesize.blocks import reach_of
from phosphene.synthesize.canvas import Canvas, FourierCanvas, PixelCanvas
from phosphene.synthesize.invert import depth_of
from phosphene.synthesize.style_layers import CANVASES, LayerChoice, layers_for
from phosphene.synthesize.style_loss import Evaluation, Penalty, StyleLoss, Targets, Weights
from phosphene.synthesize.style_settings import StyleSettings, check_shares
from phosphene.synthesize.style_targets import blended, features_of, guides_of, map_sizes, moments_of

ADAM_RATE = 0.02
BLOCK = 512
"""Side of the blocks that are taken where a picture does not fit into memory."""
AT_ONCE = 4e9
"""Bytes that a picture may take at most, gradients included, to be read at once."""
NOISE = 0.3
"""Of the spread of photographs' colours: louder noise ends in pictures that stay grey in places."""
ALIKE = 1e-4
"""A style loss below this share of the style's own energy counts as none."""


class Plan:
    """The losses and canvases of one picture, by size.

    Args:
        network: any network with convolutions.
        size: height and width of the picture.
        styles: `[1, 3, h, w]` in [0, 1] each.
        settings: see `StyleSettings`.
        content: `[1, 3, *size]`; None for a texture.
        shares: how much each style counts; none: all alike.
        masks: where each style belongs, `[1, 1, *size]`; none: everywhere.
        penalties: of the picture itself.
        tile: whether opposite edges of the picture are to fit together.
        seed: of noise.

    Raises:
        LayerError: no such layer, one without a map, or a style smaller than what one place of it sees.
        PhospheneError: settings out of range, masks that don't fit.
    """

    def __init__(
        self,
        network: Network,
        size: tuple[int, int],
        styles: Sequence[Tensor],
        settings: StyleSettings,
        *,
        content: Tensor | None = None,
        shares: Sequence[float] = (),
        masks: Sequence[Tensor] = (),
        penalties: Sequence[Penalty] = (),
        tile: bool = False,
        seed: int = 0,
    ) -> None:
        settings.check()
        _check_pictures(styles, content, shares, masks)
        self.settings, self.size, self.tile, self.penalties, self.seed = settings, size, tile, penalties, seed
        self.network = network if settings.pooling == "max" else with_average_pooling(network)
        self.choice = chosen_layers(network, settings)
        self.content, self.masks = content, list(masks)
        self.shares = list(shares) or [1.0] * len(styles)
        self.styles = [self._coloured(one) for one in styles]
        self.sizes = settings.sizes(size)
        self._check_sizes()

    @property
    def steps(self) -> int:
        """Of all sizes together."""
        return self.settings.steps * len(self.sizes)

    @property
    def rate(self) -> float:
        """Of the optimiser."""
        usual = 1.0 if self.settings.optimiser == "lbfgs" else ADAM_RATE
        return self.settings.rate if self.settings.rate is not None else usual

    def beginning(self, begin: Tensor | None) -> Tensor:
        """What the first size begins with, `[1, 3, h, w]` in [0, 1]."""
        if begin is not None:
            return begin
        if self.settings.start == "content" and self.content is not None:
            grey = self.settings.colours == "luminance"
            return palette.luminance(self.content) if grey else self.content
        if self.settings.start == "style":
            return resize(self.styles[0], self.sizes[0])
        return self._noise(self.sizes[0])

    def _noise(self, size: tuple[int, int]) -> Tensor:
        """White noise around the mean colour."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn((1, 3, *size), generator=generator).to(self.network.device)
        mean, std = (values.expand(1, 3, 1, 1) for values in (self.network.mean, self.network.std))
        return (mean + NOISE * std * noise).clamp(0, 1)

    def canvas(self, picture: Tensor) -> Canvas:
        """The picture as something to be moved."""
        size = (picture.shape[2], picture.shape[3])
        if (self.settings.canvas or CANVASES.get(self.network.name, "pixel")) == "fourier":
            return FourierCanvas(self.network, 1, size, start=picture, decay=0.5)
        return PixelCanvas(self.network, 1, size, start=picture)

    def finished(self, picture: Tensor) -> Tensor:
        """At its full size, and with the colours of the content where these are to stay."""
        picture = resize(picture, self.size)
        if self.settings.colours == "luminance" and self.content is not None:
            return palette.with_colours_of(picture, self.content)
        return picture

    def loss(self, size: tuple[int, int]) -> tuple[StyleLoss, Evaluation]:
        """The loss at one size, and what it is divided by: the losses of the content and an even grey, or of noise.

        Raises LayerError for pictures from which nothing is left at one of the layers.
        """
        try:
            return self._loss(size)
        except RuntimeError as problem:
            if "too small" not in str(problem) and "Kernel size" not in str(problem):
                raise
            raise LayerError(
                f"the picture or a style is too small at {size[1]} x {size[0]} pixels for the layers of {self.network.name}:"
                " use fewer scales, a larger picture or earlier layers"
            ) from problem

    def _loss(self, size: tuple[int, int]) -> tuple[StyleLoss, Evaluation]:
        block = self._block(size)
        content = self._content(size)
        style_layers, content_layers = list(self.choice.style), list(self.choice.content) if content is not None else []
        targets = Targets(
            {} if content is None else features_of(self.network, content, content_layers, block),
            self._moments(size, style_layers, block),
            self._guides(size, style_layers, block),
        )
        unit = Weights(dict.fromkeys(content_layers, 1.0), dict.fromkeys(style_layers, 1.0))
        measure = StyleLoss(self.network, unit, targets, block=block, wrap=self.tile)
        picture = content if content is not None else self._noise(size)
        found = measure(picture)
        if content is not None:
            grey = measure(self.network.mean.expand(1, 3, 1, 1).expand_as(content).contiguous())
            found = replace(found, content=grey.content)
        weights = Weights(
            self._content_weights(found.content),
            self._style_weights(found.style, targets.style),
            [*self.penalties, *self._variation(picture)],
        )
        return StyleLoss(self.network, weights, targets, block=block, wrap=self.tile), found

    # -- targets ------------------------------------------------------------------------------------------------

    def _content(self, size: tuple[int, int]) -> Tensor | None:
        if self.content is None:
            return None
        grey = self.settings.colours == "luminance"
        return resize(palette.luminance(self.content) if grey else self.content, size)

    def _moments(self, size: tuple[int, int], layers: list[str], block: int | None) -> dict[str, Tensor]:
        found = [moments_of(self.network, self._scaled(one, size), layers, block) for one in self.styles]
        if self.masks:
            return {layer: torch.cat([part[layer] for part in found]) for layer in layers}
        return blended(found, self.shares)

    def _guides(self, size: tuple[int, int], layers: list[str], block: int | None) -> dict[str, Tensor] | None:
        if not self.masks:
            return None
        masks = torch.cat([resize(mask, size) for mask in self.masks], 1)[0]
        return guides_of(masks, map_sizes(self.network, size, layers, block))

    def _scaled(self, one: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = self.style_size(one, size)
        return resize(one, (height, width))

    def style_size(self, one: Tensor, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a style for a picture of this size."""
        factor = self._style_factor(one, size)
        return max(1, round(one.shape[2] * factor)), max(1, round(one.shape[3] * factor))

    def _style_factor(self, one: Tensor, size: tuple[int, int]) -> float:
        if self.content is None:  # a texture keeps its grain
            return self.settings.style_scale * max(size) / max(self.size)
        return self.settings.style_scale * max(size) / max(one.shape[2:])

    def _coloured(self, one: Tensor) -> Tensor:
        if self.content is None or self.settings.colours == "style":
            return one
        change = palette.match_luminance if self.settings.colours == "luminance" else palette.match_colours
        return change(one, self.content)

    # -- weights ------------------------------------------------------------------------------------------------

    def _content_weights(self, grey: Mapping[str, float]) -> dict[str, float]:
        if not grey or not self.settings.content_weight:
            return {}
        alpha = self.settings.content_weight / len(grey)
        silent = [layer for layer, value in grey.items() if not value > 0]
        if silent:
            raise LayerError(f"layer '{silent[0]}' says the same of the content as of an even grey: take another")
        return {layer: alpha / (1 if self.settings.raw else value) for layer, value in grey.items()}

    def _style_weights(self, found: Mapping[str, float], targets: Mapping[str, Tensor]) -> dict[str, float]:
        if not self.settings.style_weight:
            return {}
        least = {}
        for layer, target in targets.items():
            energy = float(target.square().sum()) / (4 * target.shape[-1] ** 2)
            if not energy > 0:
                raise LayerError(f"layer '{layer}' is silent for the style, so it has none: take another layer")
            least[layer] = max(found[layer], ALIKE * energy)
        beta, shares = self.settings.style_weight, self.choice.style
        if self.settings.raw:
            total = sum(shares.values()) if not self.settings.layer_weights else 1.0
            return {layer: beta * share / total for layer, share in shares.items() if share}
        if self.settings.layer_weights:
            whole = sum(share * least[layer] for layer, share in shares.items())
            return {layer: beta * share / whole for layer, share in shares.items() if share}
        total = sum(shares.values())
        return {layer: beta * share / total / least[layer] for layer, share in shares.items() if share}

    def _variation(self, picture: Tensor) -> list[Penalty]:
        if not self.settings.tv:
            return []
        variation = priors.total_variation(1.0)
        usual = 1.0 if self.settings.raw else float(variation(picture)[0]) + 1e-6
        return [lambda image: variation(image)[0] * (self.settings.tv / usual)]

    # -- sizes --------------------------------------------------------------------------------------------------

    def _block(self, size: tuple[int, int]) -> int | None:
        if self.settings.block is not None:
            return self.settings.block or None
        free = available()
        most = AT_ONCE if free is None else min(AT_ONCE, free / 2)
        return None if self.tile or self.network.bytes_for(size) <= most else BLOCK

    def _check_sizes(self) -> None:
        deepest = max(self.choice.style, key=lambda layer: depth_of(self.network, layer))
        try:
            reach = reach_of(self.network, deepest)
        except LayerError:  # a place that sees the whole picture sees a small one, too
            return
        sees = reach.stride + 2 * reach.halo
        for one in self.styles:
            height, width = self.style_size(one, self.size)
            if min(height, width) < sees:
                raise LayerError(
                    f"the style is {width} x {height} pixels there, but one place of layer '{deepest}' sees {sees} x {sees}:"
                    " use a larger picture, a larger style scale, or earlier layers"
                )


def chosen_layers(network: Network, settings: StyleSettings) -> LayerChoice:
    """The layers of the settings, or those that suit the network.

    Raises:
        LayerError: no such layer, or one without a map.
        PhospheneError: another number of weights than of layers.
    """
    usual = layers_for(network) if not (settings.style_layers and settings.content_layers) else LayerChoice({}, ())
    names = list(dict.fromkeys(settings.style_layers)) or list(usual.style)
    weights = list(settings.layer_weights)
    if weights and len(weights) != len(names):
        raise PhospheneError(f"{len(names)} style layers need as many weights, got {len(weights)}")
    if not weights:
        weights = [usual.style.get(name, 1.0) for name in names] if not settings.style_layers else [1.0] * len(names)
    content = tuple(dict.fromkeys(settings.content_layers)) or usual.content
    for name in (*names, *content):
        if len(network.layer(name).shape) != 3:
            raise LayerError(f"layer '{name}' gives no map, so it knows no texture: name an earlier one")
    return LayerChoice(dict(zip(names, weights, strict=True)), content)


def _check_pictures(
    styles: Sequence[Tensor], content: Tensor | None, shares: Sequence[float], masks: Sequence[Tensor]
) -> None:
    for picture in (*styles, *([] if content is None else [content])):
        if picture.ndim != 4 or tuple(picture.shape[:2]) != (1, 3):
            raise PhospheneError(f"pictures are [1, 3, H, W], got {list(picture.shape)}")
        if not bool(torch.isfinite(picture).all()):
            raise PhospheneError("a picture holds NaN or infinity: pictures are numbers from 0 to 1")
    if not styles:
        raise PhospheneError("a style is needed: give at least one picture of it")
    if shares:
        check_shares(shares, "weights of the styles")
        if len(shares) != len(styles):
            raise PhospheneError(f"{len(styles)} styles need as many weights, got {len(shares)}")
    if masks and len(masks) != len(styles):
        raise PhospheneError(f"each style needs a mask of its own: {len(styles)} styles, {len(masks)} masks")
    if masks and shares:
        raise PhospheneError("styles with masks of their own have no weights: leave one of the two out")
    for number, mask in enumerate(masks, 1):
        if mask.ndim != 4 or tuple(mask.shape[:2]) != (1, 1):
            raise PhospheneError(f"masks are [1, 1, H, W], got {list(mask.shape)}")
        if content is not None and mask.shape[-2:] != content.shape[-2:]:
            given, wanted = mask.shape[-2:], content.shape[-2:]
            raise PhospheneError(
                f"mask {number} is {given[1]} x {given[0]} pixels, the content {wanted[1]} x {wanted[0]}: make them equal"
            )
        if not bool((mask > 0).any()):
            raise PhospheneError(f"mask {number} is all black: white is where its style belongs")
