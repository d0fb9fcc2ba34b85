"""Progress and seconds of a training, as an Avalanche plugin."""

import sys
import time
from typing import Any

from avalanche.core import SupervisedPlugin
from tqdm import tqdm

from avalanche_gd.distributed.launch import is_main
from avalanche_gd.distributed.shares import sharing_processes

_SHOW_EVERY = 0.5  # seconds; reading a loss makes an accelerator wait


def experience_steps(strategy: Any) -> int:
    """The steps of the experience that a strategy begins to train."""
    if strategy.train_steps is not None:
        return strategy.train_steps
    return strategy.train_epochs * len(strategy.dataloader)


class Progress(SupervisedPlugin, supports_distributed=True):
    """Shows experience, step, loss, images a second and the time left.

    Only on a terminal, and in the main process; elsewhere it just keeps the time.

    :param model_name: what is trained, as shown.
    :param n_experiences: of the stream.
    :param seconds: of training so far by model, which it adds to.
    """

    def __init__(self, model_name: str, n_experiences: int, seconds: dict[str, float]):
        super().__init__()
        self.model_name = model_name
        self.n_experiences = n_experiences
        self.seconds = seconds

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin a bar."""
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
        """Move the bar on."""
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
        """Of models that may be trained within this training."""
        return sum(self.seconds.values()) - self.seconds[self.model_name]
