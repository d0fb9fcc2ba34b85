"""The command ``avalanche-gd``."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from avalanche_gd.distributed.launch import (
    ending_all,
    join_processes,
    leave_processes,
    process_count,
    say,
)
from avalanche_gd.runs.composition import read_config
from avalanche_gd.runs.errors import ending_when_interrupted, ending_with_one_line, quiet
from avalanche_gd.runs.overrides import folder_as_typed, quoted
from avalanche_gd.runs.run import run
from avalanche_gd.runs.screens import screen
from avalanche_gd.runs.side_by_side import attempt
from avalanche_gd.storage import expanded

_FLAGS: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("--help", "-h", "--help-all", "--hydra-help", "--version")),
    **dict.fromkeys(("--multirun", "-m", "--run", "-r", "--resolve")),
    **dict.fromkeys(("--shell-completion", "-sc")),
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(
        ("--info", "-i"),
        ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    ),
    **dict.fromkeys(
        ("--package", "-p", "--config-path", "-cp", "--config-name", "-cn"), ()
    ),
    **dict.fromkeys(("--config-dir", "-cd", "--experimental-rerun"), ()),
}
"""The flags, of Hydra and ``--help-all``, with the values that each accepts.

An empty tuple accepts any value.
"""


@hydra.main(version_base="1.3", config_path="pkg://avalanche_gd.conf", config_name="config")
def _job(composed: DictConfig) -> str | None:
    """Run one run; in a sweep, return the error message."""
    with ending_all(), ending_with_one_line():
        config = read_config(composed)
        join_processes(config.torch_device)
        is_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        if is_sweep and process_count() == 1:  # several would wait for one that failed
            return attempt(config)
        folder = run(config)
        if not config.check and not is_sweep:
            say(str(folder))
        return None


def _ordered(arguments: Sequence[str]) -> list[str]:
    """Put flags before settings, as Hydra needs them; make ``--check`` a setting.

    Also replace ``~`` in the folder of the results, and keep folders as they are typed.

    :raises ValueError: for an unknown flag, or a value that it does not accept.
    """
    flags, settings = [], []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, given, value = argument.partition("=")
        if argument == "--check":
            settings.append("check=true")
        elif (typed := _below_home(argument)) is not None:
            settings.append(f"out={quoted(str(expanded(typed)))}")
        elif not argument.startswith("-"):
            settings.append(folder_as_typed(argument))
        elif name not in _FLAGS:
            close = get_close_matches(name, ["--check", *_FLAGS], n=1)
            hint = f"did you mean {close[0]}?" if close else "see avalanche-gd --help"
            raise ValueError(f"unknown flag {name}; {hint}")
        else:
            flags.append(_flag(name, value if given else None, rest))
    return [*flags, *settings]


def _below_home(argument: str) -> str | None:
    """The folder of the results if it begins with ``~``, which the shell does not replace.

    It may be in quotes for Hydra. None for other arguments, and for several folders.
    """
    name, _, value = argument.partition("=")
    if name.lstrip("+") != "out" or value.lstrip("'\"")[:1] != "~":
        return None
    if value.startswith("~"):
        return value
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return None  # Hydra says what is wrong
    return None if override.is_sweep_override() else str(override.value())


def _flag(name: str, value: str | None, rest: list[str]) -> str:
    """A flag of Hydra with its value.

    :param value: None if it is the next argument, or missing.
    :param rest: the arguments that follow; the value is removed from them.
    :raises ValueError: for a value that it does not accept.
    """
    allowed = _FLAGS[name]
    if allowed is None:
        if value is not None:
            raise ValueError(f"{name} takes no value, got {value!r}")
        return name
    if value is None:
        follows = bool(rest) and not rest[0].startswith("-")
        if name in ("--info", "-i") and not (follows and "=" not in rest[0]):
            value = "all"
        else:
            value = rest.pop(0) if follows else ""
    if not value or (allowed and value not in allowed):
        hint = f"choose from {', '.join(allowed)}" if allowed else f"give {name}=VALUE"
        raise ValueError(f"{name} needs a value, got {value!r}; {hint}")
    return f"{name}={value}"


def main() -> None:
    """Run Hydra; on a wrong value, print one line and exit with status 2.

    The status is 130 after an interruption.
    """
    quiet()
    sys.path.append("")  # for modules of the user's, as python -m has it
    line = "avalanche-gd: interrupted; run the same command again to continue"
    with ending_when_interrupted(line):
        with ending_with_one_line():
            arguments = _ordered(sys.argv[1:])
            sys.argv = [sys.argv[0], *arguments]
            shown = screen(arguments, _job)
            if shown is None:
                _job()
            else:
                print(shown)
        leave_processes()


if __name__ == "__main__":
    main()
