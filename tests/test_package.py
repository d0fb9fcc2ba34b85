"""What is released: the sdist, the wheel, and the files that describe them."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import avalanche_gd
from tests.helpers.repository import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()
(VERSION,) = re.findall(r'^version = "(.*)"$', PROJECT, re.MULTILINE)
PAGE = (ROOT / "docs" / "api.md").read_text()
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())


def called(*command, folder: Path, **environment: str) -> str:
    """What a command says, in a folder, without the checkout on Python's path."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The sdist of a copy of the tree, in which runs lie, and the wheel of the sdist."""
    folder = tmp_path_factory.mktemp("release")
    names = called("git", "ls-files", "-co", "--exclude-standard", folder=ROOT)
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "tree" / name)
    (folder / "tree" / "runs").mkdir(exist_ok=True)
    (folder / "tree" / "runs" / "run.json").touch()
    build = "from setuptools.build_meta import {0}; {0}('..')"
    called(sys.executable, "-c", build.format("build_sdist"), folder=folder / "tree")
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / f"avalanche_gd-{VERSION}"
    called(sys.executable, "-c", build.format("build_wheel"), folder=unpacked)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    """The wheel, installed in an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-index", "--target", folder / "site")
    called(sys.executable, "-m", "pip", "install", *options, archives[1], folder=folder)
    return folder


@pytest.mark.torture
def test_the_archives_have_the_package_and_nothing_else(archives):
    with tarfile.open(archives[0]) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(archives[1]) as archive:
        wheel = set(archive.namelist())
    tracked = called("git", "ls-files", "-co", "--exclude-standard", folder=ROOT)
    package = {name for name in tracked.splitlines() if name.startswith("avalanche_gd/")}
    assert {name for name in wheel if ".dist-info/" not in name} == package
    assert package | {"LICENSE", "CHANGELOG.md", "CITATION.cff"} <= sdist
    assert f"avalanche_gd-{VERSION}.dist-info/licenses/LICENSE" in wheel
    for part in ("conf/config.yaml", "report/page.html", "report/page.css", "py.typed"):
        assert f"avalanche_gd/{part}" in package
    tops = {name.partition("/")[0] for name in sdist}
    assert not tops & {"tests", "experiments", "benchmarks", "runs", "examples", ".github"}


@pytest.mark.torture
def test_the_wheel_runs_outside_of_the_checkout(installed):
    site, work = installed / "site", installed / "work"
    work.mkdir()
    where = dict(folder=work, PYTHONPATH=str(site))
    found = called(
        sys.executable, "-c", "import avalanche_gd as a; print(a.__file__)", **where
    )
    assert Path(found.strip()) == site / "avalanche_gd" / "__init__.py"
    for name in re.findall(r"^(avalanche-gd\S*) = ", PROJECT, re.MULTILINE):
        assert name in called(sys.executable, site / "bin" / name, "--help", **where)
    shutil.copy(ROOT / "examples" / "generative_replay_solver.py", work)
    few = ("--steps", "2", "--epochs", "1")
    said = called(sys.executable, work / "generative_replay_solver.py", *few, **where)
    assert said.splitlines()[-1].startswith("GenerativeReplay ")


def test_the_page_of_public_names_has_each_once():
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(named) == sorted(avalanche_gd.__all__)


def test_the_package_is_described_by_the_same_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert VERSION in (ROOT / "CHANGELOG.md").read_text()


def test_the_public_workflow_has_the_classified_pythons_and_the_commands_of_ci():
    pythons = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert pythons == re.findall(r"Python :: (3\.\d+)\"", PROJECT)
    steps = [step.get("run") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    for command in (ROOT / ".ci/run").read_text().splitlines():
        if command.startswith(("python ", "ruff ", "mypy")):
            assert command in steps
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"<!-- ci: test -->\n *(.*)\n", readme)[0]
    assert set(commands.split(" && ")) < set(steps)


def test_nothing_is_said_of_a_solver_that_only_gem_needs():
    lines = (
        "import sys",
        "sys.modules['quadprog'] = None",  # as where it is not installed
        "import warnings",
        "warnings.filterwarnings('error', '.*QP solver')",
        "import avalanche_gd",
        "import qpsolvers",
        "print(qpsolvers.available_solvers)",
    )
    found = called(
        sys.executable, "-c", "\n".join(lines), folder=ROOT, PYTHONPATH=str(ROOT)
    )
    if "[]" not in found:
        pytest.skip("another solver is installed, with which there is no warning")


def test_the_public_workflow_installs_the_lower_bounds_as_the_oldest(tmp_path):
    (script,) = (
        step["run"]
        for step in WORKFLOW["jobs"]["test"]["steps"]
        if step.get("if") == "matrix.dependencies == 'oldest'"
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    variables = tmp_path / "variables"
    called("bash", "-ec", script, folder=tmp_path, GITHUB_ENV=str(variables))
    path = variables.read_text().removeprefix("PIP_CONSTRAINT=").strip()
    (declared,) = re.findall(r"(?ms)^dependencies = \[\n(.*?)^\]", PROJECT)
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)",\n', declared)
    assert len(bounds) == len(declared.splitlines())
    assert Path(path).read_text().splitlines() == ["==".join(bound) for bound in bounds]
