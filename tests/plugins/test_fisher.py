"""Rank-1 EWC against gradients of single samples, and the quadratic form of its penalty."""

import copy
from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
from avalanche.training.templates import SupervisedTemplate
from diffusers.models.attention_processor import Attention

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    Execution,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
    SmallCNN,
    SplitDigits,
    ddim_scheduler,
    fisher_share_metrics,
)
from avalanche_gd.plugins import EMAPlugin
from avalanche_gd.plugins.fisher import SampleLosses, _noised_batches, fisher_along_mean
from avalanche_gd.plugins.rank1_ewc import CONTROLS
from avalanche_gd.runs.passes import PassCounter
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, conditioned, images, tiny
from tests.helpers.small_trainings import fake_strategy, train_generator

BESIDE = {
    "distillation": GenerativeDistillationPlugin,
    "replay": GenerativeReplayPlugin,
    "EWC": lambda: EWCPlugin(1.0),
    "a memory": lambda: ReplayPlugin(20),
}


def unet(num_classes=None):
    """With attention, and dropout, which evaluation mode turns off."""
    model = DiffusionModel.from_preset("fmnist-small", num_classes=num_classes)
    assert any(isinstance(module, Attention) for module in model.modules())
    model.denoiser.mid_block.resnets[0].dropout.p = 0.5
    return model


def min_snr(model):
    return DenoisingLoss(min_snr_gamma=5, noise_scheduler=model.noise_scheduler)


def measuring(digits, model, criterion=None):
    """A strategy of double precision, after its first experience."""
    noise_ahead = model.double().noise_ahead
    size = model.sample_shape[1]
    stream = (
        digits.train_stream if size == 8 else SplitDigits(5, image_size=size).train_stream
    )
    model.noise_ahead = lambda images: noise_ahead(images.double())
    return fake_strategy(
        model,
        experience=stream[0],
        train_mb_size=4,
        _criterion=criterion or DenoisingLoss(),
        _experience_count=None,
    )


def single_gradients(strategy, count):
    """A gradient a sample, ``(N, P)``, by autograd in a loop, and the weights by t."""
    model, found = strategy.model, []
    model.eval()
    for batch in _noised_batches(strategy, count):
        x_t, t, target = batch["x_t"], batch["timesteps"], batch["target"]
        for i in range(len(t)):
            one = slice(i, i + 1)
            condition = None if model.num_classes is None else batch["labels"][one]
            error = (model.denoise(x_t[one], t[one], condition) - target[one]) ** 2
            alpha_bar = model.noise_scheduler.alphas_cumprod[t[i]].double()
            snr = alpha_bar / (1 - alpha_bar)
            weighted = strategy._criterion._weights is not None
            loss = error.mean() * (min(snr, 5.0) / snr if weighted else 1)
            parts = torch.autograd.grad(loss, list(model.denoiser.parameters()))
            found.append(torch.cat([part.flatten() for part in parts]))
    model.train()
    return torch.stack(found)


@pytest.mark.parametrize(
    ("make", "criterion"),
    [(unet, None), (unet, min_snr), (lambda: unet(10), None), (conditioned, min_snr)],
    ids=["U-Net", "min-SNR", "conditioned U-Net", "conditioned"],
)
def test_the_measures_are_those_of_gradients_a_sample(digits, make, criterion):
    model = make()
    strategy = measuring(digits, model, criterion and criterion(model))
    state = torch.get_rng_state()
    fisher = fisher_along_mean(strategy, 6, 3)
    assert torch.equal(state, torch.get_rng_state()) and model.training
    gradients = single_gradients(strategy, 6)
    mu = gradients.mean(0)
    along = gradients @ mu
    c = along.square().mean() / mu.norm() ** 4
    trace = gradients.square().sum(1).mean()
    assert len(gradients) == 6
    assert torch.allclose(fisher.mu, mu, rtol=1e-6, atol=1e-6 * mu.abs().max())
    squares = gradients.square().mean(0)
    assert torch.allclose(fisher.squares, squares, rtol=1e-6, atol=1e-12)
    assert fisher.c == pytest.approx(c.item(), rel=1e-6)
    assert fisher.share == pytest.approx((c * mu.norm() ** 2 / trace).item(), rel=1e-6)
    assert 0 < fisher.share < 1


