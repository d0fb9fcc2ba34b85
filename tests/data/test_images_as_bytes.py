"""Images of 8 bits: how they are kept, resized, and brought to model space."""

import copy
import pickle

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.utils import AvalancheDataset, concat_datasets
from avalanche.benchmarks.utils.data_loader import (
    ReplayDataLoader,
    TaskBalancedDataLoader,
)
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer, ReservoirSamplingBuffer
from avalanche.training.templates import SupervisedTemplate
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from avalanche_gd import DiffusionTraining, oracle_classifier, to_model_space
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.benchmark import as_benchmark
from avalanche_gd.data.images import (
    DatasetImages,
    LabelledImages,
    in_model_space,
    read_batches_at_once,
)
from avalanche_gd.data.model_space import (
    as_dataset,
    dataset_tensors,
    kept_tensors,
    on_device,
)
from avalanche_gd.data.stored_images import stored_images
from avalanche_gd.storage import cache_folder
from avalanche_gd.training.plugin_state import load_plugin_states, plugin_states
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import tiny

pytestmark = pytest.mark.usefixtures("empty_cache")

SHAPE = (3, 6, 5)


def random_bytes(count=12, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)


def labels_for(images):
    return torch.arange(len(images)) % 2


def in_memory(images):
    return images


def in_a_file(images):
    return stored_images("test", ("key",), tuple(images.shape), lambda: iter(images))


KEPT = pytest.mark.parametrize("keep", [in_memory, in_a_file])


def scaled(images):
    """Model space, as NumPy computes it in float32."""
    unit = images.numpy().astype(np.float32) / np.float32(255)  # as torchvision's ToTensor
    return torch.from_numpy(unit * np.float32(2) - np.float32(1))


def test_each_of_256_levels_is_scaled_as_in_float32():
    levels = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    assert torch.equal(in_model_space(levels), scaled(levels))
    assert in_model_space(levels).dtype == torch.float32
    floats = torch.rand(2, 1, 3, 3) - 0.5
    assert in_model_space(floats) is floats


def benchmark_of(items, labels, **options):
    class Items:
        targets = labels

        def __getitem__(self, index):
            return items[index], labels[index]

        def __len__(self):
            return len(labels)

    options = dict(task_labels=False, shuffle=False) | options
    return nc_benchmark(Items(), Items(), 1, **options)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("size", [(16, 16), (9, 23), (40, 31)])
