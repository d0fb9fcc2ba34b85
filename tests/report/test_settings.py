"""Which runs are of one method, and which of its settings tell them apart."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from avalanche_gd.report.settings import by_method
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.results import read_run
from tests.helpers.fake_runs import write_run


def test_an_option_that_is_off_is_not_in_the_label(tmp_path):
    runs = []
    for seed, size in enumerate((None, 2000)):
        taken = dict.fromkeys(("method.pool_size", "method.plugins.0.pool_size"), size)
        runs.append(read_run(write_run(tmp_path, seed=seed, settings=taken)))
    assert list(by_method(runs)) == ["naive", "naive, method.pool_size=2000"]


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
@pytest.mark.parametrize("values", [(1, "1"), (None, "None", ...)])
def test_runs_whose_settings_read_the_same_are_not_averaged(tmp_path, values, seeds):
    runs = []
    for place, value in enumerate(values):
        given = {} if value is ... else {"mass": value}
        own = {"method.plugins": [{"_target_": "Own", **given}]}
        seed = seeds[min(place, 1)]
        runs.append(read_run(write_run(tmp_path / str(place), seed=seed, settings=own)))
    with pytest.raises(
        ValueError, match=r"read the same, but for method\.plugins\.0\.mass"
    ):
        by_method(runs)


def test_a_run_of_an_earlier_version_has_the_settings_that_were_then_fixed(tmp_path):
    folder = write_run(tmp_path)
    text = (folder / "config.yaml").read_text()
    assert "replay_labels" not in text and "precision" not in text
    settings = read_run(folder).config
    assert settings["solver"]["replay_labels"] == "solver"
    assert settings["model"]["precision"] == "float32"
    assert settings["model"]["compile"] is settings["model"]["channels_last"] is False


@pytest.mark.parametrize(
    ("method", "setting", "values"),
    [
        ("rank1_distillation", "penalty", (1.0, 100.0)),
        ("ewc_distillation", "penalty", (2.0, 50.0)),
        ("ewc", "lambd", (2.0, 50.0)),
        ("snr_split_distillation", "snr_threshold", (0.1, 10.0)),
        ("balanced_distillation", "guidance_scale", (0.3, 3.0)),
        ("generative_distillation", "lambd", (0.5, 2.0)),
    ],
)
def test_an_argument_that_repeats_a_setting_is_not_in_the_label(method, setting, values):
    labels = []
    for value in values:
        config = compose_config([f"method={method}", f"method.{setting}={value}"])
        own = {"config": asdict(config), "info": {"teachers": []}}
        labels.append(SimpleNamespace(method=method, seed=0, **own))
    assert list(by_method(labels)) == [f"{method}, method.{setting}={v}" for v in values]


def write_taught(out, seed, path, *digests):
    plugins = [{"_target_": "avalanche_gd.DistillFromPlugin", "teacher": path}]
    own = {"method.teacher": path, "method.plugins": plugins}
    return write_run(out, "iid_distillation", seed, settings=own, teachers=digests)


TEACHER = "c" * 64
TAUGHT = {
    "one teacher in two places": (
        [("/a/model", TEACHER), ("b/model", TEACHER)],
        ["iid_distillation"],
    ),
    "a copy of an earlier version": (
        [("/a/model", TEACHER), (TEACHER,)],
        ["iid_distillation"],
    ),
    "two teachers in one place": (
        [("model", TEACHER), ("model", "d" * 64)],
        [f"iid_distillation, method.teacher={digit * 8}" for digit in "cd"],
    ),
    "not recorded": (
        [("/a/model",), ("b/model",)],
        [f"iid_distillation, method.teacher={path}/model" for path in ("/a", "b")],
    ),
}


@pytest.mark.parametrize("name", TAUGHT)
def test_a_teacher_is_known_by_its_content_where_that_is_recorded(tmp_path, name):
    given, labels = TAUGHT[name]
    folders = [write_taught(tmp_path, seed, *own) for seed, own in enumerate(given)]
    assert list(by_method([read_run(folder) for folder in folders])) == labels
