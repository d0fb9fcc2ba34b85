"""Show the progress of a training and measure its time, as an Avalanche plugin."""

import sys
import time
from typing import Any

from avalanche.core import SupervisedPlugin
from tqdm import tqdm

from avalanche_gd.distributed.launch import is_main
from avalanche_gd.distributed.shares import sharing_processes

_SHOW_EVERY = 0.5  # seconds, as reading a loss makes an accelerator wait


def experience_steps(strategy: Any) -> int:
    """The steps of the experience that a strategy is about to train."""
    if strategy.train_steps is not None:
        return strategy.train_steps
    return strategy.train_epochs * len(strategy.dataloader)


class Progress(SupervisedPlugin, supports_distributed=True):
    """Shows experience, step, loss, images per second and the time left.

    It is shown on a terminal, by the main process; elsewhere only the time is measured.

    :param model_name: the name of the model that is shown.
    :param n_experiences: the number of experiences in the stream.
    :param seconds: the seconds of training so far by model; this plugin adds to them.
    """

    def __init__(self, model_name: str, n_experiences: int, seconds: dict[str, float]):
        super().__init__()
        self.model_name = model_name
        self.n_experiences = n_experiences
        self.seconds = seconds

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start a bar."""
        self._started, self._others = time.perf_counter(), self._seconds_of_others()
        number = strategy.experience.current_experience + 1
        self._steps = experience_steps(strategy)
        total = strategy.train_epochs * len(strategy.adapted_dataset)
        if strategy.train_steps is not None:
            total = self._steps * strategy.train_mb_size
        self._bar: Any = tqdm(
            total=total,
            desc=f"experience {number}/{self.n_experiences} {self.model_name}",
            unit=" images",
            unit_scale=True,
            leave=False,
            mininterval=_SHOW_EVERY,
            disable=not (is_main() and sys.stderr.isatty()),
            file=sys.stderr,
        )

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Update the bar."""
        if self._bar.update(len(strategy.mb_x) * sharing_processes()):  # it was shown
            step = strategy.clock.train_exp_iterations + 1
            self._bar.set_postfix_str(
                f"step {step}/{self._steps}, loss {strategy.loss.item():.4f}"
            )

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """End the bar."""
        self._bar.close()
        within = self._seconds_of_others() - self._others
        self.seconds[self.model_name] += time.perf_counter() - self._started - within

    def _seconds_of_others(self) -> float:
        """The seconds of models that are trained within this training."""
        return sum(self.seconds.values()) - self.seconds[self.model_name]


def duration(seconds: float) -> str:
    """A duration in words."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"
