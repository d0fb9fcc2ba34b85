"""Avalanche's Weights & Biases logger, for present versions of wandb."""

from types import SimpleNamespace
from typing import Any

from avalanche.evaluation.metric_results import TensorImage
from avalanche.logging import WandBLogger as AvalancheWandBLogger
from torchvision.transforms.functional import to_pil_image


class WandBLogger(AvalancheWandBLogger):
    """Avalanche's logger, which fails with present versions of wandb, repaired.

    It uses two names that wandb has moved, and gives wandb images with the channels first
    instead of last. The arguments are those of Avalanche's logger.
    ``WANDB_MODE=offline`` needs no network.
    """

    def import_wandb(self) -> None:
        """Import wandb, and give it its old names."""
        super().import_wandb()
        if not hasattr(self.wandb, "viz"):
            self.wandb.viz = SimpleNamespace(CustomChart=self.wandb.plot.CustomChart)
        if not hasattr(self.wandb.util, "generate_id"):
            from wandb.sdk.lib.runid import generate_id

            self.wandb.util.generate_id = generate_id

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        """Log a value; an image is logged as an image."""
        if isinstance(value, TensorImage):
            value = to_pil_image(value.image)
        super().log_single_metric(name, value, x_plot)
