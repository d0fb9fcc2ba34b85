"""What a run measures, in which features, and what it says of them."""

import csv
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from avalanche_gd import SplitDigits
from avalanche_gd.data.benchmark import as_benchmark
from avalanche_gd.report.collect import collect
from avalanche_gd.report.tables import as_csv, as_text, runs_as_csv
from avalanche_gd.runs import columns
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.dry_run import dry_run
from avalanche_gd.runs.evaluation_config import measure_names
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import run
from tests.helpers.fake_runs import write_run
from tests.helpers.small_runs import metrics, run_killed_after, small_config

EVERY = "evaluation.measures=[kid,precision_recall,afid,transfer,classification_accuracy]"
ASKED = (
    "KID",
    "precision",
    "recall",
    "density",
    "coverage",
    "AFID",
    "F_of_FID",
    "CAS",
    "backward_transfer",
    "forward_transfer",
)
MEASURED = [EVERY, "method=naive", "evaluation.images=100", "benchmark.n_experiences=2"]


@pytest.fixture
def _prdc():
    pytest.importorskip("prdc", reason="prdc is not installed")


@pytest.mark.usefixtures("_prdc", "sketched")
def test_measures_that_are_asked_for_are_in_the_tables_and_outlive_a_kill(tmp_path):
    folder = run(small_config(tmp_path / "whole", *MEASURED))
    config = small_config(tmp_path / "killed", *MEASURED)
    run_killed_after(1, config)
    assert metrics(run(config)) == metrics(folder)
    sections = collect([tmp_path / "whole"]).sections
    names = [row["metric"] for row in csv.DictReader(as_csv(sections).splitlines())]
    assert set(ASKED) < set(names)
    first, last = csv.DictReader(runs_as_csv(sections).splitlines())
    assert np.isfinite([float(last[name]) for name in ASKED]).all()
    fids = [
        row["value"]
        for row in csv.DictReader(metrics(folder).splitlines())
        if row["experience"] == "1" and "FID_Exp" in row["metric"]
    ]
    assert float(last["AFID"]) == pytest.approx(np.mean([float(fid) for fid in fids]))
    assert float(first["F_of_FID"]) == 0
    caption = " ".join(as_text(sections).split("\n\n")[0].split())
    listed = "AFID, F of FID, Backward transfer and Forward transfer are in the"
    assert f"{listed} features of an oracle classifier." in caption


def test_what_is_not_asked_for_is_in_no_table(tmp_path):
    write_run(tmp_path)
    sections = collect([tmp_path]).sections
    (head, *_) = runs_as_csv(sections).splitlines()
    assert not set(ASKED) & set(head.split(","))


@pytest.mark.usefixtures("_prdc")
def test_a_check_needs_no_images_for_its_measures(tmp_path, digits):
    config = small_config(tmp_path, EVERY, "method=naive", "evaluation.images=100")
    assert "works" in dry_run(config, digits)


class Pooled(nn.Module):
    def forward(self, images):
        return nn.functional.avg_pool2d(images, 2).flatten(1)


@pytest.fixture
def pooled(monkeypatch):
    """Have a name of torchvision's stand for a small module; gives how it was asked for."""
    asked = []

    def extractor(*arguments):
        asked.append(arguments)
        return Pooled()

    monkeypatch.setattr("avalanche_gd.runs.evaluation_config.feature_extractor", extractor)
    return asked


def test_the_features_of_a_run_are_those_of_its_settings(tmp_path, pooled):
    path = "/data/resnet18-f37072fd.pth"
    settings = ["evaluation.features=resnet18", f"evaluation.weights_path={path}"]
    config = small_config(tmp_path, *settings, "evaluation.measures=[afid]")
    metrics = Learner(config).strategies["generator"].evaluator.metrics
    assert pooled == [("resnet18", path)]
    extractors = [one.choice.extractor for one in metrics if hasattr(one, "choice")]
    assert len(extractors) == 2 and len(set(extractors)) == 1
    assert isinstance(extractors[0], Pooled)


WORDS = {
    "an oracle classifier": {},
    "InceptionV3": {"evaluation.features": "inception"},
    "resnet18": {"evaluation.features": "resnet18"},
    "resnet18 (resnet18-f37072fd.pth)": {
        "evaluation.features": "resnet18",
        "evaluation.weights_path": "/data/resnet18-f37072fd.pth",
    },
}


