"""Models, criteria and strategies of the user's: right, or refused in one line."""

import copy
import gc
import warnings

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, nc_benchmark
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training import plugins as avalanche_plugins
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.nn import functional as F

from avalanche_gd import (
    ClassifierGuidance,
    DenoisingLoss,
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    GuidingSolverPlugin,
    RankOneEWCPlugin,
    SmallCNN,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
)
from avalanche_gd.functional import Ahead, PairPool, draw, noised, rank_one_anchor
from avalanche_gd.models import Execution
from avalanche_gd.plugins import DistillFromPlugin, EMAPlugin, Teacher
from avalanche_gd.plugins.rank1_ewc import RankOneAnchor, rank_one_penalty
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import (
    SHAPE,
    ClassDenoiser,
    TinyDenoiser,
    conditioned,
    images,
    tiny,
)
from tests.helpers.small_streams import domain_datasets
from tests.helpers.small_trainings import solver_in, train_generator
from tests.helpers.stream_builders import by_class


class KeepsItsLast(TinyDenoiser):
    def forward(self, x, t):
        self.last = super().forward(x, t)
        return self.last


class Energy(TinyDenoiser):
    """Predicts the gradient of an energy by its input."""

    def forward(self, x, t):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = super().forward(x, t).square().sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]


class Closure(TinyDenoiser):
    """Calls a part of itself by a function."""

    def __init__(self):
        super().__init__()
        self.part = lambda x: self.convolution(x)

    def forward(self, x, t):
        time = (t.float() / 1000).view(-1, 1, 1, 1).expand(len(x), 1, *x.shape[2:])
        return self.part(torch.cat([x, time], dim=1))


def compiled_forward():
    denoiser = TinyDenoiser()
    denoiser.forward = torch.compile(denoiser.forward, backend="eager")
    return denoiser


def forward_in_bfloat16():
    denoiser = TinyDenoiser()
    denoiser.forward = torch.autocast("cpu", torch.bfloat16)(denoiser.forward)
    return denoiser


FROZEN_IN_NAME_ONLY = {
    "a compiled forward": compiled_forward,
    "a decorated forward": forward_in_bfloat16,
    "a closure": Closure,
}


def refused(strategy, stream, message):
    """Its training raises an error of one line before it changes the model."""
    before = weights(strategy.model)
    with pytest.raises(ValueError, match=message) as caught:
        strategy.train(stream, eval_streams=[])
    assert "\n" not in str(caught.value)
    assert same_bits(weights(strategy.model), before)


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
@pytest.mark.parametrize("name", FROZEN_IN_NAME_ONLY)
def test_a_teacher_that_would_be_its_student_is_refused(digits, name, plugin):
    model = DiffusionModel(FROZEN_IN_NAME_ONLY[name](), ddim_scheduler(), SHAPE)
    strategy = strategy_of(model, plugin())
    for _ in range(2):  # also if it is tried again
        refused(strategy, digits.train_stream[:1], "computes with weights of the original")


def strategy_of(model, *plugins, **options):
    """The strategy of a generator, before any training."""
    return DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-2),
        plugins=list(plugins),
        **dict(train_steps=3, train_mb_size=16, evaluator=None) | options,
    )


def test_an_old_solver_or_generator_that_would_be_the_new_one_is_refused():
    stream = by_class(4, task_labels=False).train_stream
    message = "computes with weights of the original"
    solver = SmallCNN(SHAPE, 4)
    solver.forward = torch.compile(solver.forward, backend="eager")
    replay = GenerativeReplayPlugin(strategy_of(tiny()))
    refused(solver_in(SupervisedTemplate, replay, solver=solver), stream, message)
    model = DiffusionModel(compiled_forward(), ddim_scheduler(), SHAPE)
    replay = GenerativeReplayPlugin(strategy_of(model))
    refused(solver_in(SupervisedTemplate, replay), stream, message)


