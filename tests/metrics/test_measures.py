"""KID, precision, recall, density and coverage: second statements and closed forms."""

import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.image.kid import KernelInceptionDistance

from avalanche_gd import oracle_classifier, to_model_space
from avalanche_gd.data import stream_tensors
from avalanche_gd.metrics import (
    Sampling,
    fid_metrics,
    generate_images,
    kid_metrics,
    precision_recall_metrics,
)
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.metrics.kid import kernel_distance
from avalanche_gd.metrics.precision_recall import precision_recall
from tests.helpers.seeding import forbid_seeding
from tests.helpers.small_models import SHAPE
from tests.helpers.small_streams import Pixels, domain_incremental, strategy_with

SAMPLING = Sampling(images=60, steps=2, batch_size=25)
STREAM = "eval_phase/test_stream"
PRDC = ("Precision", "Recall", "Density", "Coverage")
needs_prdc = pytest.mark.usefixtures("prdc")


@pytest.fixture
def prdc():
    pytest.importorskip("prdc", reason="prdc is not installed")


def test_kid_is_that_of_torchmetrics():
    real, generated = torch.randn(90, 6).double(), torch.randn(70, 6).double() + 0.5
    kid = KernelInceptionDistance(torch.nn.Identity(), subsets=7, subset_size=30)
    kid.update(real, real=True)
    kid.update(generated, real=False)
    torch.manual_seed(3)
    expected, _ = kid.compute()
    ours = kernel_distance(real, generated, subsets=7, subset_size=30, seed=3)
    assert ours == pytest.approx(expected.item(), rel=1e-12)


def test_kid_is_the_sum_over_pairs():
    x, y = np.random.default_rng(0).normal(30, 1, size=(2, 12, 3)).astype(np.float32)
    sides = torch.tensor(x), torch.tensor(y)  # of single precision, as features are
    x, y = x.astype(np.float64), y.astype(np.float64)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    own = sum(k(z[i], z[j]) for z in (x, y) for i in range(12) for j in range(12) if i != j)
    cross = sum(k(a, b) for a in x for b in y)
    expected = own / (12 * 11) - 2 * cross / 12**2
    assert kernel_distance(*sides, subsets=1, subset_size=12) == pytest.approx(expected)


