"""The replay pool."""

import pytest
import torch
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplay,
)
from avalanche_gd.plugins import ReplayPool
from tests.conftest import SHAPE, same_bits, weights
from tests.models.test_conditioning import CLASSES, conditioned, seeded
from tests.plugins.test_behaviour import train_generator


def test_a_pool_is_what_the_teacher_generates(tiny_model):
    pool = ReplayPool(40)
    drawn = pool.draw(tiny_model, 400, steps=3, generator=seeded())
    expected = tiny_model.generate(40, steps=3, generator=seeded())
    distances = (drawn[:, None] - expected[None]).abs().amax(dim=(2, 3, 4))
    assert distances.min(dim=1).values.max() < 1e-6
    assert len(distances.argmin(dim=1).unique()) == 40  # all of them come up


def test_a_pool_is_filled_anew_for_another_teacher_and_when_it_is_due(tiny_model):
    filled = []
    generate = tiny_model.generate
    tiny_model.generate = lambda *a, **k: filled.append(a) or generate(*a, **k)
    pool, generator = ReplayPool(10, refresh_every=3), seeded()
    for _ in range(7):
        pool.draw(tiny_model, 4, steps=1, generator=generator)
    assert len(filled) == 3
    pool.draw(conditioned(), 4, torch.tensor([1, 2, 3, 4]), steps=1, generator=generator)
    assert len(filled) == 3
    pool.draw(tiny_model, 4, steps=1, generator=generator)
    assert len(filled) == 4


def test_a_pool_gives_the_classes_asked_for():
    model = conditioned(seen=(2, 3, 7))
    pool = ReplayPool(31)
    wanted = torch.tensor([7, 2, 2, 3, 7, 7, 3, 2] * 20)
    drawn = pool.draw(model, len(wanted), wanted, steps=1, generator=seeded())
    generator = seeded()
    condition = model.draw_condition(31, generator).sort().values
    generated = model.generate(31, condition, steps=1, generator=generator)
    distances = (drawn[:, None] - generated[None]).abs().amax(dim=(2, 3, 4))
    assert distances.min(dim=1).values.max() < 1e-6
    assert torch.equal(condition[distances.argmin(dim=1)], wanted)


def test_a_pool_never_reaches_into_the_next_class(monkeypatch):
    pool, model = ReplayPool(2000), conditioned()
    pool.draw(model, 1, torch.tensor([0]), steps=1, generator=seeded())
    pool._images = torch.arange(2000)
    almost_one = 1 - 2**-24  # the largest number that torch.rand draws
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), almost_one))
    wanted = torch.arange(CLASSES)
    drawn = pool.draw(model, CLASSES, wanted, steps=1, generator=seeded())
    assert drawn.tolist() == (wanted * 200 + 199).tolist()


def test_a_solvers_pool_is_of_its_generator_as_it_is_now(tiny_model, digits):
    generator = train_generator(tiny_model, [], train_steps=2)
    solver = SmallCNN(SHAPE, 10)
    plugin = GenerativeReplayPlugin(generator, pool_size=8)
    filled, generate = [], tiny_model.generate
    tiny_model.generate = lambda *a, **k: (
        filled.append(weights(tiny_model.denoiser)) or generate(*a, **k)
    )
    SupervisedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        train_mb_size=64,
        plugins=[plugin],
        evaluator=None,
    ).train(digits.train_stream[:3], eval_streams=[])
    assert len(filled) == 2
    assert not same_bits(*filled)


@pytest.mark.parametrize(("refresh", "fills"), [(None, 1), (2, 3)])
def test_the_template_of_a_solver_replays_from_a_pool(tiny_model, digits, refresh, fills):
    solver, sizes = SmallCNN(SHAPE, 10), []
    generate = tiny_model.generate
    tiny_model.generate = lambda n, *a, **k: sizes.append(n) or generate(n, *a, **k)
    SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        generator_strategy=train_generator(tiny_model, [], train_steps=2),
        pool_size=9,
        pool_refresh=refresh,
        train_steps=6,
        evaluator=None,
    ).train(digits.train_stream[:2], eval_streams=[])
    assert sizes == [9] * fills


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_a_pool_that_the_memory_cannot_hold_is_refused_with_its_size(
    tiny_model, digits, plugin
):
    with pytest.raises(ValueError, match=r"pool of 10+ samples takes 2\d+\.\d GiB of the"):
        train_generator(tiny_model, digits.train_stream[:1], plugin(pool_size=10**9))
