"""Avalanche plugins that keep a generative model from forgetting."""

from avalanche_gd.plugins.distillation import GenerativeDistillationPlugin
from avalanche_gd.plugins.replay import (
    GenerativeReplayPlugin,
    SoftGenerativeReplayPlugin,
    soft_label_loss,
)
from avalanche_gd.plugins.sources import (
    SOURCES,
    Current,
    Gaussian,
    Generation,
    PartialGeneration,
    Source,
    SymmetricGaussian,
)
from avalanche_gd.plugins.teacher import Teacher

__all__ = [
    "SOURCES",
    "Current",
    "Gaussian",
    "Generation",
    "GenerativeDistillationPlugin",
    "GenerativeReplayPlugin",
    "PartialGeneration",
    "SoftGenerativeReplayPlugin",
    "Source",
    "SymmetricGaussian",
    "Teacher",
    "soft_label_loss",
]
