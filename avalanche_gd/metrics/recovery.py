"""How fast a model that has forgotten an old experience learns it again."""

import copy
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.data.model_space import dataset_classes, dataset_tensors
from avalanche_gd.metrics.features import CheckedFeatures, feature_extractor
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.metrics.shared_images import (
    Sampling,
    SharedImages,
    check_sampling,
    classifier_labels,
    generate_samples,
    in_batches,
)
from avalanche_gd.metrics.trained import StreamKey, label_counts
from avalanche_gd.metrics.trying import first_image
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.evaluation_mode import in_evaluation_mode, module_of
from avalanche_gd.models.random_state import seeded
from avalanche_gd.training.diffusion_training import DiffusionTraining


def recovery_steps(
    model: DiffusionModel,
    benchmark: Any,
    experience: int,
    best: float,
    *,
    within: Sequence[float] = (0.1, 0.2, 0.3),
    every: int = 10,
    most: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 2e-4,
    seed: int = 0,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
) -> dict[float, int | None]:
    """Count the Adam steps on an old experience until its FID is close to its best again.

    A copy of the model is trained on the training images of this experience only. FID is
    measured before the first step, then after every ``every`` steps and after the last. A
    conditioned model generates the classes of the experience in the ratios of its test
    images; of another model's images, those count that the
    oracle assigns to these classes. This is also how ``FID_Exp`` of
    :func:`~avalanche_gd.metrics.fid_metrics` is measured, so ``best`` can come from there,
    with the same features and about as many images of the experience: FID of fewer images
    is higher.

    :param model: for example from ``from_pretrained``; it does not change.
    :param benchmark: in model space, with a train and a test stream.
    :param experience: its index in both streams, from 0.
    :param best: the lowest FID on the experience, for example right after its training.
    :param within: how far FID may be above ``best``, as parts of it.
    :param every: steps between measurements, and so the resolution of the result.
    :param most: the highest number of steps.
    :param batch_size: of the training.
    :param learning_rate: of Adam, which starts with a new state.
    :param seed: decides the training's randomness; the global random state does not change.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: for this and for ``weights_path`` see
        :func:`~avalanche_gd.metrics.fid_metrics`.
    :return: by each of ``within``, the steps after which FID was at most
        ``(1 + within) best``; None if that takes more than ``most`` steps.
    :raises ValueError: for numbers out of range, if the experience has other classes in the
        test stream than in the train stream or images that do not fit the model, or as in
        ``fid_metrics``.
    :raises TypeError: if the model is not a :class:`~avalanche_gd.DiffusionModel` or
        ``within`` not a list, or as in ``fid_metrics``.
    """
    _check_experience(benchmark, experience)
    if not isinstance(model, DiffusionModel):
        raise TypeError(f"model must be a DiffusionModel, not a {type(model).__name__}")
    image = first_image(benchmark.test_stream[experience])
    if image is not None and image.shape != model.sample_shape:
        raise ValueError(
            f"images of {tuple(image.shape)} do not fit a model of {model.sample_shape}"
        )
    check_number("best", best, "above 0")
    if not isinstance(within, Iterable) or isinstance(within, str):
        raise TypeError(f"within must be a list of numbers, such as [0.1], got {within!r}")
    within = list(within)
    for part in within:
        check_number("within", part, "0 or more")
    check_integer("every", every)
    check_integer("most", most)
    check_integer("batch_size", batch_size)
    check_number("learning_rate", learning_rate, "above 0")
    check_integer("seed", seed, 0)
    sampling = check_sampling(sampling or Sampling())
    measure = _ExperienceFID(benchmark, experience, sampling, features, weights_path)
    student = copy.deepcopy(model)
    goals = {part: (1 + part) * best for part in within}
    watch = _Recovery(partial(measure, student), goals, every)
    strategy = DiffusionTraining(
        model=student,
        optimizer=torch.optim.Adam(student.parameters(), learning_rate),
        train_mb_size=batch_size,
        train_steps=most,
        device=model.device,
        plugins=[watch],
        evaluator=None,
    )
    with seeded(seed, model.device):
        watch.look()
        if not watch.is_done:
            strategy.train(benchmark.train_stream[experience], eval_streams=[])
    return {part: watch.reached.get(part) for part in within}


def _check_experience(benchmark: Any, experience: int) -> None:
    """Raise ValueError unless both streams have it, and its tests no class more."""
    streams = benchmark.train_stream, benchmark.test_stream
    check_integer("experience", experience, 0, min(map(len, streams)) - 1)
    train, test = (dataset_classes(stream[experience].dataset) for stream in streams)
    if test - train:
        raise ValueError(
            f"experience {experience} of the test stream has the classes "
            f"{sorted(test - train)}, on which that of the train stream does not train; "
            "give a benchmark with a test experience of its own for this experience"
        )


class _Recovery(SupervisedPlugin):
    """Measures FID every ``every`` steps, and ends the training when it is low enough."""

    def __init__(self, measure: Any, goals: dict[float, float], every: int):
        super().__init__()
        self._measure, self._goals, self._every = measure, goals, every
        self._steps = 0
        self.reached: dict[float, int] = {}
        """The steps after which each goal was reached."""

    @property
    def is_done(self) -> bool:
        """True once all goals are reached."""
        return len(self.reached) == len(self._goals)

    def look(self) -> None:
        """Measure FID after the steps so far."""
        distance = self._measure()
        for part, goal in self._goals.items():
            if distance <= goal:
                self.reached.setdefault(part, self._steps)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Measure if it is time to."""
        self._steps += 1
        if self._steps % self._every == 0 or self._steps == strategy.train_steps:
            self.look()
            if self.is_done:
                strategy.stop_training()


class _ExperienceFID:
    """FID of models on an experience of a benchmark."""

    def __init__(
        self,
        benchmark: Any,
        experience: int,
        sampling: Sampling,
        features: Any,
        weights_path: str | Path | None,
    ):
        dataset = benchmark.test_stream[experience].dataset.eval()
        self._counts = label_counts([benchmark.test_stream[experience]])
        self._sampling = sampling
        training = StreamKey(benchmark, "train")
        self._oracle: Any = SharedImages().oracle(training, torch.device("cpu"))
        extractor = feature_extractor(features, weights_path)
        self._extractor = self._oracle if extractor is None else extractor
        function = self._oracle.get_features if extractor is None else extractor
        self._function = CheckedFeatures(function)
        self._images, _ = dataset_tensors(dataset)
        self._real: Moments | None = None

    def __call__(self, model: DiffusionModel) -> float:
        """FID; NaN if fewer than 2 images are of the experience."""
        for module in map(module_of, (self._oracle, self._extractor)):
            if module is not None:
                module.to(model.device)
        if self._real is None:
            self._real = Moments.of(self._features(self._images.to(model.device)))
        images, labels = generate_samples(
            model, self._sampling, classes=self._counts, real=self._counts
        )
        if labels is None:
            size = self._sampling.batch_size
            labels = classifier_labels(self._oracle, images.float(), size)
        classes = torch.tensor(sorted(self._counts), device=labels.device)
        own = images[torch.isin(labels, classes)]
        if len(own) < 2:
            return float("nan")
        return frechet_distance(self._real, self._features(own))

    def _features(self, images: Tensor) -> Tensor:
        if self._extractor is self._oracle:  # which computes in float32
            images = images.float()
        with in_evaluation_mode(self._function.function):
            return in_batches(self._function, images, self._sampling.batch_size)
