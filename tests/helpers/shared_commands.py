"""Commands that several processes call, and what each of them says to them."""

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from unittest import mock

from avalanche.core import SupervisedPlugin

from avalanche_gd.distributed import launch
from avalanche_gd.runs.run_command import main
from tests.helpers.small_runs import SMALL

COMMANDS = {
    "a batch of the generator": ["generator.batch_size=63"],
    "a batch of the solver": ["solver.batch_size=63"],
    "a replay ratio": ["method.replay_ratio=0.2"],
    "a trajectory": ["method=trajectory_distillation", "method.teacher_steps=3"],
    "a plugin for one process": ["method=ewc"],
    "a memory": ["method=experience_replay"],
    "a solver's memory": ["method=solver_replay"],
    "a VAE": ["method=naive", "+method.generator=vae"],
    "a VAE's plugin": ["method=vae_replay"],
    "a sweep": ["-m", "method=naive,mir"],
    "a launcher": ["-m", "hydra.launcher._target_=elsewhere.Launcher"],
    "a folder in use": ["method=naive"],
    "a run": [
        *("method=naive", "benchmark.n_experiences=1"),
        "method.plugins=[{_target_: tests.helpers.shared_commands.Speaking}]",
    ],
    "a dry run": ["method=joint", "--check"],
}


class Dying(SupervisedPlugin, supports_distributed=True):
    """Ends one of the processes in the second step of the second experience.

    :param rank: which.
    :param error: of what kind.
    """

    def __init__(self, rank: int, error: str):
        super().__init__()
        self.rank = rank
        self.error = {"ValueError": ValueError, "RuntimeError": RuntimeError}[error]

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass

    def before_backward(self, strategy, **kwargs):
        if int(os.environ["RANK"]) == self.rank and strategy.clock.train_iterations == 3:
            raise self.error("a process died")


class Speaking(SupervisedPlugin, supports_distributed=True):
    """Says how many images each step has."""

    def after_training_iteration(self, strategy, **kwargs):
        print(f"a share of {len(strategy.mb_x)}")


def called(out: Path, arguments: list[str]) -> tuple[int, str, str, list[str]]:
    """Status, output and errors of the command, and the files that it wrote."""
    flags = [argument for argument in arguments if argument.startswith("-")]
    rest = [argument for argument in arguments if not argument.startswith("-")]
    sys.argv = ["avalanche-gd", *flags, *SMALL, f"out={out}", *rest]
    status = 0
    output, errors = io.StringIO(), io.StringIO()
    written = []
    replace = os.replace

    def noted(beside, path):
        replace(beside, path)
        written.append(Path(path).name)

    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        mock.patch("os.replace", noted),
    ):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    written = [name for name in written if not name.startswith("oracle")]  # of the cache
    return status, output.getvalue(), errors.getvalue(), written


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with (
        mock.patch("time.sleep"),  # nobody ends the others here, after a while
        mock.patch("avalanche_gd.runs.run_command.leave_processes"),  # once for all
    ):
        said = {name: called(folder / "runs", words) for name, words in COMMANDS.items()}
    launch.leave_processes()
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(said))