def test_what_keeps_a_graph_is_one_line_and_is_taken_after_an_evaluation(digits):
    model = DiffusionModel(KeepsItsLast(), ddim_scheduler(), SHAPE)
    strategy = strategy_of(model, GenerativeDistillationPlugin())
    strategy.train(digits.train_stream[0], eval_streams=[])
    refused(strategy, digits.train_stream[1:], "KeepsItsLast cannot be copied, as a teach")
    strategy.eval(digits.test_stream[:1])  # leaves an output without a graph
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert Teacher.of(strategy).model is None  # it taught, and was released


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_a_denoiser_that_differentiates_by_its_input_is_taught(digits, plugin):
    model = DiffusionModel(Energy(), ddim_scheduler(), SHAPE)
    strategy_of(model, plugin()).train(digits.train_stream[:2], eval_streams=[])


def test_a_norm_of_weights_is_no_reason_to_refuse(digits):
    denoiser = TinyDenoiser()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(denoiser.convolution)  # a weight that is no leaf
    model = DiffusionModel(denoiser, ddim_scheduler(), SHAPE)
    strategy = strategy_of(model, GenerativeDistillationPlugin())
    for experience in digits.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
        strategy.eval(digits.test_stream[:1])


class Odd:
    """Trains a generator, and is no strategy."""

    def __init__(self, model):
        self.model, self.calls = model, 0

    def train(self, experience, **kwargs):
        self.calls += 1


