"""Continual learning of diffusion models for Avalanche: generative distillation."""

import avalanche_gd.quiet_import  # noqa: F401, before Avalanche is imported
from avalanche_gd import functional
from avalanche_gd.data import (
    SplitCIFAR10,
    SplitCIFAR100,
    SplitDigits,
    SplitFMNIST,
    SplitImageFolder,
    SplitMNIST,
    to_model_space,
)
from avalanche_gd.metrics import (
    Sampling,
    class_balance_metrics,
    denoising_loss_metrics,
    fid_metrics,
    fisher_share_metrics,
    generated_image_metrics,
)
from avalanche_gd.models import (
    Denoising,
    DiffusionModel,
    Execution,
    SmallCNN,
    ddim_scheduler,
    flow_scheduler,
    oracle_classifier,
    unet,
)
from avalanche_gd.plugins import (
    ClassifierGuidance,
    DistillFromPlugin,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    GuidingSolverPlugin,
    RankOneEWCPlugin,
    SoftGenerativeReplayPlugin,
)
from avalanche_gd.training import DenoisingLoss, DiffusionTraining, SoftGenerativeReplay

__all__ = [
    "ClassifierGuidance",
    "Denoising",
    "DenoisingLoss",
    "DiffusionModel",
    "DiffusionTraining",
    "DistillFromPlugin",
    "Execution",
    "GenerativeDistillationPlugin",
    "GenerativeReplayPlugin",
    "GuidingSolverPlugin",
    "RankOneEWCPlugin",
    "Sampling",
    "SmallCNN",
    "SoftGenerativeReplay",
    "SoftGenerativeReplayPlugin",
    "SplitCIFAR10",
    "SplitCIFAR100",
    "SplitDigits",
    "SplitFMNIST",
    "SplitImageFolder",
    "SplitMNIST",
    "class_balance_metrics",
    "ddim_scheduler",
    "denoising_loss_metrics",
    "fid_metrics",
    "fisher_share_metrics",
    "flow_scheduler",
    "functional",
    "generated_image_metrics",
    "oracle_classifier",
    "to_model_space",
    "unet",
]
