"""Move the weights: a linear classifier on a stage, fine-tuning, and what they need."""

from phosphene.training.datasets import Data, Split, held_out, read_data
from phosphene.training.finetune import Finetuned, finetune
from phosphene.training.folder import Examples, Photo, examples
from phosphene.training.probe import Probe, StageProbe, probe
from phosphene.training.scores import Scores, scores
from phosphene.training.settings import FinetuneSettings
from phosphene.training.stages import stages
from phosphene.training.state import State

__all__ = [
    "Data",
    "Examples",
    "FinetuneSettings",
    "Finetuned",
    "Photo",
    "Probe",
    "Scores",
    "Split",
    "StageProbe",
    "State",
    "examples",
    "finetune",
    "held_out",
    "probe",
    "read_data",
    "scores",
    "stages",
]
