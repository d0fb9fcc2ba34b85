"""Show errors as one line that tells the user what to do."""

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from io import TextIOWrapper
from typing import Any, NoReturn

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
)

from avalanche_gd.distributed.launch import give_way, is_main
from avalanche_gd.training import NonFiniteLossError

USER_ERRORS = (
    ValueError,
    OSError,
    HydraException,
    OmegaConfBaseException,
    NonFiniteLossError,
)
"""Errors that a user can mend."""

INTERRUPTED = 130
"""The exit status after SIGINT."""

PIPE_CLOSED = 141
"""The exit status if nobody reads the output any more, as after SIGPIPE."""


class SaidInterrupt(KeyboardInterrupt):
    """An interrupt for which a message was printed that says how to continue."""


_STATUS = 2
_OF_METHOD = "${protocol}/${method}"  # where conf/config.yaml looks for settings
_ONE_LINE = "AVALANCHE_GD_ONE_LINE"  # a sweep's launcher passes it on to its processes


def quiet() -> None:
    """Hide warnings about which a user can do nothing.

    What the terminal's encoding does not have is printed as an escape.
    """
    if isinstance(sys.stdout, TextIOWrapper):  # in a notebook it is none
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("diffusers").setLevel(logging.ERROR)


def one_line(error: BaseException) -> str:
    """The one-line message of an error; of an unexpected one, with its type."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        return f"no {group} {name!r}; choose from {', '.join(sorted(error.options))}"
    if isinstance(error, ConfigCompositionException) and _OF_METHOD in str(error):
        known = str(error).rpartition("keys: ")[2].split(", ")
        several = next(name for name in ("protocol", "method") if name not in known)
        return several_choices(several)
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        error = cause
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = getattr(error, "full_key", None)
    text = lines[0] if lines else type(error).__name__
    if lines and not isinstance(error, (*USER_ERRORS, argparse.ArgumentTypeError)):
        text = f"{type(error).__name__}: {text}"
    if not key or not isinstance(error, OmegaConfBaseException):
        return text
    return f"{key}: {text}{_hint(error, key)}"


def several_choices(group: str) -> str:
    """The error message for several choices of a group in one run.

    An experiment or a protocol has a sweep of its own, so that -m takes several of them
    only beside values for all that they sweep.
    """
    if group in ("experiment", "protocol"):
        return f"{group} must be one choice; use one command for each"
    return f"{group} must be one choice; sweep over several with -m"


def _hint(error: OmegaConfBaseException, key: str) -> str:
    """A hint for an unknown setting: a similar name, or the known names."""
    if ".options." in key:
        return f"; to add it, give +{key}=VALUE"
    absent = isinstance(error, ConfigKeyError | ConfigAttributeError)
    if not absent or not isinstance(error.parent_node, DictConfig):
        return ""
    known = [str(name) for name in error.parent_node if name != "hydra"]
    close = get_close_matches(str(error.key), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; choose from {', '.join(known)}"


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Begin the error message of an object with the section of its settings.

    :param section: a section of the settings, or one setting.
    :raises ValueError: instead of the object's error.
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
    """Raises a one-line error for a wrong command line; flags cannot be abbreviated."""

    def __init__(self, **options: Any):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """:raises ValueError: always."""
        raise ValueError(f"{message}; see {self.prog} --help")


@contextmanager
def ending_with_one_line(
    command: str = "avalanche-gd", *, reraise: bool = True
) -> Iterator[None]:
    """Exit with status 2 and one line for a wrong value, a wrong file or a diverged run.

    If the output goes to a closed pipe, such as after ``head``, exit with status 141 and
    print nothing.

    The process exits here, as Hydra would print an exception in many lines. With
    ``HYDRA_FULL_ERROR=1`` the user gets a traceback instead.

    :param command: the beginning of the line.
    :param reraise: True to raise the exception if the user wants a traceback; in a callback
        Hydra would only print a warning and continue.
    """
    if os.environ.get("HYDRA_FULL_ERROR") != "1":
        os.environ["HYDRA_FULL_ERROR"] = os.environ[_ONE_LINE] = "1"
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # here a closed pipe can still be handled
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE_CLOSED)
    except USER_ERRORS as error:
        wants_traceback = _ONE_LINE not in os.environ
        if wants_traceback and reraise:
            raise
        give_way()
        if wants_traceback:
            traceback.print_exception(error)
        else:
            print(f"{command}: {one_line(error)}", file=sys.stderr)
        sys.exit(_STATUS)


@contextmanager
def ending_when_interrupted(line: str) -> Iterator[None]:
    """Exit with status 130 on an interrupt.

    :param line: says how to continue; printed unless such a message was printed before.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not isinstance(interrupt, SaidInterrupt) and is_main():
            print(line, file=sys.stderr)
        sys.exit(INTERRUPTED)
