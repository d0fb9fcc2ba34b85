"""What measures an experiment: its methods, and the trials that tune their weights."""

import csv
import math
import re

import pytest

import measure
import saved_models
from avalanche_gd.report.collect import collect, shown
from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.results import csv_text, read_run
from avalanche_gd.runs.run import run
from methods import EXPERIMENTS, Experiment, Method, plain, tuned
from tests.helpers.fake_data import write_class_folders
from tests.helpers.small_runs import SMALL, small_config
from trials import Trials, criterion, overrides, trial

ONE = tuned("generative_distillation", "lambd", 0.75)
BESIDE = tuned("rank1_distillation", "penalty", 100, beside=ONE.name)


def trials_of(path, results, method=ONE, criterion="FID"):
    trials = Trials(path)
    for value, result in zip(trials.lacks(method), results, strict=True):
        trials.add((method.name, method.weight, value, criterion, result, 1))
    return Trials(path)  # as it is read again


def all_trials(name, path):
    """Of the experiment where the weights of this one are tuned."""
    trials = Trials(path)
    for method in EXPERIMENTS[EXPERIMENTS[name].tuned_in or name].methods:
        for value in trials.lacks(method) if method.weight else []:
            trials.add((method.name, method.weight, value, "FID", 1, 1))
    return trials


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_methods_of_an_experiment_are_runs_that_differ(name, tmp_path):
    experiment, trials = EXPERIMENTS[name], all_trials(name, tmp_path / "trials.csv")
    configs = [
        compose_config([*overrides(experiment, method, trials), f"out={tmp_path}"])
        for method in experiment.methods
    ]
    assert len({config.folder for config in configs}) == len(configs)
    names = {method.name for method in experiment.methods}
    assert all(not method.beside or method.beside in names for method in experiment.methods)
    alone = {m.name for m in experiment.methods if m.weight and len(m.settings) == 1}
    for method in experiment.methods:  # none is left at a default where its like is tuned
        name = method.settings[0].removeprefix("method=")
        assert name not in alone or method.weight or method.beside


@pytest.mark.parametrize(
    ("results", "criterion", "best"),
    [
        ((3, 2, 5), "FID", 0.75),
        ((3, 2, 5), "accuracy", 7.5),
        ((math.nan, 9, math.nan), "FID", 0.75),
        ((math.nan, 4, 3), "accuracy", 0.75),
    ],
)
def test_the_best_of_three_trials_is_taken(tmp_path, results, criterion, best):
    trials = trials_of(tmp_path / "trials.csv", results, criterion=criterion)
    assert trials.best(ONE) == best
    assert trials.lacks(ONE) == []


def test_a_trial_that_is_missing_is_made_and_no_other(tmp_path):
    trials = Trials(tmp_path / "trials.csv")
    assert trials.lacks(ONE) == [0.075, 0.75, 7.5] and trials.best(ONE) is None
    trials.add((ONE.name, ONE.weight, 0.75, "FID", 3, 1))
    assert Trials(trials.path).lacks(ONE) == [0.075, 7.5] and trials.best(ONE) is None


def test_a_method_beside_another_takes_its_weight_over(tmp_path):
    experiment = Experiment(("benchmark=split_digits",), [ONE, BESIDE], [0])
    with pytest.raises(ValueError, match="beside generative_distillation; tune that first"):
        overrides(experiment, BESIDE, Trials(tmp_path / "none.csv"))
    trials = trials_of(tmp_path / "trials.csv", (5, 4, 3))
    assert "method.lambd=7.5" in overrides(experiment, BESIDE, trials)
    trials = trials_of(tmp_path / "trials.csv", (1, 2, 3), BESIDE)
    both = ("method.lambd=7.5", "method.penalty=10")
    assert overrides(experiment, BESIDE, trials)[-2:] == both


def test_a_trial_that_diverges_is_no_number_and_stops_nothing(monkeypatch):
    settings = ("method=naive", "generator.learning_rate=1e30", "generator.steps=5")
    few = ("generator.decay_steps=0", "solver.steps=1", "evaluation.images=70")
    result, seconds = trial([*settings, *few, "seed=100", "threads=1"])
    assert math.isnan(result) and seconds > 0


