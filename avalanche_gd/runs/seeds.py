"""One seed decides everything: the random states of a run's stages."""

from typing import Any

import numpy as np
from avalanche.core import SupervisedPlugin
from avalanche.training.determinism.rng_manager import RNGManager


def seed_everything(seed: int, *stage: int) -> None:
    """Set all random states to what the seed says for a stage of the run.

    :param seed: of the run.
    :param stage: numbers that tell the stage apart from all others.
    """
    number = int(np.random.SeedSequence((seed, *stage)).generate_state(1)[0])
    RNGManager.set_random_seeds(number)


class SeedPlugin(SupervisedPlugin, supports_distributed=True):
    """Begins each experience from a random state that the seed and its index decide.

    So a run that goes on from a checkpoint draws what it would have drawn, and what a
    generator draws does not depend on what its solver has drawn before.

    :param model_number: tells the strategies of a run apart.
    """

    def __init__(self, seed: int, model_number: int):
        super().__init__()
        self.seed = seed
        self.model_number = model_number

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Seed."""
        index = strategy.experience.current_experience
        seed_everything(self.seed, self.model_number, index)
