"""Folders that are not what a run writes: one line that names the file, and status 2."""

import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import binary, data, integers
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from avalanche_gd.report.collect import collect
from avalanche_gd.report.images import strips
from avalanche_gd.report.report_command import main
from avalanche_gd.runs.results import is_complete, read_run
from avalanche_gd.runs.run import run
from tests.helpers.bits import truncate
from tests.helpers.fake_runs import write_run
from tests.helpers.small_runs import small_config

pytestmark = pytest.mark.usefixtures("sketched")

FID = "generator/FID_Stream/eval_phase/test_stream"
KLD, ARD = FID.replace("FID", "KLD"), FID.replace("FID", "ARD")
ACCURACY = "solver/Top1_Acc_Stream/eval_phase/test_stream/Task000"
OF_AN_EXPERIENCE = "solver/Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp000"
FORGETTING = "solver/StreamForgetting/eval_phase/test_stream"
BOMB = "".join(
    f"{name}: &{name} [{', '.join([f'*{below}' if below else 'x'] * 9)}]\n"
    for below, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
)
PAGES = b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/made) (w) file closefile\n"


def replaced(file, old, new):
    """Replaces a text of a file, once."""

    def damage(folder):
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return damage


def written(file, content):
    """Writes another content."""
    content = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / file).write_bytes(content)


def value(metric, new, experience=1):
    """Gives a metric another value."""
    old = {FORGETTING: "0.5", OF_AN_EXPERIENCE: "0.1"}.get(metric, "0.5")
    line = f"\n{experience},{metric},"
    return replaced("metrics.csv", f"{line}{old}\n", f"{line}{new}\n")


def told(**changes):
    """Changes ``run.json``; what becomes None goes."""

    def damage(folder):
        info = json.loads((folder / "run.json").read_text()) | changes
        info = {name: part for name, part in info.items() if part is not None}
        (folder / "run.json").write_text(json.dumps(info))

    return damage


def removed(file):
    return lambda folder: (folder / file).unlink()


def put(file, make):
    """Makes something else in the place of a file."""

    def damage(folder):
        (folder / file).unlink()
        make(folder / file)

    return damage


def pixels(width, height):
    """Another picture."""
    picture = Image.fromarray(np.zeros((height, width), dtype=np.uint8))
    return lambda folder: picture.save(folder / PICTURE)


def with_long_text(folder):
    text = PngInfo()
    text.add_text("a", "a" * 10**8, zip=True)
    Image.new("L", (64, 64)).save(folder / PICTURE, pnginfo=text)


def said(name, new):
    """A setting of ``config.yaml`` with another value."""
    old = {"name": "split_digits", "n_experiences": "3", "seed": "0", "temperature": "2.0"}
    return replaced("config.yaml", f"{name}: {old[name]}\n", f"{name}: {new}\n")


def digest(**files):
    return told(files={name.replace("_", "."): text for name, text in files.items()})


def nested(depth):
    return "[" * depth + "]" * depth