def test_pil_images_are_resized_as_pil_does_to_the_bit(mode, size):
    channels = len(mode) if mode != "RGB" else 3
    pixels = random_bytes(6, (28, 20, channels), seed=channels).squeeze(-1).numpy()
    pictures = [Image.fromarray(part, mode) for part in pixels]
    benchmark = to_model_space(benchmark_of(pictures, [0] * 3 + [1] * 3), (channels, *size))
    images, _ = kept_tensors(benchmark.train_stream[0].dataset)
    resized = [p.resize(size[::-1], Image.Resampling.BILINEAR) for p in pictures]
    expected = torch.tensor(np.stack([np.asarray(p) for p in resized])).view(6, *size, -1)
    assert images.dtype == torch.uint8
    assert torch.equal(images, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
@pytest.mark.parametrize("size", [(8, 8), (4, 4)])
def test_pictures_with_a_palette_or_of_single_bits_are_read_as_they_look(
    mode, channels, size
):
    colours = np.repeat(np.arange(0, 256, 4, dtype=np.uint8), 3).reshape(8, 8, 3)
    colours[..., 1] = 255 - colours[..., 1]
    with_palette = Image.fromarray(colours).quantize(64)
    bits = Image.fromarray(colours[..., 0] > 100)
    assert (with_palette.mode, bits.mode) == ("P", "1")
    for picture in (with_palette, bits)[: 1 if mode == "RGB" else 2]:
        looks = picture.convert(mode)
        benchmarks = [
            to_model_space(benchmark_of([own, own], [0, 1]), (channels, *size))
            for own in (picture, looks)
        ]
        ours, theirs = (kept_tensors(b.train_stream[0].dataset)[0] for b in benchmarks)
        assert ours.dtype == torch.uint8 and torch.equal(ours, theirs)


@pytest.mark.parametrize(("mode", "key", "channels"), [("P", 1, 3), ("L", 7, 1)])
def test_a_picture_with_a_colour_that_is_transparent_is_refused(mode, key, channels):
    picture = Image.new(mode, (8, 8), key - 1)
    picture.info["transparency"] = key
    to_model_space(benchmark_of([picture, picture], [0, 1]), (channels, 8, 8))
    picture.putpixel((3, 3), key)
    with pytest.raises(ValueError, match="transparent in places, by a colour; flatten it"):
        to_model_space(benchmark_of([picture, picture], [0, 1]), (channels, 8, 8))


@pytest.mark.parametrize(
    ("mode", "channels"),
    [
        *(("I;16", 1), ("I", 1), ("PA", 3), ("P", 4)),
        *(("CMYK", 3), ("CMYK", 4), ("YCbCr", 3), ("HSV", 3)),
    ],
)
def test_pictures_of_modes_that_are_not_read_are_refused(mode, channels):
    pictures = [Image.new(mode, (8, 8))] * 2
    message = f"of PIL's mode {mode} are not read; convert them to L or RGB"
    with pytest.raises(ValueError, match=message) as caught:
        to_model_space(benchmark_of(pictures, [0, 1]), (channels, 8, 8))
    assert len(str(caught.value).splitlines()) == 1


def test_pictures_of_floats_are_read_as_floats():
    unit = np.random.default_rng(0).random((2, 8, 8), dtype=np.float32)
    pictures = [Image.fromarray(part) for part in unit]
    assert pictures[0].mode == "F"
    images, _ = stream_tensors(
        to_model_space(benchmark_of(pictures, [0, 1]), (1, 8, 8)).train_stream
    )
    assert torch.equal(images, 2 * torch.tensor(unit)[:, None] - 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_tensors_of_bytes_are_resized_as_pil_does_each_channel(channels):
    pixels = random_bytes(4, (channels, 28, 28))
    benchmark = to_model_space(benchmark_of(pixels, [0, 0, 1, 1]), (channels, 16, 12))
    images, _ = stream_tensors(benchmark.test_stream)
    planes = [Image.fromarray(plane.numpy()) for plane in pixels.flatten(0, 1)]
    resized = [plane.resize((12, 16), Image.Resampling.BILINEAR) for plane in planes]
    expected = torch.tensor(np.stack([np.asarray(plane) for plane in resized]))
    assert torch.equal(images, scaled(expected.view(4, channels, 16, 12)))


def test_pictures_of_several_sizes_are_brought_to_one():
    sizes = [(8, 8), (20, 10), (5, 7)]
    pictures = [Image.new("RGB", size, (10 * i, 0, 255)) for i, size in enumerate(sizes)]
    benchmark = to_model_space(benchmark_of(pictures, [0, 1, 2]), (3, 8, 8))
    images, _ = kept_tensors(benchmark.train_stream[0].dataset)
    assert images[:, 0, 0, 0].tolist() == [0, 10, 20]


def test_floats_of_several_sizes_are_each_resized():
    unit = [torch.rand(1, size, 8) for size in (8, 12, 5)]
    shape = (1, 8, 8)
    alone = [to_model_space(benchmark_of([one], [0]), shape) for one in unit]
    expected = torch.cat([stream_tensors(one.test_stream)[0] for one in alone])
    benchmark = to_model_space(benchmark_of(unit, [0, 0, 0]), shape)
    assert torch.equal(stream_tensors(benchmark.test_stream)[0], expected)


def test_bytes_and_floats_in_one_experience_are_refused():
    items = [torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8)]
    for part in (items, items[::-1]):
        with pytest.raises(
            ValueError, match="an experience are uint8 and others"
        ) as caught:
            to_model_space(benchmark_of(part, [0, 1]), (1, 4, 4))
        assert len(str(caught.value).splitlines()) == 1


def test_floats_are_not_rounded():
    unit = torch.rand(8, 1, 4, 4)
    benchmark = to_model_space(benchmark_of(unit, [0] * 4 + [1] * 4), (1, 4, 4))
    images, _ = kept_tensors(benchmark.train_stream[0].dataset)
    assert torch.equal(images, 2 * unit - 1)


@KEPT
def test_items_are_in_model_space_however_datasets_are_derived(keep):
    pixels = random_bytes()
    dataset = as_dataset(keep(pixels), labels_for(pixels))
    reservoir, balanced = ReservoirSamplingBuffer(6), ClassBalancedBuffer(6)
    reservoir.update_from_dataset(dataset)
    balanced.update_from_dataset(dataset)
    known = {tuple(image.flatten().tolist()) for image in scaled(pixels)}
    for derived in (
        dataset,
        dataset.subset([3, 1]),
        dataset.concat(dataset.subset([0])),
        concat_datasets([as_dataset(scaled(pixels), labels_for(pixels)), dataset]),
        AvalancheDataset([dataset]),
        dataset.eval(),
        copy.deepcopy(dataset),
        pickle.loads(pickle.dumps(dataset)),
        reservoir.buffer,
        balanced.buffer,
    ):
        images, labels = dataset_tensors(derived)
        batches = DataLoader(derived, batch_size=4, collate_fn=derived.collate_fn)
        batched = [torch.cat(part) for part in zip(*batches, strict=True)]
        assert torch.equal(batched[0], images) and torch.equal(batched[1], labels)
        for i, (image, label, task) in enumerate(derived):
            assert torch.equal(image, images[i]) and image.dtype == torch.float32
            assert label == labels[i] and task == 0
            assert tuple(image.flatten().tolist()) in known


@KEPT
def test_bytes_stay_bytes_and_floats_floats(keep):
    pixels = random_bytes()
    dataset = as_dataset(keep(pixels), labels_for(pixels))
    images, labels = kept_tensors(dataset.subset(range(4, 12)))
    assert torch.equal(images, pixels[4:]) and labels.tolist() == [0, 1] * 4
    both = dataset.concat(as_dataset(scaled(pixels), labels_for(pixels)))
    assert torch.equal(kept_tensors(both)[0], scaled(pixels).repeat(2, 1, 1, 1))


@KEPT
@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: TaskBalancedDataLoader(a.concat(b), batch_size=5, shuffle=True),
        lambda a, b: ReplayDataLoader(a, b, batch_size=4, batch_size_mem=3, shuffle=True),
        lambda a, b: DataLoader(a, batch_size=5, shuffle=True),
        lambda a, b: TaskBalancedDataLoader(a, batch_size=5, shuffle=True, num_workers=2),
    ],
)
def test_batches_read_at_once_are_those_read_by_item(keep, make):
    pixels, floats = random_bytes(), torch.rand(9, *SHAPE) - 0.5
    kept = as_dataset(keep(pixels), labels_for(pixels))
    others = as_dataset(floats, labels_for(floats))
    plain = as_dataset(scaled(pixels), labels_for(pixels))
    batches = []
    for data in (kept, plain):
        loader = make(data, others)
        read_batches_at_once(loader)
        torch.manual_seed(0)
        batches.append(list(loader))
    for ours, theirs in zip(*batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_batches_have_what_a_transform_or_a_subclass_makes_of_items():
    class Dimmed(type(as_dataset(random_bytes(), labels_for(random_bytes())))):
        def __getitem__(self, index):
            image, *rest = super().__getitem__(index)
            return [image / 2, *rest]

    pixels = random_bytes()
    dataset = as_dataset(pixels, labels_for(pixels))
    groups = {"train": lambda image: image / 2, "eval": None}
    halved = type(dataset)([dataset], transform_groups=groups)
    for changed in (halved, halved.freeze_transforms(), Dimmed([dataset])):
        loader = TaskBalancedDataLoader(changed, batch_size=12)
        read_batches_at_once(loader)
        (batch,) = loader
        assert torch.equal(batch[0], scaled(pixels) / 2)
        assert torch.equal(next(iter(DataLoader(changed, 12)))[0], scaled(pixels) / 2)
    assert torch.equal(next(iter(DataLoader(halved.eval(), 12)))[0], scaled(pixels))


def strategy_with(*plugins):
    torch.manual_seed(0)
    model = tiny()
    return DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        train_mb_size=8,
        train_steps=4,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(),
    )


