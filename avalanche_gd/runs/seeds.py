"""Random states: one seed decides those of all stages of a run."""

from typing import Any

import numpy as np
from avalanche.core import SupervisedPlugin
from avalanche.training.determinism.rng_manager import RNGManager


def seed_everything(seed: int, *stage: int) -> None:
    """Set all random states as the seed and the stage of the run decide.

    :param seed: the seed of the run.
    :param stage: numbers that distinguish the stage from all others.
    """
    number = int(np.random.SeedSequence((seed, *stage)).generate_state(1)[0])
    RNGManager.set_random_seeds(number)


class SeedPlugin(SupervisedPlugin, supports_distributed=True):
    """Begins each experience with a random state that the seed and its index decide.

    So a run that continues from a checkpoint draws what it would have drawn, and the
    generator's random numbers do not depend on those of its solver.

    :param model_number: distinguishes the strategies of a run.
    """

    def __init__(self, seed: int, model_number: int):
        super().__init__()
        self.seed = seed
        self.model_number = model_number

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Set the random states."""
        index = strategy.experience.current_experience
        seed_everything(self.seed, self.model_number, index)
