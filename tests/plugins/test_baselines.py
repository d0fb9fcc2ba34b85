"""The adapters of Avalanche's plugins, each against what it mends."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import qpsolvers
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.core import SupervisedPlugin
from avalanche.training import plugins as avalanche_plugins
from avalanche.training.plugins import (
    SynapticIntelligencePlugin as AvalancheSynapticIntelligencePlugin,
)
from avalanche.training.plugins import synaptic_intelligence

from avalanche_gd import DiffusionModel
from avalanche_gd.plugins.baselines import (
    GEMPlugin,
    MASPlugin,
    MIRPlugin,
    RWalkPlugin,
    SynapticIntelligencePlugin,
)
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import images, tiny
from tests.helpers.small_trainings import fake_strategy, train_generator


def test_si_follows_the_path_of_the_weights(tiny_model, digits):
    """The path integral of Zenke et al. (arXiv 1703.04200), equation 3, step by step."""
    plugin = SynapticIntelligencePlugin(si_lambda=1.0)
    name = "denoiser.convolution.weight"
    path = []

    class Path(SupervisedPlugin):
        def before_training_iteration(self, strategy, **kwargs):
            self.before = tiny_model.denoiser.convolution.weight.detach().clone()

        def after_training_iteration(self, strategy, **kwargs):
            weight = tiny_model.denoiser.convolution.weight
            path.append(((weight - self.before) * weight.grad).detach().flatten())

    train_generator(tiny_model, digits.train_stream[:1], plugin, Path())
    trajectory = plugin.syn_data["trajectory"][name].data
    assert torch.allclose(trajectory, sum(path), atol=1e-8)
    assert trajectory.abs().max() > 0
    importance = plugin.ewc_data[1][name].data
    assert importance.max() > 0


class CopyingSI(AvalancheSynapticIntelligencePlugin):
    """Avalanche's, which looks for the names at each step, with the weights copied."""

    def before_training_exp(self, strategy, **kwargs):
        super().before_training_exp(strategy, **kwargs)
        self.copy(self.ewc_data[0])

    def before_training_iteration(self, strategy, **kwargs):
        super().before_training_iteration(strategy, **kwargs)
        self.copy(self.syn_data["old_theta"])

    def copy(self, parameters):
        for parameter in parameters.values():
            parameter.data = parameter.data.clone()


@pytest.mark.parametrize("si_lambda", [1e4, [1e4, 1e5]])
def test_si_has_the_bits_of_avalanches_without_its_search_for_names(
    tiny_model, digits, monkeypatch, si_lambda
):
    searches = []
    search = synaptic_intelligence.get_layers_and_params
    monkeypatch.setattr(
        synaptic_intelligence,
        "get_layers_and_params",
        lambda model: searches.append(model) or search(model),
    )
    found = []
    for kind in (CopyingSI, SynapticIntelligencePlugin):
        searches.clear()
        model = copy.deepcopy(tiny_model)
        plugin = kind(si_lambda, excluded_parameters=["*.bias"])
        torch.manual_seed(5)
        train_generator(model, digits.train_stream[:3], plugin)
        importance = {name: data.data for name, data in plugin.ewc_data[1].items()}
        found.append((weights(model), importance, searches.count(model)))
    (expected, expected_importance, often), (actual, importance, once) = found
    assert same_bits(actual, expected)
    assert same_bits(importance, expected_importance)
    assert not any(name.endswith("bias") for name in importance)
    assert often > 20 and once == 3 * 4  # an experience's start and end


def test_avalanches_own_si_still_needs_the_adapter(tiny_model, digits):
    class OwnSI(AvalancheSynapticIntelligencePlugin):
        """A class that is not Avalanche's is not refused."""

    plugin = OwnSI(si_lambda=1.0)
    train_generator(tiny_model, digits.train_stream[:1], plugin)
    assert all(data.data.abs().max() == 0 for data in plugin.ewc_data[1].values())


def test_si_works_in_float64(digits):
    plugin = SynapticIntelligencePlugin(si_lambda=1e4)

    class InDouble(SupervisedPlugin):
        def before_training_iteration(self, strategy, **kwargs):
            strategy.mbatch[0] = strategy.mb_x.double()

    train_generator(tiny().double(), digits.train_stream[:2], plugin, InDouble())
    importance = [data.data for data in plugin.ewc_data[1].values()]
    assert {data.dtype for data in importance} == {torch.float64}
    assert max(data.max() for data in importance) > 0


