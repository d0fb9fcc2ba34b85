"""Every method of the registry, with and without conditioning."""

import io
import math

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GEMPlugin,
    LwFPlugin,
    MASPlugin,
    MIRPlugin,
    ReplayPlugin,
    RWalkPlugin,
    SynapticIntelligencePlugin,
)
from avalanche.training.plugins import GenerativeReplayPlugin as AvalancheReplayPlugin

from avalanche_gd import (
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
)
from avalanche_gd.plugins import Teacher
from avalanche_gd.runs.composition import compose_config, method_names
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import run
from avalanche_gd.training.plugin_state import load_plugin_states, plugin_states
from tests.helpers.bits import same_bits, weights
from tests.helpers.repository import METHODS_PAGE
from tests.helpers.small_runs import metrics, small_config

METHODS = method_names()
STEPS = {method: 12 if method == "rwalk" else 4 for method in METHODS}  # scores every 10
TAKEN = STEPS | {"iid": 5 * STEPS["iid"]}  # those of all experiences
CASES = [
    (method, conditional)
    for method in METHODS
    for conditional in (False, True)
    if not (conditional and method.startswith(("solver_", "vae_")))
]
CASES.append(("generative_distillation method.unconditional_weight=0.5", True))


class Watch(SupervisedPlugin):
    """Notes in the second experience what plugins add to the loss, and keep."""

    def __init__(self, plugins):
        super().__init__()
        self.losses, self.sizes, self.added, self.effects = [], [], {}, set()
        for plugin in plugins:
            self._watch(plugin)

    def _watch(self, plugin):
        before_backward = plugin.before_backward
        name = type(plugin).__name__

        def noting(strategy, **kwargs):
            loss = strategy.loss.item()
            before_backward(strategy, **kwargs)
            self.added.setdefault(name, []).append(strategy.loss.item() - loss)

        plugin.before_backward = noting

    def before_backward(self, strategy, **kwargs):
        if Teacher.of(strategy).model is not None:
            self.effects.add("a teacher answers")

    def after_training_iteration(self, strategy, **kwargs):
        self.losses.append(strategy.loss.item())
        self.sizes.append(len(strategy.mb_x))


def penalises(plugin, watch, strategy):
    """Zero at the first step, when nothing has moved, and above it later."""
    added = watch.added[type(plugin).__name__]
    assert abs(added[0]) < 1e-6 < max(added)


def replays_beside(plugin, watch, strategy):
    assert len(plugin.storage_policy.buffer) > 0
    assert max(watch.sizes) == 2 * strategy.train_mb_size


def replays_a_memory(plugin, watch, strategy):
    assert len(plugin.storage_policy.buffer) > 0
    assert max(watch.added[type(plugin).__name__]) > 1e-6


def projects_on(plugin, watch, strategy):
    memory = plugin.memory_x if isinstance(plugin, GEMPlugin) else plugin.buffers
    parts = memory.values() if isinstance(memory, dict) else memory
    assert [len(part) for part in parts] == [40, 40]  # of each experience
    reference = plugin.G if isinstance(plugin, GEMPlugin) else plugin.reference_gradients
    assert reference.abs().sum() > 0


def teaches(plugin, watch, strategy):
    assert "a teacher answers" in watch.effects
    assert max(map(abs, watch.added[type(plugin).__name__])) > 1e-6


def distils_a_solver(plugin, watch, strategy):
    assert max(watch.added["LwFPlugin"]) > 1e-6


def extends_the_batch(plugin, watch, strategy):
    assert set(watch.sizes) == {2 * strategy.train_mb_size}


EFFECTS = {
    AvalancheReplayPlugin: extends_the_batch,
    GenerativeDistillationPlugin: teaches,
    GenerativeReplayPlugin: teaches,
    RankOneEWCPlugin: penalises,
    EWCPlugin: penalises,
    SynapticIntelligencePlugin: penalises,
    MASPlugin: penalises,
    RWalkPlugin: penalises,
    MIRPlugin: replays_a_memory,
    ReplayPlugin: replays_beside,
    GEMPlugin: projects_on,
    AGEMPlugin: projects_on,
    LwFPlugin: distils_a_solver,
}


