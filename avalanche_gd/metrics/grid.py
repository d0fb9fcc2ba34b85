"""Generated images for the loggers."""

from typing import Any

from avalanche.evaluation.metric_results import MetricValue, TensorImage
from torchvision.utils import make_grid

from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling, SharedImages, has_classes
from avalanche_gd.metrics.trained import ExperienceKey


class ImageGrid(GenerationMetric):
    """See :func:`generated_image_metrics`."""

    value_names = frozenset({"GeneratedImages"})

    def __init__(self, sampling: Sampling, shown: int):
        super().__init__(sampling)
        if not 1 <= shown <= sampling.images:
            raise ValueError(
                f"shown must be from 1 to {sampling.images}, the number of images, "
                f"got {shown}"
            )
        self.shown = shown

    def before_training_exp(self, strategy: Any) -> None:
        """Release the images; which experience is trained does not matter."""
        SharedImages.of(strategy).forget_images()

    def before_eval_exp(self, strategy: Any) -> None:
        """Do nothing: the images do not depend on what is evaluated."""

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """Return no numbers."""
        return {}

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the grid, if the model knows which classes to generate."""
        if not has_classes(strategy.model):
            return []
        images = SharedImages.of(strategy).images(strategy.model, self.sampling)
        grid = make_grid((images[: self.shown].cpu() + 1) / 2, nrow=8, padding=1)
        return [self.emitted("GeneratedImages", TensorImage(grid), strategy)]

    def __str__(self) -> str:
        return "GeneratedImages"


def generated_image_metrics(
    *, sampling: Sampling | None = None, shown: int = 64
) -> list[GenerationMetric]:
    """A grid of generated images, for loggers that show images, such as TensorBoard's.

    It is logged as ``GeneratedImages/eval_phase/test_stream``: the first of the images that
    the other metrics with the same sampling use, eight in a row.

    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param shown: how many images are in the grid.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: if fewer images are generated than shown; before training, if the
        model cannot be sampled so.
    :raises TypeError: if the sampling is not a :class:`~avalanche_gd.Sampling`.
    """
    return [ImageGrid(sampling or Sampling(), shown)]
