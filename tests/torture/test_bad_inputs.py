"""What cannot be run or reported ends in one line, with status 2, and nothing written."""

import os
import runpy
import sys
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from avalanche_gd import DiffusionModel
from avalanche_gd.report.report_command import main as report
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.run_command import main
from tests.helpers.fake_runs import write_run
from tests.helpers.repository import ROOT
from tests.helpers.small_runs import SMALL
from tests.torture.numbered import sampled

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("sketched")]

BAD: dict[Any, tuple[str, ...]] = {
    int: ("one", "1.5", "nan", "-1", "null", "''", "[1]", "{a: 1}", "1e30"),
    float: ("one", "nan", "inf", "-1", "null", "''", "[1]", "{a: 1}"),
    bool: ("maybe", "2", "nan", "null", "''", "[true]", "{a: 1}"),
    str: ("nowhere", "''", "null", "[a]", "{a: 1}", "'two\nlines'"),
    dict: ("one", "1", "[1]", "null"),
    list: ("one", "1", "{a: 1}", "null", "[null]", "[1]", "[[]]"),
}
"""By the type of a setting. Huge integers are numbers of steps as any other."""
ALLOWED = {
    *(("out", value) for value in ("nowhere", "''", "[a]", "{a: 1}", "'two\nlines'")),
    *((f"{name}.name", "nowhere") for name in ("benchmark", "method")),
    ("model.options", "null"),
    ("model.options", "{a: 1}"),
}
"""What is of a kind that is bad elsewhere."""


METHODS = {
    "memory": "experience_replay",
    "snr_threshold": "snr_split_distillation",
    "guidance_scale": "balanced_distillation",
    **dict.fromkeys(("penalty", "control"), "rank1_distillation"),
    **dict.fromkeys(("teacher", "source"), "iid_distillation"),
}
"""The methods of settings that the default method has not."""


def settings(kind: Any, above: str = "") -> list[tuple[str, Any]]:
    """The dotted names of all settings, with their types."""
    found = []
    for field in fields(kind):
        own = get_type_hints(kind)[field.name]
        name = f"{above}{field.name}"
        found += settings(own, f"{name}.") if is_dataclass(own) else [(name, own)]
    return found


def bad_values() -> list[tuple[str, str]]:
    """For each setting, the values that it cannot have."""
    found = []
    for name, kind in settings(RunConfig):
        parts = get_args(kind)
        optional = NoneType in parts
        own = parts[0] if optional else kind
        values = BAD[getattr(own, "__origin__", own)]
        found += [
            (name, value)
            for value in values
            if not (optional and value == "null") and (name, value) not in ALLOWED
        ]
    return found


@pytest.fixture(autouse=True)
def _no_training(monkeypatch):
    """A value that is accepted is a failure, and not a run."""

    def trained(*_):
        raise AssertionError("it is accepted")

    monkeypatch.setattr("avalanche_gd.runs.learner.Learner.train", trained)


def refused(answer: tuple[int, str, str], name: str) -> str:
    """The one line that ends a command."""
    status, output, errors = answer
    assert "it is accepted" not in errors
    (line,) = errors.splitlines()
    assert status == 2 and not output and line.startswith(f"{name}: ")
    assert len(line) < 700
    return line


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    DiffusionModel.from_preset("digits").save_pretrained(folder)
    return folder


@sampled("name, value", bad_values(), sample=6)
def test_a_setting_of_a_value_that_it_cannot_have(call, tmp_path, saved, name, value):
    method = METHODS.get(name.removeprefix("method."), "generative_distillation")
    words = [f"method={method}"]
    if method == "iid_distillation":
        words.append(f"method.teacher={saved}")
    line = refused(call(main, *SMALL, *words, f"++{name}={value}"), "avalanche-gd")
    assert name.split(".")[0] in line or name.split(".")[-1] in line
    assert not list(tmp_path.iterdir())


