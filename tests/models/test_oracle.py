"""The oracle classifier and its cache."""

import os
import platform
import subprocess
import sys

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


def test_it_is_trained_anew_for_another_torch_and_not_for_more_threads(
    empty_cache, monkeypatch
):
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
        assert files() == 2
    finally:
        torch.set_num_threads(1)


TRAIN = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from avalanche_gd import SplitDigits, oracle_classifier
from avalanche_gd.data import stream_tensors
from avalanche_gd.storage import content_digest
oracle = oracle_classifier(*stream_tensors(SplitDigits(seed=0).train_stream), steps=60)
print(torch.backends.cpu.get_cpu_capability(), content_digest(oracle.state_dict()))
"""
KERNELS = {  # of ATen, oneDNN and MKL
    "own": ("", "", ""),
    "avx2": ("avx2", "AVX2", "AVX2"),
    "sse": ("default", "SSE41", "SSE4_2"),
}


def test_it_has_the_same_bits_on_processors_with_other_instructions(tmp_path):
    names = "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"
    digests, used = set(), set()
    for kind, threads in (("own", 1), ("avx2", 2), ("sse", 1)):
        environment = {
            **os.environ,
            "AVALANCHE_GD_CACHE": str(tmp_path / f"{kind}{threads}"),
        }
        environment |= {name: v for name, v in zip(names, KERNELS[kind], strict=True) if v}
        command = [sys.executable, "-c", TRAIN, str(threads)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        capability, digest = done.stdout.split()
        used.add(capability)
        digests.add(digest)
    assert len(digests) == 1
    if platform.machine() == "x86_64":
        assert len(used) > 1


def test_its_weights_are_those_of_a_plain_loop_with_the_seed(empty_cache, monkeypatch):
    x, y = images(32), torch.arange(32) % 4
    torch.manual_seed(7)
    plain = SmallCNN(x.shape[1:], 4).double()  # of float32 numbers
    generator = torch.Generator().manual_seed(7)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for _ in range(3):
        drawn = torch.randint(32, (128,), generator=generator)
        batch = y.argsort(stable=True)[drawn]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(plain(x.double()[batch]), y[batch]).backward()
        optimizer.step()
    torch.manual_seed(8)
    state = torch.get_rng_state()
    monkeypatch.setattr("torch.cuda.manual_seed_all", None)  # reseeds no other device
    with torch.no_grad():
        oracle = oracle_classifier(x, y, seed=7, steps=3)
    for own, other in zip(oracle.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, other.float(), rtol=2**-11, atol=1e-7)
        assert torch.equal(own, own.half().float())
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


NO_IMAGES = {
    "bytes": lambda x: ((x + 1) * 127).byte(),
    "of another range": lambda x: 3 * x,
    "no numbers": lambda x: x * torch.nan,
}
NO_LABELS = {
    "too few": lambda y: y[:20],
    "too many": lambda y: torch.cat([y, y]),
    "none": lambda y: y[:0],
    "float": lambda y: y.float(),
    "below 0": lambda y: y - 1,
    "a table": lambda y: y[:, None],
}


@pytest.mark.parametrize("change", NO_IMAGES.values(), ids=NO_IMAGES)
def test_images_that_are_not_in_model_space_are_refused(empty_cache, change):
    x, y = images(32), torch.arange(32) % 4
    with pytest.raises(ValueError, match=r"^images must be .*in model space"):
        oracle_classifier(change(x), y, steps=3)
    assert not list(empty_cache.rglob("*.safetensors"))


@pytest.mark.parametrize("change", NO_LABELS.values(), ids=NO_LABELS)
def test_labels_that_are_not_one_class_an_image_are_refused(empty_cache, change):
    with pytest.raises(
        ValueError, match="labels must be one integer of 0 or more for each"
    ):
        oracle_classifier(images(32), change(torch.arange(32) % 4), steps=3)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, list])
def test_labels_of_any_integers_give_one_oracle(empty_cache, kind):
    x, y = images(32), torch.arange(32) % 4
    given = y.tolist() if kind is list else y.to(kind)
    same = oracle_classifier(x, y, steps=3), oracle_classifier(x, given, steps=3)
    assert same_bits(*map(weights, same))
