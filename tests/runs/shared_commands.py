"""Commands that several processes call, and what each of them says to them."""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from avalanche.core import SupervisedPlugin

from avalanche_gd.runs import processes
from avalanche_gd.runs.app import main
from tests.runs.test_run import SMALL

COMMANDS = {
    "a batch of the generator": ["generator.batch_size=63"],
    "a batch of the solver": ["solver.batch_size=63"],
    "a replay ratio": ["method.replay_ratio=0.2"],
    "a trajectory": ["method=trajectory_distillation", "method.teacher_steps=3"],
    "a plugin for one process": ["method=ewc"],
    "a memory": ["method=experience_replay"],
    "a solver's memory": ["method=solver_replay"],
    "a VAE": ["method=vae_replay"],
    "a sweep": ["-m", "method=naive,mir"],
    "a launcher": ["-m", "hydra.launcher._target_=elsewhere.Launcher"],
    "a folder in use": ["method=naive"],
    "a dry run": ["method=joint", "--check"],
}


class Dying(SupervisedPlugin, supports_distributed=True):
    """Ends one of the processes in the second step of the second experience.

    :param rank: which.
    """

    def __init__(self, rank: int):
        super().__init__()
        self.rank = rank

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass

    def before_backward(self, strategy, **kwargs):
        if int(os.environ["RANK"]) == self.rank and strategy.clock.train_iterations == 3:
            raise ValueError("a process died")


def called(out: Path, arguments: list[str]) -> tuple[int, str, str]:
    """Status, output and errors of the command."""
    flags = [argument for argument in arguments if argument.startswith("-")]
    rest = [argument for argument in arguments if not argument.startswith("-")]
    sys.argv = ["avalanche-gd", *flags, *SMALL, f"out={out}", *rest]
    status = 0
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return status, output.getvalue(), errors.getvalue()


if __name__ == "__main__":
    processes._GRACE = 0.0  # nobody ends the others here
    folder = Path(sys.argv[1])
    said = {name: called(folder / "runs", words) for name, words in COMMANDS.items()}
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(said))
