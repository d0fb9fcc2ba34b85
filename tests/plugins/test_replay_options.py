"""The teacher's eta, the lowest timestep of replay, and replay that increases."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)

from avalanche_gd import (
    DiffusionModel,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
)
from avalanche_gd.distributed.shares import sharing
from avalanche_gd.plugins import SOURCES, LookAhead, ReplayPool, TeachingRequest
from avalanche_gd.runs.passes import PassCounter
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.lessons import request_of
from tests.helpers.small_models import SHAPE, TinyDenoiser, images, seeded, tiny
from tests.helpers.small_trainings import train_generator

BATCH = 16
PLUGINS = [GenerativeDistillationPlugin, GenerativeReplayPlugin]


@pytest.mark.parametrize(
    "samples",
    [LookAhead(1, steps=3, eta=0.7), ReplayPool(8, steps=3, eta=0.7)],
    ids=lambda samples: type(samples).__name__,
)
def test_a_teacher_samples_with_its_eta(tiny_model, samples):
    generator, again = seeded(), seeded()
    drawn = samples.draw(tiny_model, 8, generator).images()
    whole = tiny_model.generate(8, steps=3, eta=0.7, generator=again)
    if isinstance(samples, ReplayPool):
        whole = whole[(torch.rand(8, generator=again) * 8).long()]
    assert torch.equal(drawn, whole)
    assert not torch.equal(whole, tiny_model.generate(8, steps=3, generator=seeded()))


def noted_etas(monkeypatch):
    etas, reverse = [], DiffusionModel.reverse

    def noting(self, *arguments, eta=0.0, **options):
        etas.append(eta)
        return reverse(self, *arguments, eta=eta, **options)

    monkeypatch.setattr(DiffusionModel, "reverse", noting)
    return etas


@pytest.mark.parametrize("make", PLUGINS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_plugins_hand_the_eta_on(tiny_model, digits, monkeypatch, make, eta):
    etas = noted_etas(monkeypatch)
    train_generator(tiny_model, digits.train_stream[:2], make(teacher_eta=eta))
    assert set(etas) == {eta}


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "trajectory"])
def test_replay_starts_at_its_lowest_timestep(tiny_model, name):
    request = request_of(tiny_model, images(4000))
    request = TeachingRequest(**(vars(request) | {"start": 990}))
    with torch.no_grad():
        t = SOURCES[name]().draw(request).timesteps
    counts = torch.bincount(t, minlength=1000)
    assert counts[:990].sum() == 0
    assert counts[990:].min() > 300 and counts[990:].max() < 500  # 400 each


def test_from_0_on_the_timesteps_are_those_of_before(tiny_model):
    t = request_of(tiny_model, images(64)).draw_timesteps()
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(t, torch.randint(1000, (64,), generator=generator))


@pytest.mark.parametrize("make", PLUGINS)
def test_plugins_hand_the_start_on(tiny_model, digits, monkeypatch, make):
    lowest, noise = [], TeachingRequest.draw_timesteps

    def noting(request):
        lowest.append(int(noise(request).min()))
        return noise(request)

    monkeypatch.setattr(TeachingRequest, "draw_timesteps", noting)
    plugin = make(replay_start_timestep=900)
    train_generator(tiny_model, digits.train_stream[:2], plugin, train_steps=5)
    assert min(lowest) >= 900


def passes_a_step(stream, *plugins):
    """F a step in each experience."""
    model = tiny()
    counter = PassCounter(model, BATCH)
    counting = counter.plugin("generator")
    train_generator(model, stream, counting, *plugins, train_steps=4)
    return [
        PassCounter.summary(_only(counter, number), 4)["F_per_step"]
        for number in range(len(stream))
    ]


def _only(counter, number):
    passes = {"generator": [counter.passes["generator"][number]], "solver": []}
    return SimpleNamespace(passes=passes, _batch_size=BATCH)


@pytest.mark.parametrize(
    ("plugin", "rest"),
    [
        (GenerativeDistillationPlugin(increasing_replay_size=True), 6),
        (GenerativeReplayPlugin(increasing_replay_size=True), 5),
        (GenerativeDistillationPlugin(increasing_replay_size=True, replay_ratio=0.5), 3),
        (GenerativeDistillationPlugin(increasing_replay_size=True, source="gaussian"), 4),
        (GenerativeDistillationPlugin(), 6),
    ],
)
def test_increasing_replay_is_n_minus_1_times_as_much(digits, plugin, rest):
    costs = passes_a_step(digits.train_stream[:4], plugin)
    times = [0, 1, 2, 3] if plugin.lesson.is_increasing else [0, 1, 1, 1]
    assert costs == [3 + n * rest for n in times]


@pytest.mark.parametrize("is_increasing", [False, True])
def test_a_solvers_replay_increases_as_in_avalanche(digits, is_increasing):
    generator = train_generator(tiny(), digits.train_stream[:1])
    solver = SmallCNN(SHAPE, 10)
    plugin = SoftGenerativeReplayPlugin(
        generator, increasing_replay_size=is_increasing, teacher_eta=0.3
    )
    assert plugin.increasing_replay_size == is_increasing  # Avalanche's attribute
    counts, generate = [], plugin.generate
    plugin.generate = lambda strategy, count: (
        counts.append((strategy.experience.current_experience, count))
        or generate(strategy, count)
    )
    strategy = BudgetedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters(), 1e-3),
        criterion=torch.nn.CrossEntropyLoss(),
        plugins=[plugin],
        train_steps=2,
        train_mb_size=BATCH,
        evaluator=None,
    )
    strategy.train(digits.train_stream[:3], eval_streams=[])
    last = 2 * BATCH if is_increasing else BATCH
    assert counts == [(1, BATCH)] * 2 + [(2, last)] * 2


BAD = [
    (dict(teacher_eta=1.5), r"teacher_eta must be in \[0, 1\], got 1.5"),
    (dict(teacher_eta=float("nan")), r"teacher_eta must be in \[0, 1\], a finite"),
    (dict(teacher_eta=0.5, teacher_sampler="unipc"), 'is for teacher_sampler="own"; '),
    (dict(replay_start_timestep=-1), "replay_start_timestep must be an integer of 0"),
    (dict(replay_start_timestep=1.5), "replay_start_timestep must be an integer of 0"),
]


@pytest.mark.parametrize("make", PLUGINS)
@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_is_refused_by_the_constructor(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize("source", ["gaussian", "current", "trajectory"])
def test_an_eta_is_refused_where_nothing_is_sampled(source):
    with pytest.raises(
        ValueError, match="teacher_eta are for sources that take the teacher's samples"
    ):
        GenerativeDistillationPlugin(source=source, teacher_eta=0.5)


@pytest.mark.parametrize("source", ["current", "trajectory"])
def test_a_start_is_refused_where_timesteps_are_not_drawn(source):
    with pytest.raises(ValueError, match="for sources that draw timesteps uniformly"):
        GenerativeDistillationPlugin(source=source, replay_start_timestep=3)


def test_a_start_is_refused_in_a_solver(digits):
    generator = train_generator(tiny(), digits.train_stream[:1])
    with pytest.raises(ValueError, match="a solver's are not"):
        SoftGenerativeReplayPlugin(generator, replay_start_timestep=3)


def test_a_fixed_size_cannot_increase():
    with pytest.raises(ValueError, match="replay_size is fixed; give one of the two"):
        GenerativeReplayPlugin(replay_size=8, increasing_replay_size=True)


def test_a_ratio_is_refused_beside_a_fixed_size():
    GenerativeReplayPlugin(replay_size=4, replay_ratio=1)
    with pytest.raises(ValueError, match="replay_size is fixed; give one of the two"):
        GenerativeReplayPlugin(replay_size=4, replay_ratio=7.0)


def test_labels_from_the_condition_are_refused_without_a_solver():
    with pytest.raises(ValueError, match="is for a solver; give generator_strategy"):
        GenerativeReplayPlugin(labels="condition")


@pytest.mark.parametrize("make", PLUGINS)
def test_a_start_has_to_be_a_timestep_of_the_model(tiny_model, make):
    make(replay_start_timestep=999).check_model(tiny_model)
    with pytest.raises(ValueError, match="an integer from 0 to 999, got 1000"):
        make(replay_start_timestep=1000).check_model(tiny_model)


@pytest.mark.parametrize("make", PLUGINS)
def test_an_eta_has_to_be_known_to_the_models_scheduler(make):
    scheduler = UniPCMultistepScheduler.from_config(ddim_scheduler().config)
    model = DiffusionModel(TinyDenoiser(), scheduler, SHAPE)
    make().check_model(model)
    with pytest.raises(ValueError, match="UniPCMultistepScheduler does not have eta"):
        make(teacher_eta=0.5).check_model(model)


def test_several_processes_do_not_share_an_etas_noise():
    GenerativeDistillationPlugin().check_shares(64, 2)
    GenerativeDistillationPlugin(teacher_eta=0.5, pool_size=9).check_shares(64, 2)
    with sharing(0, 2), pytest.raises(ValueError, match="cannot share the noise that"):
        GenerativeDistillationPlugin(teacher_eta=0.5).check_shares(64, 2)


NOISY = [
    (DDPMScheduler, {}),
    (EulerAncestralDiscreteScheduler, {}),
    (DPMSolverMultistepScheduler, dict(algorithm_type="sde-dpmsolver++")),
]


def checked(plugin, model, processes):
    """As when training starts."""
    plugin.check_model(model)
    plugin.check_shares(64, processes)


@pytest.mark.parametrize("make", PLUGINS)
@pytest.mark.parametrize(("kind", "config"), NOISY)
def test_several_processes_do_not_share_the_noise_of_a_schedulers_steps(make, kind, config):
    model = tiny(kind(**config))
    checked(make(), model, 1)
    checked(make(pool_size=9), model, 2)
    checked(make(), tiny(UniPCMultistepScheduler()), 2)
    with pytest.raises(ValueError, match=f"the noise that {kind.__name__} adds; make the"):
        checked(make(), model, 2)


def test_a_source_without_samples_is_shared_whatever_the_scheduler_draws():
    model = tiny(DDPMScheduler())
    for source in ("gaussian", "current", "trajectory", "partial_generation"):
        checked(GenerativeDistillationPlugin(source=source), model, 2)
    pairs = GenerativeDistillationPlugin(pool_size=9, pool_of="pairs")
    checked(pairs, model, 2)
