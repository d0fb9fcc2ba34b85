"""The oracle classifier and its cache."""

import pytest
import torch

from avalanche_gd import SmallCNN, oracle_classifier
from avalanche_gd.data import stream_tensors
from avalanche_gd.storage import cache_folder
from tests.conftest import images, same_bits, truncate, weights


def test_it_knows_the_digits_and_is_frozen(digits):
    oracle = oracle_classifier(*stream_tensors(digits.train_stream))
    test_images, labels = stream_tensors(digits.test_stream)
    assert (oracle(test_images).argmax(1) == labels).float().mean() > 0.97
    assert not oracle.training
    assert not any(p.requires_grad for p in oracle.parameters())


def test_it_is_trained_once_for_the_same_data_and_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(tmp_path))
    x, y = images(32), torch.arange(32) % 4
    state = torch.get_rng_state()
    first = oracle_classifier(x, y, steps=3)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr("avalanche_gd.models.oracle._fit", None)  # would fail if called
    assert same_bits(weights(oracle_classifier(x, y, steps=3)), weights(first))
    for other in (dict(seed=1, steps=3), dict(steps=4)):
        with pytest.raises(TypeError):
            oracle_classifier(x, y, **other)
    with pytest.raises(TypeError):
        oracle_classifier(-x, y, steps=3)


def test_a_damaged_cache_is_trained_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(tmp_path))
    x, y = images(32), torch.arange(32) % 4
    first = oracle_classifier(x, y, steps=3)
    (cached,) = cache_folder().iterdir()
    truncate(cached)
    with pytest.warns(UserWarning, match="training anew"):
        second = oracle_classifier(x, y, steps=3)
    assert same_bits(weights(first), weights(second))


def test_images_too_small_for_the_classifier_are_refused():
    with pytest.raises(ValueError, match="at least 4x4"):
        SmallCNN((1, 2, 2), 10)