CONFIG, INFO, ROWS, PICTURE = (
    "config.yaml",
    "run.json",
    "metrics.csv",
    "samples/exp_001.png",
)
METHOD = "method:\n  name: naive\n"
HEAD = "experience,metric,value\n"
BROKEN = {
    # config.yaml
    "a seed of 1.5": (CONFIG, said("seed", "1.5")),
    "a seed that is true": (CONFIG, said("seed", "true")),
    "a seed in quotes": (CONFIG, said("seed", "'0'")),
    "a seed of 1_000 in quotes": (CONFIG, said("seed", "'1_000'")),
    "a seed below 0": (CONFIG, said("seed", "-1")),
    "a seed of 5000 digits": (CONFIG, said("seed", "9" * 5000)),
    "a seed of 100 digits": (CONFIG, said("seed", "9" * 100)),
    "no seed": (CONFIG, replaced(CONFIG, "seed: 0\n", "")),
    "two seeds": (CONFIG, replaced(CONFIG, "seed: 0\n", "seed: 0\nseed: 1\n")),
    "a seed by reference": (CONFIG, said("seed", "${threads}")),
    "a weight in quotes": (CONFIG, said("temperature", "'1.0'")),
    "a weight that is too large": (CONFIG, said("temperature", "1" + "0" * 400)),
    "a benchmark that leads away": (CONFIG, said("name", "../../../X")),
    "a benchmark from the root": (CONFIG, said("name", "/X")),
    "a benchmark that is hidden": (CONFIG, said("name", ".X")),
    "a benchmark that ends LaTeX": (CONFIG, said("name", "'\\input{x}'")),
    "a benchmark of two lines": (CONFIG, said("name", '"a\\nb"')),
    "a benchmark without a letter": (CONFIG, said("name", "''")),
    "a benchmark of 81 letters": (CONFIG, said("name", "x" * 81)),
    "a benchmark that is a date": (CONFIG, said("name", "2024-01-01")),
    "a method that is a list": (CONFIG, replaced(CONFIG, METHOD, "method:\n  name: [a]\n")),
    "a method that is a number": (CONFIG, replaced(CONFIG, METHOD, "method:\n  name: 3\n")),
    "a method that is null": (CONFIG, replaced(CONFIG, METHOD, "method:\n  name: null\n")),
    "a method without a name": (CONFIG, replaced(CONFIG, METHOD, "method:\n")),
    "a method that is a text": (CONFIG, replaced(CONFIG, METHOD, "method: x\nmore:\n")),
    "a benchmark by its dotted name": (
        CONFIG,
        replaced(CONFIG, "seed: 0\n", "seed: 0\nbenchmark.name: ../X\n"),
    ),
    "a setting that is a set": (CONFIG, said("temperature", "2.0\n  own: !!set {a}")),
    "a billion experiences": (ROWS, said("n_experiences", "1000000000")),
    "no experience": (CONFIG, said("n_experiences", "0")),
    "half an experience": (CONFIG, said("n_experiences", "1.5")),
    "a list": (CONFIG, written(CONFIG, "- a\n")),
    "nothing": (CONFIG, written(CONFIG, "")),
    "bytes": (CONFIG, written(CONFIG, b"\xff\xfe\x00\n")),
    "an object of Python": (
        CONFIG,
        said("temperature", "!!python/object/apply:os.getcwd []"),
    ),
    "a value that YAML cannot make": (CONFIG, said("temperature", "!!bool x")),
    "a bomb": (CONFIG, written(CONFIG, BOMB)),
    "an anchor and its alias": (CONFIG, said("temperature", "2.0\n  a: &a [x]\n  b: *a")),
    "lists in lists": (CONFIG, said("temperature", nested(100_000))),
    "a config of a megabyte": (CONFIG, said("temperature", f"2.0\n# {'x' * 2**20}")),
    # run.json
    "completed in quotes": (INFO, told(completed="false")),
    "completed by a number": (INFO, told(completed=1)),
    "completed by a list": (INFO, told(completed=[0])),
    "no benchmark": (INFO, told(benchmark=None)),
    "another benchmark": (INFO, told(benchmark="split_cifar10")),
    "another method": (INFO, told(method="joint")),
    "another seed": (INFO, told(seed=1)),
    "a told seed of 1.5": (INFO, told(seed=1.5)),
    "a told seed that is false": (INFO, told(seed=False)),
    "seconds that are a number": (INFO, told(seconds=3)),
    "seconds that are a list": (INFO, told(seconds=[3])),
    "seconds that are a text": (INFO, told(seconds={"solver": "3"})),
    "seconds below 0": (INFO, told(seconds={"solver": -3})),
    "seconds without end": (INFO, told(seconds={"solver": float("inf")})),
    "seconds that are no number": (INFO, told(seconds={"solver": float("nan")})),
    "seconds of 400 digits": (INFO, told(seconds={"solver": 10**400})),
    "a cost that is a list": (INFO, told(cost=["F_total"])),
    "a cost that is no number": (INFO, told(cost={"F_total": float("nan")})),
    "versions that are a list": (INFO, told(versions=["torch"])),
    "a machine that is a text": (INFO, told(machine="cpu")),
    "a commit that is a number": (INFO, told(commit=12)),
    "times that are numbers": (INFO, told(times=[1, 2])),
    "names twice": (INFO, replaced(INFO, '"seed": 0', '"seed": 0, "seed": 0')),
    "lists in lists of JSON": (INFO, written(INFO, nested(100_000))),
    "an info of two megabytes": (INFO, told(note="x" * 2**21)),
    "null": (INFO, written(INFO, "null\n")),
    # metrics.csv
    "an extra column": (ROWS, replaced(ROWS, "value\n", "value,note\n")),
    "an extra value": (ROWS, value(FID, "0.5,0.6")),
    "a missing column": (ROWS, replaced(ROWS, HEAD, "experience,metric\n")),
    "other columns": (ROWS, replaced(ROWS, HEAD, "experience,value,metric\n")),
    "no header": (ROWS, replaced(ROWS, HEAD, "")),
    "a value of 1_000": (ROWS, value(FID, "1_000")),
    "a value after a space": (ROWS, value(FID, " 1")),
    "a value in Arabic digits": (ROWS, value(FID, "\N{ARABIC-INDIC DIGIT ONE}")),
    "a value in words": (ROWS, value(FID, "infinity")),
    "no value": (ROWS, value(FID, "")),
    "a value that is too large": (ROWS, value(FID, "1e999")),
    "an experience of 1_0": (ROWS, replaced(ROWS, "\n1,", "\n1_0,")),
    "an experience of 1.0": (ROWS, replaced(ROWS, "\n1,", "\n1.0,")),
    "an experience below 0": (ROWS, replaced(ROWS, "\n1,", "\n-1,")),
    "an experience of 5000 digits": (ROWS, replaced(ROWS, "\n1,", f"\n{'9' * 5000},")),
    "a fourth experience": (ROWS, replaced(ROWS, HEAD, f"{HEAD}3,x,0.5\n")),
    "two values": (ROWS, value(FID, f"0.5\n1,{FID},0.7")),
    "the same value twice": (ROWS, value(FID, f"0.5\n1,{FID},0.5")),
    "an accuracy of 2.5": (ROWS, value(ACCURACY, "2.5")),
    "an accuracy below 0": (ROWS, value(ACCURACY, "-0.1")),
    "an accuracy without end": (ROWS, value(ACCURACY, "inf")),
    "an accuracy of an experience of 2.5": (ROWS, value(OF_AN_EXPERIENCE, "2.5")),
    "a FID of -1": (ROWS, value(FID, "-1")),
    "a KLD of -1": (ROWS, value(KLD, "-1.0")),
    "an ARD of 1.5": (ROWS, value(ARD, "1.5")),
    "a forgetting of 7": (ROWS, value(FORGETTING, "7")),
    "no FID in the middle": (ROWS, replaced(ROWS, f"1,{FID},0.5\n", "")),
    "no FID at first": (ROWS, replaced(ROWS, f"0,{FID},0.5\n", "")),
    "no accuracy at last": (ROWS, replaced(ROWS, f"2,{ACCURACY},0.5\n", "")),
    "a quote without end": (ROWS, value(FID, '"0.5')),
    "a zero byte": (ROWS, value(FID, "0.5\0")),
    # files that are something else
    "no config": (CONFIG, removed(CONFIG)),
    "no metrics": (ROWS, removed(ROWS)),
    "metrics of another run": (ROWS, digest(metrics_csv="0" * 64)),
    "a config of another run": (CONFIG, digest(config_yaml="0" * 64)),
    "digests that are numbers": (INFO, told(files={ROWS: 1})),
    **{
        f"a {what} for {file}": (file, put(file, make))
        for file in (CONFIG, INFO, ROWS, PICTURE)
        for what, make in {
            "pipe": os.mkfifo,
            "folder": os.mkdir,
            "device": lambda path: path.symlink_to("/dev/zero"),
        }.items()
    },
    "a link to no picture": (PICTURE, put(PICTURE, lambda path: path.symlink_to("no"))),
    # pictures
    "a picture cut short": (PICTURE, lambda folder: truncate(folder / PICTURE)),
    "a picture of PostScript": (PICTURE, written(PICTURE, PAGES)),
    "a picture of a JPEG": (
        PICTURE,
        lambda folder: Image.new("L", (64, 64)).save(folder / PICTURE, format="JPEG"),
    ),
    "a picture of 1 pixel": (PICTURE, pixels(1, 1)),
    "a picture that is a line": (PICTURE, pixels(512, 7)),
    "a picture of 100 megapixels": (PICTURE, pixels(10_000, 10_000)),
    "a picture of 200 megapixels": (PICTURE, pixels(10_000, 20_000)),
    "a picture with a long text": (PICTURE, with_long_text),
}


