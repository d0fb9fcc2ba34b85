"""Sections of a report: a run is in each that agrees with all settings that it has."""

import csv

import pytest

from avalanche_gd.report.collect import collect
from avalanche_gd.report.report_command import write_report
from avalanche_gd.report.tables import as_csv
from tests.helpers.fake_runs import write_run


def found(folder):
    """The methods of each section, by what tells it from others."""
    return {s.difference: list(s.methods) for s in collect([folder]).sections}


def write_sweep(folder):
    """A baseline from before a sweep, which had other settings of what it has not."""
    write_run(folder / "before", "naive", settings={"solver.replay_steps": 7})
    for steps in (10, 20):
        own = {"solver.replay_steps": steps}
        run = write_run(folder / str(steps), "generative_replay", settings=own)
        run.rename(run.with_name(f"seed-0-{steps:08x}"))


def test_a_baseline_without_replay_is_beside_each_setting_of_replay(tmp_path):
    write_sweep(tmp_path)
    assert found(tmp_path) == {
        f"solver.replay_steps = {steps}": ["generative_replay", "naive"]
        for steps in (10, 20)
    }


def test_a_run_of_several_sections_counts_once_and_is_listed_and_published_once(tmp_path):
    write_sweep(tmp_path / "runs")
    write_report([tmp_path / "runs"], tmp_path / "report", publish_to=tmp_path / "copies")
    page = (tmp_path / "report/report.html").read_text()
    assert (
        "Report of 3 complete runs" in page and page.count("<code>split_digits/naive") == 2
    )
    assert "A run without such a setting is in each section" in page
    with open(tmp_path / "report/runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted({(row["settings"], row["method"]) for row in rows}) == [
        ("solver.replay_steps = 10", "generative_replay"),
        ("solver.replay_steps = 10", "naive"),
        ("solver.replay_steps = 20", "generative_replay"),
    ]
    assert len(rows) == 3 * 3
    assert len(list((tmp_path / "copies").rglob("run.json"))) == 3


@pytest.mark.parametrize(
    ("method", "setting", "own"),
    [
        ("naive", "solver.replay_steps", {}),
        ("naive", "model.guidance", {}),
        ("solver_naive", "generator.steps", {}),
        ("solver_naive", "evaluation.images", {}),
        ("naive", "solver.steps", {"method.solver": False}),
    ],
)
def test_settings_of_what_no_run_has_make_no_sections(tmp_path, method, setting, own):
    for seed, value in enumerate((70, 90)):
        settings = own | {setting: value}
        write_run(tmp_path, method, seed, settings=settings, generates=False)
    assert found(tmp_path) == {"": [method]}


def test_a_solver_alone_is_beside_generators_of_its_images(tmp_path):
    own = {"model.preset": "fmnist-fast", "generator.steps": 1}
    write_run(tmp_path, "solver_naive", settings=own, generates=False)
    for preset in ("digits", "fmnist-small"):  # images of 8 x 8, and as those of 16 x 16
        write_run(tmp_path / preset, "naive", settings={"model.preset": preset})
    small, large = sorted(collect([tmp_path]).sections, key=lambda one: len(one.methods))
    assert list(small.methods) == ["naive"]
    assert list(large.methods) == ["naive", "solver_naive"]
    assert small.difference == ("model.preset = digits, model.sample_shape = [1, 8, 8]")


def test_a_difference_names_only_what_a_section_has(tmp_path):
    for steps in (7, 10):
        own = {"solver.replay_steps": steps}
        write_run(tmp_path / str(steps), "generative_replay", settings=own)
    write_run(tmp_path, "naive", settings={"solver.steps": 9})
    assert [*found(tmp_path)] == [
        "solver.steps = 9",
        "solver.steps = 2, solver.replay_steps = 10",
        "solver.steps = 2, solver.replay_steps = 7",
    ]


def test_an_option_of_the_benchmark_is_a_difference_unless_it_is_off(tmp_path):
    for fit in ("resize", "pad"):
        write_run(tmp_path / fit, "naive", settings={"benchmark.options.fit": fit})
    write_run(tmp_path, "joint")
    assert found(tmp_path) == {
        "benchmark.options.fit = not given": ["naive", "joint"],
        "benchmark.options.fit = pad": ["naive"],
    }


def test_an_option_that_is_none_is_another_than_one_that_is_not_given(tmp_path):
    none = {"benchmark.options.crop": None}
    write_run(tmp_path / "none", "naive", settings=none)
    write_run(tmp_path, "naive")
    assert found(tmp_path) == {
        "benchmark.options.crop = not given": ["naive"],
        "benchmark.options.crop = None": ["naive"],
    }


