"""A file that is changed is refused in a line, or does not change a number."""

import shutil
import warnings
from pathlib import Path
from random import Random

import pytest

from avalanche_gd.report.report_command import main as report
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_command import main
from avalanche_gd.storage import cache_folder
from tests.helpers.bits import same_bits
from tests.helpers.small_runs import SMALL, metrics, run_killed_after, small_config
from tests.torture.caches import CACHES
from tests.torture.damage import DAMAGE
from tests.torture.numbered import numbered

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("sketched")]

QUICK = ("method=naive", "evaluation.images=16", "benchmark.n_experiences=5")
OTHERS = ("seed=1", "generator.steps=3")  # of the same method
REPORT = ("runs.csv", "table.csv", "table.tex")
MAY_BE_ANYTHING = ("events.out", "curves.png", ".")  # and what is hidden


def config_of(out, *overrides):
    return small_config(out, *QUICK, *overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of complete runs: one to change, and others of its kind."""
    out = tmp_path_factory.mktemp("whole")
    for other in ((), *((other,) for other in OTHERS)):
        run(config_of(out, *other))
    return out


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The same of runs that were killed in their fourth experience."""
    out = tmp_path_factory.mktemp("killed")
    for other in ((), *((other,) for other in OTHERS)):
        run_killed_after(3, config_of(out, *other))
    return out


def change(folder: Path, other: Path, number: int) -> str:
    """Change a file of a run's folder.

    :param other: the folder of another run.
    :return: which file, and how.
    """
    random = Random(number)
    damage = DAMAGE[number % len(DAMAGE)]
    parts = sorted(p for p in folder.iterdir() if not p.name.startswith(MAY_BE_ANYTHING))
    part = random.choice(parts)  # a folder of many files counts as one
    path = part
    if part.is_dir():
        path = random.choice(sorted(p for p in part.rglob("*") if p.is_file()))
    damage(path, random, other / path.relative_to(folder))
    return f"{damage.__name__}: {path.relative_to(folder)}"


def refused(answer: tuple[int, str, str], what: str) -> bool:
    """True if a command has refused what is there, in one line."""
    status, _, errors = answer
    assert "Traceback" not in errors, what
    assert status in (0, 2), what
    assert len(errors.splitlines()) == (1 if status else 0), (what, errors)
    return status == 2


@numbered(70, sample=3)
def test_a_changed_file_of_a_complete_run_changes_no_number(call, tmp_path, whole, number):
    shutil.copytree(whole, tmp_path / "runs")
    config = config_of(tmp_path / "runs")
    other = config_of(whole, OTHERS[number % 2]).folder
    known = config_of(whole).folder
    assert not refused(call(report, known, "--out", "known"), "nothing is changed")
    what = change(config.folder, other, number)
    if not refused(call(report, config.folder, "--out", "report"), what):
        is_shown = "Unfinished runs" not in Path("report", "report.html").read_text()
        assert is_shown or not (config.folder / "run.json").exists(), what
        for name in filter(lambda _: is_shown, REPORT):
            texts = [Path(out, name).read_text() for out in ("known", "report")]
            assert texts[0] == texts[1], what
    if not refused(call(main, *SMALL, *QUICK, f"out={tmp_path / 'runs'}"), what):
        assert metrics(config.folder) == metrics(known), what


@numbered(70, sample=2)
def test_a_changed_file_of_a_killed_run_changes_no_number(
    call, tmp_path, whole, killed, number
):
    shutil.copytree(killed, tmp_path / "runs")
    config = config_of(tmp_path / "runs")
    other = config_of(killed, OTHERS[number % 2]).folder
    what = change(config.folder, other, number)
    if not refused(call(report, config.folder, "--out", "report"), what):
        assert len(Path("report", "runs.csv").read_text().splitlines()) == 1, what
    if not refused(call(main, *SMALL, *QUICK, f"out={tmp_path / 'runs'}"), what):
        assert metrics(config.folder) == metrics(config_of(whole).folder), what


@numbered(84, sample=7)
def test_a_changed_file_of_a_cache_changes_no_number(tmp_path, monkeypatch, number):
    kind = list(CACHES)[number % len(CACHES)]
    make, random = CACHES[kind], Random(number)
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(tmp_path / "cache"))
    known = {name: part.clone() for name, part in make(tmp_path, 0).items()}
    paths = set(cache_folder().iterdir())
    make(tmp_path, 1)
    other = random.choice(sorted(set(cache_folder().iterdir()) - paths))
    path = random.choice(sorted(paths))
    DAMAGE[number // len(CACHES) % len(DAMAGE)](path, random, other)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert same_bits(make(tmp_path, 0), known)
    assert all(len(str(warning.message).splitlines()) == 1 for warning in caught)
