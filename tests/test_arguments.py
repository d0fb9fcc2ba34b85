"""What constructors refuse: every number of theirs, by type and by range."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import avalanche_gd
from avalanche_gd import (
    ClassifierGuidance,
    DenoisingLoss,
    DiffusionModel,
    DiffusionTraining,
    DistillFromPlugin,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
    Sampling,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
    oracle_classifier,
    unet,
)
from avalanche_gd.plugins import EMAPlugin, LookAhead, PairPool, ReplayPool, SNRSplit
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.small_models import SHAPE, conditioned, images, tiny
from tests.helpers.small_trainings import fake_strategy

NAN, INF = float("nan"), float("inf")
NO_INTEGERS = (True, 2.5, 3.0, NAN, INF, "3", [3], torch.tensor(3))
NO_NUMBERS = (True, NAN, INF, -INF, "0.5", [0.5], torch.tensor(0.5), 1j)

# What is allowed: wrong values and a right one, beside the wrong types. A question mark
# says that None is allowed too.
OUT_OF_RANGE: dict[str, tuple[tuple[Any, ...], Any]] = {
    "an integer of 0 or more": ((*NO_INTEGERS, -1), np.int64(3)),
    "an integer of 1 or more": ((*NO_INTEGERS, 0, -1), np.int64(3)),
    "an integer of 2 or more": ((*NO_INTEGERS, 1, 0, -1), np.int64(3)),
    "an integer from 1 to 1000": ((*NO_INTEGERS, 0, -1, 1001), np.int64(3)),
    "0 or more": ((*NO_NUMBERS, -0.5, -1), np.float32(2)),
    "above 0": ((*NO_NUMBERS, 0, 0.0, -1), np.float32(2)),
    "in [0, 1)": ((*NO_NUMBERS, 1, 1.0, 1.5, -0.1), np.float32(0.5)),
    "in [0, 1]": ((*NO_NUMBERS, 1.5, -0.1), np.float32(0.5)),
}
LESSON = dict(
    teacher_steps="an integer of 1 or more",
    lambd="0 or more",
    replay_ratio="above 0",
    look_ahead="an integer of 1 or more",
    pool_size="an integer of 1 or more?",
    pool_per_class="an integer of 1 or more?",
    pool_refresh="an integer of 1 or more?",
    teacher_eta="in [0, 1]",
)
BUDGET = dict(
    train_steps="an integer of 1 or more?",
    train_epochs="an integer of 0 or more",
    train_mb_size="an integer of 1 or more",
    eval_mb_size="an integer of 1 or more",
)
START = dict(replay_start_timestep="an integer of 0 or more")
REPLAY = LESSON | dict(replay_size="an integer of 1 or more?")


def make_model(*, num_classes=10, condition_dropout=0.1, **options):
    denoiser = conditioned().denoiser
    options = dict(num_classes=num_classes, condition_dropout=condition_dropout) | options
    if num_classes is None:
        denoiser, options = tiny().denoiser, {}
    return DiffusionModel(denoiser, ddim_scheduler(), SHAPE, **options)


def make_strategy(kind: Callable[..., Any], model: Any, **options: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return kind(model=model, optimizer=optimizer, evaluator=None, **options)


def with_a_pool(kind: Callable[..., Any], **options: Any) -> Any:
    if "pool_refresh" in options:
        options.setdefault("pool_size", 20)
    return kind(**options)


def soft_replay(**options: Any) -> SoftGenerativeReplayPlugin:
    generator = fake_strategy(conditioned() if "pool_per_class" in options else tiny())
    if "regenerate_from" in options:
        options.setdefault("samples_only_from", 0)
    return with_a_pool(partial(SoftGenerativeReplayPlugin, generator), **options)


TABLE: dict[Any, tuple[Callable[..., Any], dict[str, str]]] = {
    DiffusionModel: (
        make_model,
        dict(
            sampling_steps="an integer from 1 to 1000",
            num_classes="an integer of 1 or more?",
            condition_dropout="in [0, 1)",
            guidance="0 or more",
        ),
    ),
    DenoisingLoss: (
        lambda min_snr_gamma: DenoisingLoss(
            min_snr_gamma=min_snr_gamma,
            noise_scheduler=None if min_snr_gamma is None else ddim_scheduler(),
        ),
        dict(min_snr_gamma="above 0?"),
    ),
    DiffusionTraining: (
        lambda **options: make_strategy(DiffusionTraining, tiny(), **options),
        BUDGET | dict(ema_decay="in [0, 1)?", max_grad_norm="above 0?"),
    ),
    BudgetedTemplate: (
        lambda **options: make_strategy(BudgetedTemplate, SmallCNN(SHAPE, 3), **options),
        BUDGET,
    ),
    SoftGenerativeReplay: (
        lambda **options: make_strategy(
            SoftGenerativeReplay, SmallCNN(SHAPE, 3), replay=soft_replay(), **options
        ),
        BUDGET,
    ),
    GenerativeDistillationPlugin: (
        partial(with_a_pool, GenerativeDistillationPlugin),
        LESSON
        | START
        | dict(teacher_ema_decay="in [0, 1]?", unconditional_weight="0 or more?"),
    ),
    DistillFromPlugin: (
        lambda **options: DistillFromPlugin(tiny(), **options),
        {name: LESSON[name] for name in ("teacher_steps", "look_ahead", "pool_size")},
    ),
    GenerativeReplayPlugin: (partial(with_a_pool, GenerativeReplayPlugin), REPLAY | START),
    SoftGenerativeReplayPlugin: (
        soft_replay,
        REPLAY
        | dict(
            temperature="above 0",
            samples_only_from="an integer of 0 or more?",
            regenerate_from="an integer of 0 or more?",
        ),
    ),
    LookAhead: (
        lambda **options: LookAhead(**(dict(ahead=1, steps=1) | options)),
        dict(
            ahead="an integer of 1 or more",
            steps="an integer of 1 or more",
            eta="in [0, 1]",
        ),
    ),
    ReplayPool: (
        lambda **options: ReplayPool(**(dict(size=9, steps=1) | options)),
        dict(
            size="an integer of 1 or more",
            refresh_every="an integer of 1 or more?",
            steps="an integer of 1 or more",
            eta="in [0, 1]",
        ),
    ),
    PairPool: (
        lambda **options: PairPool(**(dict(size=9) | options)),
        dict(size="an integer of 1 or more", refresh_every="an integer of 1 or more?"),
    ),
    SNRSplit: (SNRSplit, dict(threshold="0 or more")),
    ClassifierGuidance: (ClassifierGuidance, dict(scale="0 or more")),
    EMAPlugin: (EMAPlugin, dict(decay="in [0, 1)")),
    RankOneEWCPlugin: (
        RankOneEWCPlugin,
        dict(
            lambd="0 or more",
            samples="an integer of 1 or more?",
            chunk_size="an integer of 1 or more",
        ),
    ),
    Sampling: (
        Sampling,
        dict(
            images="an integer of 2 or more",
            steps="an integer of 1 or more",
            eta="in [0, 1]",
            seed="an integer of 0 or more",
            batch_size="an integer of 1 or more",
        ),
    ),
    SmallCNN: (
        lambda **options: SmallCNN(SHAPE, **(dict(num_classes=3) | options)),
        dict(num_classes="an integer of 1 or more", num_features="an integer of 1 or more"),
    ),
    unet: (partial(unet, "digits"), dict(num_classes="an integer of 1 or more?")),
    oracle_classifier: (
        lambda **options: oracle_classifier(
            images(4), torch.arange(4), **(dict(steps=1) | options)
        ),
        dict(seed="an integer of 0 or more", steps="an integer of 1 or more"),
    ),
}
RENAMED = dict(
    sampling_steps="sampling steps",
    decay="the decay of an EMA",
    ema_decay="the decay of an EMA",
    ahead="look_ahead",
    size="pool_size",
    refresh_every="pool_refresh",
    threshold="the threshold of the SNR",
    scale="the scale of guidance",
)
"""What an argument is called by those who know it under another name."""

ARGUMENTS = [
    pytest.param(make, name, allowed.rstrip("?"), allowed[-1] == "?", id=f"{where}-{name}")
    for kind, (make, arguments) in TABLE.items()
    for name, allowed in arguments.items()
    for where in [kind.__name__]
]


@pytest.mark.parametrize(("make", "name", "allowed", "is_optional"), ARGUMENTS)
def test_a_number_of_another_type_or_out_of_range_is_refused(
    make, name, allowed, is_optional
):
    wrong, right = OUT_OF_RANGE[allowed]
    for value in wrong if is_optional else (*wrong, None):
        with pytest.raises(ValueError) as refused:
            make(**{name: value})
        line = str(refused.value)
        assert line.startswith(f"{RENAMED.get(name, name)} must be {allowed}")
        assert line.endswith(f"got {value!r}") and "\n" not in line
    make(**{name: right})
    if is_optional:
        make(**{name: None})


def test_the_table_has_every_number_of_every_public_class():
    public = [getattr(avalanche_gd, name) for name in avalanche_gd.__all__]
    classes = [*filter(inspect.isclass, public), LookAhead, ReplayPool, EMAPlugin]
    classes += [PairPool, SNRSplit]
    for kind in (*classes, BudgetedTemplate, unet, oracle_classifier):
        parameters = inspect.signature(kind).parameters.values()
        numbers = {int, int | None, float, float | None}
        named = {p.name for p in parameters if p.annotation in numbers}
        _, arguments = TABLE.get(kind, (None, {}))
        assert named <= arguments.keys(), kind


SHAPES = [(8, 8), (1, 8, 8, 1), 8, None, (1, 0, 8), (1, 8.0, 8), (True, 8, 8), "188"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shape_that_is_not_of_an_image_is_refused(shape):
    for make in (
        lambda: DiffusionModel(tiny().denoiser, ddim_scheduler(), shape),
        lambda: SmallCNN(shape, 3),
    ):
        with pytest.raises(ValueError, match=r"sample_shape must be \(C, H, W\), three"):
            make()


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
@pytest.mark.parametrize("generator", [0, 5, "cpu", np.random.default_rng()], ids=str)
def test_a_generator_that_is_a_number_is_refused(plugin, generator):
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got"):
        plugin(generator=generator)


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_a_refresh_of_no_pool_and_two_pools_are_refused(plugin):
    with pytest.raises(ValueError, match="pool_refresh needs a pool; give pool_size"):
        plugin(pool_refresh=3)
    with pytest.raises(ValueError, match="pool_size or pool_per_class, not both"):
        plugin(pool_size=30, pool_per_class=3)


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
@pytest.mark.parametrize("weighting", ["equal", "", None, 1, ["constant"]], ids=str)
def test_an_unknown_weighting_is_refused_with_those_that_exist(plugin, weighting):
    known = "no weighting .*; choose from experiences, constant"
    with pytest.raises(ValueError, match=known):
        plugin(weighting=weighting)


def test_a_generator_strategy_that_is_none_is_refused():
    with pytest.raises(TypeError, match="must be the strategy that trains the generator"):
        GenerativeReplayPlugin(5)
    with pytest.raises(TypeError, match="a solver replays samples of a generator; give"):
        SoftGenerativeReplayPlugin(None)


def test_steps_and_epochs_exclude_each_other():
    with pytest.raises(ValueError, match="train_steps and train_epochs cannot both"):
        make_strategy(DiffusionTraining, tiny(), train_steps=3, train_epochs=2)


@pytest.mark.parametrize(
    "kind", [DiffusionTraining, BudgetedTemplate, SoftGenerativeReplay]
)
def test_an_optimizer_of_another_models_parameters_is_refused(kind):
    make = tiny if kind is DiffusionTraining else partial(SmallCNN, SHAPE, 3)
    replay = {"replay": soft_replay()} if kind is SoftGenerativeReplay else {}
    optimizer = torch.optim.Adam(make().parameters())
    with pytest.raises(ValueError, match="optimizer has none of the model's parameters"):
        kind(model=make(), optimizer=optimizer, evaluator=None, **replay)


def test_an_execution_of_another_type_is_refused():
    with pytest.raises(TypeError, match=r"must be an avalanche_gd\.Execution, not 'bf"):
        DiffusionModel(tiny().denoiser, ddim_scheduler(), SHAPE, execution="bfloat16")