def make(method, conditional, folder):
    method, *options = method.split()
    config = small_config(
        folder,
        f"method={method}",
        *options,
        f"model.conditional={conditional}",
        f"generator.steps={STEPS[method]}",
        f"solver.steps={STEPS[method]}",
        "generator.batch_size=16",
        "solver.batch_size=16",
        *(["method.pool_size=40"] if method == "pooled_distillation" else []),
    )
    torch.manual_seed(0)
    return Learner(config)


def first_experience(method, conditional, stream, folder):
    learner = make(method, conditional, folder)
    learner.train(stream[0])
    return learner


@pytest.fixture
def stream(digits):
    return digits.train_stream


@pytest.mark.parametrize(("method", "conditional"), CASES)
def test_every_method_trains_has_its_effect_and_survives_a_checkpoint(
    method, conditional, stream, tmp_path
):
    learner = first_experience(method, conditional, stream, tmp_path / "first")
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    learner.train(stream[1])

    again = make(method, conditional, tmp_path / "again")
    assert again.can_go_on()
    again.load_state_dict(state, stream[:1])
    watches = {}
    for name, strategy in again.strategies.items():
        plugins = again.method_plugins[name]
        watches[name] = Watch(plugins)
        strategy.plugins.append(watches[name])
    again.train(stream[1])

    for name, strategy in again.strategies.items():
        watch = watches[name]
        assert len(watch.losses) == TAKEN[method.split()[0]]
        assert all(map(math.isfinite, watch.losses))
        whole = weights(learner.strategies[name].model)
        assert same_bits(weights(strategy.model), whole)
        for plugin in again.method_plugins[name]:
            effect = EFFECTS.get(type(plugin)) or EFFECTS.get(type(plugin).__base__)
            if effect is not None:
                effect(plugin, watch, strategy)
    if conditional:
        assert again.model.classes_seen.sum() == 4


@pytest.mark.parametrize("method", ["experience_replay", "gem", "agem", "mir"])
def test_a_memory_lasts_over_five_experiences(method, tmp_path):
    """Its parts are nested more deeply after each."""
    values = metrics(run(small_config(tmp_path, f"method={method}", "generator.steps=3")))
    assert "\n4,generator/FID_Final/" in values


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_get_the_same_data_steps_and_batch_sizes(method):
    """Unless they are told otherwise; that they take the steps, the test above says."""
    plain, config = (compose_config([f"method={name}"]) for name in ("naive", method))
    for part in ("seed", "model", "benchmark", "generator", "solver", "evaluation"):
        assert getattr(config, part) == getattr(plain, part)


@pytest.mark.parametrize("method", ["joint", "solver_cumulative"])
def test_all_data_up_to_the_experience_are_trained_on(method, stream, tmp_path):
    learner, sizes = make(method, False, tmp_path), []

    class Data(SupervisedPlugin):
        def before_training_iteration(self, strategy, **kwargs):
            sizes.append(len(strategy.adapted_dataset))

    for strategy in learner.strategies.values():
        strategy.plugins.append(Data())
    for experience in stream[:3]:
        sizes.clear()
        learner.train(experience)
        so_far = stream[: experience.current_experience + 1]
        assert set(sizes) == {sum(len(one.dataset) for one in so_far)}


RATIOS = [name for name in METHODS if name.endswith("_distillation")]


@pytest.mark.parametrize("method", ["generative_replay", *RATIOS])
def test_all_distillations_and_generative_replay_take_a_ratio(method):
    config = compose_config([f"method={method}", "method.replay_ratio=0.25"])
    plugin, *_ = config.make_plugins()
    assert plugin.lesson.count(64) == 16


def test_each_method_is_described_on_the_page_of_methods():
    text = METHODS_PAGE.read_text()
    assert [method for method in METHODS if f"| `{method}`" not in text] == []


def test_a_memory_keeps_the_weights_by_which_it_takes_up_new_samples(stream):
    old, new = ReplayPlugin(mem_size=20), ReplayPlugin(mem_size=20)
    old.storage_policy.post_adapt(None, stream[0])
    load_plugin_states([new], plugin_states([old]), torch.nn.Identity())
    (before,), (after,) = (
        plugin.storage_policy.buffer_groups.values() for plugin in (old, new)
    )
    assert len(after.buffer) == 20
    kept = []
    for buffer in (before, after):
        torch.manual_seed(1)
        buffer.update_from_dataset(stream[1].dataset)
        kept.append(torch.stack([image for image, *_ in buffer.buffer]))
    assert torch.equal(*kept)