def two_experiences(images):
    shaped, labels = images, labels_for(images)
    parts = [as_dataset(shaped[:16], labels[:16]), as_dataset(shaped[16:], labels[16:])]
    return as_benchmark(train=parts, test=parts)


def test_a_training_on_bytes_has_the_bits_of_one_on_their_floats(monkeypatch):
    pixels = random_bytes(32, (1, 8, 8))
    found = []
    for images in (pixels, scaled(pixels)):
        strategy = strategy_with(ReplayPlugin(8))
        with monkeypatch.context() as patch:
            if images.dtype == torch.uint8:  # no image is scaled by itself in a step
                patch.setattr(SupervisedTemplate, "training_epoch", _forbidding_items)
            strategy.train(two_experiences(images).train_stream)
        found.append(weights(strategy.model))
    assert same_bits(*found)


_training_epoch = SupervisedTemplate.training_epoch


def _forbidding_items(strategy, **kwargs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelledImages, "__getitem__", None)  # would fail if called
        _training_epoch(strategy, **kwargs)


def test_bytes_stay_bytes_on_a_device():
    pixels = random_bytes(32)
    there = on_device(two_experiences(pixels), torch.device("cpu"))
    images, _ = kept_tensors(there.train_stream[1].dataset)
    assert torch.equal(images, pixels[16:])


