"""A run that only tries a few steps, and leaves no files."""

import time
import timeit
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch

from avalanche_gd.models import DiffusionModel
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.seeds import seed_everything
from avalanche_gd.runs.strategies import make_generator

_LONG_PASS = 0.125  # seconds, after which a pass is not tried with more images


@contextmanager
def trial(config: RunConfig) -> Iterator[Learner]:
    """Make a learner that leaves no files."""
    seed_everything(config.seed)
    with TemporaryDirectory() as out, closing(Learner(replace(config, out=out))) as learner:
        yield learner


def least_steps(config: RunConfig) -> int:
    """The fewest steps of an experience that the method needs."""
    return max((getattr(p, "delta_t", 1) for p in config.make_plugins()), default=1)


def look_no_further(strategy: Any) -> None:
    """Make the teachers of a strategy sample for one step at a time, and in each step."""
    for plugin in strategy.plugins:
        if hasattr(plugin, "look_ahead"):
            plugin.look_ahead = 1
        if getattr(plugin, "samples_only_from", None):
            plugin.samples_only_from = 0


def seconds_an_image(config: RunConfig) -> float:
    """The seconds of a pass per image in sampling; 0 without a diffusion model."""
    model = make_generator(config)
    if not isinstance(model, DiffusionModel):
        return 0.0

    def sample() -> None:
        condition = None if model.num_classes is None else torch.zeros(count).long()
        model.generate(count, condition, steps=1).cpu()  # waits for an accelerator

    count = 4
    while True:
        took = min(timeit.repeat(sample, timer=time.perf_counter, number=1, repeat=2))
        if took > _LONG_PASS or count >= 256:
            return took / count
        count *= 4  # small batches of a small model are not typical