COMMANDS = [
    ("seed=1", "seed=1,2"),  # a sweep without -m
    ("seed",),
    ("=1",),
    ("seed=1=",),
    ("seed==",),
    ("+seed=1",),
    ("~seed",),
    ("seed.a=1",),
    ("method.plugins.0.lambd.a=1",),
    ("[seed]=1",),
    ("seed=${nowhere}",),
    ("seed=${seed}",),
    ("seed=${oc.env:NOWHERE}",),
    ("seed=${nowhere:1}",),
    ("--info", "nowhere"),
    ("--multirun=yes",),
    ("method=",),
    ("method=null",),
    ("method=../config",),
    ("method=/etc/passwd",),
    ("model=null",),
    ("benchmark=[split_digits]",),
    ("experiment=nowhere",),
    ("hydra/launcher=nowhere",),
    ("hydra.nowhere=1",),
    ("--nowhere",),
    ("-x",),
    ("-m", "seed="),
    ("-m", "seed=1,one"),
    ("-m", "method=naive,"),
    ("-m", "method=glob(nowhere*)"),
    ("-m", "seed=range(1)x"),
    ("-m", "seed=interval(0,1)"),
    ("--multirun", "generator.steps=1,0"),
    ("--check", "generator.steps=0"),
    ("-m", "--check", "seed=0,1", "hydra.launcher._target_=elsewhere.Launcher"),
    ("--config-name",),
    ("--config-name", "nowhere"),
    ("--config-dir", "nowhere"),
    ("--cfg", "nowhere"),
    ("--package",),
    ("\N{ARABIC-INDIC DIGIT ONE}=1",),
    ("out=~nobody-here/runs",),
    ("benchmark=split_fmnist", "benchmark.options.root=~nobody-here"),
    ("method=iid_distillation", "method.teacher=~nobody-here/model"),
    ("seed=\0",),
    ("seed=\udcff",),
]


@sampled("arguments", [(arguments,) for arguments in COMMANDS], sample=3)
def test_arguments_that_a_command_cannot_have(call, tmp_path, arguments):
    refused(call(main, *SMALL, *arguments), "avalanche-gd")
    assert not list(tmp_path.iterdir())


SUITES = [
    ("--jobs", "0"),
    ("--jobs", "-1"),
    ("--jobs", "1.5"),
    ("--jobs", "two"),
    ("--jobs",),
    ("--seeds", ""),
    ("--seeds", "1,"),
    ("--seeds", "1.5"),
    ("--seeds", "-1"),
    ("--seeds", str(2**64)),
    ("--methods", ""),
    ("--methods", "naive,"),
    ("--methods", "naive,magic"),
    ("method=joint",),
    ("seed=3",),
    ("++seed=3",),
    ("out=elsewhere",),
    ("check=true",),
    ("--methods", "../config"),
    ("--scale", "nowhere"),
    ("--nowhere",),
    ("--out", "/etc/passwd"),
    ("--out", "/etc/passwd/nowhere"),
    ("--check", "seed"),
    ("nowhere=1",),
    ("seed=1,2",),
    ("-m",),
    ("\N{SNOWMAN}",),
]


@sampled("arguments", [(arguments,) for arguments in SUITES], sample=2)
def test_arguments_that_a_suite_cannot_have(call, tmp_path, arguments):
    def suite():
        sys.argv[0] = "split_digits.py"
        runpy.run_path(str(ROOT / "benchmarks" / "split_digits.py"), run_name="__main__")

    refused(call(suite, "--jobs", "1", *arguments), "avalanche-gd")
    assert not list(tmp_path.iterdir())


REPORTS = [
    (),
    ("nowhere",),
    ("empty",),
    ("a file",),
    ("a link",),
    ("a pipe",),
    ("/dev/null",),
    ("x" * 300,),
    ("runs/split_digits/naive/seed-0/samples",),
    ("runs", "nowhere"),
    ("runs", "empty"),
    ("runs", "runs/split_digits/naive/seed-0/run.json"),
    ("runs", "--out"),
    ("runs", "--out", "a file"),
    ("runs", "--out", "a file/report"),
    ("runs", "--out", "a link"),
    ("runs", "--out", "/proc/nowhere"),
    ("runs", "--out", "/dev/null"),
    ("runs", "--out", "x" * 300),
    ("runs", "--nowhere"),
    ("runs", "--out", "blocked"),
    ("--out", "report"),
]


@sampled("arguments", [(arguments,) for arguments in REPORTS], sample=2)
def test_arguments_that_a_report_cannot_have(call, tmp_path, arguments):
    write_run(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    (tmp_path / "blocked" / "report.html").mkdir(parents=True)
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "a link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "a pipe")
    before = sorted(tmp_path.rglob("*"))
    refused(call(report, *arguments), "avalanche-gd-report")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "a file").read_text() == "mine"
