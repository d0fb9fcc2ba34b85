"""A disk that is full or cannot be written: one line, and the run goes on elsewhere."""

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avalanche_gd.report.report_command import main as report
from avalanche_gd.runs.run_command import main
from tests.helpers.fake_runs import write_run
from tests.helpers.processes import Begun, command
from tests.helpers.small_runs import SMALL, result_files, small_config
from tests.torture.numbered import numbered, sampled

pytestmark = pytest.mark.torture

QUICK = ("method=naive", "evaluation.images=16", "benchmark.n_experiences=5")
KIB = 2**10
LARGEST = 1200 * KIB  # more than the largest file of a run
ALL = 4000 * KIB  # more than a run takes


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a run that had room."""
    out = tmp_path_factory.mktemp("whole")
    assert Begun(run_in(out), out).ended() == 0
    return result_files(folder_in(out))


def run_in(out: Path) -> Callable[[], None]:
    return command(main, *SMALL, *QUICK, f"out={out / 'runs'}")


def folder_in(out: Path) -> Path:
    return small_config(out / "runs", *QUICK).folder


def size_of(number: int, most: int, count: int) -> int:
    """One of sizes that grow as a power does: most files are small."""
    return int(KIB * (most / KIB) ** (number / count))


FULL = ("No space left on device", "the disk may be full")


def refused(begun: Begun, *reasons: str) -> bool:
    """True if a command was refused, in one line that says what cannot be written.

    :param reasons: of which the line gives one.
    """
    status = begun.ended()
    assert status in (0, 2), begun.errors
    lines = begun.errors.splitlines()
    assert len(lines) == (1 if status else 0), begun.errors
    assert not status or lines[0].startswith("avalanche-gd"), begun.errors
    assert not status or any(reason in lines[0] for reason in reasons), begun.errors
    return bool(status)


@numbered(20, sample=1)
def test_files_that_may_not_be_larger(tmp_path, whole, number):
    limit = size_of(number, LARGEST, 20)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        run_in(tmp_path)()

    begun = Begun(limited, tmp_path / "log")
    assert refused(begun, "cannot write")
    again = Begun(run_in(tmp_path), tmp_path / "again")
    assert not refused(again)
    assert result_files(folder_in(tmp_path)) == whole


@pytest.fixture
def mounted(tmp_path):
    """``mounted(*options)`` mounts something on a new folder, until the test ends."""
    places = []

    def mount(*options: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        made = subprocess.run(["mount", *options, str(place)], capture_output=True)
        if made.returncode:
            pytest.skip("only root may mount a small or read-only disk")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@numbered(20, sample=1)
def test_a_full_disk(tmp_path, mounted, whole, number):
    size = size_of(number, ALL, 20)
    place = mounted("-t", "tmpfs", "-o", f"size={size}", "none")
    begun = Begun(run_in(place), tmp_path / "log")
    if refused(begun, *FULL):
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    again = Begun(run_in(place), tmp_path / "again")
    assert not refused(again)
    assert result_files(folder_in(place)) == whole


@pytest.fixture
def read_only(mounted):
    """``read_only(folder)`` is the same folder, where nothing can be written."""

    def bind(folder: Path) -> Path:
        place = mounted("--bind", str(folder))
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        return place

    return bind


@pytest.mark.sample
def test_a_folder_of_runs_that_cannot_be_written(tmp_path, read_only):
    (tmp_path / "own").mkdir()
    place = read_only(tmp_path / "own")
    assert refused(Begun(run_in(place), tmp_path / "log"), "cannot be written")
    assert not list(place.iterdir())


def test_a_complete_run_that_cannot_be_written_is_complete_and_reported(
    tmp_path, read_only
):
    (tmp_path / "own").mkdir()
    assert Begun(run_in(tmp_path / "own"), tmp_path / "log").ended() == 0
    place = read_only(tmp_path / "own")
    told = command(report, str(place / "runs"), "--out", str(tmp_path / "report"))
    assert Begun(told, tmp_path / "told").ended() == 0
    inside = command(report, str(place / "runs"), "--out", str(place / "report"))
    assert refused(Begun(inside, tmp_path / "inside"), "Read-only file system")


@sampled("name", ["a cache", "no cache yet"], sample=1)
def test_a_cache_that_cannot_be_written(tmp_path, read_only, monkeypatch, whole, name):
    (tmp_path / "own").mkdir()
    place = read_only(tmp_path / "own")
    cache = place if name == "a cache" else place / "cache"
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(cache))
    begun = Begun(run_in(tmp_path), tmp_path / "log")
    assert begun.ended() == 0
    (line,) = [line for line in begun.errors.splitlines() if "UserWarning" in line]
    assert "set AVALANCHE_GD_CACHE to a folder that you can write to" in line
    assert result_files(folder_in(tmp_path)) == whole


@numbered(20, sample=1)
def test_a_report_on_a_full_disk(tmp_path, mounted, number):
    write_run(tmp_path / "runs")
    place = mounted("-t", "tmpfs", "-o", f"size={size_of(number, 200 * KIB, 20)}", "none")
    (place / "report").mkdir()
    (place / "report" / "runs.csv").write_text("old")
    told = command(report, str(tmp_path / "runs"), "--out", str(place / "report"))
    if refused(Begun(told, tmp_path / "log"), *FULL):
        subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
        assert (place / "report" / "runs.csv").read_text().startswith(("old", "benchmark"))
    assert Begun(told, tmp_path / "log").ended() == 0
    assert not list(place.rglob(".*"))
    shutil.rmtree(place / "report")
