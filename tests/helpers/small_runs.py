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


def result_files(folder: Path) -> dict[str, bytes]:
    """The names of all files in a run's folder, and the content that its result decides.

    All but TensorBoard's, of which there is one for each time that it went on.
    """
    told = ("run.json", "checkpoints", "config.yaml")  # with times, or the folder
    return {
        str(path.relative_to(folder)): b"" if _is_below(path, told) else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("events.out")
    }


def _is_below(path: Path, names: tuple[str, ...]) -> bool:
    return path.name in names or path.parent.name in names
