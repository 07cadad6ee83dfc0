"""Gabor fits of a layer's filters as pictures and facts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene import images as pictures
from phosphene.images.text import Style, block
from phosphene.observe import Filters, GaborFit, fit_gabor, gabor_chance

_INK, _SOFT, _GLOW, _QUIET = "#18222c", "#55606a", "#c2700a", "#8d969d"
_TILE, _GAP, _LABEL, _MARGIN = 76, 14, Style(14, lines=1), 22
_HEAD, _FOOT = Style(18, bold=True, lines=3), Style(14, lines=4)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The filters of one network, their fits, and the shares `[64]` that the same fit explains of noise."""

    net: str
    filters: Filters
    fit: GaborFit
    chance: Tensor

    @property
    def order(self) -> list[int]:
        """The filters, best explained first."""
        return self.fit.explained.argsort(descending=True, stable=True).tolist()

    @property
    def above(self) -> int:
        """How many filters are better explained than 95% of the noise."""
        return int((self.fit.explained > self.chance.quantile(0.95)).sum())


def fitted(net: str, filters: Filters) -> Fitted:
    """The fits of these filters. Raises PhospheneError for kernels below 3 x 3."""
    weights = filters.weights.float().cpu()
    return Fitted(net, filters, fit_gabor(weights), gabor_chance(weights))


def facts(found: Fitted) -> dict[str, Any]:
    """Mean and median share explained, those of noise, and a row for each filter, best explained first."""
    fit, chance = found.fit, found.chance
    rows = [
        {
            "filter": place,
            "orientation": round(float(fit.orientation[place]), 1),
            "frequency": round(float(fit.frequency[place]), 4),
            "wavelength": round(float(fit.wavelength[place]), 2),
            "phase": round(float(fit.phase[place]), 1),
            "explained": round(float(fit.explained[place]), 4),
        }
        for place in found.order
    ]
    return {
        "mean": round(float(fit.explained.mean()), 4),
        "median": round(float(fit.explained.quantile(0.5)), 4),
        "chance": round(float(chance.mean()), 4),
        "chance_95": round(float(chance.quantile(0.95)), 4),
        "above": found.above,
        "filters": rows,
    }


