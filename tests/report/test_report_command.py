"""The report's command: its files, and what it refuses before it writes one."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from avalanche_gd.report import report_command
from avalanche_gd.report.report_command import main, write_report
from avalanche_gd.runs.run import run
from tests.helpers.bits import truncate
from tests.helpers.fake_runs import write_run
from tests.helpers.small_runs import small_config


@pytest.fixture
def command(call):
    """Call the command; gives status and errors."""

    def status_and_errors(*folders):
        status, _, errors = call(main, *folders)
        return status, errors

    return status_and_errors


def _cut(name):
    return lambda folder: truncate(folder / name)


def _cut_a_digit(folder):
    path = folder / "metrics.csv"
    path.write_text(path.read_text()[:-2])


def _drop_the_last_experience(folder):
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("2,")))


def _cut_at_a_line(folder):
    path = folder / "config.yaml"
    path.write_text(path.read_text().split("evaluation:")[0])


DAMAGE = {
    "run.json": _cut("run.json"),
    "metrics.csv": _cut("metrics.csv"),
    "config.yaml": _cut("config.yaml"),
    "metrics.csv in a number": _cut_a_digit,
    "metrics.csv at an experience": _drop_the_last_experience,
    "config.yaml at a line": _cut_at_a_line,
    "config.yaml away": lambda folder: (folder / "config.yaml").unlink(),
    "metrics.csv away": lambda folder: (folder / "metrics.csv").unlink(),
    "exp_001.png": _cut("samples/exp_001.png"),
    "run.json as a list": lambda folder: (folder / "run.json").write_text("[]\n"),
    "run.json without seconds": lambda folder: (folder / "run.json").write_text(
        json.dumps({"completed": True})
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_run_cut_short_is_one_line_that_names_the_file(command, tmp_path, name):
    write_run(tmp_path, "joint")
    folder = write_run(tmp_path, "naive")
    DAMAGE[name](folder)
    status, errors = command(tmp_path)
    (line,) = errors.splitlines()
    assert status == 2
    assert line.startswith("avalanche-gd-report: ")
    assert name.split()[0] in line and str(folder) in line and "delete" in line
    assert not (tmp_path / "report").exists()


def test_the_same_seed_with_different_results_is_refused(command, tmp_path):
    folders = [
        write_run(tmp_path / place, "naive", values={"FID": fid})
        for place, fid in (("a", 1.0), ("b", 2.0))
    ]
    status, errors = command(tmp_path / "a", tmp_path / "b")
    (line,) = errors.splitlines()
    assert status == 2 and all(str(folder) in line for folder in folders)
    assert "same method, seed and settings but different results" in line
    assert not (tmp_path / "report").exists()


def test_places_without_runs_are_one_line(command, tmp_path):
    write_run(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    for bad, message in (("empty", "no run in empty"), ("nowhere", "no folder nowhere")):
        status, errors = command("runs", bad)
        (line,) = errors.splitlines()
        assert status == 2 and line.startswith("avalanche-gd-report: ") and message in line
    assert not (tmp_path / "report").exists()


def test_bad_arguments_are_one_line(command, tmp_path):
    write_run(tmp_path / "runs")
    (tmp_path / "file").touch()
    for arguments, message in (
        ([], "FOLDER"),
        (["runs", "--to", "x"], "--to"),
        (["runs", "--ou", "x"], "unrecognized arguments: --ou"),
        (["runs", "--out", "file"], "file is a file; choose a folder with --out"),
    ):
        status, errors = command(*arguments)
        (line,) = errors.splitlines()
        assert status == 2 and message in line


@pytest.mark.parametrize(
    "content",
    ["# of Hydra\ndefaults:\n  - a: b\n", "wandb_version: 1\n", "a: b\n" * 100_000],
    ids=["hydra", "wandb", "long"],
)
def test_the_command_writes_to_report_and_others_files_are_no_runs(
    command, tmp_path, content
):
    write_run(tmp_path / "runs")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(content)
    assert command(".") == (0, "")
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 99, b"seed: 0\n", b"x" * 2**19],
    ids=["empty", "zeros", "short", "long"],
)
def test_a_damaged_run_in_a_folder_of_another_name_is_not_left_out(
    command, tmp_path, content
):
    write_run(tmp_path, "joint")
    folder = write_run(tmp_path, "naive").rename(tmp_path / "mine")
    (folder / "run.json").unlink()
    (folder / "config.yaml").write_bytes(content)
    status, errors = command(tmp_path)
    assert status == 2 and str(folder / "config.yaml") in errors


def test_another_programs_file_in_a_folder_of_a_seed_is_left_out(command, tmp_path):
    write_run(tmp_path, "joint")
    (tmp_path / "seed-3").mkdir()
    (tmp_path / "seed-3" / "config.yaml").write_text("lr: 1\ndefaults:\n  - a\n")
    assert command(tmp_path) == (0, "")


def test_a_report_is_the_same_bytes_each_time_and_leaves_other_files(tmp_path):
    write_run(tmp_path / "runs", "naive")
    out = tmp_path / "report"
    write_report([tmp_path / "runs"], out)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    (out / "notes.txt").write_text("mine")
    write_report([tmp_path / "runs"], out)
    after = {path: path.read_bytes() for path in out.rglob("*.*")}
    assert after == before | {out / "notes.txt": b"mine"}
    names = {str(path.relative_to(out)) for path in before}
    assert {"report.html", "runs.csv", "table.csv", "table.tex"} <= names
    figures = {name for name in names if name.startswith("figures/")}
    assert {"figures/split_digits-fid.pdf", "figures/split_digits-fid.svg"} <= figures
    assert {name.replace(".pdf", ".svg") for name in figures} <= figures
    assert {name.replace(".svg", ".pdf") for name in figures} <= figures


@pytest.fixture
def replaced(tmp_path, sketched):
    """The folder of a report on two sections, and the folder of one of these."""
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", settings={"generator.steps": 9})
    write_report([tmp_path / "runs"], tmp_path / "report")
    return tmp_path / "report", tmp_path / "runs" / "a"


def figures_in(report):
    return {path.name for path in (report / "figures").iterdir()}


def test_a_report_leaves_none_of_an_earlier_ones_figures_and_all_other_files(replaced):
    report, fewer = replaced
    before = figures_in(report)
    (report / "figures" / "split_digits-2-mine.pdf").write_text("mine")
    (report / "figures" / "split_digits-2-kld.pdf").write_text("changed by me")
    write_report([fewer], report)
    write_report([fewer], report.with_name("new"))
    own = {"split_digits-2-mine.pdf", "split_digits-2-kld.pdf"}
    assert own & before == {"split_digits-2-kld.pdf"}
    assert figures_in(report) == figures_in(report.with_name("new")) | own < before | own


def test_a_report_that_cannot_be_written_leaves_the_earlier_ones_figures(replaced):
    report, fewer = replaced
    before = figures_in(report)
    blocked = report / "figures" / "split_digits-fid.svg"
    blocked.unlink()
    blocked.mkdir()
    with pytest.raises(ValueError, match=r"cannot write .*split_digits-fid\.svg"):
        write_report([fewer], report)
    assert figures_in(report) == before
    blocked.rmdir()
    write_report([fewer], report)
    assert not [name for name in figures_in(report) if name.startswith("split_digits-2")]


@pytest.mark.parametrize("content", ["", "[]", '{"../../runs": 1}', "\0", "[" * 100_000])
def test_a_damaged_list_of_figures_removes_nothing(replaced, content):
    report, fewer = replaced
    before = figures_in(report)
    (report / "figures" / "avalanche-gd-report.json").write_text(content)
    write_report([fewer], report)
    assert figures_in(report) == before and fewer.is_dir()


def test_real_runs_are_reported(tmp_path):
    folder = run(
        small_config(tmp_path / "runs", "method=naive", "benchmark.n_experiences=2")
    )
    write_report([tmp_path / "runs"], tmp_path / "report")
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if "FID_Stream" in row["metric"]]
    with open(tmp_path / "report" / "table.csv", newline="") as file:
        (mean,) = [row["mean"] for row in csv.DictReader(file) if row["metric"] == "FID"]
    assert float(mean) == float(rows[-1]["value"])
    assert len(list((tmp_path / "report" / "figures").iterdir())) >= 7


@pytest.mark.parametrize("at", ["render", "write_bytes"])
def test_an_interrupted_report_is_one_line_and_leaves_no_half(
    call, tmp_path, monkeypatch, at
):
    write_run(tmp_path / "runs")
    original = getattr(report_command, at)

    def interrupted(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(report_command, at, interrupted)
    status, _, errors = call(main, "runs")
    (line,) = errors.splitlines()
    assert status == 130 and line.startswith("avalanche-gd-report: interrupted")
    left = [path.name for path in (tmp_path / "report").rglob("*")]
    assert left == ([] if at == "render" else ["report.html"])


def test_a_file_that_cannot_be_written_is_one_line(command, tmp_path):
    write_run(tmp_path / "runs")
    (tmp_path / "report" / "table.csv").mkdir(parents=True)
    status, errors = command("runs")
    (line,) = errors.splitlines()
    assert status == 2 and "cannot write report/table.csv" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e100, 5e-324])
def test_a_value_without_measure_is_drawn_and_compared(command, tmp_path, value):
    for seed in (0, 1):
        write_run(tmp_path / "runs", "naive", seed, values={"FID": value, "KLD": value})
        write_run(tmp_path / "runs", "joint", seed, values={"FID": 1.0})
    assert command("runs") == (0, "")
    table = (tmp_path / "report" / "table.csv").read_text()
    assert "joint,0 1,FID,1.0,1.0,1.0,2," in table


@pytest.mark.filterwarnings("error")
def test_costs_of_nothing_are_drawn(command, tmp_path):
    cost = {"F_per_step": 0.0, "F_total": 0.0}
    write_run(tmp_path / "runs", cost=cost, seconds=0.0)
    assert command("runs") == (0, "")


def test_more_experiences_than_a_report_has_room_for_are_refused(command, tmp_path):
    folder = write_run(tmp_path / "runs", settings={"benchmark.n_experiences": 201})
    rows = "".join(f"{i},a,0.5\n" for i in range(201))
    (folder / "metrics.csv").write_text(f"experience,metric,value\n{rows}")
    status, errors = command("runs")
    (line,) = errors.splitlines()
    assert status == 2 and "has 201 experiences" in line and "up to 200" in line


def test_folders_in_folders_are_searched_however_deep(command, tmp_path, monkeypatch):
    write_run(tmp_path / "runs")
    deep = tmp_path / "runs" / "deep"
    deep.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(deep)
        for _ in range(1200):
            Path("a").mkdir()
            patch.chdir("a")
    assert command("runs") == (0, "")
    subprocess.run(["rm", "-r", deep], check=True)  # too deep for pytest
