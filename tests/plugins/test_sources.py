"""The sources of distillation against plain statements of their formulas."""

import numpy as np
import pytest
import torch

from avalanche_gd import DiffusionModel, GenerativeDistillationPlugin, ddim_scheduler
from avalanche_gd.plugins import SOURCES, PartialGeneration, SNRSplit, TeachingRequest
from tests.helpers.lessons import note_losses, request_of
from tests.helpers.small_models import PREDICTING, SHAPE, TinyDenoiser, images, seeded, tiny
from tests.helpers.small_trainings import train_generator

COUNT = 64


def draw(name, teacher, current, steps=2):
    with torch.no_grad():
        taught = SOURCES[name]().draw(request_of(teacher, current, steps=steps))
        target = teacher.denoise(taught.x_t, taught.timesteps)
    assert (taught.target - target).abs().max() < 1e-6 and taught.condition is None
    return taught.x_t, taught.timesteps


def drawn_first(teacher, seed=3):
    """Timesteps and noise, as every source but generation draws them."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(1000, (COUNT,), generator=generator)
    return t, torch.randn(COUNT, *SHAPE, generator=generator).numpy()


ALPHA_BAR = ddim_scheduler().alphas_cumprod.double().numpy()


def alpha_bar(t):
    return ALPHA_BAR[t]


def test_alpha_bar_is_the_product_of_the_linear_schedule():
    plain = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    assert np.abs(ALPHA_BAR - plain).max() < 1e-6


def test_gaussian(tiny_model):
    x_t, t = draw("gaussian", tiny_model, images(COUNT))
    expected_t, noise = drawn_first(tiny_model)
    assert torch.equal(t, expected_t)
    assert np.abs(x_t.numpy() - noise).max() < 1e-6


def test_a_split_by_snr_takes_samples_where_there_is_signal(tiny_model):
    current, split = images(COUNT), SNRSplit(1.0)
    end = int((ALPHA_BAR / (1 - ALPHA_BAR) > 1).sum())
    places, counts = [], []
    for seed in range(40):
        request = request_of(tiny_model, current, seed=seed)
        with torch.no_grad():
            taught = split.draw(request)
            expected = tiny_model.denoise(taught.x_t, taught.timesteps)
        assert (taught.target - expected).abs().max() < 1e-6
        count = int((taught.timesteps < end).sum())
        assert (taught.timesteps[:count] < end).all()
        counts.append(count)
        places.append(taught.timesteps)
        plain = torch.Generator().manual_seed(seed)
        u = float(torch.rand(1, generator=plain))
        assert count == int(COUNT * end / 1000 + u)
        noise = torch.randn(COUNT, *SHAPE, generator=plain)[: -(-COUNT * end // 1000)]
        samples = tiny_model.reverse(noise, steps=2)[:count]
        torch.rand(COUNT, generator=plain)
        noise = torch.randn(COUNT, *SHAPE, generator=plain)
        x0 = torch.cat([samples, current[count:]])
        x_t = tiny_model.add_noise(x0, noise, taught.timesteps)
        assert (taught.x_t - x_t).abs().max() < 1e-5
    assert abs(np.mean(counts) - COUNT * end / 1000) < 0.3
    spread = torch.bincount(torch.cat(places) // 100, minlength=10)
    assert spread.min() > 200 and spread.max() < 312  # of 256 each


def test_a_split_at_0_takes_samples_only_and_above_all_timesteps_is_refused(tiny_model):
    with torch.no_grad():
        taught = SNRSplit(0.0).draw(request_of(tiny_model, torch.full((8, *SHAPE), 9.0)))
    assert taught.x_t.abs().max() < 6
    with pytest.raises(
        ValueError, match="no timestep has a signal-to-noise ratio above 1e"
    ):
        SNRSplit(1e6).check_model(tiny_model)
    with pytest.raises(ValueError, match="the threshold of the SNR must be 0 or more"):
        SNRSplit(-1.0)


def test_a_split_heeds_the_lowest_timestep(tiny_model):
    request = request_of(tiny_model, images(COUNT))
    with torch.no_grad():
        for start in (100, 990):
            asked = TeachingRequest(**(vars(request) | {"start": start}))
            timesteps = SNRSplit(1.0).draw(asked).timesteps
            assert start <= timesteps.min() and timesteps.max() < 1000


def test_a_source_that_is_independent_has_no_current_batch(tiny_model):
    request = request_of(tiny_model, images(4))
    with pytest.raises(
        ValueError, match="a source with independent = True gets no current"
    ):
        TeachingRequest(**(vars(request) | {"images": None})).current  # noqa: B018


def test_symmetric_gaussian(tiny_model):
    x_t, t = draw("symmetric_gaussian", tiny_model, images(COUNT))
    expected_t, x = drawn_first(tiny_model)
    assert torch.equal(t, expected_t)
    kinds = set()
    for i in range(COUNT):
        across = t[i] <= 333 or (t[i] <= 666 and i < COUNT // 2)
        down = t[i] <= 333 or (t[i] <= 666 and i >= COUNT // 2)
        kinds.add((bool(across), bool(down)))
        for row in range(8):
            for column in range(8):
                source_row = 7 - row if down and row >= 4 else row
                source_column = 7 - column if across and column >= 4 else column
                expected = x[i, 0, source_row, source_column]
                assert abs(x_t[i, 0, row, column] - expected) < 1e-6
    assert len(kinds) == 4


@pytest.mark.parametrize(
    ("t", "kind"), [(333, "both"), (334, "one"), (666, "one"), (667, "plain")]
)
def test_symmetric_gaussian_changes_at_the_thirds(tiny_model, monkeypatch, t, kind):
    monkeypatch.setattr(TeachingRequest, "draw_timesteps", lambda _: torch.full((2,), t))
    x_t, _ = draw("symmetric_gaussian", tiny_model, images(2))
    across, down = (torch.isclose(x_t, x_t.flip(d)).flatten(1).all(1) for d in (3, 2))
    expected = {"both": [True] * 4, "one": [True, False, False, True]}
    assert [*across.tolist(), *down.tolist()] == expected.get(kind, [False] * 4)


def test_an_odd_size_keeps_its_middle(monkeypatch):
    model = DiffusionModel(TinyDenoiser(), ddim_scheduler(), (1, 5, 5))
    monkeypatch.setattr(TeachingRequest, "draw_timesteps", lambda _: torch.zeros(2).long())
    x_t, _ = draw("symmetric_gaussian", model, images(2, (1, 5, 5)))
    noise = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x_t[..., :3, :3], noise[..., :3, :3])
    assert torch.equal(x_t, x_t.flip(2)) and torch.equal(x_t, x_t.flip(3))


def test_current(tiny_model):
    current = images(COUNT)
    x_t, t = draw("current", tiny_model, current)
    expected_t, noise = drawn_first(tiny_model)
    a = alpha_bar(expected_t.numpy()).reshape(-1, 1, 1, 1)
    expected = np.sqrt(a) * current.numpy() + np.sqrt(1 - a) * noise
    assert torch.equal(t, expected_t)
    assert np.abs(x_t.numpy() - expected).max() < 1e-6


def test_generation(tiny_model):
    x_t, t = draw("generation", tiny_model, images(COUNT))
    generator = torch.Generator().manual_seed(3)
    x0 = tiny_model.generate(COUNT, steps=2, generator=generator).numpy()
    expected_t = torch.randint(1000, (COUNT,), generator=generator)
    noise = torch.randn(COUNT, *SHAPE, generator=generator).numpy()
    a = alpha_bar(expected_t.numpy()).reshape(-1, 1, 1, 1)
    assert torch.equal(t, expected_t)
    expected = np.sqrt(a) * x0 + np.sqrt(1 - a) * noise
    assert np.abs(x_t.numpy() - expected).max() < 1e-6


def plain_partial(model, x, t, steps):
    """DDIM of one sample in float64 from 999 to timestep t in so many even steps."""
    x = x.astype(np.float64)
    now = 999
    for step in range(1, steps + 1):
        end = int(np.floor(999 - step * (999 - t) / steps + 0.5 - 1e-9))
        eps = model.denoise(torch.tensor(x[None]), torch.tensor([now]))[0]
        eps = eps.detach().numpy()
        a, a_end = alpha_bar(now), alpha_bar(end)
        x0 = np.clip((x - np.sqrt(1 - a) * eps) / np.sqrt(a), -1, 1)
        x = x if end == now else np.sqrt(a_end) * x0 + np.sqrt(1 - a_end) * eps
        now = end
    assert now == t
    return x


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_partial_generation(tiny_model, steps):
    tiny_model.double()  # at t = 999 a rounding error grows by 1 / sqrt(alpha_bar) = 158
    single = tiny_model.draw_noise
    tiny_model.draw_noise = lambda *arguments: single(*arguments).double()
    x_t, t = draw("partial_generation", tiny_model, images(COUNT), steps)
    _, noise = drawn_first(tiny_model)
    for i in range(COUNT):
        expected = plain_partial(tiny_model, noise[i], int(t[i]), steps)
        assert np.abs(x_t[i].numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_partial_generation_uses_each_of_its_passes(tiny_model, monkeypatch, steps):
    """Whatever t is, but for the last k; and there are k of them."""
    visited = []
    guided = DiffusionModel.guided

    def noting(model, condition):
        denoise = guided(model, condition)
        return lambda x, t: visited.append(t) or denoise(x, t)

    monkeypatch.setattr(DiffusionModel, "guided", noting)
    last = torch.arange(1000 - steps)
    monkeypatch.setattr(TeachingRequest, "draw_timesteps", lambda _: last)
    draw("partial_generation", tiny_model, images(len(last)), steps)
    times = torch.stack([*visited, last])
    gaps = -times.diff(dim=0)
    assert len(visited) == steps and (times[0] == 999).all()
    assert gaps.min() >= 1 and (gaps.max(dim=0).values - gaps.min(dim=0).values).max() <= 1


def test_at_the_last_timestep_partial_generation_is_noise(tiny_model, monkeypatch):
    monkeypatch.setattr(TeachingRequest, "draw_timesteps", lambda _: torch.full((2,), 999))
    x_t, _ = draw("partial_generation", tiny_model, images(2))
    assert torch.equal(x_t, torch.randn(2, *SHAPE, generator=seeded(3)))


@pytest.mark.parametrize("predicting", PREDICTING)
def test_even_steps_are_the_reverse_process_stopped_there(monkeypatch, predicting):
    scheduler = PREDICTING[predicting]()
    model = tiny(scheduler)
    flow = "flow" in predicting
    visited = model.sampling_timesteps(10)
    stop = visited[4]
    monkeypatch.setattr(TeachingRequest, "draw_timesteps", lambda _: torch.full((3,), stop))
    with torch.no_grad():
        x_t = PartialGeneration().draw(request_of(model, images(3), steps=4, seed=1)).x_t
        expected = model.draw_noise(3, torch.Generator().manual_seed(1))
        scheduler.set_timesteps(
            10, **(dict(sigmas=np.linspace(1, 0.1, 10)) if flow else {})
        )
        for t, now in zip(scheduler.timesteps, visited[:4], strict=False):
            timesteps = torch.full((3,), now)
            output = model.denoise(expected, timesteps)
            if flow:
                output = model.process.velocity(expected, output, timesteps)
            expected = scheduler.step(output, t, expected).prev_sample
    assert (x_t - expected).abs().max() < 1e-5


@pytest.mark.parametrize("predicting", PREDICTING)
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_teaches(digits, name, predicting):
    plugin = GenerativeDistillationPlugin(source=name)
    losses = note_losses(plugin)
    train_generator(tiny(PREDICTING[predicting]()), digits.train_stream[:2], plugin)
    assert losses[0].item() < 1e-12 < losses[-1].item()
