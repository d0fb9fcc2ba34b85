"""FID, KLD and ARD against second implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalanche_gd.metrics import absolute_ratio_difference, kl_divergence
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from tests.helpers.plain_fid import plain_fid


@pytest.mark.parametrize("dimensions", [2, 16, 64])
def test_fid_is_that_of_scipy(dimensions):
    mixing = torch.randn(dimensions, dimensions)
    real = torch.randn(300, dimensions) @ mixing
    generated = torch.randn(200, dimensions) * 2 + 1
    ours = frechet_distance(Moments.of(real), generated)
    assert ours == pytest.approx(plain_fid(real.numpy(), generated.numpy()), rel=1e-4)


def test_moments_of_parts_add_up():
    real, generated = torch.randn(90, 8), torch.randn(50, 8) + 1
    parts = Moments.of(real[:20]) + Moments.of(real[20:])
    whole = frechet_distance(Moments.of(real), generated)
    assert frechet_distance(parts, generated) == pytest.approx(whole, rel=1e-10)


def test_fid_of_the_same_images_is_zero():
    features = torch.randn(100, 8)
    assert abs(frechet_distance(Moments.of(features), features)) < 1e-6


def test_fid_of_fewer_than_two_images_is_not_a_number():
    assert np.isnan(frechet_distance(Moments.of(torch.randn(9, 4)), torch.randn(1, 4)))


def test_kld_and_ard_by_hand():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.25, 0.5])
    assert kl_divergence(p, q) == pytest.approx(np.log(2), abs=1e-6)
    assert absolute_ratio_difference(p, q) == pytest.approx(0.5)


def test_a_class_that_is_never_generated_costs_but_is_finite():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    expected = 0.5 * np.log(0.5) + 0.5 * np.log((0.5 + 1e-8) / 1e-8)
    assert kl_divergence(p, q) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("images", "adds"), [(1, 0.69), (0, 1.61)])
def test_kld_hangs_on_the_last_image_of_a_class_and_ard_does_not(images, adds):
    p = torch.full((10,), 0.1, dtype=torch.float64)
    q = torch.full((10,), (10_000 - images) / 90_000, dtype=torch.float64)
    q[3] = images / 10_000
    others = 0.9 * np.log(0.1 / q[0].item())
    assert kl_divergence(p, q) - others == pytest.approx(adds, abs=5e-3)
    assert absolute_ratio_difference(p, q) == pytest.approx(0.1, abs=2e-4)


ratios = st.lists(st.integers(1, 50), min_size=5, max_size=5).map(
    lambda counts: torch.tensor(counts, dtype=torch.float64) / sum(counts)
)


@given(p=ratios, q=ratios)
def test_both_are_zero_only_for_equal_ratios(p, q):
    assert kl_divergence(p, q) >= -1e-9
    assert 0 <= absolute_ratio_difference(p, q) <= 1
    assert kl_divergence(p, p) == absolute_ratio_difference(p, p) == 0
    # Pinsker: KLD >= 2 ARD^2
    assert kl_divergence(p, q) >= 2 * absolute_ratio_difference(p, q) ** 2 - 1e-6


NO_RATIOS = {
    "counts": ([50, 50], "with the sum 100"),
    "a table": ([[0.5], [0.5]], r"got \(2, 1\)"),
    "none": ([], r"got \(0,\)"),
    "a number": (1.0, r"got \(\)"),
    "below 0": ([1.5, -0.5], "0 or more"),
    "not a number": ([float("nan"), 1.0], "with the sum nan"),
}


@pytest.mark.parametrize("measure", [kl_divergence, absolute_ratio_difference])
@pytest.mark.parametrize(("wrong", "message"), NO_RATIOS.values(), ids=NO_RATIOS)
def test_what_are_no_ratios_is_refused(measure, wrong, message):
    right, wrong = torch.tensor([0.5, 0.5 + 5e-5]), torch.tensor(wrong)
    with pytest.raises(ValueError, match=f"^true must be ratios of classes.*{message}"):
        measure(wrong, right)
    with pytest.raises(ValueError, match=f"^generated must be ratios .*{message}"):
        measure(right, wrong)
    with pytest.raises(ValueError, match="must be of as many classes, got 2 and 1"):
        measure(right, torch.ones(1))
