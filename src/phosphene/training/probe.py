"""A linear classifier on every stage of a frozen network: where do its features fit a new task?

    max_W  sum_i log softmax(W f_l(I_i))_{y_i},   for each stage l

"Use Linear Classifier on top layer" where data is like the network's own; "try linear classifier from different stages" where
it isn't. Donahue et al., "DeCAF", ICML 2014; Razavian et al., "CNN Features Off-the-Shelf", CVPRW 2014; Alain & Bengio,
"Understanding intermediate layers using linear classifier probes", 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from phosphene.models import Network
from phosphene.models.heads import HEAD, cut_after, replaced
from phosphene.models.labels import Labels
from phosphene.models.saved import Architecture, head_of, with_weights
from phosphene.progress import Job, Started, Step
from phosphene.training.features import StageFeatures, stage_features
from phosphene.training.folder import Examples, Photo
from phosphene.training.linear import Linear, logistic
from phosphene.training.scores import Scores, scores
from phosphene.training.stages import last_linear, resolve
from phosphene.training.stages import stages as all_stages


@dataclass(frozen=True, eq=False)
class StageProbe:
    """A linear classifier on one stage.

    Attributes:
        stage: the layer.
        width: numbers that it gives.
        linear: the classifier.
        probabilities: `[M, classes]` of the held-out photographs.
        scores: how it does on them.
    """

    stage: str
    width: int
    linear: Linear
    probabilities: np.ndarray
    scores: Scores


@dataclass(frozen=True, eq=False)
class Probe:
    """Linear classifiers on several stages.

    Attributes:
        stages: in order of execution.
        best: place of the one with the least log loss in cross-validation on the training photographs: the held-out ones
            have no say in it.
        network: ends with that classifier.
        features: of all photographs.
    """

    stages: tuple[StageProbe, ...]
    best: int
    network: Network
    features: StageFeatures

    @property
    def chosen(self) -> StageProbe:
        """The best one."""
        return self.stages[self.best]


def probe(
    network: Network,
    examples: Examples,
    *,
    stages: Sequence[str] = (),
    balanced: bool = True,
    seed: int = 0,
    folder: Path | None = None,
) -> Job[Probe]:
    """Fit a linear classifier to each stage, and put the best one on the network.

    Args:
        network: any network; it stays as it is.
        examples: photographs to learn from and to be judged by.
        stages: layers; default: all stages.
        balanced: weigh classes as if each had as many photographs.
        seed: of the folds.
        folder: where features are kept; None keeps none.

    Raises:
        LayerError: no such layer.
        NetworkError: NaN or infinity in the features.
    """
    names = list(dict.fromkeys(resolve(network, stages)))
    features = yield from stage_features(network, [*examples.train, *examples.val], names, folder=folder)
    yield Started("linear classifiers", len(names), "stage")
    found: list[StageProbe] = []
    for name in names:
        found.append(_one(name, features, examples, balanced, seed))
        yield Step(len(found))
    best = _best(found)
    return Probe(
        tuple(found), best, with_probe(network, examples.classes, found[best].stage, found[best].linear), features
    )


def _one(name: str, features: StageFeatures, examples: Examples, balanced: bool, seed: int) -> StageProbe:
    labels, classes = targets(examples.train), len(examples.classes)
    linear = logistic(features.table(name, examples.train), labels, classes, balanced=balanced, seed=seed)
    probabilities = linear.probabilities(features.table(name, examples.val))
    return StageProbe(
        name,
        features.widths[name],
        linear,
        probabilities,
        scores(probabilities, targets(examples.val), examples.classes),
    )


def _best(found: Sequence[StageProbe]) -> int:
    """The least log loss in cross-validation; the last stage where there are too few photographs for one."""
    losses = [one.linear.log_loss for one in found]
    return len(found) - 1 if any(map(math.isnan, losses)) else int(np.argmin(losses))


def targets(photos: Sequence[Photo]) -> np.ndarray:
    """`[N]` labels."""
    return np.array([photo.label for photo in photos], np.int64)


def with_probe(network: Network, classes: Sequence[str], stage: str, linear: Linear) -> Network:
    """A new network that ends with `linear` after `stage`."""
    new = with_classes(network, classes, stage, linear.weight.shape[1])
    assert new.architecture is not None
    with_weights(head_of(new.module, new.architecture), linear.weight, linear.bias)
    return new


def with_classes(network: Network, classes: Sequence[str], stage: str, width: int) -> Network:
    """A new network with a new, random layer for `classes` after `stage`, which gives `width` numbers.

    The last stage's is put in the place of the network's own last layer, where that is a fully connected one.
    """
    known = network.architecture or Architecture("", len(network.labels) if network.classifies else 0)
    own = last_linear(network)
    is_last = own is not None and stage in (own, all_stages(network)[-1])
    if is_last and own:
        made_of = known if own == HEAD else replace(known, head=own, width=width, outputs_then=0)
        module = replaced(network.module, own, len(classes))
    else:
        calls = network.layer(stage).calls
        after = stage if "#" in stage or calls == 1 else f"{stage}#{calls}"  # plain: the last call, as taps have it
        before = len(network.labels) if known.head and not known.cut else known.outputs_then
        made_of = replace(known, cut=after, width=width, outputs_then=before)
        module = cut_after(network.module, after, width, len(classes))
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    new = Network(
        module.eval(),
        name=network.name,
        labels=Labels(list(classes)),
        preprocess=network.preprocess,
        mean=network.mean.flatten().tolist(),
        std=network.std.flatten().tolist(),
    )
    new.architecture = made_of
    return new.to(network.device)
