"""What is brought to model space, what is refused, and what the result knows of itself."""

import pytest
import torch
from avalanche.benchmarks import (
    CLScenario,
    OnlineCLScenario,
    benchmark_from_datasets,
    benchmark_with_validation_stream,
    nc_benchmark,
    split_online_stream,
)
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from torch.utils.data import TensorDataset

from avalanche_gd import SplitDigits, to_model_space
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.model_space import as_benchmark, as_dataset, on_device


def labelled(images):
    """A dataset as torchvision's are, of two classes in turn."""
    labels = torch.arange(len(images)) % 2
    dataset = TensorDataset(images, labels)
    dataset.targets = labels.tolist()
    return dataset


def two_experiences(train, test=None):
    test = train if test is None else test
    return nc_benchmark(labelled(train), labelled(test), 2, task_labels=False)


NORMALIZED = (torch.eye(8).expand(4, 1, 8, 8) - 0.2860) / 0.3530  # as by Normalize


@pytest.mark.parametrize(
    "images",
    [
        torch.full((4, 1, 8, 8), 255.0),
        torch.full((4, 1, 8, 8), 255),
        torch.full((4, 1, 8, 8), -1.5),
        torch.full((4, 1, 8, 8), float("nan")),
        torch.full((4, 1, 8, 8), float("inf")),
        NORMALIZED,
    ],
)
def test_floats_outside_of_both_ranges_are_refused(images):
    benchmark = two_experiences(images)
    message = r"in \[0, 1\], or in \[-1, 1\] .* remove a Normalize"
    with pytest.raises(ValueError, match=message) as caught:
        to_model_space(benchmark, (1, 8, 8))
    assert len(str(caught.value).splitlines()) == 1


def test_images_in_model_space_are_not_scaled_again(digits):
    again = to_model_space(digits, (1, 8, 8))
    derived = benchmark_with_validation_stream(SplitDigits(5), 0.25)
    streams = to_model_space(derived, (1, 8, 8)).streams
    for name in ("train", "test"):
        both = stream_tensors(again.streams[name]), stream_tensors(digits.streams[name])
        assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    for name, stream in derived.streams.items():
        if name != "test":
            assert torch.equal(stream_tensors(streams[name])[0], stream_tensors(stream)[0])


def test_one_image_below_zero_says_that_all_are_in_model_space():
    """However bright those of the other experiences and streams."""
    bright = torch.rand(2100, 1, 8, 8)
    dark = bright.clone()
    dark[-1] = -0.5
    for train, test in ((bright, dark), (dark, bright)):
        benchmark = to_model_space(two_experiences(train, test), (1, 8, 8))
        assert stream_tensors(benchmark.train_stream)[0].sum() == pytest.approx(train.sum())
        assert stream_tensors(benchmark.test_stream)[0].min() == test.min()


@pytest.mark.parametrize("low", [-1e-7, -4e-4])
def test_rounding_outside_of_a_range_is_clipped(low):
    exact = torch.rand(4, 1, 8, 8)
    exact[0, 0, 1, 2], exact[3, 0, 2, 1] = 0, 1
    rounded = exact.clone()
    rounded[0, 0, 1, 2], rounded[3, 0, 2, 1] = low, 1 - low
    for unit_to_range in (lambda unit: unit, lambda unit: 2 * unit - 1):
        sides = two_experiences(unit_to_range(rounded)), two_experiences(exact)
        ours, theirs = (
            stream_tensors(to_model_space(side, (1, 8, 8)).train_stream)[0]
            for side in sides
        )
        assert torch.equal(ours, theirs)


def test_floats_a_little_below_zero_are_refused():
    images = torch.rand(4, 1, 8, 8)
    images[1, 0, 3, 3] = -0.05
    message = "is -0.05, which is neither in .* clip them to"
    with pytest.raises(ValueError, match=message) as caught:
        to_model_space(two_experiences(torch.rand(4, 1, 8, 8), images), (1, 8, 8))
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_beside_floats_below_zero_are_refused():
    train = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="in one range"):
        to_model_space(two_experiences(train, torch.full((4, 1, 8, 8), -1.0)), (1, 8, 8))