def test_lazy_solvers_and_strategies_of_ones_own_are_taken():
    stream = by_class(4, task_labels=False).train_stream
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))
    odd = Odd(tiny())
    strategy = SupervisedTemplate(
        model=lazy,
        optimizer=torch.optim.SGD(lazy[3].parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        plugins=[GenerativeReplayPlugin(odd)],
        evaluator=None,
    )
    strategy.train(stream[:2], eval_streams=[])
    assert odd.calls == 2


def test_a_generators_copy_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(
        "avalanche_gd.plugins.replay.check_copy", lambda model, _: tried.append(model)
    )
    stream = by_class(4, task_labels=False).train_stream
    replay = GenerativeReplayPlugin(strategy_of(tiny()))
    strategy = solver_in(SupervisedTemplate, replay)
    pieces = split_online_stream(stream[:1], experience_size=4)
    strategy.train(pieces, eval_streams=[])
    assert tried == [replay.generator]


@pytest.mark.parametrize(
    "plugins",
    [
        lambda: [RankOneEWCPlugin()],
        lambda: [EMAPlugin(0.9)],
        lambda: [GenerativeDistillationPlugin(teacher_ema_decay=0.9)],
    ],
    ids=["rank-1", "EMA", "moving teacher"],
)
def test_frozen_weights_may_be_of_16_bits(digits, plugins):
    class Adapted(TinyDenoiser):
        def __init__(self):
            super().__init__()
            self.base = nn.Conv2d(1, 1, 1).bfloat16().requires_grad_(False)

        def forward(self, x, t):
            return super().forward(x, t) + self.base(x.bfloat16()).float()

    model = DiffusionModel(Adapted(), ddim_scheduler(), SHAPE)
    strategy_of(model, *plugins()).train(digits.train_stream[:2], eval_streams=[])


class Breaks(SupervisedPlugin):
    """Makes the weights large, and interrupts the training."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def after_training_iteration(self, strategy, **kwargs):
        if self.at is None:
            return
        if strategy.clock.train_iterations == self.at:
            with torch.no_grad():
                for weight in strategy.model.parameters():
                    weight.fill_(1e6)
        if strategy.clock.train_iterations == self.at + 1:
            self.at = None
            raise KeyboardInterrupt


def test_an_average_has_nothing_of_a_training_that_was_interrupted(digits):
    model = tiny()
    good = copy.deepcopy(model.state_dict())
    breaks = Breaks(at=2)
    strategy = strategy_of(model, breaks, ema_decay=0.999, train_steps=8)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[0], eval_streams=[])
    model.load_state_dict(good)
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert max(float(weight.abs().max()) for weight in model.parameters()) < 10


def test_a_moving_teacher_begins_again_after_an_interruption(digits):
    breaks, seen = Breaks(at=4), []

    class Start(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            teacher = Teacher.of(strategy).model
            seen.append(teacher and weights(teacher))

    model = tiny()
    plugins = [GenerativeDistillationPlugin(teacher_ema_decay=0.5), breaks, Start()]
    strategy = train_generator(model, digits.train_stream[:1], *plugins)
    learned = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[1], eval_streams=[])
    model.load_state_dict(learned)
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert seen[0] is None and same_bits(seen[1], seen[2])
    assert all(weight.abs().max() < 10 for weight in model.parameters())


class PerPixel(nn.Module):
    """A criterion whose reduction ``"none"`` is torch's."""

    reduction = "mean"

    def forward(self, output, y=None):
        denoising = output.given(y)
        errors = dict(input=denoising.prediction, target=denoising.target)
        return F.mse_loss(**errors, reduction=self.reduction)


class Deaf(PerPixel):
    """A criterion that does not hear what reduction it has."""

    def forward(self, output, y=None):
        return super().forward(output, y).mean()


class InColumns(PerPixel):
    """Gives the losses of samples as ``(N, 1)``."""

    def forward(self, output, y=None):
        denoising = output.given(y)
        errors = (denoising.prediction - denoising.target).square().mean((1, 2, 3))[:, None]
        return errors if self.reduction == "none" else errors.mean()


def test_losses_of_samples_may_be_a_column(digits):
    shares = []
    for criterion in (InColumns(), DenoisingLoss()):
        torch.manual_seed(0)
        plugin = RankOneEWCPlugin()
        strategy = strategy_of(tiny(), plugin, criterion=criterion)
        strategy.train(digits.train_stream[:1], eval_streams=[])
        shares.append(plugin.share[1])
    assert shares[0] == pytest.approx(shares[1], rel=1e-5)


@pytest.mark.parametrize("criterion", [PerPixel, Deaf])
def test_a_criterion_that_gives_no_loss_of_a_sample_is_refused(digits, criterion):
    strategy = strategy_of(tiny(), RankOneEWCPlugin(), criterion=criterion())
    refused(strategy, digits.train_stream[:1], "must give one loss a sample")


class Notes(DenoisingLoss):
    def __init__(self):
        super().__init__()
        self.labels = []

    def forward(self, denoising, y=None):
        self.labels.append(y)
        return super().forward(denoising, y)


@pytest.mark.parametrize("is_conditioned", [False, True])
def test_a_saved_teachers_classes_are_what_the_criterion_sees(digits, is_conditioned):
    make = (lambda: conditioned(seen=(8, 9))) if is_conditioned else tiny
    notes, labels = Notes(), []

    class Labels(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            labels.append(strategy.mb_y)

    train_generator(
        make(),
        digits.train_stream[:1],
        DistillFromPlugin(make(), source="gaussian"),
        Labels(),
        criterion=notes,
    )
    assert len(notes.labels) == 3
    for taught in notes.labels:
        assert (set(taught.tolist()) == {8, 9}) if is_conditioned else taught is None
    own = digits.train_stream[0].classes_in_this_experience
    assert all(set(y.tolist()) <= set(own) for y in labels)


KEPT = {"ahead": lambda: dict(ahead=Ahead(4)), "pairs": lambda: dict(pairs=PairPool(20))}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("gaussian", {}),
        ("generation", dict(start=900)),
        ("generation", dict(steps=3)),
        ("generation", dict(with_none=True)),
    ],
)
def test_what_was_drawn_in_another_way_is_not_given_in_its_place(name, source, changed):
    teacher, kept = conditioned(dropout=0.1), KEPT[name]()
    for _ in range(2):
        draw("generation", teacher, 8, **kept)
    with pytest.raises(ValueError, match=f"{name} keeps what this teacher drew with anoth"):
        draw(source, teacher, 8, **kept, **changed)
    draw(source, copy.deepcopy(teacher), 8, **kept, **changed)  # of another teacher


