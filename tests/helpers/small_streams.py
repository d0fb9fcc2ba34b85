"""Small labelled data in model space, in parts that differ."""

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import TaskAwareSupervisedClassificationDataset
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from avalanche_gd import DiffusionModel, DiffusionTraining, ddim_scheduler
from avalanche_gd.data.model_space import as_dataset
from avalanche_gd.metrics import Sampling, generate_images
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import TinyDenoiser, images, tiny

DOMAINS = 3
FEW_CLASSES = 4
SAMPLING = Sampling(images=30, steps=2)
FID = "FID_Stream/eval_phase/test_stream"


class Pixels(nn.Module):
    """Some of an image's pixels as its features."""

    def forward(self, x):
        return x.flatten(1)[:, 20:28]


class FirstPixels(nn.Module):
    """Labels an image by the brightest of its first pixels."""

    def forward(self, x):
        return x.flatten(1)[:, :FEW_CLASSES]


def domain(number: int, count: int = 40) -> TaskAwareSupervisedClassificationDataset:
    """Images of all classes, the brighter the higher the domain's number."""
    bright = images(count) * 0.5 + number / DOMAINS - 0.3
    return as_dataset(bright.clamp(-1, 1), torch.arange(count) % FEW_CLASSES)


def domain_datasets() -> dict[str, list[TaskAwareSupervisedClassificationDataset]]:
    """The same classes in each experience, by stream."""
    numbers = range(DOMAINS)
    return {
        "train": [domain(number) for number in numbers],
        "test": [domain(number, count=24) for number in numbers],
    }


def domain_incremental():
    """By Avalanche's builder, whose streams know no benchmark."""
    return benchmark_from_datasets(**domain_datasets())


def generator_for(experience):
    """A model of the shape of an experience's images."""
    shape = tuple(experience.dataset[0][0].shape)
    return DiffusionModel(TinyDenoiser(shape[0]), ddim_scheduler(), shape)


def strategy_with(*metrics, model=None, **options):
    """A strategy of a few steps with these metrics."""
    model = tiny() if model is None else model
    options = dict(train_mb_size=16, train_steps=2) | options
    return DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        evaluator=EvaluationPlugin(*metrics),
        **options,
    )


def expected_fid(model, experiences):
    """FID in pixels between experiences and what a model generates, stated again."""
    real = torch.stack([item[0] for exp in experiences for item in exp.dataset])
    generated = generate_images(model, SAMPLING)
    return plain_fid(Pixels()(real).numpy(), Pixels()(generated).numpy())
