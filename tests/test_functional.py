"""A loop of one's own has the plugins' bits, and each function does what it says."""

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from diffusers import DDPMScheduler, UNet2DConditionModel, UNet2DModel
from torch.utils.data import DataLoader

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
    ddim_scheduler,
    flow_scheduler,
)
from avalanche_gd.functional import (
    Ahead,
    LookAhead,
    NoiseProcess,
    PairPool,
    ReplayPool,
    Taught,
    denoising_loss,
    distillation_loss,
    draw,
    frozen_copy,
    noised,
    prediction_losses,
    rank_one_anchor,
    rank_one_penalty,
    replay_weights,
    weighted_loss,
)
from avalanche_gd.models.image_check import check_images
from avalanche_gd.plugins import SOURCES, Retraining, regenerate
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import (
    SHAPE,
    TinyDenoiser,
    conditioned,
    images,
    seeded,
    tiny,
)
from tests.helpers.small_trainings import train_generator

STEPS = 6


class Blend:
    def draw(self, request):
        return request.noised((request.current + request.samples()) / 2)


class Recorder(SupervisedPlugin):
    """Notes the random state that each experience begins with, its data and its batches."""

    def __init__(self):
        super().__init__()
        self.experiences = []

    def before_forward(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations == 0:
            data = torch.stack([image for image, *_ in strategy.experience.dataset])
            self.experiences.append((torch.get_rng_state(), data, []))
        self.experiences[-1][-1].append((strategy.mb_x, strategy.mb_y))


def trained_by_plugins(digits, make, *plugins, one_pass=True):
    """The weights, and what they were trained on."""
    torch.manual_seed(0)
    model, recorder = make(), Recorder()
    model.one_pass = one_pass
    train_generator(model, digits.train_stream[:2], recorder, *plugins, train_steps=STEPS)
    return weights(model.denoiser), recorder.experiences


def trained_in_a_loop(make, experiences, loss_of, end=lambda denoiser, data: None):
    """The weights after the same data from the same random states."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.denoiser.parameters(), 1e-2)
    teacher = None
    for state, data, batches in experiences:
        torch.set_rng_state(state)
        for step, (x0, y) in enumerate(batches):
            loss = loss_of(model, teacher, x0, y, STEPS - step)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.denoiser.parameters(), 1.0)
            optimizer.step()
        end(model.denoiser, data)
        teacher = frozen_copy(model)
    return weights(model.denoiser)


def taught_beside(source="generation", one_pass=True, lambd=1.0, of_step=None, **kept):
    """The loss of a step with replay.

    :param kept: of :func:`draw`, in all steps.
    """

    def loss_of(model, teacher, x0, y, left):
        if teacher is not None:
            taught = draw(source, teacher, len(x0), current=x0, steps_left=left, **kept)
        current = noised(model.process, x0)
        if model.num_classes is not None:
            model.see_classes(y)
            current = current._replace(condition=model.drop_condition(y))
        if teacher is None:
            return prediction_losses(model.denoiser, current)[0]
        if one_pass:
            losses = prediction_losses(model.denoiser, current, taught)
        else:
            losses = [prediction_losses(model.denoiser, b)[0] for b in (current, taught)]
        return weighted_loss(*losses, n=2, lambd=lambd)

    return loss_of


def fresh_or_ahead():
    return dict(ahead=Ahead(4), samples=LookAhead(4, steps=2))


CASES = {
    "generation": (tiny, {}, lambda: dict(ahead=Ahead(4))),
    "one by one": (tiny, dict(look_ahead=1), dict),
    "two passes": (tiny, dict(lambd=0.3), lambda: dict(ahead=Ahead(4), one_pass=False)),
    "more steps": (tiny, dict(teacher_steps=3), lambda: dict(ahead=Ahead(4), steps=3)),
    "a sampler": (
        tiny,
        dict(look_ahead=1, teacher_sampler="unipc"),
        lambda: dict(samples=LookAhead(1, steps=2, sampler="unipc")),
    ),
    "gaussian": (tiny, dict(source="gaussian"), fresh_or_ahead),
    "trajectory": (tiny, dict(source="trajectory"), fresh_or_ahead),
    "snr_split": (tiny, dict(source="snr_split"), fresh_or_ahead),
    "of one's own": (tiny, dict(source=Blend()), fresh_or_ahead),
    "pool": (
        tiny,
        dict(pool_size=30),
        lambda: dict(ahead=Ahead(4), samples=ReplayPool(30, steps=2)),
    ),
    "pairs": (
        tiny,
        dict(pool_size=30, pool_of="pairs", pool_refresh=4),
        lambda: dict(pairs=PairPool(30, 4)),
    ),
    "conditioned": (lambda: conditioned(0.3), {}, lambda: dict(ahead=Ahead(4))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loop_of_ones_own_distils_to_the_bits_of_the_plugin(digits, name):
    make, options, kept = CASES[name]
    kept = kept() | {key: options[key] for key in ("source", "lambd") if key in options}
    plugin = GenerativeDistillationPlugin(**options)
    one_pass = kept.get("one_pass", True)
    expected, experiences = trained_by_plugins(digits, make, plugin, one_pass=one_pass)
    found = trained_in_a_loop(make, experiences, taught_beside(**kept))
    assert same_bits(found, expected)


def test_a_loop_of_ones_own_replays_to_the_bits_of_the_plugin(digits):
    expected, experiences = trained_by_plugins(digits, tiny, GenerativeReplayPlugin())
    loss_of = taught_beside(Retraining(), ahead=Ahead(4))
    assert same_bits(trained_in_a_loop(tiny, experiences, loss_of), expected)


def test_a_loop_of_ones_own_holds_weights_to_the_bits_of_the_plugin(digits):
    expected, experiences = trained_by_plugins(digits, tiny, RankOneEWCPlugin(100.0))
    anchors = []

    def loss_of(model, teacher, x0, y, left):
        loss = denoising_loss(model.denoiser, model.process, x0)
        if anchors:
            loss = loss + rank_one_penalty(model.denoiser.parameters(), anchors, 100.0)
        return loss

    def end(denoiser, data):
        process = NoiseProcess(ddim_scheduler())
        with torch.random.fork_rng():
            shuffled = data[torch.randperm(len(data))]
            batches = [noised(process, x0) for x0 in DataLoader(shuffled, batch_size=16)]
        anchors.append(rank_one_anchor(denoiser, batches))

    assert same_bits(trained_in_a_loop(tiny, experiences, loss_of, end), expected)
    without = trained_in_a_loop(tiny, experiences, taught_beside(lambd=0.0))
    assert not same_bits(without, expected)


def test_the_weights_of_the_losses_are_the_formula():
    assert replay_weights(1) == (1, 0)
    assert replay_weights(4, 2.0) == (1 / 4, 3 / 4 * 2)
    assert replay_weights(4, 2.0, "constant") == (1, 2)
    losses = torch.tensor(5.0), torch.tensor(7.0)
    assert weighted_loss(*losses, n=4, lambd=2.0).item() == 5 / 4 + 3 / 4 * 2 * 7
    for wrong in (dict(n=0), dict(n=2, lambd=-1.0), dict(n=2, weighting="none")):
        with pytest.raises(ValueError, match=r"n must|lambd must|no weighting 'none'"):
            replay_weights(**wrong)


def unet2d(kind=UNet2DModel, **options):
    return kind(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        **options,
    )


PLAIN = dict(
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
)
TEXT = dict(
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=4,
)


def two_denoisers(kind):
    """A student, a teacher, a condition, and what the two predict."""
    if kind == "DiffusionModel":
        models = conditioned(), conditioned()
        return *models, torch.tensor([1, 2, 10]), [m.denoise for m in models]
    if kind == "UNet2DModel":
        models = unet2d(**PLAIN), unet2d(**PLAIN)
        return *models, None, [lambda *args, m=m: m(*args[:2]).sample for m in models]
    if kind == "UNet2DModel with classes":
        models = [unet2d(num_class_embeds=5, **PLAIN) for _ in range(2)]
        return (
            *models,
            torch.tensor([1, 2, 4]),
            [lambda *a, m=m: m(*a).sample for m in models],
        )
    if kind == "UNet2DConditionModel":
        models = [unet2d(UNet2DConditionModel, **TEXT) for _ in range(2)]
        asked = [
            lambda x, t, class_labels, m=m: m(x, t, encoder_hidden_states=class_labels)
            for m in models
        ]
        return *asked, torch.randn(3, 2, 4), [lambda *a, m=m: m(*a).sample for m in models]
    models = TinyDenoiser(), TinyDenoiser()
    return *models, None, [lambda *args, m=m: m(*args[:2]) for m in models]


@pytest.mark.parametrize(
    "kind",
    [
        "DiffusionModel",
        "UNet2DModel",
        "UNet2DModel with classes",
        "UNet2DConditionModel",
        "a module",
    ],
)
def test_distillation_is_the_squared_distance_of_two_predictions(kind):
    student, teacher, condition, (predicts, taught) = two_denoisers(kind)
    x_t, t = torch.randn(3, *SHAPE), torch.tensor([0, 500, 999])
    loss = distillation_loss(student, teacher, x_t, t, condition)
    expected = (taught(x_t, t, condition) - predicts(x_t, t, condition)).square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert distillation_loss(teacher, teacher, x_t, t, condition).item() == 0
    loss.backward()
    if isinstance(teacher, torch.nn.Module):
        assert all(p.grad is None for p in teacher.parameters())
        assert any(p.grad is not None for p in student.parameters())


def test_the_losses_are_weighted_by_timestep_as_the_criterion_does():
    model, x0 = tiny(), images(9)
    gamma = model.process.min_snr_weights(5)
    criterion = DenoisingLoss(min_snr_gamma=5, noise_scheduler=model.noise_scheduler)
    batch = noised(model.process, x0, generator=seeded())
    t = batch.timesteps
    errors = (model.denoise(batch.x_t, t) - batch.target).square().flatten(1).mean(1)
    expected = (errors * gamma[t]).mean().item()
    found = denoising_loss(model, model.process, x0, generator=seeded(), weights=gamma)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    torch.manual_seed(1)
    found = denoising_loss(model, model.process, x0, weights=gamma)
    torch.manual_seed(1)
    assert torch.equal(found, criterion(model(x0)))
    teacher = tiny()
    errors = (teacher.denoise(batch.x_t, t) - model.denoise(batch.x_t, t)).square()
    expected = (errors.flatten(1).mean(1) * gamma[t]).mean().item()
    found = distillation_loss(model, teacher, batch.x_t, t, weights=gamma)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_images_are_noised_by_the_formula():
    scheduler = DDPMScheduler()
    x0, generator, state = images(50), seeded(), torch.get_rng_state()
    batch = noised(NoiseProcess(scheduler), x0, torch.arange(50), generator=generator)
    assert torch.equal(state, torch.get_rng_state())
    expected = scheduler.add_noise(x0, batch.target, batch.timesteps)
    assert torch.allclose(batch.x_t, expected, atol=1e-6)
    assert abs(batch.target.mean()) < 0.1 and abs(batch.target.std() - 1) < 0.1
    assert torch.equal(batch.condition, torch.arange(50))
    assert 0 <= batch.timesteps.min() < 200 and 800 < batch.timesteps.max() < 1000


def test_several_batches_take_one_pass():
    denoiser, passes = TinyDenoiser(), []
    denoiser.register_forward_hook(lambda module, inputs, _: passes.append(len(inputs[0])))
    process = NoiseProcess(ddim_scheduler())
    batches = [noised(process, images(count)) for count in (3, 5)]
    together = prediction_losses(denoiser, *batches)
    assert passes == [8]
    alone = [prediction_losses(denoiser, batch)[0] for batch in batches]
    assert torch.allclose(torch.stack(together), torch.stack(alone), rtol=1e-6)


def test_batches_that_do_not_go_together_are_refused():
    process = NoiseProcess(ddim_scheduler())
    given, none = noised(process, images(2), torch.zeros(2)), noised(process, images(2))
    with pytest.raises(ValueError, match="some batches have a condition and others none"):
        prediction_losses(TinyDenoiser(), given, none)
    with pytest.raises(
        ValueError, match=r"\(2, 1, 8, 8\) has a target of shape \(2, 1, 1,"
    ):
        prediction_losses(TinyDenoiser(), none._replace(target=torch.zeros(2, 1, 1, 1)))
    for shape in [(1000, 1), (1000, 1, 1, 1), ()]:
        with pytest.raises(ValueError, match=r"weights must be one for each timestep, of"):
            prediction_losses(TinyDenoiser(), none, weights=torch.ones(shape))
    with pytest.raises(ValueError, match="no batch; give what noised or draw returns"):
        prediction_losses(tiny())
    both = draw("gaussian", conditioned(0.5), 4, with_none=True)
    with pytest.raises(ValueError, match=r"with and without the class; give its apart\(\)"):
        prediction_losses(conditioned(0.5), both)
    assert prediction_losses(conditioned(0.5), both.apart())[0].isfinite()


@pytest.mark.parametrize("count", [999, 1001, 2000])
def test_weights_of_another_schedule_are_refused(count):
    student, x0, weights = tiny(), images(2), torch.ones(count)
    batch, message = noised(student.process, x0), r"for each of the 1000 timesteps"
    for losses in (
        lambda: prediction_losses(student, batch, weights=weights),
        lambda: denoising_loss(student, student.process, x0, weights=weights),
        lambda: denoising_loss(student.denoiser, student.process, x0, weights=weights),
        lambda: distillation_loss(student, tiny(), *batch[:2], weights=weights),
    ):
        with pytest.raises(ValueError, match=message):
            losses()


@pytest.mark.parametrize(
    "wrong", [[-1, 5], [5, 1000], [5], [[5], [6]], [0.5, 1000.0], [True, False]]
)
def test_timesteps_that_are_not_the_processs_are_refused(wrong):
    student, x_t, wrong = tiny(), torch.randn(2, *SHAPE), torch.tensor(wrong)
    for one, other in (
        (student, tiny()),
        (student.denoiser, student),
        (student, student.denoiser),
    ):
        with pytest.raises(ValueError, match=r"^timesteps must be (2 numbers|from 0 to)"):
            distillation_loss(one, other, x_t, wrong)
    with pytest.raises(ValueError, match=r"^timesteps must be (2 numbers|from 0 to)"):
        prediction_losses(student, Taught(x_t, wrong, x_t, None))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.uint16, torch.int32])
def test_timesteps_are_integers_of_whatever_size(kind):
    student, x_t, t = tiny(), torch.randn(3, *SHAPE), torch.tensor([0, 5, 100])
    gamma = student.process.min_snr_weights(5)
    losses = [
        distillation_loss(student, frozen_copy(student), x_t, t.to(dtype), weights=gamma)
        for dtype in (torch.long, kind)
    ]
    assert torch.equal(*losses)


def test_timesteps_between_integers_are_for_models_that_take_them():
    student, x_t = tiny(flow_scheduler()), torch.randn(2, *SHAPE)
    t = torch.tensor([0.5, 998.5])
    assert distillation_loss(student, tiny(flow_scheduler()), x_t, t).isfinite()
    with pytest.raises(ValueError, match="weights are those of timesteps that are integ"):
        distillation_loss(student, tiny(flow_scheduler()), x_t, t, weights=torch.ones(1000))


def test_losses_are_mapped_over_batches():
    student = tiny()
    x_t, t = torch.randn(4, 3, *SHAPE), torch.randint(1000, (4, 3))

    def loss(x_t, t):
        return prediction_losses(student, Taught(x_t, t, x_t, None))[0]

    each = [loss(*batch) for batch in zip(x_t, t, strict=True)]
    assert torch.allclose(torch.vmap(loss)(x_t, t), torch.stack(each), rtol=1e-5)


def with_dropout():
    options = PLAIN | dict(dropout=0.5)
    return DiffusionModel(unet2d(**options), DDPMScheduler(), SHAPE).train()


@pytest.mark.parametrize("kept", ["", "samples", "pairs", "ahead"])
@pytest.mark.parametrize("source", [*SOURCES, Blend()])
def test_a_teacher_in_training_mode_is_asked_in_evaluation_mode(source, kept):
    if kept == "pairs" and not getattr(SOURCES.get(str(source)), "independent", False):
        pytest.skip("its pairs cannot be kept")
    teacher, current = with_dropout(), images(6)
    pools = dict(samples=ReplayPool(6, steps=3), pairs=PairPool(6), ahead=Ahead(2))
    drawn = []
    for one in (teacher, frozen_copy(teacher)):
        own = {kept: pools[kept]} if kept else {}
        options = dict(current=current, generator=seeded(), steps=3)
        drawn.append(draw(source, one, 6, **options, **own))
        for pool in own.values():
            pool.forget()
    assert all(module.training for module in teacher.modules())
    for ours, theirs in zip(*drawn, strict=True):
        assert ours is theirs or torch.equal(ours, theirs)


def test_a_teacher_in_training_mode_distils_as_one_in_evaluation_mode():
    teacher, student = with_dropout(), tiny()
    x_t, t = torch.randn(3, *SHAPE), torch.tensor([0, 500, 999])
    losses = [
        distillation_loss(student, t_, x_t, t) for t_ in (teacher, frozen_copy(teacher))
    ]
    assert torch.equal(*losses) and all(module.training for module in teacher.modules())


def test_a_model_in_training_mode_makes_images_again_as_one_in_evaluation_mode():
    model, x0 = with_dropout(), images(3)
    again = [
        regenerate(one, x0, timestep=500, steps=3, generator=seeded())
        for one in (model, frozen_copy(model))
    ]
    assert torch.equal(*again) and all(module.training for module in model.modules())


@pytest.mark.parametrize("source", [*SOURCES, Blend()])
def test_every_source_draws_what_the_teacher_predicts(source):
    unet = unet2d(**PLAIN).eval()
    teacher = DiffusionModel(unet, DDPMScheduler(), SHAPE)
    state = torch.get_rng_state()
    options = dict(current=images(6), generator=seeded(), steps=3, start=0)
    torch.set_rng_state(state)
    taught = draw(source, teacher, 6, **options)
    assert torch.equal(state, torch.get_rng_state())
    assert taught.x_t.shape == (6, *SHAPE) and taught.condition is None
    with torch.no_grad():
        expected = unet(taught.x_t, taught.timesteps).sample
    assert torch.allclose(taught.target, expected, atol=1e-5)
    assert not taught.target.requires_grad


def test_the_classes_are_those_asked_for_or_evenly_those_seen():
    teacher = conditioned(seen=(2, 3))
    asked = []
    teacher.denoiser.register_forward_hook(
        lambda module, inputs, kw, out: asked.append(kw["class_labels"]), with_kwargs=True
    )
    condition = torch.tensor([3, 3, 3, 2])
    taught = draw("generation", teacher, 4, condition=condition)
    assert torch.equal(taught.condition, condition)
    assert len(asked) == 3 and all(torch.equal(one, condition) for one in asked)
    assert sorted(draw("gaussian", teacher, 4).condition.tolist()) == [2, 2, 3, 3]


class FirstSoMany:
    """Samples that are asked for in parts, which are the first of one another."""

    independent = True

    def draw(self, request):
        few = request.samples(request.count // 3)
        whole = request.samples()
        assert len(few) == request.count // 3 and len(whole) == request.count
        assert torch.equal(few, whole[: len(few)])
        return request.noised(whole)


@pytest.mark.parametrize(
    "kept",
    [
        dict,
        lambda: dict(ahead=Ahead(4)),
        lambda: dict(samples=ReplayPool(9, steps=2)),
        lambda: dict(condition=torch.tensor([2, 3, 3, 2, 2, 3])),
    ],
)
def test_a_source_gets_as_many_samples_as_it_asks_for(kept):
    teacher, options = conditioned(seen=(2, 3)), kept()
    for _ in range(3):
        assert len(draw(FirstSoMany(), teacher, 6, generator=seeded(), **options).x_t) == 6


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nothing", {}, "no source 'nothing'"),
        ("generation", dict(count=0), "count must be an integer of 1"),
        ("generation", dict(steps=1001), "steps must be an integer from 1 to 1000"),
        ("generation", dict(start=1000), "start must be an integer from 0 to 999"),
        ("trajectory", dict(start=3), "start is for sources that draw timesteps uniform"),
        ("current", dict(start=3, current=images(4)), "not Current; leave it at 0"),
        ("current", {}, "remove that, or give current="),
        ("current", dict(current=images(3)), "but there are 3 current images"),
        ("current", dict(pairs=PairPool(9)), "Current depends on the current batch"),
        ("gaussian", dict(condition=torch.zeros(4).long()), "this model is not condit"),
        ("gaussian", dict(with_none=True), "with_none needs a model that can predict both"),
        ("gaussian", dict(with_none=False), "with_none needs a model that can predict"),
    ],
)
def test_what_cannot_be_drawn_is_refused(source, options, message):
    with pytest.raises(ValueError, match=message):
        draw(source, tiny(), **dict(count=4) | options)


RAW = {
    "uint8": images(4).abs().mul(255).to(torch.uint8),
    "float images of bytes": images(4).abs() * 255,
}


@pytest.mark.parametrize("raw", RAW)
def test_images_that_are_not_in_model_space_are_refused(raw):
    model, x0 = tiny(), RAW[raw]
    message = r"^images must be (float and )?in model space, \[-1, 1\]"
    with pytest.raises(ValueError, match=message):
        noised(model.process, x0)
    with pytest.raises(ValueError, match=message):
        denoising_loss(model, model.process, x0)
    for source in ("current", "snr_split"):
        with pytest.raises(ValueError, match=message):
            draw(source, model, 4, current=x0)
    with pytest.raises(ValueError, match=message):
        regenerate(model, x0, timestep=10, steps=2, generator=seeded())


@pytest.mark.parametrize("wrong", [images(4, (1, 4, 4)), images(4).double()])
def test_images_of_another_shape_or_type_than_the_models_are_refused(wrong):
    model = tiny()
    with pytest.raises(ValueError, match="do not fit a model"):
        denoising_loss(model, model.process, wrong)
    with pytest.raises(ValueError, match="do not fit a model"):
        draw("current", model, 4, current=wrong)
    with pytest.raises(ValueError, match="do not fit a model"):
        regenerate(model, wrong, timestep=10, steps=2, generator=seeded())


def test_an_accelerator_does_not_wait_for_the_images_of_a_loop():
    class OnAnAccelerator(torch.Tensor):
        device = torch.device("cuda")

    check_images((images(2) * 255).as_subclass(OnAnAccelerator))
    with pytest.raises(ValueError, match="must be float"):
        check_images(RAW["uint8"].as_subclass(OnAnAccelerator))


OTHER = [
    ddim_scheduler(prediction_type="v_prediction"),
    ddim_scheduler(beta_end=0.03),
    ddim_scheduler(num_train_timesteps=500, beta_end=0.04),
    flow_scheduler(),
]


@pytest.mark.parametrize("other", OTHER)
def test_a_process_that_is_not_the_students_is_refused(other):
    student, x0 = tiny(), images(3)
    assert denoising_loss(student, NoiseProcess(ddim_scheduler()), x0).isfinite()
    with pytest.raises(ValueError, match=r"give student\.process"):
        denoising_loss(student, NoiseProcess(other), x0)
    asked = torch.randn(3, *SHAPE), torch.tensor([0, 100, 499])
    assert distillation_loss(student, tiny(), *asked).isfinite()
    with pytest.raises(ValueError, match="with the scheduler of the teacher"):
        distillation_loss(student, tiny(other), *asked)


def test_classes_are_dropped_by_the_caller_as_often_as_the_criterion_drops_them():
    student, labels = conditioned(0.5), torch.arange(400) % 10
    student.train()
    asked = []
    student.denoiser.register_forward_hook(
        lambda module, inputs, kw, out: asked.append(kw["class_labels"]), with_kwargs=True
    )
    denoising_loss(student, student.process, images(400), labels)
    assert torch.equal(asked.pop(), labels)
    torch.manual_seed(1)
    DenoisingLoss()(student(images(400)), labels)
    by_criterion = asked.pop()
    torch.manual_seed(1)
    batch = noised(student.process, images(400))
    dropped = student.drop_condition(labels)
    prediction_losses(student, batch._replace(condition=dropped))
    assert torch.equal(asked.pop(), by_criterion)
    assert 150 < (by_criterion == 10).sum() < 250


def test_a_teacher_predicts_with_none_at_the_same_images():
    teacher, options = conditioned(0.5), dict(count=6, generator=seeded())
    both = draw("generation", teacher, with_none=True, **options)
    assert both.condition.shape == (6, 2) and (both.condition[:, 1] == 10).all()
    assert (both.condition[:, 0] < 10).all()
    apart = both.apart()
    expected = teacher.denoise(apart.x_t, apart.timesteps, apart.condition)
    assert torch.allclose(apart.target, expected, atol=1e-6)
    alone = draw("generation", teacher, with_none=False, count=6, generator=seeded())
    assert torch.equal(alone.target, both.target[:, 0])


def test_a_teacher_a_condition_or_a_process_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="not a TinyDenoiser; give DiffusionModel"):
        draw("generation", TinyDenoiser(), 4)
    with pytest.raises(TypeError, match="not a DDPMScheduler; give NoiseProcess"):
        denoising_loss(TinyDenoiser(), DDPMScheduler(), images(2))
    with pytest.raises(ValueError, match="condition= is for new samples"):
        draw("generation", conditioned(), 4, condition=torch.ones(4).long(), ahead=Ahead(2))


@pytest.mark.parametrize("make", [TinyDenoiser, lambda: conditioned().denoiser])
def test_an_anchor_and_its_penalty_are_the_formula(make):
    denoiser, process = make().double(), NoiseProcess(ddim_scheduler())
    classes = None if isinstance(denoiser, TinyDenoiser) else torch.tensor([1, 2, 9])
    gamma = process.min_snr_weights(5).double()
    batches = [noised(process, images(3).double(), classes) for _ in range(2)]
    anchor = rank_one_anchor(denoiser, batches, weights=gamma)
    gradients = []
    for batch in batches:
        for i in range(3):
            loss = prediction_losses(denoiser, batch.at(torch.tensor([i])), weights=gamma)
            parts = torch.autograd.grad(loss[0], list(denoiser.parameters()))
            gradients.append(torch.cat([part.flatten() for part in parts]))
    g = torch.stack(gradients)
    mu = g.mean(0)
    c = (g @ mu).square().mean() / mu.norm() ** 4
    assert torch.allclose(anchor.mu, mu, rtol=1e-6, atol=1e-12)
    assert anchor.c == pytest.approx(c.item(), rel=1e-6)
    theta = torch.nn.utils.parameters_to_vector(denoiser.parameters()).detach()
    assert torch.equal(anchor.theta, theta)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn_like(parameter))
    moved = torch.nn.utils.parameters_to_vector(denoiser.parameters()) - theta
    fisher = anchor.c * torch.outer(anchor.mu, anchor.mu)
    expected = 7.0 / 2 * (moved @ fisher @ moved) * 2
    found = rank_one_penalty(denoiser.parameters(), [anchor, anchor], 7.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_what_cannot_be_held_is_refused():
    denoiser = TinyDenoiser()
    with pytest.raises(ValueError, match="no batch of the experience"):
        rank_one_anchor(denoiser, [])
    with pytest.raises(ValueError, match="the penalty needs the anchor"):
        rank_one_penalty(denoiser.parameters(), [])
    same = Taught(images(2), torch.tensor([1, 2]), torch.zeros(2, *SHAPE), None)
    zero = same._replace(target=denoiser(same.x_t, same.timesteps).detach())
    with pytest.raises(ValueError, match="the mean gradient has the norm 0"):
        rank_one_anchor(denoiser, [zero])
    with pytest.raises(ValueError, match="read again; give a list of them, not an itera"):
        rank_one_anchor(denoiser, iter([same]))
    anchor = rank_one_anchor(denoiser, [same])
    with pytest.raises(ValueError, match=r"an anchor has 19 weights, but 56 are trained"):
        rank_one_penalty(TinyDenoiser(2).parameters(), [anchor])


COUNTS = {
    "classes of two batches": lambda m, x: prediction_losses(
        m,
        noised(m.process, x, torch.tensor([0, 1, 2])),
        noised(m.process, x, torch.tensor([1])),
    ),
    "one class": lambda m, x: denoising_loss(m, m.process, x, torch.tensor([1])),
    "one class of a teacher": lambda m, x: distillation_loss(
        m, m, x, torch.tensor([3, 4]), torch.tensor([1])
    ),
    "one class in a pass": lambda m, x: m.denoise(x, torch.tensor([3, 4]), torch.ones(1)),
    "one timestep of a function": lambda m, x: prediction_losses(
        lambda x_t, t: x_t, Taught(x, torch.tensor([3]), x, None)
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_class_or_a_timestep_stands_for_one_image(name):
    with pytest.raises(
        ValueError, match=r"of shape \(2,\)|for each of 2|must be 2"
    ) as error:
        COUNTS[name](conditioned(), images(2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.uint8, np.int16, list])
def test_classes_may_be_of_any_integers(kind):
    model, classes = conditioned(), [0, 1, 2, 0]
    given = classes if kind is list else np.array(classes, dtype=kind)
    samples = [
        model.generate(4, condition=condition, steps=2, generator=seeded())
        for condition in (torch.tensor(classes), given)
    ]
    assert torch.equal(*samples)
    with pytest.raises(ValueError, match=r"must be 4 integers, got \['a'"):
        model.generate(4, condition=["a"] * 4, steps=2)


@pytest.mark.parametrize("shape", [(5,), (5, 16), (5, 3, 4, 8, 8)])
@pytest.mark.parametrize("make", [ddim_scheduler, flow_scheduler])
@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_each_image_has_its_own_timestep_whatever_its_shape(shape, make, kind):
    process = NoiseProcess(make(prediction_type=kind))
    x0 = torch.rand(shape, generator=seeded()) * 2 - 1
    noise = torch.randn(shape, generator=seeded())
    timesteps = torch.tensor([0, 100, 400, 800, 990])
    x_t = process.add_noise(x0, noise, timesteps)
    target = process.target(x0, noise, timesteps)
    image, _ = process.image_and_noise(x_t, target, timesteps)
    for i, t in enumerate(timesteps):
        a, b = (bar[t].sqrt().float() for bar in (process.alpha_bar, process.beta_bar))
        assert torch.allclose(x_t[i], a * x0[i] + b * noise[i], atol=1e-6)
    assert torch.allclose(image, x0, atol=1e-3)


WRONG_PROCESS = {
    "a timestep below 0": lambda p, x: p.add_noise(x, x, torch.tensor([-1, 3])),
    "a timestep of T": lambda p, x: p.target(x, x, torch.tensor([1000, 3])),
    "a timestep that is float": lambda p, x: p.add_noise(x, x, torch.tensor([0.5, 3])),
    "an end below 0": lambda p, x: p.ddim_step(
        x, x, torch.tensor([400, 3]), torch.tensor([-1, 0])
    ),
    "images of bytes": lambda p, x: p.add_noise(x.byte(), x, torch.tensor([1, 3])),
    "gamma below 0": lambda p, x: p.min_snr_weights(-5),
    "gamma that is no number": lambda p, x: p.min_snr_weights(float("nan")),
    "weights below 0": lambda p, x: denoising_loss(
        tiny(), p, x, weights=torch.full((1000,), -1.0)
    ),
    "weights that are no numbers": lambda p, x: denoising_loss(
        tiny(), p, x, weights=torch.full((1000,), torch.nan)
    ),
}


@pytest.mark.parametrize("name", WRONG_PROCESS)
def test_what_a_process_does_not_have_is_refused(name):
    process = NoiseProcess(ddim_scheduler(prediction_type="v_prediction"))
    if name.startswith("weights"):
        process = NoiseProcess(ddim_scheduler())
    with pytest.raises(ValueError, match=r"must be (from|2 integers|float|above 0|finite)"):
        WRONG_PROCESS[name](process, images(2))


@pytest.mark.parametrize("wrong", [DDPMScheduler, None, 3])
def test_what_is_no_scheduler_is_refused(wrong):
    with pytest.raises(TypeError, match="noise_scheduler must be a"):
        NoiseProcess(wrong)


@pytest.mark.parametrize("options", [dict(steps=5000), dict(eta=3), dict(sampler="x")])
def test_a_call_that_is_refused_draws_nothing(options):
    model, generator = tiny(), seeded()
    before = int(model.sampling_seed), generator.get_state()
    for source in (None, generator):
        with pytest.raises(ValueError):
            model.generate(4, generator=source, **options)
    assert int(model.sampling_seed) == before[0]
    assert torch.equal(generator.get_state(), before[1])


def test_models_of_neighbouring_seeds_share_no_noise():
    samples = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = tiny()
        model.load_state_dict(tiny().state_dict() | {"sampling_seed": model.sampling_seed})
        samples.append(
            [model.draw_noise(2, seeded(int(model.sampling_seed) + i)) for i in range(3)]
        )
    flat = [noise for part in samples for noise in part]
    assert not any(torch.equal(a, b) for i, a in enumerate(flat) for b in flat[:i])


def test_one_timestep_may_be_of_all_images():
    process, x = NoiseProcess(ddim_scheduler()), images(4)
    expected = process.add_noise(x, x, torch.full((4,), 5))
    for one in (5, torch.tensor(5), torch.tensor([5]), [5] * 4, torch.full((4, 1), 5)):
        assert torch.equal(process.add_noise(x, x, one), expected)
    each = torch.func.vmap(lambda a, t: process.add_noise(a, a, t))(x, torch.full((4,), 5))
    assert torch.allclose(each.view_as(x), expected)
    assert (process.min_snr_weights(float("inf")) == 1).all()


def test_weights_may_be_mapped_and_compiled():
    model, process = tiny(), NoiseProcess(ddim_scheduler())
    batch = Taught(images(4), torch.arange(4), images(4), None)
    weights = process.min_snr_weights(5)

    def loss(given):
        return prediction_losses(model, batch, weights=given)[0]

    mapped = torch.func.vmap(loss)(torch.stack([weights, 2 * weights]))
    assert torch.allclose(mapped[1], 2 * loss(weights))
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(weights), loss(weights))
