"""The templates: budgets, evaluation, clipping, refusals."""

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, nc_benchmark
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils import AvalancheDataset, ConstantSequence, TaskLabels
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from torch.utils.data import Dataset, TensorDataset

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    Sampling,
    SmallCNN,
    class_balance_metrics,
    denoising_loss_metrics,
    fid_metrics,
    generated_image_metrics,
)
from avalanche_gd.data.augmentation import HorizontalFlipPlugin
from avalanche_gd.data.model_space import as_dataset
from avalanche_gd.training import BudgetedTemplate, NonFiniteLossError
from avalanche_gd.training.diffusion_training import default_diffusion_evaluator
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, conditioned, images, tiny
from tests.helpers.small_trainings import fake_strategy
from tests.helpers.stream_builders import by_class


class Batches(SupervisedPlugin):
    """Notes the size of each training batch."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def after_training_iteration(self, strategy, **kwargs):
        self.sizes.append(len(strategy.mb_x))


def diffusion_training(model, **options):
    options = dict(evaluator=None, train_mb_size=32) | options
    optimizer = torch.optim.SGD(model.parameters(), lr=options.pop("lr", 0.1))
    return DiffusionTraining(model=model, optimizer=optimizer, **options)


def test_every_experience_gets_the_same_steps_on_full_batches(tiny_model, digits):
    batches = Batches()
    strategy = diffusion_training(tiny_model, train_steps=11, plugins=[batches])
    strategy.train(digits.train_stream[:2], eval_streams=[])
    assert batches.sizes == [32] * 22
    assert strategy.clock.train_iterations == 22


def test_an_experience_smaller_than_a_batch_still_gets_its_steps(tiny_model, digits):
    batches = Batches()
    strategy = diffusion_training(
        tiny_model, train_steps=3, train_mb_size=1000, plugins=[batches]
    )
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert batches.sizes == [len(digits.train_stream[0].dataset)] * 3


def few(count):
    """An experience of so many images, without task labels."""
    dataset = AvalancheDataset([TensorDataset(images(count), torch.arange(count) % 2)])
    return benchmark_from_datasets(train=[dataset]).train_stream[0]


def solver_training(**options):
    solver = SmallCNN(SHAPE, 2)
    optimizer = torch.optim.Adam(solver.parameters())
    return BudgetedTemplate(model=solver, optimizer=optimizer, evaluator=None, **options)


TRAININGS = {
    "diffusion": lambda **options: diffusion_training(tiny(), **options),
    "solver": solver_training,
}


class NoThirdEpoch(SupervisedPlugin):
    """Ends a training that would not end."""

    def before_training_epoch(self, strategy, **kwargs):
        assert strategy.clock.train_exp_epochs < 3


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
def test_steps_on_less_than_a_batch_end_though_the_last_batch_is_to_be_dropped(training):
    batches = Batches()
    plugins = [batches, NoThirdEpoch()]
    strategy = training(train_steps=2, train_mb_size=16, plugins=plugins)
    strategy.train(few(10), eval_streams=[], drop_last=True)
    assert batches.sizes == [10, 10]


@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize(
    "options", [dict(train_steps=2), dict(train_epochs=2), dict(train_epochs=1)], ids=str
)
def test_an_epoch_without_a_batch_is_refused(training, options):
    class Empties(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            if "train_steps" in options:
                strategy.dataloader = []

    plugins = [Empties(), NoThirdEpoch()]
    strategy = training(train_mb_size=16, plugins=plugins, **options)
    message = "experience 1 does not make one batch of 16; leave drop_last out, or lower"
    with pytest.raises(ValueError, match=message) as caught:
        strategy.train(few(10), eval_streams=[], drop_last=True)
    assert len(str(caught.value).splitlines()) == 1


def test_an_epoch_that_a_plugin_stops_at_its_start_is_not_refused():
    class Stops(SupervisedPlugin):
        def before_training_epoch(self, strategy, **kwargs):
            strategy.stop_training()

    strategy = diffusion_training(tiny(), train_epochs=2, plugins=[Stops()])
    strategy.train(few(10), eval_streams=[])
    assert strategy.clock.train_iterations == 0


@pytest.mark.parametrize(("place", "pinned"), [("cpu", True), ("meta", False)])
def test_only_what_is_in_the_memory_of_the_cpu_is_pinned(tiny_model, place, pinned):
    strategy = diffusion_training(tiny_model)
    strategy.device = torch.device("cuda")  # is asked for its name only
    images = torch.zeros(4, *SHAPE, device=place)
    strategy.adapted_dataset = as_dataset(images, torch.zeros(4))
    parameters = strategy._obtain_common_dataloader_parameters(pin_memory=None)
    assert parameters["pin_memory"] is pinned


def test_without_steps_the_epochs_count(tiny_model, digits):
    batches = Batches()
    strategy = diffusion_training(tiny_model, train_epochs=2, plugins=[batches])
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert sum(batches.sizes) == 2 * len(digits.train_stream[0].dataset)


@pytest.mark.parametrize("num_classes", [None, 10])
def test_evaluation_leaves_the_training_to_the_same_bits(digits, num_classes):
    sampling = Sampling(images=20, steps=1, eta=1.0)
    trained, evaluated = [], []
    for eval_every in (-1, 1):
        torch.manual_seed(0)
        model = DiffusionModel.from_preset("digits", num_classes=num_classes)
        metrics = [
            fid_metrics(experience=True, summary=True, sampling=sampling),
            class_balance_metrics(sampling=sampling),
            generated_image_metrics(sampling=sampling, shown=8),
            denoising_loss_metrics(),
        ]
        strategy = diffusion_training(
            model,
            train_epochs=2,
            eval_every=eval_every,
            plugins=[GenerativeDistillationPlugin()],
            evaluator=EvaluationPlugin(*metrics),
        )
        strategy.train(digits.train_stream[:2], eval_streams=[digits.test_stream[:1]])
        trained.append(weights(model))
        evaluated.append(len(strategy.evaluator.get_all_metrics()))
    assert same_bits(*trained)
    assert evaluated[0] == 0 < evaluated[1]


@pytest.mark.parametrize("mode", ["epoch", "iteration"])
@pytest.mark.parametrize("eval_every", [-1, 0, 1, 2, 3, 5])
@pytest.mark.parametrize(
    ("budget", "ends"),  # of epochs
    [
        (dict(train_epochs=3), [5, 10, 15]),
        (dict(train_steps=11), [4, 8, 11]),
        (dict(train_steps=7), [4, 7]),
        (dict(train_steps=8), [4, 8]),
    ],
)
def test_an_experience_ends_with_one_evaluation(
    tiny_model, digits, budget, ends, eval_every, mode
):
    at = []

    class Evaluations(SupervisedPlugin):
        def before_eval(self, strategy, **kwargs):
            at.append(len(batches.sizes))

    batches = Batches()
    strategy = diffusion_training(
        tiny_model,
        plugins=[batches, Evaluations()],
        eval_every=eval_every,
        peval_mode=mode,
        train_mb_size=64,
        **budget,
    )
    strategy.train(digits.train_stream[0], eval_streams=[digits.test_stream[:1]])
    if mode == "iteration":
        ends = list(range(1, ends[-1] + 1))
    periodic = ends[::eval_every] if eval_every else []  # Avalanche's, from the first on
    assert at == ([] if eval_every < 0 else sorted({0, *periodic, ends[-1]}))


@pytest.mark.parametrize("mem_size", [40, 200])
def test_batches_are_full_beside_a_memory(tiny_model, digits, mem_size):
    batches = Batches()
    strategy = diffusion_training(
        tiny_model,
        train_steps=11,
        train_mb_size=64,
        plugins=[ReplayPlugin(mem_size), batches],
    )
    strategy.train(digits.train_stream[:3], eval_streams=[])
    assert batches.sizes == [64] * 11 + [64 + min(64, mem_size)] * 22


def test_an_evaluation_seeds_no_device_but_its_own(tiny_model, digits, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        seeded.clear()
        state = torch.get_rng_state()
        strategy = diffusion_training(tiny_model, evaluator=default_diffusion_evaluator)
        losses.append(strategy.eval(digits.test_stream[:1]))
        assert seeded == []
        assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1] != {}


def test_gradients_are_clipped_to_the_norm(tiny_model, digits):
    before = weights(tiny_model.denoiser)
    strategy = diffusion_training(tiny_model, train_steps=1, max_grad_norm=1e-3, lr=1.0)
    strategy.train(digits.train_stream[0], eval_streams=[])
    after = weights(tiny_model.denoiser)
    step = sum((after[k] - before[k]).square().sum() for k in before).sqrt()
    assert step.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("share", [0.5, 0.995, 1.0, 1.005, 2.0])
def test_clipping_has_the_bits_of_torchs(tiny_model, monkeypatch, share):
    parameters = list(tiny_model.parameters())
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    found, calls = [], []
    strategy = diffusion_training(tiny_model, max_grad_norm=share * norm)
    clip_to_norm = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils,
        "clip_grad_norm_",
        lambda *arguments: calls.append(1) or clip_to_norm(*arguments),
    )
    for clip in (
        strategy._before_update,
        lambda: clip_to_norm(parameters, share * norm),
    ):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        clip()
        found.append({str(i): p.grad for i, p in enumerate(parameters)})
    assert same_bits(*found)
    assert len(calls) == (share < 1.01)  # longer by far, and it is not asked to


def test_a_loss_that_is_not_finite_stops_and_says_where(tiny_model, digits):
    class Poison(SupervisedPlugin):
        def before_backward(self, strategy, **kwargs):
            if strategy.clock.train_exp_iterations == 2:
                strategy.loss = strategy.loss * float("nan")

    strategy = diffusion_training(tiny_model, train_steps=5, plugins=[Poison()])
    with pytest.raises(NonFiniteLossError, match="nan at step 3 of experience 1"):
        strategy.train(digits.train_stream[0], eval_streams=[])


def test_an_empty_experience_is_refused_before_any_is_trained(tiny_model, digits):
    empty = fake_strategy(tiny_model, dataset=AvalancheDataset([]), current_experience=1)
    before = weights(tiny_model)
    with pytest.raises(ValueError, match="experience 2 is empty"):
        diffusion_training(tiny_model).train([digits.train_stream[0], empty])
    assert same_bits(weights(tiny_model), before)


def test_an_empty_experience_is_refused_when_it_is_evaluated(tiny_model):
    benchmark = benchmark_from_datasets(
        test=[as_dataset(torch.zeros(0, *SHAPE), torch.zeros(0))]
    )
    with pytest.raises(ValueError, match="experience 1 is empty; leave it out"):
        diffusion_training(tiny_model).eval(benchmark.test_stream)


class BareImages(Dataset):
    """Items are images, not tuples."""

    def __init__(self, count):
        self.images = images(count)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def unlabelled(kind, *, with_tasks=False):
    """Two experiences without labels."""
    attributes = [TaskLabels(ConstantSequence(0, 20))] if with_tasks else []
    parts = [
        AvalancheDataset(
            [BareImages(20) if kind == "bare" else TensorDataset(images(20))],
            data_attributes=attributes,
        )
        for _ in range(2)
    ]
    benchmark = benchmark_from_datasets(train=parts)
    return (with_task_labels(benchmark) if with_tasks else benchmark).train_stream


@pytest.mark.parametrize(
    ("kind", "with_tasks"), [("bare", False), ("tuples", False), ("tuples", True)]
)
@pytest.mark.parametrize(
    "options", [dict(train_epochs=1), dict(train_steps=2, train_mb_size=8)]
)
def test_unlabelled_images_train_and_evaluate(tiny_model, kind, with_tasks, options):
    batches, stream = Batches(), unlabelled(kind, with_tasks=with_tasks)
    strategy = diffusion_training(
        tiny_model,
        plugins=[batches, GenerativeDistillationPlugin(), HorizontalFlipPlugin()],
        evaluator=EvaluationPlugin(loss_metrics(stream=True), denoising_loss_metrics()),
        **options,
    )
    before = weights(tiny_model)
    strategy.train(stream, eval_streams=[])
    assert batches.sizes == ([20, 20] if "train_epochs" in options else [8] * 4)
    assert not same_bits(weights(tiny_model), before)
    values = strategy.eval(stream)
    assert any(name.startswith("Loss_Stream") for name in values)


def test_unlabelled_images_train_to_the_bits_of_labelled_ones():
    trained = []
    for labelled in (False, True):
        torch.manual_seed(0)
        model, data = tiny(), images(20)
        dataset = TensorDataset(data, torch.arange(20)) if labelled else TensorDataset(data)
        benchmark = benchmark_from_datasets(train=[AvalancheDataset([dataset])])
        strategy = diffusion_training(model, train_epochs=2)
        strategy.train(benchmark.train_stream, eval_streams=[])
        trained.append(weights(model))
    assert same_bits(*trained)


@pytest.mark.parametrize("kind", ["bare", "tuples"])
@pytest.mark.parametrize("with_tasks", [False, True])
def test_what_needs_labels_says_so_before_training(kind, with_tasks):
    solver = SmallCNN(SHAPE, 10)
    on_solver = BudgetedTemplate(
        model=solver, optimizer=torch.optim.Adam(solver.parameters()), evaluator=None
    )
    message = "has no labels, but a (DiffusionModel|SmallCNN) is trained with them"
    if kind == "bare" and with_tasks:  # which Avalanche cannot read
        message = "appends task labels to tuples, not to bare images: give"
    for strategy in (diffusion_training(conditioned()), on_solver):
        stream = unlabelled(kind, with_tasks=with_tasks)
        for use in (strategy.train, strategy.eval):
            with pytest.raises(ValueError, match=message) as caught:
                use(stream)
            assert len(str(caught.value).splitlines()) == 1
        assert strategy.clock.train_iterations == 0


@pytest.mark.parametrize("options", [dict(train_steps=0), dict(max_grad_norm=0.0)])
def test_budgets_of_zero_are_refused(tiny_model, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        diffusion_training(tiny_model, **options)


def numbered_anew(number_anew):
    return by_class(
        2, task_labels=True, class_ids_from_zero_in_each_exp=number_anew
    ).train_stream


def test_a_condition_that_is_the_number_of_several_classes_is_refused_before_training():
    stream = numbered_anew(True)
    model = conditioned(seen=())
    strategy = diffusion_training(model, train_steps=1)
    with pytest.raises(ValueError, match="give other classes the same numbers") as caught:
        strategy.train(stream)
    assert "\n" not in str(caught.value) and strategy.clock.train_iterations == 0
    assert not model.classes_seen.any()
    for model, allowed in ((conditioned(), numbered_anew(False)), (tiny(), stream)):
        diffusion_training(model, train_steps=1).train(allowed, eval_streams=[])


def test_only_diffusion_models_are_trained():
    with pytest.raises(TypeError, match="wrap the denoiser"):
        diffusion_training(SmallCNN(SHAPE, 2))


def test_the_budget_holds_for_solvers_too(digits):
    solver, batches = SmallCNN(SHAPE, 10), Batches()
    strategy = BudgetedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        train_steps=4,
        train_mb_size=16,
        plugins=[batches],
        evaluator=None,
    )
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert batches.sizes == [16] * 4


def test_a_stream_with_random_transforms_is_trained_as_its_experiences_one_by_one():
    pixels, labels = torch.randn(24, *SHAPE).clamp(-1, 1), torch.arange(24) % 2
    data = TensorDataset(pixels, labels)
    data.targets = labels.tolist()

    def noisy(image):
        return (image + 0.1 * torch.randn(SHAPE)).clamp(-1, 1)

    stream = nc_benchmark(
        data, data, 2, task_labels=False, shuffle=False, train_transform=noisy
    ).train_stream
    found = []
    for parts in ([stream], stream):
        torch.manual_seed(0)
        model = tiny()
        strategy = DiffusionTraining(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            train_steps=2,
            train_mb_size=4,
            evaluator=None,
        )
        for part in parts:
            strategy.train(part, eval_streams=[])
        found.append(weights(model))
    assert same_bits(*found)
