"""The command ``avalanche-gd``."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from avalanche_gd.distributed.launch import (
    ending_all,
    join_processes,
    leave_processes,
    process_count,
)
from avalanche_gd.runs.composition import read_config
from avalanche_gd.runs.errors import INTERRUPTED, ending_with_one_line, quiet
from avalanche_gd.runs.run import run
from avalanche_gd.runs.side_by_side import attempt


@hydra.main(version_base="1.3", config_path="pkg://avalanche_gd.conf", config_name="config")
def _job(composed: DictConfig) -> str | None:
    """One run; of a sweep, what went wrong."""
    with ending_all(), ending_with_one_line():
        config = read_config(composed)
        join_processes(config.torch_device)
        is_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        if is_sweep and process_count() == 1:  # several would wait for one that failed
            return attempt(config)
        run(config)
        return None


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
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
