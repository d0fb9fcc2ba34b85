"""Errors as a line that a user can act on."""

import argparse
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from omegaconf.errors import OmegaConfBaseException

from avalanche_gd.distributed.launch import give_way
from avalanche_gd.training import NonFiniteLossError

USER_ERRORS = (
    ValueError,
    HydraException,
    OmegaConfBaseException,
    NonFiniteLossError,
)
"""What a wrong value, a wrong file or a run that diverged ends in."""

_STATUS = 2
_ONE_LINE = "AVALANCHE_GD_ONE_LINE"


def take_over_errors() -> None:
    """Have Hydra raise its errors, which it would print in many lines.

    Unless the user asked for tracebacks with ``HYDRA_FULL_ERROR=1``. By environment
    variables, so that it holds in the processes of a sweep's launcher too.
    """
    if os.environ.get("HYDRA_FULL_ERROR") != "1":
        os.environ["HYDRA_FULL_ERROR"] = os.environ[_ONE_LINE] = "1"


def one_line(error: BaseException) -> str:
    """What is wrong, what is allowed, and how to mend it."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        return f"no {group} {name!r}; choose from {', '.join(sorted(error.options))}"
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = getattr(error, "full_key", None)
    text = lines[0] if lines else type(error).__name__
    if not key or not isinstance(error, OmegaConfBaseException):
        return text
    hint = f"; to add it, give +{key}=VALUE" if ".options." in key else ""
    return f"{key}: {text}{hint}"


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Have what an object refuses begin with the section that it is made from.

    :param section: of the configuration, or one of its settings.
    :raises ValueError: in the place of the object's error.
    """
    try:
        yield
    except (ValueError, TypeError, RuntimeError, InstantiationException) as refusal:
        error: BaseException = refusal
        while isinstance(error, InstantiationException | ImportError) and error.__cause__:
            error = error.__cause__
        text = str(error).replace("num_classes=", "model.conditional=true")
        raise ValueError(f"{section}: {text}") from error


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in a line."""

    def error(self, message: str) -> NoReturn:
        """:raises ValueError: always."""
        raise ValueError(f"{message}; see {self.prog} --help")


def exit_with(error: BaseException, command: str = "avalanche-gd") -> NoReturn:
    """Print the line, or the traceback if it is wanted, and end with status 2."""
    give_way()
    if _ONE_LINE not in os.environ:
        traceback.print_exception(error)
    else:
        print(f"{command}: {one_line(error)}", file=sys.stderr)
    sys.exit(_STATUS)


@contextmanager
def ending_with_one_line(*, in_callback: bool = False) -> Iterator[None]:
    """End the command on a user's error, here and now.

    Not by an exception, unless tracebacks are wanted: Hydra prints one of a run in many
    lines. In a callback never by one: Hydra would only warn of it, and go on.
    """
    try:
        yield
    except USER_ERRORS as error:
        if _ONE_LINE not in os.environ and not in_callback:
            raise
        exit_with(error)
