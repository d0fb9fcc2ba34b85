"""What all metrics of generated images share in an evaluation."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.data.images import DatasetImages
from avalanche_gd.data.model_space import labels_of
from avalanche_gd.metrics.measured import Measured
from avalanche_gd.metrics.trained import (
    Counted,
    ExperienceKey,
    StreamKey,
    TrainedExperiences,
    experience_key,
    label_counts,
    origin,
    rename,
    whole_stream,
)
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.evaluation_mode import in_evaluation_mode
from avalanche_gd.models.image_check import checked_range
from avalanche_gd.models.oracle import oracle_classifier
from avalanche_gd.models.random_state import seeded
from avalanche_gd.models.sampler import check_sampler
from avalanche_gd.storage import content_digest


@dataclass(frozen=True)
class Sampling:
    """How images are generated for an evaluation.

    :param images: how many.
    :param steps: k, the sampling steps.
    :param eta: 0 for DDIM, 1 for ancestral sampling.
    :param seed: decides the noise, which is the same in every evaluation.
    :param batch_size: how many images at once. With eta 0 it does not change them, unless
        the model's own scheduler draws noise in its steps, as ``DDPMScheduler`` does. A
        generator that is not a :class:`~avalanche_gd.DiffusionModel` makes its images in
        one call, whatever this is; outside of model space they are clipped, and a warning
        says so. Other than as many images of finite numbers are refused.
    :param sampler: a name in :data:`~avalanche_gd.models.sampler.SAMPLERS`.
    :raises ValueError: unless ``images`` is an integer of 2 or more, steps and batch size
        of 1 or more, the seed of 0 or more, and eta is in ``[0, 1]``, or for an unknown
        sampler.
    """

    images: int = 2000
    steps: int = 10
    eta: float = 0.0
    seed: int = 0
    batch_size: int = 500
    sampler: str = "own"

    def __post_init__(self) -> None:
        check_integer("images", self.images, 2)
        check_integer("steps", self.steps)
        check_number("eta", self.eta, "in [0, 1]")
        check_integer("seed", self.seed, 0)
        check_integer("batch_size", self.batch_size)
        check_sampler(self.sampler)


def check_sampling(sampling: Any) -> Sampling:
    """Return it; raise TypeError unless it says how images are generated."""
    if not isinstance(sampling, Sampling):
        raise TypeError(
            f"sampling must be a Sampling, such as Sampling(images=500), got {sampling!r}"
        )
    return sampling


class SharedImages:
    """The generated images of a strategy's evaluation, made once for all its metrics."""

    def __init__(self) -> None:
        self.trained = TrainedExperiences()
        """What the strategy was trained on."""
        self.measured: dict[Any, Measured] = {}
        """By metric, what it remembers of this strategy."""
        self.emitted: dict[Any, set[str]] = {}
        """By metric, the names of its values over a stream so far."""
        self._samples: dict[Sampling, tuple[Tensor, Tensor | None]] = {}
        self._oracles: dict[StreamKey, nn.Module] = {}
        self._features: dict[Any, tuple[Tensor, Tensor]] = {}
        self._real: dict[Any, Counter[int]] = {}  # labels, in this evaluation

    @classmethod
    def of(cls, strategy: Any) -> "SharedImages":
        """What the metrics of a strategy share; it lives as long as the strategy."""
        if not hasattr(strategy, "_generation"):
            strategy._generation = cls()
        return strategy._generation

    def observe(self, experience: Any, *, alone: bool = False) -> None:
        """Note an experience that is trained on, and release the images.

        :param alone: True if it is the one that a training is of, and not one of several.
        :raises ValueError: as in :meth:`TrainedExperiences.copy_of`.
        """
        self._recognise(experience)
        self.trained.add(experience, alone=alone)
        self.forget_images()

    def counted(self, experience: Any) -> Counted | None:
        """How an evaluated experience counts; None if it does not count.

        :raises ValueError: as in :meth:`TrainedExperiences.counted`, or as in
            :meth:`TrainedExperiences.copy_of`.
        """
        self._recognise(experience)
        return self.trained.counted(experience)

    def _recognise(self, experience: Any) -> None:
        """In a copied strategy, let a benchmark take the place of its copy."""
        stream = experience_key(origin(experience)).stream
        copy = self.trained.copy_of(stream)
        if copy is not None:
            tables: list[dict[Any, Any]] = [self._oracles, *self.trained.tables]
            for measured in self.measured.values():
                tables += [measured.qualities, measured.after, measured.models]
            for table in tables:
                rename(table, copy, stream.owner)

    def forget_images(self) -> None:
        """Release the images, because the model will change or an evaluation begins."""
        self._samples.clear()
        self._features.clear()
        self._real.clear()

    def note(self, key: ExperienceKey, experience: Any) -> None:
        """Note an experience that the images will be compared with.

        The ratios of classes are those of all experiences of its stream that count, so that
        the images are the same in an evaluation of some of them.
        """
        stream = experience_key(origin(experience)).stream
        experiences = whole_stream(stream)
        if experiences is None and key not in self._real:
            self._real[key] = label_counts([experience])
        elif experiences is not None and stream not in self._real:
            counted = [one for one in experiences if self.trained.counted(one)]
            self._real[stream] = label_counts(counted)

    def samples(self, model: Any, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
        """The result of :func:`generate_samples`, made once."""
        if sampling not in self._samples:
            real = sum(self._real.values(), Counter[int]())
            self._samples[sampling] = generate_samples(model, sampling, real=real)
        return self._samples[sampling]

    def images(self, model: Any, sampling: Sampling) -> Tensor:
        """The images of :meth:`samples`."""
        return self.samples(model, sampling)[0]

    def features(self, function: Any, images: Tensor, batch_size: int) -> Tensor:
        """The result of a function of images, computed once for all metrics.

        :param images: a batch of real images, or all generated ones.
        """
        known, features = self._features.get(function, (None, None))
        if known is not images or features is None:
            features = in_batches(function, images, batch_size)
            self._features[function] = images, features
        return features

    def oracle(self, stream: StreamKey, device: torch.device) -> nn.Module:
        """The oracle of a training stream, from the cache if it is there.

        It sees the images as an evaluation does, without the transforms of training.
        """
        if stream not in self._oracles:
            experiences = whole_stream(stream) or ()
            datasets = [experience.dataset.eval() for experience in experiences]
            labels = torch.cat([labels_of(dataset) for dataset in datasets])
            self._oracles[stream] = oracle_classifier(DatasetImages(datasets), labels)
        return self._oracles[stream].to(device)

    def oracle_digests(self) -> list[str]:
        """The SHA-256 of the weights of each oracle that was used."""
        return [content_digest(oracle.state_dict()) for oracle in self._oracles.values()]


def is_conditioned(model: Any) -> bool:
    """True for a diffusion model that is asked for classes."""
    return isinstance(model, DiffusionModel) and model.num_classes is not None


def has_classes(model: Any) -> bool:
    """Whether a model knows what to generate; a conditioned one does once it is trained."""
    return not is_conditioned(model) or bool(model.classes_seen.any())


def generate_images(model: Any, sampling: Sampling) -> Tensor:
    """The images of :func:`generate_samples`."""
    return generate_samples(model, sampling)[0]


def generate_samples(
    model: Any,
    sampling: Sampling,
    *,
    classes: Iterable[int] | None = None,
    real: Mapping[int, int] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Generate images with a diffusion model, batch by batch, from noise drawn at once.

    A conditioned model generates the classes that it was trained on, as many images of
    each. Another Avalanche generator uses its ``generate``. The random state does not
    change.

    :param classes: other classes for a conditioned model.
    :param real: how many real images of each class these are compared with. If they are of
        the ``classes``, or else of those that a conditioned model was trained on, and of
        some more than of others, it generates them in the same ratios.
    :return: the images in model space, ``(sampling.images, C, H, W)``, and the class on
        which each is conditioned, ``(sampling.images,)``; None without conditioning.
    :raises ValueError: if another generator makes something else.
    """
    if not isinstance(model, DiffusionModel):
        return _plainly_generated(model, sampling), None
    generator = torch.Generator().manual_seed(sampling.seed)
    noise = model.draw_noise(sampling.images, generator)
    counts = {label: (real or {}).get(label, 0) for label in sorted(classes or ())}
    if len(set(counts.values())) > 1 and model.num_classes is not None:
        condition: Tensor | None = in_ratios(counts, sampling.images).to(model.device)
    elif model.num_classes is not None and classes is not None:
        wanted = torch.tensor(sorted(classes), device=model.device)
        places = torch.arange(sampling.images, device=model.device)
        condition = wanted[places % len(wanted)]
    elif model.num_classes is not None and _are_unequal(real, model.classes_seen):
        condition = in_ratios(real or {}, sampling.images).to(model.device)
    else:
        condition = model.draw_condition(sampling.images, generator)
    size = sampling.batch_size
    parts = noise.split(size)
    conditions = [None] * len(parts) if condition is None else condition.split(size)
    options: dict[str, Any] = dict(
        steps=sampling.steps, eta=sampling.eta, sampler=sampling.sampler
    )
    batches = [
        model.reverse(part, given, generator=generator, **options)
        for part, given in zip(parts, conditions, strict=True)
    ]
    return torch.cat(batches), condition


def _are_unequal(real: Mapping[int, int] | None, seen: Tensor) -> bool:
    """True if there are more real images of some classes seen than of others."""
    counts = +Counter(real or {})
    is_of_seen = set(counts) == set(seen.nonzero().flatten().tolist())
    return is_of_seen and len(set(counts.values())) > 1


def in_ratios(counts: Mapping[int, int], number: int) -> Tensor:
    """So many classes in the ratios of some counts, evenly mixed: ``(number,)``.

    >>> in_ratios({3: 100, 5: 50}, 6)
    tensor([3, 5, 3, 3, 5, 3])
    """
    total = sum(counts.values())
    exact = {label: number * count / total for label, count in sorted(counts.items())}
    shares = {label: int(share) for label, share in exact.items()}
    lacking = sorted(exact, key=lambda label: shares[label] - exact[label])
    for label in lacking[: number - sum(shares.values())]:
        shares[label] += 1
    spread = sorted(
        ((place + 0.5) / share, label)
        for label, share in shares.items()
        for place in range(share)
    )
    return torch.tensor([label for _, label in spread])


@torch.no_grad()
def _plainly_generated(model: Any, sampling: Sampling) -> Tensor:
    """Images of a generator that draws from torch's own random state, made in one call."""
    parameter = next(iter(model.parameters()), None)
    devices = [] if parameter is None else [parameter.device]
    with in_evaluation_mode(model), seeded(sampling.seed, *devices):
        images = model.generate(sampling.images)
    name = type(model).__name__
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"{name}.generate must return float images in model space, [-1, 1], not {kind}"
        )
    if not images.ndim or len(images) != sampling.images:
        raise ValueError(
            f"{name}.generate({sampling.images}) must return as many images, not a tensor "
            f"of shape {tuple(images.shape)}"
        )
    if not images.isfinite().all():
        raise ValueError(
            f"{name} generates images that are not finite numbers; lower its learning rate"
        )
    try:
        checked_range(images, f"the images that {name} generates")
    except ValueError as error:  # not an end of a training that has been done
        warnings.warn(f"{error}; they are clipped", stacklevel=2)
    return images.clamp(-1, 1)


@torch.no_grad()
def in_batches(function: Any, images: Tensor, batch_size: int) -> Tensor:
    """Apply a function of images batch by batch, to copies, which it may change."""
    return torch.cat([function(part.clone()) for part in images.split(batch_size)])


def classifier_labels(classifier: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """The most likely classes by a classifier in evaluation mode, ``(N,)``.

    :raises ValueError: if a logit is not a number.
    """
    with in_evaluation_mode(classifier):
        logits = in_batches(classifier, images, batch_size)
    if logits.isnan().any():
        raise ValueError(
            f"{type(classifier).__name__} has logits that are not numbers; look at the "
            "images that were generated, and at the classifier"
        )
    return logits.argmax(dim=1)