def test_products_with_a_direction_are_those_of_gradients_a_sample(digits):
    strategy = measuring(digits, unet())
    with torch.random.fork_rng():
        (batch,) = _noised_batches(strategy, 3)
    gradients = single_gradients(strategy, 3)
    direction = torch.randn_like(gradients[0])
    losses = SampleLosses(strategy.model.denoiser, DenoisingLoss("none"))
    along = losses.along(direction, batch)
    assert torch.allclose(along, gradients @ direction, rtol=1e-6)


@pytest.mark.parametrize("bare", [False, True])
def test_images_without_labels_are_measured(bare):
    data = [image if bare else (image,) for image in images(6)]
    dataset = AvalancheDataset([data])
    experience = SimpleNamespace(dataset=dataset)
    strategy = fake_strategy(
        tiny(), experience=experience, train_mb_size=4, _criterion=DenoisingLoss()
    )
    assert fisher_along_mean(strategy).c > 0


def test_the_layout_of_the_weights_changes_nothing(digits):
    found = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = DiffusionModel(
            unet().denoiser,
            ddim_scheduler(),
            (1, 16, 16),
            execution=Execution(channels_last=channels_last),
        )
        found.append(fisher_along_mean(measuring(digits, model), 3))
    assert torch.allclose(found[0].mu, found[1].mu, rtol=1e-6)
    assert found[0].c == pytest.approx(found[1].c) and found[0].share < 1


def test_a_frozen_weight_is_not_held(digits):
    model, plugin = tiny(), RankOneEWCPlugin()
    model.denoiser.convolution.bias.requires_grad_(False)
    train_generator(model, digits.train_stream[:2], plugin)
    assert len(plugin.mu[1]) == model.denoiser.convolution.weight.numel()
    assert plugin.penalty(model) > 0


def test_the_size_of_a_chunk_changes_nothing(digits):
    strategy = measuring(digits, tiny())
    one, all_at_once = (fisher_along_mean(strategy, 9, size) for size in (1, 99))
    assert torch.allclose(one.squares, all_at_once.squares, rtol=1e-6)
    assert one.c == all_at_once.c


@pytest.mark.parametrize("samples", [None, 10, 10**6])
def test_the_data_are_passed_once_for_each_measure_with_the_same_noise(digits, samples):
    strategy, seen = measuring(digits, tiny()), []
    noise_ahead = strategy.model.noise_ahead

    def noting(images):
        noised = noise_ahead(images)
        seen.append((images, noised.x_t, noised.timesteps))
        return noised

    strategy.model.noise_ahead = noting
    fisher_along_mean(strategy, samples)
    data = torch.stack([image for image, *_ in digits.train_stream[0].dataset])
    passed_images, noisy, timesteps = map(torch.cat, zip(*seen, strict=True))
    count = min(samples or len(data), len(data))
    assert len(passed_images) == 3 * count
    for part in (passed_images, noisy, timesteps):
        first, second, third = part.split(count)
        assert torch.equal(first, second) and torch.equal(first, third)
    known = {tuple(image.flatten().tolist()) for image in data}
    passed = {tuple(image.flatten().tolist()) for image in passed_images}
    assert passed <= known and (count < len(data) or passed == known)
    assert timesteps.min() >= 0 and timesteps.max() < 1000
    if samples is None:  # uniform
        assert abs(timesteps[:count].float().mean() - 499.5) < 5 * 289 / count**0.5


def after_two(digits, control, lambd=3.0, **options):
    """A plugin, and a model that has moved on since its second experience."""
    plugin, model = RankOneEWCPlugin(lambd, control=control, **options), tiny()
    train_generator(model, digits.train_stream[:2], plugin)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return plugin, model


@pytest.mark.parametrize("control", [None, *CONTROLS])
def test_the_penalty_and_its_gradient_are_those_of_the_quadratic_form(digits, control):
    plugin, model = after_two(digits, control)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    expected, gradient = 0.0, torch.zeros_like(flat)
    for k in (1, 2):
        mu, moved = plugin.mu[k].double(), flat - plugin.theta[k]
        matrix = mu.diag() if control == "diagonal" else plugin.c[k] * torch.outer(mu, mu)
        expected += 3.0 / 2 * moved @ matrix @ moved
        gradient += 3.0 * matrix @ moved
    penalty = plugin.penalty(model)
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    parts = torch.autograd.grad(penalty, list(model.parameters()))
    found = torch.cat([part.flatten() for part in parts]).double()
    assert torch.allclose(found, gradient, rtol=1e-5, atol=1e-5 * gradient.abs().max())