@pytest.mark.parametrize("words", WORDS)
def test_tables_and_figures_say_which_features_fid_is_in(tmp_path, words, monkeypatch):
    from matplotlib.axes import Axes

    from avalanche_gd.report import figures
    from avalanche_gd.report.style import styles_of

    write_run(tmp_path, settings=WORDS[words], cost={"F_per_step": 3.0, "F_total": 9.0})
    (section,) = collect([tmp_path]).sections
    caption = " ".join(as_text([section]).split("\n\n")[0].split())
    assert caption.endswith(f"FID is in the features of {words}.")
    labels, label = [], Axes.set_ylabel
    monkeypatch.setattr(
        Axes, "set_ylabel", lambda self, text, **o: labels.append(text) or label(self, text)
    )
    monkeypatch.setattr(figures, "draw", lambda *_: None)
    figures.curve_drawings(section, styles_of([section]))
    figures.cost_drawings(section, styles_of([section]))
    assert set(labels) == {f"in the features of {words}"}
    assert len(labels) == 3  # FID, by seconds and by passes


REFUSED = {
    "unknown features": (
        ["evaluation.features=mobilnet_v2"],
        "evaluation: no features 'mobilnet_v2'; choose from oracle, inception, or the "
        "classifiers of torchvision, such as mobilenet_v2, ",
    ),
    "weights of an oracle": (
        ["evaluation.weights_path=weights.pth"],
        "evaluation: weights_path is for features=",
    ),
    "a measure twice": (
        ["evaluation.measures=[afid,kid,afid]"],
        "evaluation: a measure is named twice: afid, kid, afid",
    ),
    "an unknown measure": (
        ["evaluation.measures=[kid,fd]"],
        "evaluation: no measure 'fd'; choose from kid, precision_recall, afid, transfer, ",
    ),
    "too few images": (
        ["evaluation.measures=[kid]"],
        "evaluation: KID needs 100 images, but 70 are generated; give more, or leave ",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_an_evaluation_that_cannot_be_is_refused_in_one_line(tmp_path, overrides, message):
    with pytest.raises(ValueError) as refused:
        small_config(tmp_path, *overrides)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value).splitlines()) == 1


WEIGHTS = {
    "of features": ("features=resnet18", "weights_path", "resnet18"),
    "of a labeller": ("labeller=resnet18", "labeller_weights", "ResNet-18"),
}


@pytest.mark.parametrize(("setting", "option", "name"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_of_another_model_end_a_run_before_any_work(
    tmp_path, setting, option, name
):
    path = tmp_path / "resnet18-f37072fd.pth"
    torch.save({}, path)
    settings = [f"evaluation.{setting}", f"evaluation.{option}={path}"]
    message = rf"^evaluation: no {name} weights \(the SHA-256"
    with pytest.raises(ValueError, match=message):
        run(small_config(tmp_path / "runs", *settings))
    assert not (tmp_path / "runs").exists()


def test_too_few_test_images_for_a_measure_end_a_run_before_any_work(tmp_path, monkeypatch):
    few = SplitDigits(2)
    few = as_benchmark(
        train=[experience.dataset for experience in few.train_stream],
        test=[experience.dataset.subset(range(40)) for experience in few.test_stream],
    )
    monkeypatch.setattr("avalanche_gd.SplitDigits", lambda *_, **__: few)
    settings = ["evaluation.measures=[kid]", "evaluation.images=100"]
    message = "^evaluation: KID needs 100 images, but 80 are in the test stream; give more"
    with pytest.raises(ValueError, match=message):
        run(small_config(tmp_path, *settings, "benchmark.n_experiences=2"))
    assert not list(tmp_path.iterdir())


def test_images_of_another_size_than_the_model_s_are_refused(tmp_path):
    settings = ["experiment=paper_fmnist", "benchmark=split_digits", "threads=1"]
    sizes = [*settings, "+benchmark.options.image_size=8", f"out={tmp_path}"]
    with pytest.raises(
        ValueError, match=r"\(1, 8, 8\), do not fit a model of \(1, 32, 32\)"
    ):
        run(
            compose_config(
                [*sizes, "evaluation.features=oracle", "evaluation.labeller=oracle"]
            )
        )
    assert not list(tmp_path.iterdir())


def test_the_name_of_the_weights_decides_a_result_and_not_their_folder(tmp_path):
    def digest(path):
        return small_config(
            tmp_path, "evaluation.features=resnet18", f"evaluation.weights_path={path}"
        ).folder.name

    assert digest("/a/resnet18-f37072fd.pth") == digest("/b/resnet18-f37072fd.pth")
    assert digest("/a/resnet18-f37072fd.pth") != digest("/a/resnet18-5c106cde.pth")


def test_all_columns_that_are_asked_for_have_a_measure():
    names = measure_names()
    made = {column.asked_as for column in columns.METRICS if column.measure}
    assert set(names) == made - {""}
    assert "measures" in asdict(small_config("runs").evaluation)
