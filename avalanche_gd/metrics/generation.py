"""What all metrics of generated images share in one evaluation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.data.model_space import stream_tensors
from avalanche_gd.models.oracle import oracle_classifier


@dataclass(frozen=True)
class Sampling:
    """How images are generated for an evaluation.

    :param images: how many.
    :param steps: k, the sampling steps.
    :param eta: 0 for DDIM, 1 for ancestral sampling.
    :param seed: decides the noise, the same in every evaluation.
    :param batch_size: images at once; with eta 0 it does not change them.
    :raises ValueError: if there are fewer than 2 images, or the steps or the batch size
        are below 1.
    """

    images: int = 2000
    steps: int = 10
    eta: float = 0.0
    seed: int = 0
    batch_size: int = 500

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ValueError(f"images must be 2 or more, got {self.images}")
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(
                "steps and batch_size must be 1 or more, "
                f"got {self.steps} and {self.batch_size}"
            )


class Generation:
    """The generated images of a strategy's evaluation, made once for all its metrics."""

    def __init__(self) -> None:
        self.seen_classes: set[int] = set()
        """The classes the strategy has been trained on."""
        self._images: dict[Sampling, Tensor] = {}
        self._oracles: dict[int, nn.Module] = {}

    @classmethod
    def of(cls, strategy: Any) -> "Generation":
        """What the metrics of this strategy share; it lives as long as the strategy."""
        if not hasattr(strategy, "_generation"):
            strategy._generation = cls()
        return strategy._generation

    def observe(self, experience: Any) -> None:
        """Remember the classes of an experience that is trained on."""
        self.seen_classes |= {int(c) for c in experience.classes_in_this_experience}

    def forget_images(self) -> None:
        """Let go of the images: the model will change, or an evaluation begins."""
        self._images.clear()

    def images(self, model: Any, sampling: Sampling) -> Tensor:
        """Images in model space, ``(sampling.images, C, H, W)``."""
        if sampling not in self._images:
            self._images[sampling] = generate_images(model, sampling)
        return self._images[sampling]

    def oracle(self, strategy: Any) -> nn.Module:
        """The oracle of the benchmark that is evaluated, from the cache if it is there.

        :raises ValueError: if the evaluated stream does not know its benchmark.
        """
        benchmark = strategy.experience.origin_stream.benchmark
        if benchmark is None:
            raise ValueError(
                "the oracle needs a stream that knows its benchmark; make the benchmark "
                "with to_model_space, or pass features= or classifier= yourself"
            )
        if id(benchmark) not in self._oracles:
            images, labels = stream_tensors(benchmark.train_stream)
            oracle = oracle_classifier(images, labels).to(strategy.device)
            self._oracles = {id(benchmark): oracle}
        return self._oracles[id(benchmark)]


def generate_images(model: Any, sampling: Sampling) -> Tensor:
    """Images of a diffusion model, a batch at a time from noise that is drawn at once."""
    generator = torch.Generator().manual_seed(sampling.seed)
    noise = model.draw_noise(sampling.images, generator)
    batches = [
        model.reverse(part, steps=sampling.steps, eta=sampling.eta, generator=generator)
        for part in noise.split(sampling.batch_size)
    ]
    return torch.cat(batches)


@torch.no_grad()
def in_batches(function: Any, images: Tensor, batch_size: int) -> Tensor:
    """A function of images applied a batch at a time."""
    return torch.cat([function(part) for part in images.split(batch_size)])


def classifier_labels(classifier: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The most likely classes, ``(N,)``."""
    return in_batches(classifier, images, batch_size).argmax(dim=1)
