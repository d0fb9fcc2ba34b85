"""Runs of a few steps: their settings, what they leave, and one that is killed."""

from pathlib import Path

import pytest

from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import run

SMALL = [
    "generator.steps=2",
    "generator.decay_steps=0",
    "solver.steps=2",
    "evaluation.images=70",
    "threads=1",
    "evaluation.steps=2",
    "solver.replay_steps=2",
    "solver.pool_size=null",
]
FILES = {
    "checkpoints",
    "config.yaml",
    "curves.png",
    "metrics.csv",
    "model",
    "run.json",
    "samples",
}


def small_config(out: Path, *overrides: str) -> RunConfig:
    """Of a small run.

    :param out: the folder of its folder.
    """
    return compose_config([*SMALL, f"out={out}", *overrides])


def metrics(folder: Path) -> str:
    """The text of a run's table."""
    return (folder / "metrics.csv").read_text()


def files_left(folder: Path) -> set[str]:
    """The names in a run's folder, but for TensorBoard's files and the lock."""
    names = {path.name for path in folder.iterdir()}
    return {name for name in names if not name.startswith((".", "events.out"))}


class Killed(BaseException):
    """What a kill looks like from inside."""


def run_killed_after(index: int, config: RunConfig) -> None:
    """Run until an experience is trained, and die before its checkpoint is written."""
    train = Learner.train

    def dying(self, experience):
        train(self, experience)
        if experience.current_experience == index:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Learner, "train", dying)
        run(config)