@pytest.fixture(autouse=True)
def _no_ghostscript(monkeypatch):
    def run_it(*_, **__):
        raise AssertionError("PostScript is run")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run_it)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole run's folder, in its place."""
    return write_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of it, to break."""
    copied = tmp_path / "runs" / "split_digits" / "naive" / "seed-0"
    shutil.copytree(whole, copied)
    return copied


def refused(call, folder):
    """The line that ends the report on the folder's runs."""
    before = sorted(folder.parents[3].rglob("*"))
    status, output, errors = call(main, folder.parents[2], "--out", "report")
    (line,) = errors.splitlines()
    assert status == 2 and output == ""
    assert line.startswith("avalanche-gd-report: ") and len(line) < 700
    assert sorted(folder.parents[3].rglob("*")) == before  # nothing is written
    return line


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_one_line_that_names_its_file(call, folder, what):
    file, damage = BROKEN[what]
    damage(folder)
    line = refused(call, folder)
    assert str(folder / file) in line
    assert re.search("delete it|run it again", line)


@pytest.mark.parametrize(
    "place",
    [
        "split_digits/joint/seed-0",
        "split_cifar10/naive/seed-0",
        "split_digits/naive/seed-1",
    ],
)
def test_a_folder_in_the_place_of_another_run_is_refused(call, folder, place):
    moved = folder.parents[2] / place
    moved.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(moved)
    assert f"{moved} has a run of" in refused(call, moved)


