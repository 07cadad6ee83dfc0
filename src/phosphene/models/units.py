"""One unit of a network: `layer:channel`, or one neuron of it, `layer:channel:y,x`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from phosphene.errors import LayerError
from phosphene.models.network import Network


@dataclass(frozen=True)
class Unit:
    """Channel `channel` of `layer`; `position` (row, column) names a single neuron of its map."""

    layer: str
    channel: int
    position: tuple[int, int] | None = None

    def __str__(self) -> str:
        place = f":{self.position[0]},{self.position[1]}" if self.position else ""
        return f"{self.layer}:{self.channel}{place}"

    def check(self, network: Network) -> Unit:
        """Itself, if `network` has such a unit at its input size. Raises LayerError that states the range."""
        layer = network.layer(self.layer)
        if not layer.shape:
            raise LayerError(f"layer '{self.layer}' gives one number per image: it has no channels")
        channels, *sides = layer.shape
        if not 0 <= self.channel < channels:
            raise LayerError(f"layer '{self.layer}' has units 0 to {channels - 1}: there is no unit {self.channel}")
        if self.position is not None:
            if len(sides) != 2:
                raise LayerError(f"layer '{self.layer}' is not a map: its units have no position")
            if not all(0 <= place < side for place, side in zip(self.position, sides, strict=True)):
                raise LayerError(
                    f"layer '{self.layer}' is a map of {sides[0]}x{sides[1]}: there is no position {self.position}"
                )
        return self

    def values(self, activation: Tensor) -> Tensor:
        """The neuron's value per image `[N]`, from the layer's output `[N, C, H, W]` or `[N, C]`.

        Without a position: the place of the map where the channel is most active, for each image.
        """
        channel = activation[:, self.channel]
        if channel.ndim == 1:
            return channel
        if self.position is not None:
            row, column = self.position
            if row >= channel.shape[1] or column >= channel.shape[2]:
                raise LayerError(
                    f"layer '{self.layer}' is a map of {channel.shape[1]}x{channel.shape[2]} for these images: "
                    f"there is no position {self.position}"
                )
            return channel[:, row, column]
        return channel.flatten(1).max(1).values


def parse_unit(text: str) -> Unit:
    """`"layer4.1:17"`, `"features.12:3:6,6"` or `"features.12:3:6:6"` to a Unit. Raises LayerError for anything else."""
    parts = text.split(":")
    try:
        position = None
        if len(parts) == 3:
            row, column = parts[2].split(",")
            position = (int(row), int(column))
        elif len(parts) == 4:
            position = (int(parts[2]), int(parts[3]))
        elif len(parts) != 2:
            raise ValueError
        return Unit(parts[0], int(parts[1]), position)
    except ValueError:
        raise LayerError(f"'{text}' is no unit: write layer:channel or layer:channel:row,column") from None
