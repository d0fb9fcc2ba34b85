"""Avalanche templates for diffusion models and for solvers that replay from them."""

from avalanche_gd.training.diffusion_training import DiffusionTraining
from avalanche_gd.training.losses import DenoisingLoss
from avalanche_gd.training.soft_replay import SoftGenerativeReplay
from avalanche_gd.training.template import BudgetedTemplate, NonFiniteLossError

__all__ = [
    "BudgetedTemplate",
    "DenoisingLoss",
    "DiffusionTraining",
    "NonFiniteLossError",
    "SoftGenerativeReplay",
]
