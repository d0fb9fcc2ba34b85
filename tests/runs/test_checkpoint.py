"""A run goes on from the last checkpoint that is whole and its own, or begins anew."""

import shutil

import pytest
import torch

from avalanche_gd.runs import checkpoint
from avalanche_gd.runs.checkpoint import load_checkpoint
from avalanche_gd.runs.identity import run_digest
from avalanche_gd.runs.run import run
from avalanche_gd.storage import content_digest
from tests.helpers.bits import truncate
from tests.helpers.small_runs import metrics, run_killed_after, small_config


def config_of(folder, *overrides):
    return small_config(folder, "method=naive", *overrides)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed in its fourth experience, and the metrics of a whole one."""
    folder = tmp_path_factory.mktemp("runs")
    run_killed_after(3, config_of(folder / "killed"))
    whole = metrics(run(config_of(folder / "whole")))
    run_killed_after(3, config_of(folder / "killed", "seed=1"))
    run_killed_after(3, config_of(folder / "killed", "generator.steps=3"))
    return folder / "killed", whole


@pytest.fixture
def config(killed, tmp_path):
    """The killed run, for a test to break."""
    shutil.copytree(killed[0], tmp_path / "runs")
    return config_of(tmp_path / "runs")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def edit(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def rows_changed(content):
    index, name, value = content["state"]["rows"][0]
    content["state"]["rows"][0] = (index, name, value + 1)


def clock_changed(content):
    clock = content["state"]["learner"]["strategies"]["solver"]["clock"]
    clock["train_exp_counter"] += 1


BROKEN = {
    "cut short": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "no checkpoint": lambda path: path.write_text("hello"),
    "a weight changed": lambda path: edit(
        path,
        lambda c: c["state"]["learner"]["strategies"]["solver"]["model"][
            "classifier.weight"
        ].add_(1e-6),
    ),
    "edited rows": lambda path: edit(path, rows_changed),
    "an edited clock": lambda path: edit(path, clock_changed),
    "without a digest": lambda path: edit(path, lambda c: c.pop("digest")),
    "a list": lambda path: torch.save([1, 2], path),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_said_and_the_one_before_is_taken(
    killed, config, capsys, name
):
    path = config.folder / "checkpoints" / "exp_002.pt"
    BROKEN[name](path)
    folder = run(config)
    output = capsys.readouterr().out
    assert f"naive, seed 0: {path} is cut short or damaged" in output
    assert "naive, seed 0: continuing after experience 2/5" in output
    assert metrics(folder) == killed[1]


@pytest.mark.parametrize("place", [i / 20 for i in range(20)])
def test_a_flipped_byte_never_changes_a_number(config, killed, place):
    path = config.folder / "checkpoints" / "exp_002.pt"
    whole = torch.load(path, weights_only=True)["state"]
    flip(path, place)
    lines = []
    loaded = load_checkpoint(
        path.parent, digest_of(config), 5, torch.device("cpu"), lines.append
    )
    if loaded.experience == 2:  # the byte was of no value
        assert content_digest(loaded.state) == content_digest(whole) and not lines
    else:
        assert loaded.experience == 1 and "is cut short or damaged" in lines[0]


def digest_of(config):
    path = config.folder / "checkpoints" / "exp_001.pt"
    return torch.load(path, weights_only=True)["run"]


@pytest.mark.parametrize("other", ["seed=1", "generator.steps=3"])
def test_the_checkpoint_of_another_run_is_refused(killed, config, capsys, other):
    path = config.folder / "checkpoints" / "exp_002.pt"
    theirs = config_of(killed[0], other).folder / "checkpoints" / "exp_002.pt"
    shutil.copy(theirs, path)
    assert metrics(run(config)) == killed[1]
    output = capsys.readouterr().out
    assert f"{path} is of another run" in output
    assert "continuing after experience 2/5" in output


@pytest.mark.parametrize("name", ["exp_003.pt", "exp_004.pt", "exp_009.pt", "exp_abc.pt"])
def test_the_checkpoint_of_another_experience_is_refused(killed, config, capsys, name):
    folder = config.folder / "checkpoints"
    shutil.copy(folder / "exp_001.pt", folder / name)
    assert metrics(run(config)) == killed[1]
    output = capsys.readouterr().out
    assert "continuing after experience 3/5" in output
    assert (f"{folder / name} is of experience 2" in output) == (name < "exp_005")


def test_a_run_without_a_good_checkpoint_begins_anew(killed, config, capsys):
    for path in (config.folder / "checkpoints").iterdir():
        truncate(path)
    assert metrics(run(config)) == killed[1]
    output = capsys.readouterr().out
    assert output.count("is cut short or damaged") == 2 and "continuing" not in output


def test_a_checkpoint_of_another_structure_is_one_line(config):
    path = config.folder / "checkpoints" / "exp_002.pt"
    content = torch.load(path, weights_only=True)
    del content["digest"]
    content["state"]["learner"]["strategies"]["solver"]["model"].popitem()
    torch.save({**content, "digest": content_digest(content)}, path)
    with pytest.raises(ValueError, match="are of another version of this package"):
        run(config)


def test_a_checkpoint_of_other_code_is_one_line(config, monkeypatch):
    files = {path: path.read_bytes() for path in config.folder.rglob("*.*")}
    monkeypatch.setattr("avalanche_gd.runs.checkpoint.code_digest", lambda: "other")
    with pytest.raises(ValueError, match="were written by another version of this package"):
        run(config)
    assert {path: path.read_bytes() for path in files} == files


def test_the_digest_of_the_code_is_that_of_all_its_modules(tmp_path, monkeypatch):
    digests = set()
    monkeypatch.setattr(checkpoint, "__file__", str(tmp_path / "runs" / "checkpoint.py"))
    (tmp_path / "runs").mkdir()
    for name, content in (("a.py", "1"), ("a.py", "2"), ("runs/b.py", "2"), ("c.txt", "")):
        (tmp_path / name).write_text(content)
        checkpoint.code_digest.cache_clear()
        digests.add(checkpoint.code_digest())
    checkpoint.code_digest.cache_clear()
    assert len(digests) == 3


def test_a_checkpoint_that_executes_is_never_executed(config, killed, tmp_path, capsys):
    import pickle

    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = config.folder / "checkpoints" / "exp_002.pt"
    torch.save({"state": Hostile()}, path, pickle_module=pickle)
    assert metrics(run(config)) == killed[1]
    assert "is cut short or damaged" in capsys.readouterr().out
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_that_is_no_longer_kept_is_removed_after_a_kill(killed, config):
    folder = config.folder / "checkpoints"
    shutil.copy(folder / "exp_001.pt", folder / "exp_000.pt")  # as if killed before
    found = load_checkpoint(folder, run_digest(config), 5, torch.device("cpu"), print)
    assert found.experience == 2
    assert sorted(path.name for path in folder.iterdir()) == ["exp_001.pt", "exp_002.pt"]
