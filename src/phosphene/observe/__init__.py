"""Reading what a network has learned and what it computes."""

from __future__ import annotations

from phosphene.observe.activations import Activations, activations, journey, stages
from phosphene.observe.embedding import Map, Projection, directions, pca, tsne
from phosphene.observe.features import Features, features
from phosphene.observe.filters import Filters, filters
from phosphene.observe.gabor import GaborFit, fit_gabor, gabor_chance
from phosphene.observe.landmarks import landmarks
from phosphene.observe.lattice import assign
from phosphene.observe.patches import Patch, Patches, patches
from phosphene.observe.receptive_field import receptive_fields
from phosphene.observe.shape_bias import ShapeBias, published, shape_bias
from phosphene.observe.trust import accuracy, nearest, preservation, trustworthiness

__all__ = [
    "Activations",
    "Features",
    "Filters",
    "GaborFit",
    "Map",
    "Patch",
    "Patches",
    "Projection",
    "ShapeBias",
    "accuracy",
    "activations",
    "assign",
    "directions",
    "features",
    "filters",
    "fit_gabor",
    "gabor_chance",
    "journey",
    "landmarks",
    "nearest",
    "patches",
    "pca",
    "preservation",
    "published",
    "receptive_fields",
    "shape_bias",
    "stages",
    "trustworthiness",
    "tsne",
]
