"""What a checkpoint of a strategy has."""

import copy
import pickle

import pytest
import torch
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import (
    DiffusionTraining,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
)
from avalanche_gd.metrics import fid_metrics
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.plugins.experiences import experience_number
from avalanche_gd.training.strategy_state import load_strategy_state, strategy_state
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import tiny
from tests.helpers.small_streams import SAMPLING, FirstPixels, Pixels
from tests.helpers.small_trainings import train_generator
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


def test_n_goes_on_after_an_experience_in_pieces(digits):
    pieces = list(split_online_stream(digits.train_stream[:1], 100))
    assert len(pieces) > 2

    def new():
        return train_generator(tiny(), [], GenerativeDistillationPlugin(), train_steps=1)

    first, second = new(), new()
    first.train([*pieces, digits.train_stream[1]], eval_streams=[])
    load_strategy_state(second, [], strategy_state(first, []))
    for strategy in (first, second):
        strategy.train(digits.train_stream[2], eval_streams=[])
        assert experience_number(strategy) == 3


class Interrupting(SupervisedPlugin):
    """Interrupts the first step after its backward pass, or before it."""

    def __init__(self, at):
        super().__init__()
        setattr(self, at, self.interrupt)

    def interrupt(self, strategy, **kwargs):
        raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["before_backward", "after_training_iteration"])
@pytest.mark.parametrize(
    "plugin", [None, GenerativeDistillationPlugin, GenerativeReplayPlugin]
)
def test_a_strategy_can_be_copied_after_an_interruption(digits, plugin, at):
    first = [] if plugin is None else [plugin()]
    strategy = train_generator(tiny(), digits.train_stream[:1], *first)
    strategy.plugins.append(Interrupting(at))
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[1], eval_streams=[])
    assert strategy.loss.requires_grad
    for one in (copy.deepcopy(strategy), pickle.loads(pickle.dumps(strategy))):
        assert one.loss == strategy.loss
        before = weights(one.model)
        one.plugins = [p for p in one.plugins if not isinstance(p, Interrupting)]
        one.train(digits.train_stream[1], eval_streams=[])
        assert not same_bits(weights(one.model), before)
        assert same_bits(weights(strategy.model), before)
