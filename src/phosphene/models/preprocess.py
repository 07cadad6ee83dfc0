"""From any picture to the square that a network was trained on, still in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import ImageError


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side to `resize`, then crop the middle `size` (height, width).

    A picture that already has exactly `size` is left alone: what a network was shown, and what was saved as a file
    (a fooling image, say), is read back pixel for pixel.
    """

    size: tuple[int, int] = (224, 224)
    resize: int = 256
    interpolation: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """`[N, 3, H, W]` in [0, 1], any size, to `[N, 3, *size]` in [0, 1]. Antialiased as Pillow does it.

        Raises:
            ImageError: not a batch of images.
        """
        if images.ndim != 4:
            raise ImageError(f"expected a batch of images [N, C, H, W], got a tensor of shape {list(images.shape)}")
        if tuple(images.shape[-2:]) == self.size:
            return images
        images = _not_too_thin(images)
        height, width = images.shape[-2:]
        # Enough for a crop of another aspect than the square, too.
        scale = max(self.resize / min(height, width), self.size[0] / height, self.size[1] / width)
        target = (max(round(height * scale), self.size[0]), max(round(width * scale), self.size[1]))
        mode = self.interpolation if self.interpolation in ("bilinear", "bicubic") else "bicubic"
        resized = F.interpolate(images, target, mode=mode, antialias=True, align_corners=False)
        top, left = (target[0] - self.size[0]) // 2, (target[1] - self.size[1]) // 2
        cropped = resized[..., top : top + self.size[0], left : left + self.size[1]]
        return cropped.clamp(0, 1).contiguous()


def _not_too_thin(images: Tensor) -> Tensor:
    """The middle of a picture that is over 16 times as long as it is wide: the rest would only be made to be cut off."""
    height, width = images.shape[-2:]
    longest = 16 * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return images[..., top : top + min(height, longest), left : left + min(width, longest)]