@pytest.mark.parametrize("method", ["generative_distillation", "balanced_distillation"])
def test_a_trial_has_the_result_of_a_run(method, tmp_path):
    config = small_config(tmp_path, f"method={method}", "evaluation.measures=[transfer]")
    values = {
        row.metric: row.value for row in read_run(run(config)).rows if row.experience == 2
    }
    settings = [*SMALL, f"method={method}", "evaluation.measures=[transfer]"]
    assert trial(settings)[0] == values[criterion(config).key]


def test_when_all_trials_diverge_that_is_said(tmp_path):
    trials = trials_of(tmp_path / "trials.csv", [math.nan] * 3)
    with pytest.raises(ValueError, match="all trials of generative_distillation diverged"):
        trials.best(ONE)


def test_a_method_is_named_by_its_settings():
    assert Method(("method=naive", "model.process=flow")).name == "naive model.process=flow"


def test_cifar10_is_measured_with_the_weights_of_fashion_mnist(tmp_path):
    experiment = EXPERIMENTS["split_cifar10_small"]
    trials = all_trials("split_cifar10_small", tmp_path / "trials.csv")
    *_, plain, conditioned = (m for m in experiment.methods if "rank1" in m.name)
    for method in (plain, conditioned):
        weights = overrides(experiment, method, trials)[-2:]
        assert weights == ("method.lambd=0.075", "method.penalty=1500")
    assert "model.conditional=true" in overrides(experiment, conditioned, trials)


def test_the_settings_of_the_command_win_over_those_of_the_experiment(tmp_path):
    experiment = EXPERIMENTS["split_cifar10_small"]
    trials = all_trials("split_cifar10_small", tmp_path / "trials.csv")
    root = write_class_folders(tmp_path / "images")
    more = ("benchmark=image_folder", f"benchmark.options.root={root}")
    more += ("benchmark.n_classes=10", "generator.steps=1500")
    settings = overrides(experiment, experiment.methods[0], trials)
    config = compose_config([*settings, *more])
    assert (config.benchmark.name, config.generator.steps) == ("image_folder", 1500)
    assert (
        config.benchmark.options["root"] == str(root) and config.benchmark.n_classes == 10
    )
    assert config.generator.decay_steps == 1000 and "afid" in config.evaluation.measures