HALF = {
    "EMAPlugin": lambda: EMAPlugin(0.99),
    "teacher_ema_decay": lambda: GenerativeDistillationPlugin(teacher_ema_decay=0.9),
    "RankOneEWCPlugin": RankOneEWCPlugin,
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", HALF)
def test_weights_of_16_bits_are_refused_where_they_are_summed(digits, name, dtype):
    strategy = strategy_of(tiny().to(dtype), HALF[name]())
    message = f"{name} cannot compute with weights in {str(dtype).removeprefix('torch.')}"
    refused(strategy, digits.train_stream[:1], message)


def test_an_anchor_of_weights_of_16_bits_is_refused():
    batch = noised(tiny().process, images(4))
    with pytest.raises(ValueError, match="cannot compute with weights in bfloat16"):
        rank_one_anchor(TinyDenoiser().bfloat16(), [batch])


def test_a_penalty_is_of_float32_under_automatic_mixed_precision():
    torch.manual_seed(0)
    denoiser = TinyDenoiser()
    batches = [noised(tiny().process, images(16))]
    anchor = rank_one_anchor(denoiser, batches)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same = rank_one_anchor(denoiser, batches)
        moved = [weight + 0.1 for weight in denoiser.parameters()]
        mixed = rank_one_penalty(moved, [same])
    assert torch.equal(anchor.mu, same.mu) and anchor.c == same.c
    assert torch.equal(mixed, rank_one_penalty(moved, [anchor]))
    assert mixed.dtype == torch.float32 and isinstance(same, RankOneAnchor)


def test_batches_that_are_others_each_time_are_refused():
    model = tiny()

    class Noised:
        def __iter__(self):
            yield noised(model.process, images(8))

    with pytest.raises(ValueError, match="the batches differ when they are read again"):
        rank_one_anchor(model, Noised())


def test_two_solvers_that_train_one_generator_are_told_apart():
    stream = by_class(4, task_labels=False).train_stream
    generator = strategy_of(tiny())
    first, second = (
        solver_in(SupervisedTemplate, GenerativeReplayPlugin(generator)) for _ in range(2)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="two strategies of solvers")
        first.train(stream[0], eval_streams=[])
        first.train(stream[1], eval_streams=[])
    with pytest.warns(UserWarning, match="two strategies of solvers train the same gener"):
        second.train(stream[0], eval_streams=[])
    assert generator.clock.train_exp_counter == 3
    del first
    gc.collect()
    copied = copy.deepcopy(second)  # what is known of strategies is not copied
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="two strategies of solvers")
        copied.train(stream[1], eval_streams=[])


def test_classes_of_tasks_with_the_same_numbers_are_refused_in_a_plain_template():
    data = domain_datasets()["train"][0]
    benchmark = nc_benchmark(
        data, data, 2, task_labels=True, class_ids_from_zero_in_each_exp=True
    )
    model = conditioned()
    strategy = SupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=DenoisingLoss(),
        evaluator=None,
    )
    refused(strategy, benchmark.train_stream, "give other classes the same numbers")


def test_both_predictions_need_a_model_that_learns_both(digits):
    message = "unconditional_weight needs a model that is also trained without the class"
    plugin = GenerativeDistillationPlugin(unconditional_weight=1.0)
    refused(strategy_of(conditioned(), plugin), digits.train_stream[:1], message)
    plugin = GenerativeDistillationPlugin(unconditional_weight=0.0)
    train_generator(conditioned(), digits.train_stream[:2], plugin)


def test_a_compiled_model_that_replays_itself_is_refused(digits):
    model = torch.compile(tiny(), backend="eager")
    strategy = SupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=DenoisingLoss(),
        plugins=[GenerativeReplayPlugin()],
        evaluator=None,
    )
    message = r"give the model itself, made with execution=Execution\(compile=True\)"
    refused(strategy, digits.train_stream[:1], message)


