"""What a checkpoint of a strategy has."""

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import DiffusionTraining
from avalanche_gd.metrics import fid_metrics
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.training.strategy_state import load_strategy_state, strategy_state
from tests.helpers.small_models import tiny
from tests.helpers.small_streams import SAMPLING, FirstPixels, Pixels
from tests.helpers.stream_builders import by_class

EXPERIENCE = "FID_Exp/eval_phase/test_stream/Exp000"
FORGETTING = "FID_Forgetting/eval_phase/test_stream"


def evaluator():
    return EvaluationPlugin(
        fid_metrics(
            experience=True,
            summary=True,
            oracle=FirstPixels(),
            features=Pixels(),
            sampling=SAMPLING,
        )
    )


def strategies(evaluators):
    models = [tiny() for _ in evaluators]
    return [
        DiffusionTraining(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), 1e-3),
            evaluator=one,
            train_mb_size=16,
            train_steps=2,
        )
        for model, one in zip(models, evaluators, strict=True)
    ]


def test_strategies_that_share_metrics_save_and_load_what_is_their_own():
    benchmark = by_class(2, task_labels=False)
    pair, first = strategies([evaluator()] * 2), []
    for strategy in pair:
        strategy.train(benchmark.train_stream[0], eval_streams=[])
        first.append(strategy.eval(benchmark.test_stream[:1])[EXPERIENCE])
    assert first[0] != first[1]
    states = [strategy_state(strategy, []) for strategy in pair]
    saved = [state["qualities"][0]["test"] for state in states]
    assert saved == [{1: {0: value}} for value in first]
    others = strategies([evaluator()] * 2)
    for strategy, state in zip(others, states, strict=True):
        load_strategy_state(strategy, [], state)
        SharedImages.of(strategy).observe(benchmark.train_stream[0])
    for strategy, before in zip(others, first, strict=True):
        strategy.train(benchmark.train_stream[1], eval_streams=[])
        values = strategy.eval(benchmark.test_stream)
        forgotten = values[EXPERIENCE] - before
        assert values[FORGETTING] == pytest.approx(forgotten)