def test_bytes_stay_bytes_in_a_checkpoint_of_a_memory():
    pixels = random_bytes(32, (1, 8, 8))
    plugin, new = ReplayPlugin(8), ReplayPlugin(8)
    strategy_with(plugin).train(two_experiences(pixels).train_stream)
    load_plugin_states([new], plugin_states([plugin]), tiny())
    ours, theirs = (kept_tensors(p.storage_policy.buffer)[0] for p in (plugin, new))
    assert ours.dtype == torch.uint8 and torch.equal(ours, theirs)


@KEPT
def test_the_images_of_datasets_are_read_as_asked_for(keep):
    pixels = random_bytes(1500, (1, 4, 4))
    whole = as_dataset(keep(pixels), labels_for(pixels))
    parts = [whole.subset(range(600)), whole.subset(range(600, 1500))]
    images = DatasetImages(parts)
    assert images.shape == pixels.shape and len(images) == 1500
    assert torch.equal(images[torch.tensor([700, 3, 3])], scaled(pixels[[700, 3, 3]]))
    order = torch.arange(1500).flip(0)
    read = list(images.parts(order))
    assert torch.equal(torch.cat(read), pixels[order]) and len(read) == 2


@pytest.mark.parametrize("images", [torch.rand(6, 1, 4, 4), random_bytes(6, (1, 4, 4))])
def test_images_of_other_datasets_are_left_as_they_are(images):
    dataset = AvalancheDataset([TensorDataset(images, labels_for(images))])
    found = DatasetImages([dataset])
    assert torch.equal(found[torch.arange(6)], images)
    (part,) = found.parts(torch.arange(6))
    assert torch.equal(part, images)


@KEPT
def test_an_oracle_is_the_same_from_bytes_as_from_their_floats(keep):
    pixels = random_bytes(40, (1, 8, 8))
    labels = labels_for(pixels)
    kept = DatasetImages([as_dataset(keep(pixels), labels)])
    floats = DatasetImages([as_dataset(scaled(pixels), labels)])
    ours = oracle_classifier(kept, labels, steps=3)
    plain = oracle_classifier(scaled(pixels), labels, steps=3)
    assert same_bits(weights(ours), weights(plain))
    files = len(list(cache_folder().glob("oracle*")))
    oracle_classifier(floats, labels, steps=3)  # the same key as the tensor
    assert len(list(cache_folder().glob("oracle*"))) == files
    other = DatasetImages([as_dataset(255 - pixels, labels)])
    oracle_classifier(other, labels, steps=3)
    assert len(list(cache_folder().glob("oracle*"))) == files + 1