def test_hooks_that_compilation_would_pass_by_are_refused():
    denoiser = TinyDenoiser()
    execution = Execution(compile=True)
    model = DiffusionModel(denoiser, ddim_scheduler(), SHAPE, execution=execution)
    denoiser.register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(ValueError, match="passes by the hooks of the denoiser itself"):
        model.denoise(images(2), torch.tensor([1, 2]))


def test_an_average_that_guidance_does_not_see_is_refused():
    guidance = ClassifierGuidance(towards="confused")
    solver = SmallCNN(SHAPE, 4)
    plugins = [GuidingSolverPlugin(guidance, solver), EMAPlugin(0.9)]
    stream = by_class(4, task_labels=False).train_stream
    refused(
        solver_in(SupervisedTemplate, *plugins, solver=solver),
        stream,
        "put EMAPlugin before it in plugins",
    )
    solver_in(SupervisedTemplate, *plugins[::-1], solver=solver).train(
        stream[:1], eval_streams=[]
    )
    old = GuidingSolverPlugin(ClassifierGuidance(towards="missing"), solver)
    strategy = solver_in(SupervisedTemplate, old, EMAPlugin(0.9), solver=solver)
    for experience in stream[:2]:
        before = weights(solver)
        strategy.train(experience, eval_streams=[])
    assert same_bits(weights(old.guidance.classifier), before)


def test_a_solver_is_not_trained_on_what_its_generator_refuses():
    stream = by_class(4, task_labels=False).train_stream
    model = DiffusionModel(ClassDenoiser(), ddim_scheduler(), SHAPE, num_classes=1)
    generator = SupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=DenoisingLoss(),
        evaluator=None,
    )
    replay = GenerativeReplayPlugin(generator)
    strategy = solver_in(SupervisedTemplate, replay)
    refused(strategy, stream[3:], "has class 3, but the generator has num_classes=1")


def test_a_solver_is_not_trained_on_images_that_its_generator_refuses():
    parts = domain_datasets()["train"]
    shifted = [
        part.replace_current_transform_group((lambda x: x + 3, None)) for part in parts
    ]
    stream = benchmark_from_datasets(train=shifted, test=shifted).train_stream
    replay = GenerativeReplayPlugin(strategy_of(tiny()))
    strategy = solver_in(SupervisedTemplate, replay)
    refused(strategy, stream, r"must be in model space, \[-1, 1\]")


def test_a_temperature_that_does_nothing_is_refused():
    generator = strategy_of(conditioned())
    with pytest.raises(ValueError, match="temperature is for the old solver's labels"):
        SoftGenerativeReplayPlugin(generator, labels="condition", temperature=5)


@pytest.mark.parametrize("ahead", [0, 2.5, True])
def test_a_look_ahead_that_is_set_later_is_checked(ahead):
    with pytest.raises(ValueError, match="look_ahead must be an integer of 1 or more"):
        GenerativeDistillationPlugin().look_ahead = ahead


def test_a_plugin_that_is_given_twice_is_refused():
    plugin = GenerativeDistillationPlugin()
    with pytest.raises(ValueError, match="is in plugins 2 times"):
        strategy_of(tiny(), plugin, plugin)
    replay = GenerativeReplayPlugin(strategy_of(tiny()))
    strategy = solver_in(SupervisedTemplate, replay, replay)
    stream = by_class(4, task_labels=False).train_stream
    refused(strategy, stream, "is in plugins 2 times")


def test_a_solver_of_prototypes_is_refused():
    stream = by_class(4, task_labels=False).train_stream
    replay = GenerativeReplayPlugin(strategy_of(tiny()))
    cope = avalanche_plugins.CoPEPlugin(n_classes=4, p_size=4)
    strategy = solver_in(SupervisedTemplate, replay, cope)
    refused(strategy, stream, "CoPEPlugin makes its own batches of features")