def test_kid_of_equal_distributions_has_no_bias():
    values = [
        kernel_distance(*torch.randn(2, 20, 2), subsets=1, subset_size=20)
        for _ in range(2000)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0 and error < 0.03


@pytest.mark.parametrize("shift", [0.5, 1.0])
def test_distances_of_shifted_gaussians_are_known(shift):
    """In one dimension, KID is 3 d_1^2 + 3 d_2^2 + d_3^2, of the moments' differences."""
    levels = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    real = torch.distributions.Normal(0.0, 1.0).icdf(levels)[:, None]
    generated = real + shift
    moments = shift, shift**2, shift**3 + 3 * shift
    expected = np.dot([3, 3, 1], np.square(moments))
    kid = kernel_distance(real, generated, subsets=1, subset_size=2000)
    assert kid == pytest.approx(expected, rel=0.02)
    fid = frechet_distance(Moments.of(real), generated)
    assert fid == pytest.approx(shift**2, rel=1e-3)


def plain_prdc(real, generated, k):
    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radii(a):
        return np.sort(distances(a, a), axis=1)[:, k]

    between = distances(real, generated)
    in_real = between < radii(real)[:, None]
    return {
        "Precision": in_real.any(0).mean(),
        "Recall": (between < radii(generated)[None]).any(1).mean(),
        "Density": in_real.sum() / (k * len(generated)),
        "Coverage": in_real.any(1).mean(),
    }


@needs_prdc
@pytest.mark.parametrize("k", [1, 5])
def test_precision_and_recall_are_those_stated_a_second_time(k, capsys):
    real, generated = torch.randn(80, 4), torch.randn(50, 4) * 0.7 + 0.3
    ours = precision_recall(real, generated, k)
    assert ours == pytest.approx(plain_prdc(real.numpy(), generated.numpy(), k))
    assert capsys.readouterr().out == ""


def digit_halves(digits):
    """Pixels of real digits, of others of the same classes, and which classes those are."""
    images, labels = stream_tensors(digits.test_stream)
    order = torch.randperm(len(images))
    images, labels = images[order], labels[order]
    half = len(images) // 2
    return images[:half].flatten(1), images[half:], labels[half:]


@needs_prdc
def test_dropped_classes_lower_recall_and_coverage_and_not_precision(digits):
    real, images, labels = digit_halves(digits)
    every = precision_recall(real, images.flatten(1), 5)
    few = precision_recall(real, images[labels < 5].flatten(1), 5)
    assert few["Recall"] < every["Recall"] - 0.15
    assert few["Coverage"] < every["Coverage"] - 0.3
    assert few["Precision"] == pytest.approx(every["Precision"], abs=0.1)
    assert few["Density"] == pytest.approx(every["Density"], abs=0.2)


@needs_prdc
def test_blur_lowers_precision_and_density(digits):
    oracle = oracle_classifier(*stream_tensors(digits.train_stream))
    _, images, _ = digit_halves(digits)
    real, images = images.chunk(2)
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    with torch.no_grad():
        real, images, blurred = map(oracle.get_features, (real, images, blurred))
    sharp, blur = (precision_recall(real, side, 5) for side in (images, blurred))
    assert blur["Precision"] < sharp["Precision"] - 0.3
    assert blur["Density"] < sharp["Density"] - 0.3


@needs_prdc
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_features_of_other_floating_point_types_are_compared(dtype):
    real, generated = torch.randn(60, 3).to(dtype), torch.randn(40, 3).to(dtype)
    expected = plain_prdc(real.double().numpy(), generated.double().numpy(), 5)
    assert precision_recall(real, generated, 5) == pytest.approx(expected)


@needs_prdc
def test_a_far_half_that_is_missing_halves_recall_and_coverage():
    near, far = torch.randn(2, 200, 2)
    values = precision_recall(torch.cat([near, far + 1000]), torch.randn(200, 2), 5)
    assert values["Precision"] > 0.9
    assert values["Recall"] == pytest.approx(0.5, abs=0.05)
    assert values["Coverage"] == pytest.approx(0.5, abs=0.05)


class Counting(Pixels):
    """Counts the images that it is given."""

    seen = 0

    def forward(self, x):
        self.seen += len(x)
        return super().forward(x)


@needs_prdc
def test_all_measures_judge_one_set_of_images_in_features_computed_once(monkeypatch):
    benchmark, pixels = domain_incremental(), Counting()
    options = dict(features=pixels, sampling=SAMPLING)
    strategy = strategy_with(
        fid_metrics(**options),
        kid_metrics(subset_size=20, subsets=9, seed=4, **options),
        precision_recall_metrics(nearest_k=3, **options),
    )
    strategy.train(benchmark.train_stream[:2], eval_streams=[])
    forbid_seeding(monkeypatch)
    drawn, draw = [], strategy.model.draw_noise
    strategy.model.draw_noise = lambda *args: drawn.append(args) or draw(*args)
    pixels.seen = 0
    values = strategy.eval(benchmark.test_stream)
    real = torch.stack([x for exp in benchmark.test_stream[:2] for x, *_ in exp.dataset])
    assert len(drawn) == 1 and pixels.seen == len(real) + SAMPLING.images
    sides = pixels(real), pixels(generate_images(strategy.model, SAMPLING))
    kid = kernel_distance(*sides, subsets=9, subset_size=20, seed=4)
    assert values[f"KID_Stream/{STREAM}"] == pytest.approx(kid, rel=1e-9)
    expected = plain_prdc(*(side.double().numpy() for side in sides), 3)
    for name in PRDC:
        assert values[f"{name}_Stream/{STREAM}"] == pytest.approx(expected[name], abs=0.03)


@needs_prdc
def test_as_long_as_there_are_too_few_real_images_they_are_not_numbers():
    benchmark = domain_incremental()  # 24 test images in each experience
    options = dict(features=Pixels(), sampling=SAMPLING)
    strategy = strategy_with(
        kid_metrics(subset_size=30, **options),
        precision_recall_metrics(nearest_k=28, **options),
    )
    names = [f"{name}_Stream/{STREAM}" for name in ("KID", *PRDC)]
    for experience, enough in zip(benchmark.train_stream[:2], (False, True), strict=True):
        strategy.train(experience, eval_streams=[])
        values = strategy.eval(benchmark.test_stream)
        assert [np.isfinite(values[name]) for name in names] == [enough] * 5


MANY = Sampling(images=100, steps=1)
TOO_FEW = {
    "kid": (
        lambda n: kid_metrics(subset_size=n, features=Pixels(), sampling=MANY),
        "KID needs {} images, but {} are {}; give more, or leave KID out "
        "(in Python also: a smaller subset_size)",
        1,
    ),
    "precision": (
        lambda n: precision_recall_metrics(
            nearest_k=n - 2, features=Pixels(), sampling=MANY
        ),
        "PrecisionRecall needs {} images, but {} are {}; give more, or a smaller nearest_k",
        2,
    ),
}


@needs_prdc
@pytest.mark.parametrize(("make", "message", "low"), TOO_FEW.values(), ids=TOO_FEW)
def test_more_images_than_there_are_are_refused_before_training(make, message, low):
    with pytest.raises(ValueError) as refused:
        make(101)
    assert str(refused.value) == message.format(101, 100, "generated")
    for number in (low, low + 0.5):
        with pytest.raises(ValueError, match=r"must be an integer of \d or more, got"):
            make(number)
    benchmark = to_model_space(domain_incremental(), SHAPE)  # with 72 test images
    strategy = strategy_with(make(73))
    with pytest.raises(ValueError) as refused:
        strategy.train(benchmark.train_stream[0], eval_streams=[])
    assert str(refused.value) == message.format(73, 72, "in the test stream")
    assert strategy.clock.train_iterations == 0
    strategy = strategy_with(make(72))
    strategy.train(benchmark.train_stream, eval_streams=[])
    values = strategy.eval(benchmark.test_stream)
    assert all(np.isfinite(value) for name, value in values.items() if STREAM in name)


def test_without_prdc_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prdc", None)
    with pytest.raises(ValueError, match=r"pip install 'avalanche-gd\[prdc\]'"):
        precision_recall_metrics()