def pairs(found: Fitted) -> Tensor:
    """Each filter beside its fit, best explained first, with its share, direction and wavelength: `[3, H, W]`."""
    made = [_pair(found, place) for place in found.order]
    across = math.ceil(math.sqrt(len(made)))
    wide = max(picture.width for picture in made)
    high = max(picture.height for picture in made) + _LABEL.leading + 3
    inner = max(across * (wide + _GAP) - _GAP, 560)
    head = block(f"Filters of {found.net} and the Gabor functions nearest to them", _HEAD, inner)
    foot = block(_explanation(found), _FOOT, inner)
    top = _MARGIN + head.height + 10
    down = -(-len(made) // across)
    below = top + down * (high + _GAP)
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, below + foot.height + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    head.draw(pen, _MARGIN, _MARGIN, (24, 34, 44))
    for number, (place, picture) in enumerate(zip(found.order, made, strict=True)):
        left, upper = _MARGIN + number % across * (wide + _GAP), top + number // across * (high + _GAP)
        sheet.paste(picture, (left, upper))
        block(_label(found.fit, place), _LABEL, wide + _GAP).draw(pen, left, upper + picture.height + 3, (50, 58, 66))
    foot.draw(pen, _MARGIN, below, (85, 96, 106))
    pixels = np.array(sheet, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy(pixels).contiguous()


def _pair(found: Fitted, place: int) -> Image.Image:
    """A filter and its fit on one scale, grey is zero."""
    own = found.filters.weights[place].float().cpu()
    tiles = torch.stack([own, found.fit.fitted[place]])
    shown = (0.5 + tiles / (2 * own.abs().max().clamp(min=1e-12))).clamp(0, 1)
    scale = max(1, _TILE // max(own.shape[-2:]))
    return pictures.to_pil(pictures.grid(shown, columns=2, gap=2, scale=scale))


def _label(fit: GaborFit, place: int) -> str:
    if float(fit.amplitude[place]) == 0:
        return "all zeros"
    degrees = round(float(fit.orientation[place])) % 180
    return f"{float(fit.explained[place]):.0%}  {degrees}°  λ {float(fit.wavelength[place]):.1f}"


def _explanation(found: Fitted) -> str:
    mean, noise = float(found.fit.explained.mean()), float(found.chance.mean())
    longest = 4 * max(found.filters.weights.shape[-2:])
    return (
        "Left the filter, right its fit, on one scale; below them how much of the filter the fit explains, the direction of"
        f" the stripes, and the pixels from one stripe to the next ({longest} is the longest there is: no stripes, but a"
        f" blob, whose direction says little, or a single edge). On average {mean:.0%} is explained; of noise with the same"
        f" colours it is {noise:.0%}, and {found.above} of {len(found.order)} filters lie above 95% of the noise."
    )


def summary(several: Sequence[Fitted]) -> Tensor:
    """Where the filters lie in direction and frequency, and how much of them is explained beside noise: `[3, H, W]`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.7 * len(several)), dpi=110, layout="constrained", facecolor="white")
    for row, found in enumerate(several):
        _compass(figure.add_subplot(len(several), 2, 2 * row + 1, projection="polar"), found)
        _shares(figure.add_subplot(len(several), 2, 2 * row + 2), found)
    return _image(figure)


def _compass(axes: Any, found: Fitted) -> None:
    fit = found.fit
    axes.scatter(
        torch.deg2rad(fit.orientation).numpy(), fit.frequency.numpy(), s=8 + 130 * fit.explained.numpy() ** 2,
        c=_colours(fit.colour), edgecolors="white", linewidths=0.8, alpha=0.85, clip_on=False, zorder=3,
    )  # fmt: skip
    axes.set_thetamin(0)
    axes.set_thetamax(180)
    axes.set_ylim(0, max(0.5, float(fit.frequency.max()) * 1.05))
    axes.set_yticks([0.1, 0.3, 0.5])
    axes.set_thetagrids(range(0, 181, 30))
    axes.tick_params(labelsize=9, colors=_SOFT)
    axes.grid(color="#e2dccf", linewidth=0.8)
    axes.set_title(f"{found.net}: direction of the stripes, cycles per pixel", fontsize=11, color=_INK, loc="left")
    axes.set_xlabel(
        "larger: better explained; coloured: compares colours, grey: light and dark", fontsize=9, color=_SOFT
    )


def _shares(axes: Any, found: Fitted) -> None:
    from matplotlib.ticker import PercentFormatter

    bins = np.linspace(0, 1, 21)
    for values, colour, name in ((found.chance, _QUIET, "noise"), (found.fit.explained, _GLOW, "filters")):
        weights = np.full(len(values), 1 / len(values))
        label = f"{name}: {float(values.mean()):.0%} on average"
        axes.hist(values.numpy(), bins, weights=weights, color=colour, alpha=0.65, label=label, edgecolor="white")
    axes.set_title("how much of a filter its Gabor function explains", loc="left", fontsize=11, color=_INK)
    axes.set_ylabel("share of the filters", fontsize=9, color=_SOFT)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
    axes.legend(frameon=False, fontsize=10, loc="upper left")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#e2dccf", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_INK, length=0)


def _colours(colour: Tensor) -> np.ndarray:
    """Grey for what compares light and dark; for what compares colours, the side that is the more colourful, `[F, 3]`."""
    apart = (colour - colour.mean(1, keepdim=True)).expand(-1, 3)
    strongest = apart.abs().amax(1, keepdim=True).clamp(min=1e-6)
    share = apart.square().sum(1, keepdim=True) if colour.shape[1] > 1 else torch.zeros(())
    return (0.42 + 0.45 * share * apart / strongest).clamp(0, 1).numpy()


def _image(figure: Any) -> Tensor:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
