"""Avalanche plugin metrics of what a diffusion model generates."""

from avalanche_gd.metrics.class_balance import (
    absolute_ratio_difference,
    class_balance_metrics,
    kl_divergence,
)
from avalanche_gd.metrics.denoising_loss import denoising_loss_metrics
from avalanche_gd.metrics.fid import fid_metrics
from avalanche_gd.metrics.grid import generated_image_metrics
from avalanche_gd.metrics.shared_images import Sampling, generate_images
from avalanche_gd.metrics.summary import generation_summary

__all__ = [
    "Sampling",
    "absolute_ratio_difference",
    "class_balance_metrics",
    "denoising_loss_metrics",
    "fid_metrics",
    "generate_images",
    "generated_image_metrics",
    "generation_summary",
    "kl_divergence",
]
