"""Diffusion models, their denoisers and schedulers, and classifiers."""

from avalanche_gd.models.classifier import SmallCNN
from avalanche_gd.models.denoising import Denoising, NoisyImages
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.execution import Execution
from avalanche_gd.models.oracle import oracle_classifier
from avalanche_gd.models.scheduler import ddim_scheduler, flow_scheduler
from avalanche_gd.models.unet import PRESETS, preset_shape, unet

__all__ = [
    "PRESETS",
    "Denoising",
    "DiffusionModel",
    "Execution",
    "NoisyImages",
    "SmallCNN",
    "ddim_scheduler",
    "flow_scheduler",
    "oracle_classifier",
    "preset_shape",
    "unet",
]
