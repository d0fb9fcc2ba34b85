"""The command ``avalanche-gd``."""

import logging
import sys
import warnings

import hydra
from omegaconf import DictConfig

from avalanche_gd.distributed.launch import ending_all, join_processes, leave_processes
from avalanche_gd.runs.composition import read_config
from avalanche_gd.runs.errors import ending_with_one_line
from avalanche_gd.runs.run import run


@hydra.main(version_base="1.3", config_path="pkg://avalanche_gd.conf", config_name="config")
def _job(composed: DictConfig) -> str:
    """One run."""
    with ending_all(), ending_with_one_line():
        config = read_config(composed)
        join_processes(config.torch_device)
        return str(run(config))


def quiet() -> None:
    """Keep out warnings that a user can do nothing about."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("diffusers").setLevel(logging.ERROR)


def main() -> None:
    """Run Hydra, and end with one line and status 2 on a wrong value."""
    quiet()
    if "--check" in sys.argv:  # Hydra takes flags before settings only
        rest = [part for part in sys.argv if part != "--check"]
        sys.argv = [*rest, "check=true"]
    try:
        with ending_with_one_line():
            _job()
        leave_processes()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
