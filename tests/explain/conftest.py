"""The bundled networks in float64, and the photographs at half their size: exact, and cheap enough to be compared often."""

from __future__ import annotations

import copy

import pytest
from torch import Tensor
from torch.nn import functional as F

from phosphene.models import Network


@pytest.fixture(scope="session")
def squeezenet64(squeezenet: Network) -> Network:
    """SqueezeNet 1.1 in float64. One for all tests: leave it as it is."""
    return copy.deepcopy(squeezenet).double()


@pytest.fixture(scope="session")
def efficientnet64(efficientnet: Network) -> Network:
    """EfficientNet-Lite0 in float64. One for all tests: leave it as it is."""
    return copy.deepcopy(efficientnet).double()


@pytest.fixture(params=["efficientnet_lite0", "squeezenet1_1"])
def network64(request: pytest.FixtureRequest, squeezenet64: Network, efficientnet64: Network) -> Network:
    """Each of the two bundled networks, in float64."""
    return efficientnet64 if request.param == "efficientnet_lite0" else squeezenet64


@pytest.fixture(scope="session")
def photos64(photos: Tensor) -> Tensor:
    """The two photographs at half their size, `[2, 3, 112, 112]` in float64."""
    return F.avg_pool2d(photos.double(), 2)