def test_the_controls_have_the_trace_and_the_norm_of_the_method(digits):
    found = {}
    for control in (None, *CONTROLS):
        torch.manual_seed(0)
        plugin = RankOneEWCPlugin(control=control)
        train_generator(tiny(), digits.train_stream[:1], plugin)
        found[control] = plugin
    mu, c = found[None].mu[1], found[None].c[1]
    assert {plugin.c[1] for plugin in found.values()} == {c}
    trace = c * mu.square().sum().item()
    diagonal, shuffled = found["diagonal"].mu[1], found["shuffled"].mu[1]
    assert diagonal.sum().item() == pytest.approx(trace, rel=1e-5)
    assert diagonal.min() >= 0
    assert shuffled.norm().item() == pytest.approx(mu.norm().item(), rel=1e-6)
    assert torch.equal(shuffled.sort().values, mu.sort().values)
    assert not torch.equal(shuffled, mu)


class Notes(SupervisedPlugin):
    """Notes the weights that each experience ends with."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def after_training_exp(self, strategy, **kwargs):
        flat = [p.detach().flatten() for p in strategy.model.parameters()]
        self.ends.append(torch.cat(flat))


class Added(RankOneEWCPlugin):
    """Notes what it adds to the loss, and for which experiences."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.added, self.numbers = [], []

    def before_backward(self, strategy, **kwargs):
        before = strategy.loss.item()
        super().before_backward(strategy, **kwargs)
        self.added.append(strategy.loss.item() - before)

    def penalty(self, model, *, before=None):
        self.numbers.append((before, sorted(self.mu)))
        return super().penalty(model, before=before)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_the_penalty_holds_what_an_experience_ends_with(digits, ema_decay):
    notes, plugin, model = Notes(), Added(100.0), tiny()
    train_generator(model, digits.train_stream[:2], plugin, notes, ema_decay=ema_decay)
    assert all(torch.equal(plugin.theta[k], notes.ends[k - 1]) for k in (1, 2))
    assert len(plugin.mu[1]) == len(plugin.theta[1]) == len(notes.ends[0])
    assert plugin.added[:4] == [0.0] * 4  # nothing has moved at the fourth step
    assert min(plugin.added[4:]) > 0


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize(
    "make", [tiny, conditioned], ids=["not conditioned", "conditioned"]
)
def test_it_adds_its_penalty_in_a_plain_strategy_beside_other_plugins(digits, name, make):
    plugin, model = Added(100.0), make()
    SupervisedTemplate(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-2),
        criterion=DenoisingLoss(),
        train_mb_size=64,
        plugins=[BESIDE[name](), plugin],
        evaluator=None,
    ).train(digits.train_stream[:2], eval_streams=[])
    assert plugin.added[5] == 0 < min(plugin.added[6:])
    assert sorted(plugin.share) == [1, 2]


def test_the_pieces_of_an_experience_are_held_together_after_it(digits):
    plugin = Added(100.0)
    pieces = split_online_stream(digits.train_stream[:2], experience_size=120, seed=0)
    notes = Notes()
    train_generator(tiny(), pieces, plugin, notes, train_steps=2)
    assert plugin.added[:6] == [0.0] * 6
    assert [before for before, _ in plugin.numbers] == [2] * 6
    assert sorted(plugin.mu) == [1, 2]
    assert torch.equal(plugin.theta[1], notes.ends[2])  # of the last piece
    assert torch.equal(plugin.theta[2], notes.ends[5])


def test_it_leaves_the_random_state_of_training_alone(digits):
    found = []
    for plugins in ([], [RankOneEWCPlugin(0.0, control="shuffled")]):
        torch.manual_seed(0)
        model = tiny()
        train_generator(model, digits.train_stream[:3], *plugins)
        found.append(weights(model))
    assert same_bits(*found)


def test_its_passes_are_counted(digits):
    model = tiny()
    counter = PassCounter(model, 16)
    plugin = RankOneEWCPlugin(samples=40)
    plugins = [counter.plugin("generator"), plugin]
    train_generator(model, digits.train_stream[:1], *plugins, train_steps=2)
    assert counter.summary(2)["F_total"] == 2 * 3 + 9 * 40 / 16