def test_an_experiment_whose_weights_are_not_tuned_elsewhere_is_refused(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(measure, "HERE", tmp_path)
    monkeypatch.setattr(measure, "run_all", pytest.fail)
    with pytest.raises(ValueError, match="split_fmnist_small tunes ewc, ewc model"):
        monkeypatch.setattr("sys.argv", ["", "split_cifar10_small", "--only", "ewc,naive"])
        measure.main()


def test_weights_are_tuned_with_the_settings_of_the_experiment_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "HERE", tmp_path)
    tuned_with = []
    monkeypatch.setattr(measure, "tune", lambda *given: tuned_with.append(given[-1]))
    monkeypatch.setattr(measure, "run_all", lambda *_: [])
    words = ["", "split_fmnist_small", "--only", "gaussian_distillation", "device=cpu"]
    monkeypatch.setattr("sys.argv", words)
    measure.main()
    assert tuned_with == [("device=cpu",)]
    monkeypatch.setattr("sys.argv", [*words, "generator.steps=2"])
    with pytest.raises(ValueError, match=r"weights are tuned without generator\.steps=2; "):
        measure.main()
    assert len(tuned_with) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=3"], "seed is not taken here; give --seeds"),
        (["out=mine"], "out is not taken here; give --out"),
        (["method=naive"], "method is not taken here; give --only"),
        (["++threads=2"], "threads is not taken here; each run has one; give --jobs"),
        (["--only", "naive,mine"], "--only: no mine here, but generative_dist"),
        (["--seeds", "0,one"], "--seeds must be an integer"),
        (["--jobs", "0"], "--jobs must be an integer of 1 or more"),
        (["--images", "1"], "--images must be an integer of 2 or more"),
    ],
)
def test_what_would_be_left_aside_is_refused_before_any_work(
    monkeypatch, tmp_path, words, message
):
    monkeypatch.setattr(measure, "HERE", tmp_path)
    for work in ("run_all", "tune"):
        monkeypatch.setattr(measure, work, pytest.fail)
    monkeypatch.setattr("sys.argv", ["", "split_digits", *words])
    with pytest.raises(ValueError, match=re.escape(message)):
        measure.main()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two seeds of a method that trains a diffusion model, and a solver alone."""
    out = tmp_path_factory.mktemp("runs")
    few = "benchmark.n_experiences=2"
    for settings in (("naive", "seed=0"), ("naive", "seed=1"), ("solver_naive", "seed=0")):
        run(small_config(out, f"method={settings[0]}", settings[1], few))
    return out


def written(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_other_features_are_measured_once_for_each_saved_model(out, tmp_path, monkeypatch):
    judged, path, sections = [], tmp_path / "features.csv", collect([out]).sections

    class Judge(saved_models.Judge):
        def outcomes(self, subject):
            judged.append(subject)
            if len(judged) == 2:
                raise KeyboardInterrupt
            return super().outcomes(subject)

    monkeypatch.setattr(saved_models, "Judge", Judge)
    settings = ("evaluation.features=oracle", "evaluation.images=70")
    with pytest.raises(KeyboardInterrupt):
        saved_models.write_features(sections, out, settings, path)
    for _ in range(2):  # goes on with the second, and then has nothing to do
        saved_models.write_features(sections, out, settings, path)
    assert [subject.run["seed"] for subject in judged] == [0, 1, 1]
    rows = written(path)
    assert tuple(rows[0]) == saved_models.FEATURES
    for row, done in zip(rows, sections[0].methods["naive"], strict=True):
        assert (row["method"], row["seed"]) == ("naive", str(done.seed))
        fid = read_run(done.folder).final(METRICS[0])
        assert float(row["FID"]) == pytest.approx(fid, rel=1e-3)
    more = (*settings[:1], "evaluation.images=60")
    saved_models.write_features(sections, out, more, path)
    assert len(judged) == 5 and written(path)[:2] == rows
    assert [row["images"] for row in written(path)] == ["70", "70", "60", "60"]


def test_features_of_models_that_are_not_here_stay(out, tmp_path):
    path, sections = tmp_path / "features.csv", collect([out]).sections
    row = ["old label", "", "1", "mine", "70", "3.5", "abc"]
    (_, second) = sections[0].methods["naive"]
    runs = [shown(second.folder), "split_digits/naive/seed-7-89abcdef"]
    csv_rows = [[*row, name] for name in runs]
    path.write_text(csv_text(saved_models.FEATURES, csv_rows))
    settings = ("evaluation.features=oracle", "evaluation.images=70")
    saved_models.write_features(sections, out, settings, path)
    assert [(row["method"], row["FID"]) for row in written(path)][:2] == [
        ("naive", "3.5"),  # named as the report names its run
        ("old label", "3.5"),
    ]
    assert len(written(path)) == 4


def test_the_last_samples_of_the_first_seed_are_kept(out, tmp_path):
    run(small_config(out, "method=naive", "benchmark.n_experiences=2", "solver.steps=3"))
    sections = collect([out]).sections
    saved_models.copy_samples(sections, out, tmp_path / "samples")
    pictures = {
        str(path.relative_to(tmp_path / "samples")): path.read_bytes()
        for path in (tmp_path / "samples").rglob("*.png")
    }
    assert pictures == {
        name: (section.methods["naive"][0].folder / "samples/exp_001.png").read_bytes()
        for name, section in zip(
            ["naive.png", f"{sections[1].slug}/naive.png"], sections, strict=True
        )
    }
    assert len(sections[0].runs) == 3 and len(sections[1].runs) == 1


@pytest.fixture
def small_experiment(tmp_path, monkeypatch):
    """Two methods on one seed, in a folder of their own; measures those that are asked."""
    methods = plain("naive", "joint")
    small = Experiment(("benchmark.n_experiences=2", *SMALL), methods, [0])
    monkeypatch.setattr(measure, "EXPERIMENTS", {"small": small})
    monkeypatch.setattr(measure, "HERE", tmp_path / "experiments")

    def call(out, *words):
        words = ["", "small", "--jobs", "1", "--out", str(tmp_path / out), *words]
        monkeypatch.setattr("sys.argv", words)
        measure.main()
        return written(tmp_path / "experiments/small/runs.csv")

    return call


def test_what_another_machine_measured_stays_in_the_table(small_experiment, tmp_path):
    first = small_experiment("first", "--only", "naive")
    assert {row["method"] for row in first} == {"naive"}
    both = small_experiment("second", "--only", "joint")
    assert both[: len(first)] == first and {row["method"] for row in both} == {
        "naive",
        "joint",
    }
    (naive, joint) = collect([tmp_path / "experiments/small/runs"]).sections[0].runs
    assert not any(str(tmp_path) in file.read_text() for file in naive.folder.iterdir())
    assert joint.config["out"] == "runs"