def test_si_refuses_bfloat16_before_training(digits):
    with pytest.raises(ValueError, match="cannot compute with weights in bfloat16"):
        train_generator(
            tiny().bfloat16(), digits.train_stream[:1], SynapticIntelligencePlugin(1.0)
        )


def test_si_takes_bfloat16_that_is_frozen(digits):
    model = tiny()
    model.frozen = torch.nn.Parameter(torch.zeros(3).bfloat16(), requires_grad=False)
    train_generator(model, digits.train_stream[:2], SynapticIntelligencePlugin(1.0))


def test_the_importance_of_a_weight_that_is_frozen_later_stays(digits):
    plugin = SynapticIntelligencePlugin(si_lambda=1.0, eps=1e3)
    model = tiny()
    strategy = train_generator(model, digits.train_stream[:1], plugin)
    name = "denoiser.convolution.weight"
    before = plugin.ewc_data[1][name].data.clone()
    model.denoiser.convolution.weight.requires_grad_(False)
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert before.max() > 0 and torch.equal(plugin.ewc_data[1][name].data, before)
    assert plugin.syn_data["trajectory"][name].data.abs().max() == 0


def test_mir_refuses_frozen_weights_before_training(digits):
    model = tiny()
    model.denoiser.convolution.weight.requires_grad_(False)
    before = weights(model)
    with pytest.raises(ValueError, match=r"but denoiser.convolution.weight is frozen"):
        train_generator(model, digits.train_stream[:1], MIRPlugin(5, 20, 10))
    assert same_bits(weights(model), before)