def test_the_share_is_a_metric_of_each_evaluation(digits):
    plugin = RankOneEWCPlugin()
    for plugins, expected in (([plugin], True), ([], False)):
        evaluator = EvaluationPlugin(fisher_share_metrics(), loggers=[])
        strategy = train_generator(tiny(), [], *plugins, evaluator=evaluator)
        for k, experience in enumerate(digits.train_stream[:2], 1):
            strategy.train(experience, eval_streams=[])
            values = strategy.eval(digits.test_stream[:1])
            name = "FisherShare_Stream/eval_phase/test_stream"
            assert (name in values) == expected
            if expected:
                assert values[name] == plugin.share[k] > 0


@pytest.mark.parametrize("control", ["rank-2", "", 3])
def test_an_unknown_control_is_refused(control):
    with pytest.raises(ValueError, match=r"no control .*; choose from diagonal, shuffled"):
        RankOneEWCPlugin(control=control)


def plain(model, *plugins, criterion=None):
    return SupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        criterion=criterion or DenoisingLoss(),
        plugins=list(plugins),
        evaluator=None,
    )


def test_what_cannot_be_held_is_refused_when_training_starts(digits):
    experience, plugin = digits.train_stream[0], RankOneEWCPlugin()
    with pytest.raises(TypeError, match="needs a DiffusionModel; SmallCNN has no method"):
        plain(SmallCNN(SHAPE, 10), plugin).train(experience)
    with pytest.raises(ValueError, match="CrossEntropyLoss is not a loss for diffusion"):
        plain(tiny(), plugin, criterion=torch.nn.CrossEntropyLoss()).train(experience)
    criterion = lambda output, y: DenoisingLoss()(output, y)  # noqa: E731
    with pytest.raises(ValueError, match="a criterion with reduction, such as Denois"):
        plain(tiny(), plugin, criterion=criterion).train(experience)
    with pytest.raises(
        ValueError, match=r"EMAPlugin .*; put EMAPlugin before it in plugins"
    ):
        plain(tiny(), plugin, EMAPlugin(0.9)).train(experience)
    plain(tiny(), EMAPlugin(0.9), plugin).train(experience, eval_streams=[])


def test_the_weights_of_another_strategy_are_not_kept_in_place(digits):
    plugin, stream = RankOneEWCPlugin(0.1), digits.train_stream
    strategy, other = (plain(tiny(), plugin) for _ in range(2))
    strategy.train(stream[:2], eval_streams=[])
    copied = copy.deepcopy(strategy)
    other.train(stream[0], eval_streams=[])
    assert list(plugin.mu) == list(plugin.theta) == [1]
    before = weights(strategy.model)
    with pytest.raises(
        ValueError, match="keeps the weights of another strategy; make one for each"
    ) as caught:
        strategy.train(stream[2], eval_streams=[])
    assert len(str(caught.value).splitlines()) == 1
    assert same_bits(weights(strategy.model), before)
    copied.train(stream[2], eval_streams=[])
    own = next(p for p in copied.plugins if isinstance(p, RankOneEWCPlugin))
    assert list(own.theta) == [1, 2, 3] and list(plugin.theta) == [1]


def test_a_penalty_without_an_experience_is_refused(digits):
    with pytest.raises(ValueError, match="the penalty needs the anchor"):
        RankOneEWCPlugin().penalty(tiny())
    plugin, model = after_two(digits, None)
    with pytest.raises(ValueError, match="the penalty needs the anchor"):
        plugin.penalty(model, before=1)


def test_an_experience_without_data_is_refused(digits):
    empty = SimpleNamespace(dataset=[], current_experience=0)
    strategy = fake_strategy(tiny(), experience=empty)
    with pytest.raises(ValueError, match="experience 1 is empty; leave it out"):
        RankOneEWCPlugin().before_training_exp(strategy)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_mean_gradient_along_which_nothing_can_be_held_is_refused(digits, value):
    class Spoils(SupervisedPlugin):
        def after_training_exp(self, strategy, **kwargs):
            strategy._criterion.forward = lambda denoising, y: (
                value * denoising.prediction.flatten(1).mean(1)
            )

    criterion = DenoisingLoss()
    strategy = plain(tiny(), Spoils(), RankOneEWCPlugin(), criterion=criterion)
    with pytest.raises(ValueError, match="the mean gradient of experience 1 has the norm"):
        strategy.train(digits.train_stream[0], eval_streams=[])
