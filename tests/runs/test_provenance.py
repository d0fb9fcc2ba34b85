"""The commit that is recorded of a run."""

import subprocess

import pytest

from avalanche_gd.runs.provenance import commit_of


@pytest.fixture
def checkout(tmp_path):
    """A repository with a package and a table of results."""
    for name in ("package/code.py", "results/runs.csv"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "all")
    return tmp_path


def git(folder, *command):
    """What git prints, as somebody."""
    somebody = ["-c", "user.name=a", "-c", "user.email=a@b"]
    line = ["git", "-C", str(folder), *somebody, *command]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_dirty_if_the_package_was_changed_and_not_for_results(checkout):
    package, head = checkout / "package", git(checkout, "rev-parse", "HEAD")
    assert len(head) == 40 and commit_of(package) == head
    (checkout / "results" / "runs.csv").write_text("2")
    (package / "cache.pyc").write_text("0")
    assert commit_of(package) == head
    (package / "code.py").write_text("2")
    assert commit_of(package) == f"{head}-dirty"
    git(checkout, "add", ".")
    assert commit_of(package) == f"{head}-dirty"


def test_a_package_that_git_does_not_have_is_of_no_commit(checkout, tmp_path_factory):
    installed = checkout / "environment"
    installed.mkdir()
    (installed / "code.py").write_text("1")
    assert commit_of(installed) is None
    assert commit_of(tmp_path_factory.mktemp("elsewhere")) is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout / "package") is None
