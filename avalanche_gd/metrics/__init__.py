"""Avalanche plugin metrics of what a diffusion model generates."""

from avalanche_gd.metrics.class_balance import (
    absolute_ratio_difference,
    class_balance_metrics,
    kl_divergence,
)
from avalanche_gd.metrics.classification_accuracy import (
    classification_accuracy_metrics,
)
from avalanche_gd.metrics.denoising_loss import denoising_loss_metrics
from avalanche_gd.metrics.fid import fid_metrics
from avalanche_gd.metrics.fisher_share import fisher_share_metrics
from avalanche_gd.metrics.grid import generated_image_metrics
from avalanche_gd.metrics.kid import kid_metrics
from avalanche_gd.metrics.precision_recall import precision_recall_metrics
from avalanche_gd.metrics.recovery import recovery_steps
from avalanche_gd.metrics.shared_images import Sampling, generate_images
from avalanche_gd.metrics.summary import (
    afid_summary,
    generation_summary,
    transfer_summary,
)
from avalanche_gd.metrics.transfer import fid_transfer_metrics

__all__ = [
    "Sampling",
    "absolute_ratio_difference",
    "afid_summary",
    "class_balance_metrics",
    "classification_accuracy_metrics",
    "denoising_loss_metrics",
    "fid_metrics",
    "fid_transfer_metrics",
    "fisher_share_metrics",
    "generate_images",
    "generated_image_metrics",
    "generation_summary",
    "kid_metrics",
    "kl_divergence",
    "precision_recall_metrics",
    "recovery_steps",
    "transfer_summary",
]
