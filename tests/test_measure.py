"""What measures an experiment: its methods, and the trials that tune their weights."""

import math

import pytest

from avalanche_gd.runs.composition import compose_config
from experiments import measure
from experiments.measure import EXPERIMENTS, Method, Trials, overrides, tuned

ONE = tuned("generative_distillation", "lambd", 0.75)
BESIDE = tuned("rank1_distillation", "penalty", 100, beside=ONE.name)


def trials_of(path, results, method=ONE, criterion="FID"):
    trials = Trials(path)
    for value, result in zip(trials.lacks(method), results, strict=True):
        trials.add((method.name, method.weight, value, criterion, result, 1))
    return Trials(path)  # as it is read again


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_methods_of_an_experiment_are_runs_that_differ(name, tmp_path):
    experiment, trials = EXPERIMENTS[name], Trials(tmp_path / "trials.csv")
    for method in experiment.methods:
        if method.weight:
            for value in trials.lacks(method):
                trials.add((method.name, method.weight, value, "FID", 1, 1))
    configs = [
        compose_config([*overrides(experiment, method, trials), f"out={tmp_path}"])
        for method in experiment.methods
    ]
    assert len({config.folder for config in configs}) == len(configs)
    names = {method.name for method in experiment.methods}
    assert all(not method.beside or method.beside in names for method in experiment.methods)


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
    experiment = measure.Experiment(("benchmark=split_digits",), [ONE, BESIDE], [0])
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
    result, seconds = measure.trial([*settings, *few, "seed=100", "threads=1"])
    assert math.isnan(result) and seconds > 0


def test_when_all_trials_diverge_that_is_said(tmp_path):
    trials = trials_of(tmp_path / "trials.csv", [math.nan] * 3)
    with pytest.raises(ValueError, match="all trials of generative_distillation diverged"):
        trials.best(ONE)


def test_a_method_is_named_by_its_settings():
    assert Method(("method=naive", "model.process=flow")).name == "naive model.process=flow"
