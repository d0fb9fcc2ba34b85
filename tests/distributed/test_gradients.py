"""Two processes that share each batch see what one process sees."""

import pytest
import torch

from avalanche_gd.distributed.shares import draw_share, own_share, sharing, unshared
from avalanche_gd.plugins import (
    ClassifierGuidance,
    EMAPlugin,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    GuidingSolverPlugin,
    RankOneEWCPlugin,
)
from tests.helpers.bits import same_bits
from tests.helpers.shared_cases import CASES, begun_alike
from tests.helpers.torchrun import forked

# Relative: a sum over a batch is rounded in another order, and a large penalty multiplies
# it; up to 2e-5 after eight steps on one of two processors.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What each of two processes made of all cases, and of the refusals."""
    folder = tmp_path_factory.mktemp("pair")
    ended = forked(folder / "logs", "tests.helpers.shared_cases", str(folder))
    assert not ended.failure, ended.errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_losses_and_metrics_of_one(pair, name):
    (first, _), (second, _) = pair
    one = begun_alike(CASES[name])
    assert one["losses"]
    assert first[name]["losses"] == pytest.approx(one["losses"], rel=TOLERANCE)
    assert first[name]["values"].keys() == one["values"].keys()
    for metric, values in one["values"].items():
        assert first[name]["values"][metric] == pytest.approx(values, rel=TOLERANCE)
    assert max(first[name]["sizes"]) == max(one["sizes"]) / 2
    assert second[name]["losses"] == first[name]["losses"]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_same_weights(pair, name):
    (first, _), (second, _) = pair
    for ours, theirs in zip(first[name]["weights"], second[name]["weights"], strict=True):
        assert same_bits(ours, theirs)


SHARED = "to be shared by 2 processes, got"
MESSAGES = {
    "a batch of 15": f"train_mb_size must be a multiple of 2 {SHARED} 15",
    "a last batch": "the last batch of an epoch (give drop_last=True, or train_steps)",
    "a replay ratio": f"times the batch size 16 must be a multiple of 2 {SHARED} 3",
    "a replay size": f"replay_size must be a multiple of 2 {SHARED} 5",
    "a trajectory": f"must be a multiple of 6 {SHARED} 16",
    "batch normalization": "BatchNorm2d would see only a process's share",
    "other weights": "the processes have different weights or random",
    "other draws": "the processes have different weights or random",
    "not a number": "is nan at step 3 of experience 1",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_cannot_be_shared_is_refused_in_both_processes(pair, name):
    for _, refusals in pair:
        message, steps = refusals[name]
        assert MESSAGES[name] in message and "\n" not in message
        assert steps == (2 if name == "not a number" else 0)


def test_shares_together_are_the_whole():
    def draw(count):
        return torch.rand(count, 3, generator=torch.Generator().manual_seed(0))

    shares = []
    for rank in range(3):
        with sharing(rank, 3):
            shares.append(draw_share(2, draw))
            assert torch.equal(own_share(draw(6)), shares[-1])
            with unshared():
                assert torch.equal(draw_share(6, draw), draw(6))
            with pytest.raises(ValueError, match="a batch must be a multiple of 3"):
                own_share(draw(5))
    assert torch.equal(torch.cat(shares), draw(6)) and torch.equal(
        draw_share(6, draw), draw(6)
    )


def test_our_plugins_say_that_they_support_it():
    plugins = [GenerativeDistillationPlugin(), GenerativeReplayPlugin(), EMAPlugin(0.9)]
    plugins.append(RankOneEWCPlugin())
    plugins.append(GuidingSolverPlugin(ClassifierGuidance(), torch.nn.Identity()))
    assert all(plugin.supports_distributed for plugin in plugins)