def test_a_folder_that_is_moved_elsewhere_is_read(folder):
    moved = folder.parents[2] / "mine"
    folder.rename(moved)
    assert read_run(moved).seed == 0


@pytest.mark.parametrize("what", ["another seed", "a value of 1_000", "two seeds"])
def test_an_unfinished_run_is_checked_too(call, folder, what):
    told(completed=False)(folder)
    file, damage = BROKEN[what]
    damage(folder)
    assert str(folder / file) in refused(call, folder)


def test_an_unfinished_run_with_more_experiences_than_it_has_is_refused(call, folder):
    told(completed=False)(folder)
    said("n_experiences", "2")(folder)
    assert f"{folder / ROWS} " in refused(call, folder)


@pytest.mark.parametrize("file", [CONFIG, ROWS])
def test_a_run_that_says_completed_is_not_believed_without_its_files(folder, file):
    assert is_complete(folder)
    (folder / file).unlink()
    with pytest.raises(ValueError, match=f"{file} is not there"):
        is_complete(folder)


@pytest.mark.parametrize("method", ["naive", "vae_replay", "solver_naive"])
def test_what_a_run_writes_is_accepted(tmp_path, method):
    made = run(small_config(tmp_path, f"method={method}", "benchmark.n_experiences=2"))
    read = read_run(made)
    assert (read.method, read.seed, read.n_experiences) == (method, 0, 2)
    digests = {
        file: hashlib.sha256((made / file).read_bytes()).hexdigest()
        for file in (CONFIG, ROWS)
    }
    assert read.info["files"] == digests


@pytest.mark.parametrize("name", ["seconds", "cost", "completed", "times"])
def test_what_a_run_says_of_itself_is_refused_if_it_was_changed(tmp_path, name):
    made = run(small_config(tmp_path, "method=naive", "benchmark.n_experiences=1"))
    other = {"seconds": {"solver": 1.5}, "cost": {"F_total": 3.0}}
    told(**{name: other.get(name, [])} | {"completed": name != "completed"})(made)
    with pytest.raises(ValueError, match=r"run\.json .*was changed after it was written"):
        is_complete(made)


@pytest.mark.parametrize("file", [CONFIG, INFO, ROWS, PICTURE])
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data())
def test_any_change_of_a_file_is_one_line_or_no_error(folder, file, draw):
    content = (folder / file).read_bytes()
    place = draw.draw(integers(0, len(content)))
    taken = draw.draw(integers(0, 3))
    changed = content[:place] + draw.draw(binary(max_size=3)) + content[place + taken :]
    (folder / file).write_bytes(changed)
    try:
        for section in collect([folder]).sections:
            strips(section)
    except ValueError as error:
        assert str(folder) in str(error)
        assert len(str(error).splitlines()) == 1
    finally:
        (folder / file).write_bytes(content)


ODD = {
    "no more than it must": told(versions=None, commit=None, machine=None),
    "empty parts": told(versions={}, machine={}, cost={}, times=[]),
    "parts that are null": replaced(INFO, '"commit"', '"more": null, "commit"'),
    "a machine of odd parts": told(machine={"device": ["cpu"], "threads": None, "x": {}}),
    "names of another version": told(more={"a": [1, None]}),
    "a FID that is no number": value(FID, "nan"),
    "a FID without end": value(FID, "inf"),
    "a FID that is nearly 0": value(FID, "-1e-09"),
    "an ARD that is nearly 1": value(ARD, "1.0000001"),
    "a forgetting below 0": value(FORGETTING, "-0.25"),
    "a seed of 19 digits": lambda folder: [
        said("seed", str(2**63))(folder),
        told(seed=2**63)(folder),
        folder.rename(folder.with_name(f"seed-{2**63}")),
    ],
    "settings of another version": replaced(
        CONFIG, "seed: 0\n", "seed: 0\nmore:\n  a: [1]\n"
    ),
    "lines that end as on Windows": replaced(ROWS, f"0,{FID},0.5\n", f"0,{FID},0.5\r\n"),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_folder_is_reported(call, folder, what):
    ODD[what](folder)
    status, _, errors = call(main, folder.parents[2])
    assert (status, errors) == (0, "")


def test_a_run_that_went_on_shows_each_machine_and_commit(call, folder, tmp_path):
    machines = [{"device": "cpu", "processor": name, "threads": 1} for name in "AB"]
    times = [
        {"after_experience": i, "versions": {"torch": f"2.{i}"}, "commit": f"{i}" * 40}
        | {"machine": machine}
        for i, machine in enumerate(machines)
    ]
    told(versions=None, commit=None, machine=None, times=times)(folder)
    assert call(main, folder.parents[2])[0] == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "cpu (A), cpu (B)" in page and "000000000000, 111111111111" in page
    assert "2.0 (naive seed 0)" in page and "2.1 (naive seed 0)" in page
