"""The oracle classifier and its cache."""

import pytest
import torch

from avalanche_gd import SmallCNN, SplitDigits, oracle_classifier
from avalanche_gd.data import stream_tensors
from tests.helpers.bits import same_bits, truncate, weights
from tests.helpers.small_models import images


def test_it_knows_the_digits_and_is_frozen(digits, digits_oracle):
    test_images, labels = stream_tensors(digits.test_stream)
    assert (digits_oracle(test_images).argmax(1) == labels).float().mean() > 0.97
    assert not digits_oracle.training
    assert not any(p.requires_grad for p in digits_oracle.parameters())


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(tmp_path))
    return tmp_path


def no_training(*args, **kwargs):
    raise AssertionError("trained anew")


def test_it_is_trained_once_for_the_same_data_and_seed(empty_cache, monkeypatch):
    x, y = images(32), torch.arange(32) % 4
    first = oracle_classifier(x, y, steps=3)
    monkeypatch.setattr("torch.optim.Adam", no_training)
    assert same_bits(weights(oracle_classifier(x, y, steps=3)), weights(first))
    for other in (dict(seed=1, steps=3), dict(steps=4)):
        with pytest.raises(AssertionError, match="trained anew"):
            oracle_classifier(x, y, **other)
    with pytest.raises(AssertionError, match="trained anew"):
        oracle_classifier(-x, y, steps=3)


def test_it_is_trained_anew_where_the_arithmetic_is_another(empty_cache, monkeypatch):
    x, y = images(32), torch.arange(32) % 4

    def files():
        oracle_classifier(x, y, steps=3)
        return len(list(empty_cache.iterdir()))

    assert files() == files() == 1
    with monkeypatch.context() as patch:
        patch.setattr("torch.__version__", "0.0")
        assert files() == 2
    torch.set_num_threads(2)
    try:
        assert files() == 3
    finally:
        torch.set_num_threads(1)
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        assert files() == 4
    assert files() == 4


def test_its_weights_are_those_of_a_plain_loop_with_the_seed(empty_cache, monkeypatch):
    x, y = images(32), torch.arange(32) % 4
    torch.manual_seed(7)
    plain = SmallCNN(x.shape[1:], 4)
    generator = torch.Generator().manual_seed(7)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for _ in range(3):
        drawn = torch.randint(32, (128,), generator=generator)
        batch = y.argsort(stable=True)[drawn]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(plain(x[batch]), y[batch]).backward()
        optimizer.step()
    torch.manual_seed(8)
    state = torch.get_rng_state()
    monkeypatch.setattr("torch.cuda.manual_seed_all", None)  # reseeds no other device
    with torch.no_grad():
        oracle = oracle_classifier(x, y, seed=7, steps=3)
    assert same_bits(weights(oracle), weights(plain))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_order_of_classes_makes_no_difference(empty_cache):
    oracles = []
    for seed in (0, 1):
        stream = SplitDigits(seed=seed).train_stream
        oracles.append(oracle_classifier(*stream_tensors(stream), steps=3))
    assert same_bits(*map(weights, oracles))
    assert len(list(empty_cache.iterdir())) == 1


def test_a_damaged_cache_is_trained_anew(empty_cache):
    x, y = images(32), torch.arange(32) % 4
    first = oracle_classifier(x, y, steps=3)
    (cached,) = empty_cache.iterdir()
    truncate(cached)
    with pytest.warns(UserWarning, match="cannot use the cached .*oracle.*; it is made"):
        second = oracle_classifier(x, y, steps=3)
    assert same_bits(weights(first), weights(second))


def test_images_too_small_for_the_classifier_are_refused():
    with pytest.raises(ValueError, match="at least 4x4"):
        SmallCNN((1, 2, 2), 10)
