"""Avalanche plugins that keep a generative model from forgetting."""

from avalanche_gd.plugins.distil_from import DistillFromPlugin
from avalanche_gd.plugins.distillation import GenerativeDistillationPlugin
from avalanche_gd.plugins.ema import EMAPlugin
from avalanche_gd.plugins.guidance import ClassifierGuidance, GuidingSolverPlugin
from avalanche_gd.plugins.look_ahead import LookAhead
from avalanche_gd.plugins.pool import PairPool, ReplayPool
from avalanche_gd.plugins.rank1_ewc import RankOneEWCPlugin
from avalanche_gd.plugins.regeneration import regenerate
from avalanche_gd.plugins.replay import GenerativeReplayPlugin
from avalanche_gd.plugins.soft_replay import SoftGenerativeReplayPlugin, soft_label_loss
from avalanche_gd.plugins.sources import (
    SOURCES,
    Current,
    Gaussian,
    Generation,
    PartialGeneration,
    Retraining,
    SNRSplit,
    Source,
    SymmetricGaussian,
    Trajectory,
)
from avalanche_gd.plugins.teacher import Teacher
from avalanche_gd.plugins.teaching import Taught, TeachingRequest

__all__ = [
    "SOURCES",
    "ClassifierGuidance",
    "Current",
    "DistillFromPlugin",
    "EMAPlugin",
    "Gaussian",
    "Generation",
    "GenerativeDistillationPlugin",
    "GenerativeReplayPlugin",
    "GuidingSolverPlugin",
    "LookAhead",
    "PairPool",
    "PartialGeneration",
    "RankOneEWCPlugin",
    "ReplayPool",
    "Retraining",
    "SNRSplit",
    "SoftGenerativeReplayPlugin",
    "Source",
    "SymmetricGaussian",
    "Taught",
    "Teacher",
    "TeachingRequest",
    "Trajectory",
    "regenerate",
    "soft_label_loss",
]