class Arrays(TensorDataset):
    """Images as NumPy arrays, which most of torch's transforms do not take."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image.numpy(), label


def test_images_of_another_type_are_refused():
    dataset = Arrays(torch.rand(4, 1, 8, 8), torch.arange(4) % 2)
    dataset.targets = [0, 1, 0, 1]
    benchmark = nc_benchmark(dataset, dataset, 2, task_labels=False)
    with pytest.raises(ValueError, match="is a ndarray; give PIL images or tensors"):
        to_model_space(benchmark, (1, 8, 8))
    with pytest.raises(ValueError, match=r"is a ndarray, .* by to_model_space"):
        stream_tensors(benchmark.train_stream)


def test_bytes_of_zeros_and_ones_are_refused_as_they_would_be_almost_black():
    bits = torch.eye(8, dtype=torch.uint8).expand(4, 1, 8, 8)
    with pytest.raises(ValueError, match=r"no value above 1, .* multiply them by 255"):
        to_model_space(two_experiences(bits), (1, 8, 8))
    for pixels in (255 * bits, 2 * bits, 0 * bits, bits.float()):
        images, _ = stream_tensors(
            to_model_space(two_experiences(pixels), (1, 8, 8)).train_stream
        )
        assert images.min() == -1
    one = bits.clone()
    one[3, 0, 0, 0] = 200  # in the test stream
    to_model_space(two_experiences(bits, one), (1, 8, 8))


def test_the_tensors_of_a_stream_are_not_read_from_bytes_that_nothing_has_scaled():
    plain = two_experiences(torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8))
    with pytest.raises(ValueError, match=r"torch\.uint8 are not in .* by to_model_space"):
        stream_tensors(plain.train_stream)
    images, _ = stream_tensors(to_model_space(plain, (1, 8, 8)).train_stream)
    assert images.aminmax() == (-1, 1)


@pytest.mark.parametrize("shape", [(1, 8), (1, 0, 8), 8, (1, 8.0, 8)])
def test_a_shape_that_is_none_is_refused(digits, shape):
    with pytest.raises(ValueError, match=r"sample_shape must be \(C, H, W\)"):
        to_model_space(digits, shape)


def test_labels_that_are_no_whole_numbers_are_refused():
    dataset = labelled(torch.rand(4, 1, 8, 8))
    dataset.targets = [0.0, 1.7, 0.0, 1.7]
    benchmark = benchmark_from_datasets(train=[as_classification_dataset(dataset)])
    with pytest.raises(ValueError, match=r"labels must be integers, got 1\.7"):
        to_model_space(benchmark, (1, 8, 8))


def test_empty_experiences_and_streams_are_refused(digits):
    full = digits.train_stream[0].dataset
    empty = as_dataset(torch.empty(0, 1, 8, 8), torch.empty(0))
    benchmark = benchmark_from_datasets(train=[full, empty], test=[full])
    message = "experience 1 of the stream train is empty; leave it out"
    for change in (
        lambda: to_model_space(benchmark, (1, 8, 8)),
        lambda: on_device(benchmark, torch.device("cpu")),
        lambda: as_benchmark(train=[full, empty], test=[full]),
    ):
        with pytest.raises(ValueError, match=message):
            change()
    with pytest.raises(ValueError, match="empty dataset has no images"):
        stream_tensors(benchmark.train_stream)
    with pytest.raises(ValueError, match="without experiences"):
        stream_tensors([])


@pytest.mark.filterwarnings("ignore:Deprecated")
def test_the_pieces_of_an_online_stream_are_refused(digits):
    """They would count as whole experiences."""
    streams = [digits.train_stream, digits.test_stream]
    for pieces in (
        OnlineCLScenario(streams, experience_size=60),
        CLScenario([split_online_stream(digits.train_stream, 60)]),
    ):
        for change in (
            lambda benchmark: to_model_space(benchmark, (1, 8, 8)),
            lambda benchmark: on_device(benchmark, torch.device("cpu")),
        ):
            with pytest.raises(ValueError, match="convert the benchmark first") as caught:
                change(pieces)
            assert len(str(caught.value).splitlines()) == 1


def test_images_without_labels_are_refused():
    dataset = AvalancheDataset([TensorDataset(torch.rand(4, 1, 8, 8))])
    benchmark = benchmark_from_datasets(train=[dataset])
    with pytest.raises(ValueError, match="no labels; give one with targets"):
        to_model_space(benchmark, (1, 8, 8))


def class_incremental(**options):
    images = torch.rand(60, 1, 8, 8)
    labels = torch.arange(60) % 6
    dataset = TensorDataset(images, labels)
    dataset.targets = labels.tolist()
    return nc_benchmark(dataset, dataset, **(dict(task_labels=False) | options))


@pytest.mark.parametrize(
    "theirs",
    [
        lambda: class_incremental(n_experiences=3),
        lambda: class_incremental(n_experiences=2, per_exp_classes={0: 4}),
        lambda: class_incremental(n_experiences=3, class_ids_from_zero_from_first_exp=True),
        lambda: class_incremental(n_experiences=3, class_ids_from_zero_in_each_exp=True),
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda benchmark: to_model_space(benchmark, (1, 8, 8)),
        lambda benchmark: on_device(benchmark, torch.device("cpu")),
        lambda benchmark: on_device(to_model_space(benchmark, (1, 8, 8)), "cpu"),
    ],
)
def test_a_benchmark_knows_of_itself_what_avalanches_does(theirs, change):
    theirs = theirs()
    ours = change(theirs)
    for name in (
        "n_classes",
        "n_experiences",
        "n_classes_per_exp",
        "classes_order",
        "classes_order_original_ids",
        "original_classes_in_exp",
        "class_mapping",
        "task_labels",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name, stream in ours.streams.items():
        assert getattr(ours, f"{name}_stream") is stream
        assert len(stream) == len(theirs.streams[name])
        known = list(theirs.classes_in_experience[name])
        assert ours.classes_in_experience[name] == known
        for own, other in zip(stream, theirs.streams[name], strict=True):
            assert own.benchmark is own.origin_stream.benchmark is ours
            assert own.current_experience == other.current_experience
            assert own.task_label == other.task_label == 0
            for classes in (
                "classes_in_this_experience",
                "previous_classes",
                "classes_seen_so_far",
            ):
                assert set(getattr(own, classes)) == set(getattr(other, classes))


def test_classes_that_only_task_labels_tell_apart_are_refused():
    many_heads = dict(n_experiences=3, task_labels=True)
    theirs = class_incremental(class_ids_from_zero_in_each_exp=True, **many_heads)
    assert theirs.classes_in_experience["train"][:] == ({0, 1},) * 3
    for change in (
        lambda benchmark: to_model_space(benchmark, (1, 8, 8)),
        lambda benchmark: on_device(benchmark, torch.device("cpu")),
    ):
        message = "lost in model space; .* without class_ids_from_zero_in_each_exp"
        with pytest.raises(ValueError, match=message) as caught:
            change(theirs)
        assert len(str(caught.value).splitlines()) == 1
        for option in (dict(), dict(class_ids_from_zero_from_first_exp=True)):
            ours = change(class_incremental(**many_heads, **option))
            assert len(set().union(*ours.classes_in_experience["train"])) == 6


def test_ours_knows_of_itself_what_its_streams_show():
    ours = SplitDigits(5, seed=3)
    shown = [set(e.classes_in_this_experience) for e in ours.train_stream]
    assert ours.n_classes == 10 and ours.n_experiences == 5
    assert ours.n_classes_per_exp == [2] * 5
    assert ours.original_classes_in_exp == ours.classes_in_experience["train"] == shown
    order = ours.classes_order
    assert [set(order[i : i + 2]) for i in range(0, 10, 2)] == shown
    assert ours.task_labels == [[0]] * 5


def test_of_other_benchmarks_it_knows_what_its_streams_show(digits):
    full = digits.train_stream[0].dataset
    classes = digits.classes_in_experience["train"][0]
    theirs = benchmark_from_datasets(train=[full] * 3, test=[full])
    ours = to_model_space(theirs, (1, 8, 8))
    assert (ours.n_experiences, ours.n_classes) == (3, 2)
    assert ours.n_classes_per_exp == [2] * 3
    assert ours.classes_order == sorted(classes)
    assert ours.original_classes_in_exp == [classes] * 3
    assert ours.classes_in_experience["test"] == [classes]


@pytest.mark.parametrize("shape", [(), (8,), (8, 8), (3, 1, 8, 8), (1, 0, 8)])
def test_tensors_that_are_no_image_are_refused(shape):
    with pytest.raises(ValueError, match=r"of shape \(.*\); give \(C, H, W\)$"):
        to_model_space(two_experiences(torch.zeros(4, *shape)), (1, 8, 8))


def test_images_with_gradients_are_taken():
    images = torch.rand(4, 1, 8, 8)
    streams = [
        to_model_space(two_experiences(one), (1, 8, 8)).train_stream
        for one in (images, images.clone().requires_grad_())
    ]
    assert torch.equal(*(stream_tensors(stream)[0] for stream in streams))


class Drawing(TensorDataset):
    """Adds noise to its images as it is read."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return (image + 0.1 * torch.rand(image.shape)).clamp(0, 1), label


def test_what_a_dataset_draws_is_drawn_once_and_changes_no_random_state():
    dataset = Drawing(torch.rand(4, 1, 8, 8), torch.arange(4) % 2)
    dataset.targets = [0, 1, 0, 1]
    benchmark = nc_benchmark(dataset, dataset, 2, task_labels=False)
    state = torch.get_rng_state()
    streams = [to_model_space(benchmark, (1, 8, 8)).train_stream for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    first, again, second = (stream_tensors(streams[i])[0] for i in (0, 0, 1))
    assert torch.equal(first, again) and torch.equal(first, second)