def test_an_argument_that_is_none_is_not_averaged_with_one_that_is_not_given(tmp_path):
    for seed, own in enumerate(({}, {"method.plugins.0.crop": None})):
        write_run(tmp_path, "naive", seed, settings=own)
    (section,) = collect([tmp_path]).sections
    labels = {label: [run.seed for run in runs] for label, runs in section.methods.items()}
    assert labels == {"naive": [0], "naive, method.plugins.0.crop=None": [1]}


def test_a_setting_that_no_plugin_takes_is_in_no_label(tmp_path):
    for seed, steps in enumerate((5, 9, 2)):
        write_run(tmp_path, "naive", seed, settings={"method.teacher_steps": steps})
    (section,) = collect([tmp_path]).sections
    assert {k: [run.seed for run in v] for k, v in section.methods.items()} == {
        "naive": [0, 1, 2]
    }


def test_the_same_run_with_other_settings_of_what_it_has_not_counts_once(tmp_path):
    for steps in (7, 10):
        own = {"solver.replay_steps": steps, "method.teacher_steps": steps}
        write_run(tmp_path / str(steps), "naive", settings=own)
    collection = collect([tmp_path])
    assert len(collection.runs) == len(collection.duplicates) == 1
    write_run(tmp_path / "other", "naive", values={"FID": 9.0})
    with pytest.raises(ValueError, match="but different results; leave one of them out"):
        collect([tmp_path])


def seeds_by_data(folder, runs):
    """The seeds of each section, by what tells it from others.

    :param runs: the method, seed and data of each.
    """
    for number, (method, seed, data) in enumerate(runs):
        write_run(folder / str(number), method, seed, data=data * 64)
    return {
        section.difference: {
            method: [run.seed for run in runs] for method, runs in section.methods.items()
        }
        for section in collect([folder]).sections
    }


NAIVE, JOINT = "naive", "joint"
OF_SEVERAL_DATA = {
    "a digest of two seeds beside another": (
        [(NAIVE, 0, "a"), (NAIVE, 1, "a"), (NAIVE, 2, "b")],
        {"data = aaaaaaaa": {NAIVE: [0, 1]}, "data = bbbbbbbb": {NAIVE: [2]}},
    ),
    "two digests of one seed": (
        [(NAIVE, 0, "a"), (JOINT, 0, "b")],
        {"data = aaaaaaaa": {NAIVE: [0]}, "data = bbbbbbbb": {JOINT: [0]}},
    ),
    "the same method, seed and settings": (
        [(NAIVE, 0, "a"), (NAIVE, 0, "b")],
        {"data = aaaaaaaa": {NAIVE: [0]}, "data = bbbbbbbb": {NAIVE: [0]}},
    ),
    "unknown data beside several": (
        [(NAIVE, 0, "a"), (NAIVE, 1, "a"), (NAIVE, 2, ""), (JOINT, 1, "b")],
        {
            "data = aaaaaaaa": {NAIVE: [0, 1]},
            "data = bbbbbbbb": {JOINT: [1]},
            "data = not recorded": {NAIVE: [2]},
        },
    ),
}


@pytest.mark.parametrize("name", OF_SEVERAL_DATA)
def test_runs_of_different_data_are_in_different_sections(tmp_path, name):
    runs, sections = OF_SEVERAL_DATA[name]
    assert seeds_by_data(tmp_path, runs) == sections
    table = list(csv.DictReader(as_csv(collect([tmp_path]).sections).splitlines()))
    assert {row["settings"] for row in table} == {*sections}


@pytest.mark.parametrize("data", ["abc", "ab ", "aa "])
def test_data_that_the_seed_may_decide_make_no_sections(tmp_path, data):
    runs = [(m, seed, own.strip()) for m in (NAIVE, JOINT) for seed, own in enumerate(data)]
    assert seeds_by_data(tmp_path, runs) == {"": {NAIVE: [0, 1, 2], JOINT: [0, 1, 2]}}


def test_a_solver_alone_is_beside_generators_of_its_data_only(tmp_path):
    for data in "ab":
        write_run(tmp_path / data, "solver_naive", data=data * 64, generates=False)
    write_run(tmp_path, "naive", data="a" * 64)
    assert found(tmp_path) == {
        "data = aaaaaaaa": ["naive", "solver_naive"],
        "data = bbbbbbbb": ["solver_naive"],
    }


def test_other_settings_of_the_benchmark_may_give_other_data(tmp_path):
    for fit, data in (("resize", "a"), ("pad", "b")):
        own = {"benchmark.options.fit": fit}
        write_run(tmp_path / fit, "naive", settings=own, data=data * 64)
    assert {*found(tmp_path)} == {
        "benchmark.options.fit = not given",
        "benchmark.options.fit = pad",
    }
    write_run(tmp_path / "other", "joint", data="c" * 64)
    assert {*found(tmp_path)} == {  # of "pad" there is one data, so it is not named
        "benchmark.options.fit = not given, data = aaaaaaaa",
        "benchmark.options.fit = not given, data = cccccccc",
        "benchmark.options.fit = pad",
    }
