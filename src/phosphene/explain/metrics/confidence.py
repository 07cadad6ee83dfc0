"""Average drop and increase in confidence.

Y is the probability of the class in the image I, O its probability in the explanation's image E = L * I, where the map L,
scaled to [0, 1], darkens what it finds unimportant:

    drop = 1/N sum_i max(0, Y_i - O_i) / Y_i,    increase = 1/N sum_i 1[O_i > Y_i]

A map that shows all that the network needs loses little, and sometimes gains, because what distracted is gone. Dark and
light alone count, so a smooth map that shows much has an advantage over one that picks single pixels.

Chattopadhay, Sarkar, Howlader & Balasubramanian, "Grad-CAM++", WACV 2018, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.explain.metrics.evidence import check, evidence
from phosphene.explain.metrics.probability import one_class, probability
from phosphene.explain.target import Target
from phosphene.models import Network


@dataclass(frozen=True, eq=False)
class Confidence:
    """Probabilities of the class `[N]`, float64: `whole` in the image, `shown` in what the map leaves of it."""

    whole: Tensor
    shown: Tensor

    @property
    def drop(self) -> Tensor:
        """`max(0, Y - O) / Y`, `[N]` in [0, 1]."""
        return (self.whole - self.shown).clamp(min=0) / self.whole.clamp(min=1e-300)

    @property
    def increase(self) -> Tensor:
        """1 where the network is surer of what the map shows than of the image, else 0; `[N]`."""
        return (self.shown > self.whole).double()


def confidence(network: Network, images: Tensor, target: Target, maps: Tensor) -> Confidence:
    """Show the network what a map finds important.

    Args:
        network: a network that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: one class for all images or one per image.
        maps: `[N, H, W]`; what speaks against the class (values below 0) is dark.

    Raises:
        PhospheneError: maps of another shape or not finite.
        LabelError: no such class, or not one per image.
        NetworkError: a network without classes; NaN on the way.
    """
    check(maps, len(images))
    if maps.shape[1:] != images.shape[2:]:
        raise PhospheneError(f"maps {list(maps.shape)} for images {list(images.shape)}: give maps of the images' size")
    classes = one_class(network, images, target)
    images = images.to(network.mean)
    shown = images * mask(maps)[:, None].to(images)
    return Confidence(probability(network, images, classes), probability(network, shown, classes))


def mask(maps: Tensor) -> Tensor:
    """The evidence of each map scaled to [0, 1], `[N, H, W]`; 0 for a map without any."""
    found = evidence(maps)
    most = found.amax((1, 2), keepdim=True)
    return found / most.where(most > 0, 1)
