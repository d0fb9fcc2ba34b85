"""How fast a model learns an old experience again."""

import copy

import pytest
import torch
from avalanche.benchmarks.utils import concat_datasets

from avalanche_gd import DiffusionModel, SmallCNN, oracle_classifier
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.model_space import as_benchmark
from avalanche_gd.metrics import Sampling, recovery_steps
from avalanche_gd.metrics.shared_images import generate_samples
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import SHAPE, conditioned, tiny
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


def test_without_a_condition_the_oracle_says_whose_samples_count(digits):
    model = tiny()
    oracle = oracle_classifier(*stream_tensors(digits.train_stream))
    samples, _ = generate_samples(model, SAMPLING)
    labels = oracle(samples).argmax(1)
    (place,) = (
        exp.current_experience
        for exp in digits.test_stream
        if int(labels.mode().values) in exp.classes_in_this_experience
    )
    experience = digits.test_stream[place]
    classes = torch.tensor(sorted(experience.classes_in_this_experience))
    own, (real, _) = samples[torch.isin(labels, classes)], stream_tensors([experience])
    assert 2 <= len(own) < len(samples)
    fid = plain_fid(Pixels()(real).numpy(), Pixels()(own).numpy())
    options = dict(features=Pixels(), sampling=SAMPLING, within=(1e-3,), most=1)
    assert recovery_steps(model, digits, place, fid, **options) == {1e-3: 0}
    assert recovery_steps(model, digits, place, fid * 0.99, **options) == {1e-3: None}


def test_it_leaves_the_model_and_the_random_state_alone(digits):
    model = conditioned()
    weights = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    recovery(model, digits, 1e-9)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[key], own) for key, own in model.state_dict().items())


class Noted(Pixels):
    """Pixels that remember what they gave."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, x):
        self.given.append(super().forward(x))
        return self.given[-1]


def test_the_seed_decides_the_training(digits):
    model, last = conditioned(), []
    for seed in (0, 0, 1):
        torch.rand(3)
        features = Noted()
        recovery(model, digits, 1e-9, features=features, seed=seed)
        last.append(features.given[-1])
    assert torch.equal(last[0], last[1]) and not torch.equal(last[0], last[2])


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
    monkeypatch.setattr("avalanche_gd.metrics.recovery.SharedImages", None)
    arguments = dict(experience=0, best=1.0, features=Pixels()) | WRONG[name]
    with pytest.raises(ValueError, match=f"^{name} must be"):
        recovery_steps(tiny(), digits, **arguments)


def test_transforms_of_training_do_not_change_how_it_is_measured(digits, monkeypatch):
    seen = []

    def fake(images, labels):
        seen.append((images[torch.arange(len(images))], labels))
        return SmallCNN(SHAPE, 10).eval()

    monkeypatch.setattr("avalanche_gd.metrics.shared_images.oracle_classifier", fake)
    changing = as_benchmark(
        train=[
            experience.dataset.replace_current_transform_group((torch.neg, None))
            for experience in digits.train_stream
        ],
        test=[experience.dataset for experience in digits.test_stream],
    )
    recovery(conditioned(), changing, 1e9)
    images, labels = stream_tensors(digits.train_stream)
    assert torch.equal(seen[0][0], images) and torch.equal(seen[0][1], labels)


def test_an_experience_that_the_streams_do_not_share_is_refused(digits, monkeypatch):
    monkeypatch.setattr("avalanche_gd.metrics.recovery.SharedImages", None)
    whole = concat_datasets([experience.dataset for experience in digits.test_stream])
    train = [experience.dataset for experience in digits.train_stream]
    benchmark = as_benchmark(train=train, test=[whole])
    with pytest.raises(ValueError, match=r"0 of the test stream has the classes .* train"):
        recovery(tiny(), benchmark, 1.0)
    with pytest.raises(ValueError, match="experience must be an integer from 0 to 0"):
        recovery_steps(tiny(), benchmark, 1, 1.0, features=Pixels())
