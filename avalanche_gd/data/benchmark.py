"""A benchmark with the same attributes as Avalanche's own."""

from collections.abc import Iterable
from itertools import chain, combinations
from typing import Any

from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from avalanche.benchmarks.scenarios.task_aware import with_task_labels

_FACTS = (
    "n_classes",
    "n_classes_per_exp",
    "classes_order",
    "classes_order_original_ids",
    "original_classes_in_exp",
    "class_mapping",
)
"""Attributes of a maker of class-incremental streams, which its streams may not have."""


class StreamsBenchmark(CLScenario):
    """Streams that know their benchmark, with the attributes of Avalanche's ``NCScenario``.

    :param streams: streams of experiences with datasets, classes and task labels.
    :param like: a benchmark of which the streams are another form. Its attributes about
        classes are copied; the others are read from the training stream.
    """

    n_experiences: int
    """The number of experiences in the training stream."""
    task_labels: list[list[int]]
    """By training experience."""
    n_classes: int
    n_classes_per_exp: list[int]
    """By training experience."""
    classes_order: list[int]
    """In the order of their first occurrence in the training stream."""
    original_classes_in_exp: list[set[int]]
    """By training experience, as they were numbered before any remapping."""

    def __init__(self, streams: Iterable[Any], like: Any = None):
        super().__init__(list(streams))
        for stream in self.streams.values():
            stream.benchmark = self  # Avalanche's own builder does not set it
            for experience in stream:
                experience.benchmark = self
        self.classes_in_experience: dict[str, list[set[int]]] = {
            name: [set(exp.classes_in_this_experience) for exp in stream]
            for name, stream in self.streams.items()
        }
        """By stream and experience."""
        if "train" in self.streams:
            self._read_training_stream()
        for name in _FACTS:
            if hasattr(like, name):
                setattr(self, name, getattr(like, name))

    def _read_training_stream(self) -> None:
        classes = self.classes_in_experience["train"]
        self.n_experiences = len(classes)
        self.task_labels = [list(exp.task_labels) for exp in self.streams["train"]]
        self.n_classes_per_exp = [len(part) for part in classes]
        self.classes_order = list(dict.fromkeys(chain(*map(sorted, classes))))
        self.n_classes = len(self.classes_order)
        self.original_classes_in_exp = [set(part) for part in classes]


def as_benchmark(*, like: Any = None, **streams: Any) -> StreamsBenchmark:
    """Make a benchmark from Avalanche datasets by stream; its streams know it.

    :param like: see :class:`StreamsBenchmark`.
    :param streams: the datasets of the experiences of ``train``, ``test``, and others.
    :raises ValueError: if a dataset is empty.
    """
    for name, datasets in streams.items():
        check_not_empty(name, datasets)
    scenario = with_task_labels(with_classes_timeline(benchmark_from_datasets(**streams)))
    return StreamsBenchmark(scenario.streams.values(), like)


def check_not_empty(stream: str, datasets: Iterable[Any]) -> None:
    """Raise ValueError if one of a stream's datasets is empty.

    :param stream: the stream's name.
    """
    for index, dataset in enumerate(datasets):
        if len(dataset) == 0:
            raise ValueError(
                f"experience {index} of the stream {stream} is empty; leave it out"
            )


def check_one_numbering(benchmark: Any) -> None:
    """Raise ValueError if different classes have one number, told apart by task labels.

    Avalanche's ``nc_benchmark`` numbers classes so for a model with a head for each task.

    :param benchmark: a benchmark that may know ``original_classes_in_exp``.
    """
    train = benchmark.streams.get("train", ())
    known = getattr(benchmark, "original_classes_in_exp", ())  # of the training stream
    parts = [
        (set(experience.task_labels), set(experience.classes_in_this_experience), originals)
        for originals, experience in zip(known, train, strict=False)
    ]
    for (tasks, numbers, own), (other_tasks, other_numbers, others) in combinations(
        parts, 2
    ):
        if tasks != other_tasks and numbers & other_numbers and not own & others:
            raise ValueError(
                "experiences give other classes the same numbers, told apart by task "
                "labels, which are lost in model space; make the benchmark without "
                "class_ids_from_zero_in_each_exp"
            )
