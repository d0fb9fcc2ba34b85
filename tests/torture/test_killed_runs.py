"""A run that is killed, wherever that is, goes on to the bits of one that never was."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from avalanche_gd import oracle_classifier
from avalanche_gd.data import stream_tensors
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.run import run
from tests.helpers.processes import Begun
from tests.helpers.small_runs import result_files, small_config
from tests.torture.numbered import numbered

pytestmark = pytest.mark.torture

METHODS = ("naive", "generative_distillation", "experience_replay", "vae_replay", "si")
QUICK = ("evaluation.images=16", "solver.pool_size=32")
CALLS = ("fsync", "replace", "rename", "unlink")  # of os, that decide what is on disk
MOST_CALLS = 61  # of a naive run


class Whole(NamedTuple):
    """A run that was never killed."""

    files: dict[str, bytes]
    seconds: float
    calls: int


def config_of(out: Path, method: str) -> RunConfig:
    return small_config(out, *QUICK, f"method={method}")


def nothing(call: int) -> None:
    """Do nothing about a call."""


def noting(calls: Path, config: RunConfig) -> None:
    """Run, and write down how many calls there were."""
    counted = count()
    patch_calls(lambda: next(counted), nothing, nothing)
    run(config)
    calls.write_text(str(next(counted)))


def dying(at: int, after: bool, config: RunConfig) -> None:
    """Run until a call, and be killed before or after it."""
    counted = count()

    def die(call: int) -> None:
        if call == at:
            os.kill(os.getpid(), signal.SIGKILL)

    before_and_after = (nothing, die) if after else (die, nothing)
    patch_calls(lambda: next(counted), *before_and_after)
    run(config)


def patch_calls(
    number: Callable[[], int],
    before: Callable[[int], None],
    after: Callable[[int], None],
) -> None:
    """Have the calls numbered, and something done before and after each.

    But for an unlink of what is not there.
    """

    def patched(name: str) -> Callable[..., None]:
        original = getattr(os, name)

        def call(*arguments, **options):
            if name == "unlink" and not options and not os.path.lexists(arguments[0]):
                return original(*arguments)
            own = number()
            before(own)
            original(*arguments, **options)
            after(own)

        return call

    for name in CALLS:
        setattr(os, name, patched(name))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits):
    """The run of a method that was never killed, made once."""
    oracle_classifier(*stream_tensors(digits.train_stream))  # which all find in the cache
    made: dict[str, Whole] = {}

    def of(method: str) -> Whole:
        if method not in made:
            out = tmp_path_factory.mktemp(method)
            config = config_of(out / "runs", method)
            started = time.monotonic()
            assert Begun(partial(noting, out / "calls", config), out / "log").ended() == 0
            seconds = time.monotonic() - started
            calls = int((out / "calls").read_text())
            made[method] = Whole(result_files(config.folder), seconds, calls)
        return made[method]

    return of


def goes_on(config: RunConfig, log: Path, whole: Whole) -> None:
    """Run until the end, to the files of a whole run and no other."""
    again = Begun(partial(run, config), log)
    assert again.ended() == 0, again.errors
    assert result_files(config.folder) == whole.files


@numbered(50, sample=2)
def test_a_run_that_is_killed_at_any_moment_goes_on(whole, tmp_path, number):
    method = METHODS[number % len(METHODS)]
    config = config_of(tmp_path / "runs", method)
    begun = Begun(partial(run, config), tmp_path / "log")
    begun.runs_for(Random(number).uniform(0, whole(method).seconds))
    begun.process.kill()
    assert begun.ended() in (-signal.SIGKILL, 0)
    goes_on(config, tmp_path / "again", whole(method))


@numbered(2 * MOST_CALLS, sample=3)
def test_a_run_that_is_killed_before_or_after_any_call_goes_on(whole, tmp_path, number):
    call, after = divmod(number, 2)
    if call >= whole("naive").calls:
        pytest.skip("there is no such call")
    config = config_of(tmp_path / "runs", "naive")
    killed = Begun(partial(dying, call, bool(after), config), tmp_path / "log")
    assert killed.ended() == -signal.SIGKILL
    goes_on(config, tmp_path / "again", whole("naive"))


def test_every_call_of_a_run_has_its_number(whole):
    assert 40 < whole("naive").calls <= MOST_CALLS
