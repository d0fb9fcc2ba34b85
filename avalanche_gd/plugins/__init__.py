"""Avalanche plugins that keep a generative model from forgetting."""

from avalanche_gd.plugins.distillation import GenerativeDistillationPlugin
from avalanche_gd.plugins.ema import EMAPlugin
from avalanche_gd.plugins.pool import ReplayPool
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
    Trajectory,
)
from avalanche_gd.plugins.teacher import Teacher

__all__ = [
    "SOURCES",
    "Current",
    "EMAPlugin",
    "Gaussian",
    "Generation",
    "GenerativeDistillationPlugin",
    "GenerativeReplayPlugin",
    "PartialGeneration",
    "ReplayPool",
    "SoftGenerativeReplayPlugin",
    "Source",
    "SymmetricGaussian",
    "Teacher",
    "Trajectory",
    "soft_label_loss",
]