@pytest.mark.parametrize("num_classes", [None, 10])
def test_mas_is_the_mean_gradient_of_the_squared_prediction(digits, num_classes):
    model = DiffusionModel.from_preset("digits", num_classes=num_classes).eval()
    dataset = digits.train_stream[0].dataset
    strategy = fake_strategy(
        model,
        train_mb_size=100,
        experience=digits.train_stream[0],
        optimizer=torch.optim.SGD(model.parameters()),
    )
    torch.manual_seed(3)
    plugin = MASPlugin()
    plugin.after_training_exp(strategy)
    torch.manual_seed(3)
    torch.empty((), dtype=torch.int64).random_()  # which a data loader draws first
    expected = {name: 0.0 for name, _ in model.named_parameters()}
    batches = range(0, len(dataset), 100)
    for start in batches:
        rows = [dataset[i] for i in range(start, min(start + 100, len(dataset)))]
        x, y = torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
        output = model(x)
        if num_classes:
            output = output.given(y)
        norm = sum((p**2).sum() for p in output.prediction) / len(x)
        gradients = torch.autograd.grad(norm, list(model.parameters()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] = expected[name] + gradient.abs() / len(batches)
    for name, value in expected.items():
        # single precision: the order of sums differs
        scale = value.max() + 1e-12
        assert (plugin.importance[name].data - value).abs().max() / scale < 1e-4


@pytest.mark.parametrize("kind", ["bare", "tuple", "labelled"])
def test_mas_needs_no_labels_and_leaves_no_gradients(kind):
    found = []
    for kept in ("labelled", kind):
        torch.manual_seed(0)
        model, data, plugin = tiny(), images(20), MASPlugin()
        rows = {
            "bare": list(data),
            "tuple": [(image,) for image in data],
            "labelled": [(image, 0) for image in data],
        }[kept]
        strategy = fake_strategy(
            model,
            train_mb_size=8,
            experience=SimpleNamespace(dataset=AvalancheDataset([rows])),
        )
        torch.manual_seed(3)
        plugin.after_training_exp(strategy)
        assert all(parameter.grad is None for parameter in model.parameters())
        found.append({name: part.data for name, part in plugin.importance.items()})
    assert same_bits(*found)
    assert found[0]["denoiser.convolution.weight"].abs().max() > 0


def test_mas_trains_on_images_without_labels():
    parts = [AvalancheDataset([[(image,) for image in images(20)]]) for _ in range(2)]
    model, plugin = tiny(), MASPlugin(1e-3)
    stream = benchmark_from_datasets(train=parts).train_stream
    strategy = train_generator(model, stream, plugin)
    assert strategy.clock.train_exp_counter == 2
    assert max(part.data.max() for part in plugin.importance.values()) > 0


def test_mir_compares_a_sample_under_the_same_noise(tiny_model, digits):
    plugin = MIRPlugin(batch_size_mem=8, mem_size=60, subsample=20)
    compared = []

    def note(model, inputs, output):  # of the model, and of its copies after a step
        if len(inputs[0]) == plugin.subsample:
            compared.append((model, output))

    tiny_model.register_forward_hook(note)
    train_generator(tiny_model, digits.train_stream[:2], plugin)
    assert len(compared) == 2 * 3
    for (model, before), (moved, after) in zip(compared[::2], compared[1::2], strict=True):
        assert model is tiny_model is not moved
        assert torch.equal(before.timesteps, after.timesteps)
        assert torch.equal(before.target, after.target)
        assert not torch.equal(before.prediction, after.prediction)
    assert not torch.equal(compared[0][1].target, compared[2][1].target)


def test_mir_replays_the_experience_before(tiny_model, digits):
    plugin = MIRPlugin(batch_size_mem=8, mem_size=50, subsample=20)
    added = []
    replay = plugin.before_backward

    def noting(strategy, **kwargs):
        loss = strategy.loss.item()
        replay(strategy, **kwargs)
        added.append(strategy.loss.item() - loss)

    plugin.before_backward = noting
    train_generator(tiny_model, digits.train_stream[:2], plugin)
    assert added[:3] == [0.0] * 3
    assert min(added[3:]) > 0


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_mir_is_copied_and_pickled_with_its_memory(tiny_model, digits, again):
    plugin = MIRPlugin(batch_size_mem=8, mem_size=50, subsample=50)
    fresh = again(plugin)
    strategy = train_generator(tiny_model, digits.train_stream[:1], plugin)
    copied = again(strategy)
    (other,) = [kept for kept in copied.plugins if isinstance(kept, MIRPlugin)]
    memories = [next(kept.replay_loader)[0] for kept in (plugin, other)]
    sums = [memory.flatten(1).double().sum(1).sort().values for memory in memories]
    assert torch.equal(*sums) and len(sums[0]) == 50
    copied.train(digits.train_stream[1], eval_streams=[])
    assert copied.clock.train_exp_counter == 2
    assert fresh.replay_loader is None


@pytest.mark.parametrize(
    "plugin",
    [
        avalanche_plugins.EWCPlugin(1.0),
        GEMPlugin(8),
        avalanche_plugins.AGEMPlugin(8, 8),
        MIRPlugin(8),
    ],
    ids=lambda plugin: type(plugin).__name__,
)
@pytest.mark.parametrize("is_bare", [True, False])
def test_plugins_that_read_labels_refuse_data_without(tiny_model, plugin, is_bare):
    rows = [image if is_bare else (image,) for image in images(20)]
    stream = benchmark_from_datasets(train=[AvalancheDataset([rows])]).train_stream
    message = f"{type(plugin).__name__} reads labels, but the data have none; give"
    before = weights(tiny_model)
    with pytest.raises(ValueError, match=message):
        train_generator(tiny_model, stream, plugin)
    assert same_bits(before, weights(tiny_model))


def test_rwalk_refuses_an_experience_too_short_for_a_score(tiny_model, digits):
    with pytest.raises(ValueError, match=r"delta_t = 10 iterations or more, got 3"):
        train_generator(tiny_model, digits.train_stream[:1], RWalkPlugin())
    with pytest.raises(ValueError, match=r"delta_t = 10 iterations or more, got 6"):
        train_generator(
            tiny_model,
            digits.train_stream[:1],
            RWalkPlugin(),
            train_steps=None,
            train_epochs=1,
            train_mb_size=50,
        )


def test_rwalk_trains_in_training_mode(tiny_model, digits):
    modes = []

    class Mode(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            modes.append(strategy.model.training)

    train_generator(
        tiny_model, digits.train_stream[:1], RWalkPlugin(), Mode(), train_steps=12
    )
    assert modes == [True] * 12


def test_rwalk_penalties_are_finite(tiny_model, digits):
    plugin = RWalkPlugin()
    train_generator(tiny_model, digits.train_stream[:1], plugin, train_steps=12)
    penalties = np.concatenate(
        [value.data.flatten().numpy() for value in plugin.exp_penalties.values()]
    )
    assert np.isfinite(penalties).all() and penalties.max() > 0


def test_gem_without_its_solver_says_what_to_install(monkeypatch):
    monkeypatch.setattr(qpsolvers, "available_solvers", [])
    with pytest.raises(ValueError, match=r"pip install 'avalanche-gd\[gem\]'"):
        GEMPlugin(40)
