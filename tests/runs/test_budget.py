"""What a model may spend in an experience: steps or epochs, with an old Adam or a new."""

import io
import json
import math
import sys

import pytest
import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.models.classifier import CLASSIFIERS
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import run
from tests.helpers.small_runs import metrics, run_killed_after, small_config

BATCH = 64
EPOCHS = ["generator.steps=null", "generator.epochs=2", "solver.steps=null"]
EPOCHS += ["solver.epochs=3", "generator.batch_size=64", "solver.batch_size=64"]
NEW = ["generator.reset_optimizer=true", "solver.reset_optimizer=true"]


class Watch(SupervisedPlugin):
    """Notes the size of each step's batch, by experience, and Adam's first moments."""

    def __init__(self):
        super().__init__()
        self.sizes, self.moments = [], []

    def before_training_exp(self, strategy, **kwargs):
        self.sizes.append([])

    def after_training_iteration(self, strategy, **kwargs):
        if not self.sizes[-1]:
            (moment, *_), grad = self._adam(strategy), self._gradient(strategy)
            self.moments.append(torch.equal(moment, grad * 0.1))
        self.sizes[-1].append(len(strategy.mb_x))

    def _adam(self, strategy):
        state = strategy.optimizer.state
        return [state[p]["exp_avg"] for p in state if p.grad is not None]

    def _gradient(self, strategy):
        return next(p.grad for p in strategy.optimizer.state if p.grad is not None)


def watched(tmp_path, stream, *overrides):
    """A learner that has learned a stream, and what was noted by model."""
    learner = Learner(small_config(tmp_path, *overrides))
    watches = {}
    for name, strategy in learner.strategies.items():
        watches[name] = Watch()
        strategy.plugins.append(watches[name])
    for experience in stream:
        learner.train(experience)
    return learner, watches


def batches(size, epochs):
    """The sizes of all batches of so many epochs, the last of each kept."""
    last = [size % BATCH] if size % BATCH else []
    return ([BATCH] * (size // BATCH) + last) * epochs


@pytest.mark.parametrize("method", ["naive", "joint", "generative_distillation"])
def test_epochs_keep_their_last_batch_and_are_over_all_that_is_brought(
    tmp_path, digits, method
):
    stream = digits.train_stream[:3]
    _, watches = watched(tmp_path, stream, f"method={method}", *EPOCHS)
    sizes = [len(experience.dataset) for experience in stream]
    if method == "joint":
        sizes = [sum(sizes[: index + 1]) for index in range(3)]
    assert watches["generator"].sizes == [batches(size, 2) for size in sizes]
    assert watches["solver"].sizes == [batches(size, 3) for size in sizes]


def test_the_papers_epochs_are_the_papers_steps():
    """A hundred of 12,000 images in batches of 128, joint the fifth time; CIFAR's 200."""
    steps = [100 * math.ceil(12_000 * n / 128) for n in (1, 5)]
    assert steps == [9_400, 46_900] and 200 * math.ceil(10_000 / 64) == 31_400


@pytest.mark.parametrize("budget", [EPOCHS, []], ids=["epochs", "steps"])
@pytest.mark.parametrize("is_new", [False, True])
def test_a_reset_optimizer_begins_each_experience_anew(tmp_path, digits, budget, is_new):
    options = ["method=naive", *budget, *(NEW if is_new else [])]
    learner, watches = watched(tmp_path, digits.train_stream[:2], *options)
    for name, strategy in learner.strategies.items():
        watch = watches[name]
        assert watch.moments == [True, is_new]
        steps = {int(state["step"]) for state in strategy.optimizer.state.values()}
        counts = [len(sizes) for sizes in watch.sizes]
        assert steps == {counts[1] if is_new else sum(counts)}


def test_a_run_of_epochs_goes_on_with_the_same_bits(tmp_path):
    options = ["method=joint", "benchmark.n_experiences=2", *EPOCHS, *NEW]
    options += ["model.terminal_alpha_bar=1e-8"]
    whole = run(small_config(tmp_path / "whole", *options))
    config = small_config(tmp_path / "killed", *options)
    run_killed_after(1, config)
    again = run(config)
    assert metrics(again) == metrics(whole)
    costs = [json.loads((f / "run.json").read_text())["cost"] for f in (whole, again)]
    assert costs[0] == costs[1]


def test_a_step_of_epochs_costs_the_mean_of_its_batches(tmp_path, digits):
    stream = digits.train_stream[:2]
    learner, watches = watched(tmp_path, stream, "method=naive", *EPOCHS)
    counts = [sum(sizes) for sizes in watches["generator"].sizes]
    cost = learner.cost()
    steps = len(watches["generator"].sizes[-1])
    assert cost["F_per_step"] == pytest.approx(3 * counts[-1] / BATCH / steps)
    assert cost["F_total"] == pytest.approx(3 * sum(counts) / BATCH)


def test_progress_counts_the_steps_of_epochs(tmp_path, digits, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")  # else those of the terminal that tests run in
    monkeypatch.setattr("avalanche_gd.runs.progress._SHOW_EVERY", 0.0)
    stream = digits.train_stream[:1]
    _, watches = watched(tmp_path, stream, "method=naive", *EPOCHS)
    steps = len(watches["generator"].sizes[0])
    shown = terminal.getvalue()
    assert f"/{2 * len(stream[0].dataset)} " in shown  # images
    assert f"step {steps}/{steps}, loss" in shown


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "simple_cnn"])
def test_a_solver_has_its_architecture(tmp_path, name):
    learner = Learner(small_config(tmp_path, f"solver.architecture={name}"))
    expected = CLASSIFIERS[name]((1, 8, 8), 10)
    assert type(learner.strategies["solver"].model) is type(expected)


def test_a_solvers_replay_has_its_own_settings(tmp_path):
    options = ["solver.replay_eta=0.5", "solver.increasing_replay_size=true"]
    learner = Learner(small_config(tmp_path, *options))
    (lesson,) = (
        plugin.lesson
        for plugin in learner.strategies["solver"].plugins
        if hasattr(plugin, "lesson")
    )
    assert lesson.eta == 0.5 and lesson.is_increasing


def test_a_models_schedule_may_end_without_a_signal(tmp_path):
    learner = Learner(small_config(tmp_path, "model.terminal_alpha_bar=1e-8"))
    assert learner.model.process.alpha_bar[-1].item() == pytest.approx(1e-8, rel=1e-3)


def test_a_models_noise_may_be_that_of_flow_matching(tmp_path):
    process = Learner(small_config(tmp_path, "model.process=flow")).model.process
    assert process.prediction_type == "flow_prediction"
    assert (process.alpha_bar[-1], process.beta_bar[-1]) == (0, 1)
