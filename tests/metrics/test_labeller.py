"""The ResNet-18 that labels generated images, with random weights for ImageNet's."""

import hashlib
import json

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from avalanche_gd.metrics import labeller as module
from avalanche_gd.metrics.labeller import (
    Labeller,
    changed,
    resnet18_labeller,
    resnet18_weights,
)
from avalanche_gd.runs.dry_run import dry_run
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_command import main
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import images, seeded
from tests.helpers.small_runs import SMALL, small_config

MISSING = "no ResNet-18 weights"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of random weights, under a name that says nothing."""
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.manual_seed(5)
    torch.save(resnet18().state_dict(), path)
    return path


@pytest.fixture
def known(file, monkeypatch):
    """The file, as if it were torchvision's."""
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(module, "_URL", f"https://example.invalid/resnet18-{digits}.pth")
    return file


def dark_and_bright(count):
    """Images of two classes that are easily told apart."""
    labels = torch.arange(count) % 2
    return images(count) * 0.2 + (labels - 0.5).view(-1, 1, 1, 1), labels


def test_it_is_torchvisions_resnet18_but_for_the_last_layer(known):
    state = torch.load(known, weights_only=True)
    model = Labeller(7, resnet18_weights(known)).eval()
    expected = resnet18()
    expected.load_state_dict(state)
    expected.fc = model.network.fc
    grey = images(2, (1, 32, 32))
    colour = grey.repeat(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.equal(model(grey), expected.eval()(colour))
        assert torch.equal(model(colour), model(grey)) and model(grey).shape == (2, 7)
    assert {name for name in state if name[:3] != "fc."} < set(expected.state_dict())


def test_it_learns_the_classes_once_and_is_cached(known, empty_cache):
    x, y = dark_and_bright(600)
    state = torch.get_rng_state()
    first = resnet18_labeller(x, y, weights_path=known, epochs=4)
    assert torch.equal(torch.get_rng_state(), state)
    tests, labels = dark_and_bright(40)
    assert (first(tests).argmax(1) == labels).float().mean() > 0.9
    assert not first.training and not any(p.requires_grad for p in first.parameters())
    assert len(list(empty_cache.iterdir())) == 1
    known.rename(known.with_suffix(".away"))
    try:  # nothing is read again
        again = resnet18_labeller(x, y, weights_path=known, epochs=4)
        ordered = y.argsort(stable=True)  # as a stream brings one class after the other
        of_stream = x[ordered], y[ordered]
        third = resnet18_labeller(*of_stream, weights_path=known, epochs=4)
    finally:
        known.with_suffix(".away").rename(known)
    assert same_bits(weights(again), weights(first))
    assert same_bits(weights(third), weights(first))
    resnet18_labeller(x, 1 - y, weights_path=known, epochs=1)
    assert len(list(empty_cache.iterdir())) == 2


def test_the_epoch_is_kept_that_labels_most_of_what_is_held_out(
    known, empty_cache, monkeypatch
):
    rights, states, held = iter([1, 3, 3, 2]), [], []

    def labelled(model, x, batch_size):
        held.append(x)
        states.append({name: p.clone() for name, p in model.state_dict().items()})
        guesses, right = torch.full((len(x),), 9), next(rights)
        guesses[:right] = labels_of(x)[:right]
        return guesses

    def labels_of(x):
        return (x.mean(dim=(1, 2, 3)) > 0).long()

    monkeypatch.setattr(module, "classifier_labels", labelled)
    x, y = dark_and_bright(60)
    model = resnet18_labeller(x, y, weights_path=known, epochs=4)
    kept = model.state_dict()
    for index, state in enumerate(states):
        is_kept = all(torch.equal(state[name], kept[name]) for name in state)
        assert is_kept is (index == 1)  # the first of the best
    assert all(torch.equal(part, held[0]) for part in held) and len(held[0]) == 6


def plain_changed(x, generator):
    """One pixel after another."""
    flip, angle, across, down = torch.rand(4, len(x), generator=generator).numpy()
    noise = torch.randn(x.shape, generator=generator).numpy()
    count, _, height, width = x.shape
    result = np.full(x.shape, -1.0)
    for i in range(count):
        a = np.radians(10 * (2 * angle[i] - 1))
        for row in range(height):
            for column in range(width):
                u, v = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
                s = np.cos(a) * u - np.sin(a) * v
                t = np.sin(a) * u + np.cos(a) * v
                s = -s if flip[i] < 0.5 else s
                s, t = s + 0.2 * (2 * across[i] - 1), t + 0.2 * (2 * down[i] - 1)
                there = round((t + 1) * height / 2 - 0.5), round((s + 1) * width / 2 - 0.5)
                if 0 <= there[0] < height and 0 <= there[1] < width:
                    result[i, :, row, column] = x[i, :, there[0], there[1]]
    return result + 0.1 * noise


def test_images_are_mirrored_turned_moved_and_made_noisy():
    x = images(24, (3, 12, 12))
    found, expected = changed(x, seeded(2)).numpy(), plain_changed(x, seeded(2))
    wrong = np.abs(found - expected).max(axis=1) > 1e-5
    assert wrong.mean() < 0.002  # a pixel halfway between two
    assert not np.allclose(found[0], x[0].numpy(), atol=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(epochs=0), "epochs must be an integer of 1 or more, got 0"),
        (dict(seed=-1), "seed must be an integer of 0 or more, got -1"),
        (dict(count=3), "needs 4 images or more with 1 or 3 channels, got 3 with 1"),
        (dict(channels=2), "needs 4 images or more with 1 or 3 channels, got 8 with 2"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, message):
    options = dict(options)
    shape = (options.pop("channels", 1), 8, 8)
    x = images(options.pop("count", 8), shape)
    with pytest.raises(ValueError, match=message):
        resnet18_labeller(x, torch.zeros(len(x)).long(), **options)


def other(tmp_path, file):
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(file.read_bytes())
    return path


@pytest.mark.parametrize("make", [other, lambda folder, _: folder / "absent.pth"])
def test_weights_that_are_not_torchvisions_are_refused_in_one_line(tmp_path, file, make):
    with pytest.raises(ValueError, match=MISSING) as error:
        resnet18_weights(make(tmp_path, file))
    line = str(error.value)
    assert "give its path as labeller_weights" in line and "\n" not in line


def options_of(path):
    return ["evaluation.labeller=resnet18", f"evaluation.labeller_weights={path}"]


def test_a_run_is_labelled_by_it(known, tmp_path, monkeypatch):
    small = [*options_of(known), "method=naive", "benchmark.n_experiences=1"]
    made = {}

    def one_class(images, labels, *, weights_path):
        made.update(images=images, labels=labels, weights_path=weights_path)
        return Always(3)

    monkeypatch.setattr("avalanche_gd.runs.strategies.resnet18_labeller", one_class)
    folder = run(small_config(tmp_path, *small))
    lines = (folder / "metrics.csv").read_text().splitlines()
    (ratio,) = (line for line in lines if "Class003" in line)
    assert float(ratio.split(",")[-1]) == 1
    assert made["weights_path"] == str(known) and len(made["images"]) == 1437
    assert "completed" in json.loads((folder / "run.json").read_text())


class Always(torch.nn.Module):
    """Knows one class."""

    def __init__(self, label):
        super().__init__()
        self.label = label

    def forward(self, x):
        return torch.eye(10)[self.label].expand(len(x), 10)


def test_a_check_needs_its_weights_and_trains_none(known, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(module, "_trained", None)
    options = ["method=naive", "generator.batch_size=8", *options_of(known)]
    assert "works; about" in dry_run(small_config(tmp_path, *options), digits)
    absent = options_of(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=f"evaluation: {MISSING}"):
        dry_run(small_config(tmp_path, "method=naive", *absent), digits)
    alone = small_config(tmp_path, "method=solver_naive", *absent)
    assert "works; about" in dry_run(alone, digits)  # nothing is generated


def test_weights_that_are_not_there_end_a_run_before_it_begins(call, tmp_path):
    arguments = [*SMALL, "method=naive", *options_of(tmp_path / "absent.pth")]
    status, _, errors = call(main, *arguments)
    (line,) = errors.splitlines()
    assert status == 2 and f"evaluation: {MISSING}" in line
    assert not list(tmp_path.rglob("run.json"))
