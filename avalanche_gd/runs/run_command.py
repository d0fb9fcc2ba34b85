"""The command ``avalanche-gd``."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

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

_FLAGS = {
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--version"), False),
    **dict.fromkeys(("--multirun", "-m", "--run", "-r", "--resolve"), False),
    **dict.fromkeys(("--shell-completion", "-sc"), False),
    **dict.fromkeys(("--cfg", "-c", "--info", "-i", "--package", "-p"), True),
    **dict.fromkeys(("--config-path", "-cp", "--config-name", "-cn"), True),
    **dict.fromkeys(("--config-dir", "-cd", "--experimental-rerun"), True),
}
"""Hydra's flags, and whether a value follows."""


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


def _ordered(arguments: Sequence[str]) -> list[str]:
    """Flags before settings, as Hydra takes them, and ``--check`` as a setting.

    A folder for results may be below ``~``.

    :raises ValueError: for a flag that there is not.
    """
    flags, settings = [], []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, given, _ = argument.partition("=")
        if argument == "--check":
            settings.append("check=true")
        elif argument.startswith("out=~"):  # which a shell leaves to the command
            settings.append(f"out={Path(argument[4:]).expanduser()}")
        elif not argument.startswith("-"):
            settings.append(argument)
        elif name not in _FLAGS:
            close = get_close_matches(name, ["--check", *_FLAGS], n=1)
            hint = f"did you mean {close[0]}?" if close else "see avalanche-gd --help"
            raise ValueError(f"no flag {name}; {hint}")
        else:
            flags.append(argument)
            if _FLAGS[name] and not given and rest:
                flags.append(rest.pop(0))
    return [*flags, *settings]


def main() -> None:
    """Run Hydra, and end with one line and status 2 on a wrong value."""
    quiet()
    try:
        with ending_with_one_line():
            sys.argv = [sys.argv[0], *_ordered(sys.argv[1:])]
            _job()
        leave_processes()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
