"""The summary of generation over a stream, against a second statement."""

import numpy as np
import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import DiffusionModel, DiffusionTraining
from avalanche_gd.metrics import Sampling, fid_metrics, generation_summary

SAMPLING = Sampling(images=60, steps=2)


def test_the_summary_is_that_of_the_matrix():
    q = np.array([[3.0, 0, 0, 0], [5, 2, 0, 0], [9, 4, 1, 0], [12, 8, 3, 2]])
    qualities = {i + 1: {j: q[i, j] for j in range(i + 1)} for i in range(4)}
    summary = generation_summary(qualities)
    assert summary["Final"] == pytest.approx(q[3].mean())
    means = [q[i, : i + 1].mean() for i in range(4)]
    assert summary["Mean"] == pytest.approx(np.mean(means))
    assert summary["Forgetting"] == pytest.approx(np.mean(q[3, :3] - np.diag(q)[:3]))


def test_after_one_experience_nothing_can_be_forgotten():
    assert generation_summary({1: {0: 4.0}}) == {"Final": 4.0, "Mean": 4.0}


def test_forgetting_counts_only_experiences_measured_after_their_training():
    summary = generation_summary({1: {0: 4.0}, 3: {0: 7.0, 1: 50.0, 2: 1.0}})
    assert summary["Forgetting"] == pytest.approx(3.0)


def test_an_experience_that_is_not_generated_is_not_a_number():
    assert np.isnan(generation_summary({1: {0: float("nan")}})["Final"])


def test_evaluations_along_a_stream_add_up_to_the_summary(digits):
    model = DiffusionModel.from_preset("digits", num_classes=10)
    metrics = fid_metrics(experience=True, summary=True, sampling=SAMPLING)
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        train_steps=3,
        evaluator=EvaluationPlugin(metrics),
    )
    q = {}
    for i in range(3):
        strategy.train(digits.train_stream[i], eval_streams=[digits.test_stream[:1]])
        values = strategy.eval(digits.test_stream[: i + 1])
        for j in range(i + 1):
            q[i, j] = values[f"FID_Exp/eval_phase/test_stream/Exp{j:03d}"]
    last = {
        name: values[f"FID_{name}/eval_phase/test_stream"]
        for name in ("Final", "Mean", "Forgetting")
    }
    assert last["Final"] == pytest.approx(np.mean([q[2, j] for j in range(3)]))
    means = [np.mean([q[i, j] for j in range(i + 1)]) for i in range(3)]
    assert last["Mean"] == pytest.approx(np.mean(means))
    assert last["Forgetting"] == pytest.approx(np.mean([q[2, j] - q[j, j] for j in (0, 1)]))
