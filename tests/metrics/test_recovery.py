"""How fast a model learns an old experience again."""

import copy

import pytest
import torch

from avalanche_gd import DiffusionModel
from avalanche_gd.metrics import Sampling, recovery_steps
from avalanche_gd.metrics.shared_images import generate_samples
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import conditioned, tiny
from tests.helpers.small_streams import Pixels

SAMPLING = Sampling(images=60, steps=2)


def recovery(model, digits, best, **options):
    options = dict(features=Pixels(), sampling=SAMPLING, every=2, most=6) | options
    return recovery_steps(model, digits, 0, best, **options)


def test_a_model_that_has_not_forgotten_takes_no_step(digits):
    assert recovery(tiny(), digits, 1e9) == {0.1: 0, 0.2: 0, 0.3: 0}


def test_what_is_not_reached_is_none(digits):
    assert recovery(tiny(), digits, 1e-9) == {0.1: None, 0.2: None, 0.3: None}


def test_goals_are_reached_in_order_and_on_measured_steps(digits):
    model = DiffusionModel.from_preset("digits")
    options = dict(every=10, most=60, learning_rate=5e-3)
    reached = recovery(model, digits, 1.0, within=(0.5, 1.5, 9.0), **options)
    assert reached[9.0] == 0
    assert 0 < reached[1.5] <= reached[0.5] <= 60
    assert reached[1.5] % 10 == reached[0.5] % 10 == 0


def test_fid_is_between_the_experience_and_samples_of_its_classes(digits):
    model, experience = conditioned(), digits.test_stream[0]
    classes = experience.classes_in_this_experience
    samples, _ = generate_samples(model, SAMPLING, classes=classes)
    real = torch.stack([item[0] for item in experience.dataset])
    fid = plain_fid(Pixels()(real).numpy(), Pixels()(samples).numpy())
    assert recovery(model, digits, fid, within=(1e-3,), most=1) == {1e-3: 0}
    assert recovery(model, digits, fid * 0.99, within=(1e-3,), most=1) == {1e-3: None}


def test_it_leaves_the_model_and_the_random_state_alone(digits):
    model = conditioned()
    weights = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    first = recovery(model, digits, 1e-9)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[key], own) for key, own in model.state_dict().items())
    torch.rand(3)
    assert recovery(model, digits, 1e-9) == first


WRONG = {
    "experience": dict(experience=5),
    "best": dict(best=0.0),
    "within": dict(within=[-0.1]),
    "every": dict(every=0),
    "most": dict(most=0),
    "learning_rate": dict(learning_rate=0),
    "batch_size": dict(batch_size=0),
    "seed": dict(seed=-1),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_numbers_are_refused_before_any_work(digits, name, monkeypatch):
    monkeypatch.setattr("avalanche_gd.metrics.recovery.stream_tensors", None)
    arguments = dict(experience=0, best=1.0, features=Pixels()) | WRONG[name]
    with pytest.raises(ValueError, match=f"^{name} must be"):
        recovery_steps(tiny(), digits, **arguments)
