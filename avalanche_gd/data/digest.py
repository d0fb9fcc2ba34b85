"""The content of a benchmark's data as a digest."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import torch

from avalanche_gd.data.images import LabelledImages, place_of
from avalanche_gd.data.model_space import labels_of

_CHUNK = 1024  # images that are copied at a time

_Stored = list[tuple[LabelledImages, int]]


def data_digest(benchmark: Any) -> str:
    """Return the SHA-256 of the images and labels of the training and the test stream.

    Images count as they are stored by
    :func:`~avalanche_gd.data.model_space.to_model_space` and by our own benchmarks: at
    their final size, as uint8 or as floats. So another image size or ``fit`` gives another
    digest, and what changes batches in training does not.

    The order of images, classes and experiences does not count, nor does the number of
    experiences, so that the seeds of a data set have one digest. A benchmark of which the
    seed decides the images or the numbers of classes has another for another seed.

    It is the same on other machines, but for floats that were resized and for files that
    another version of a decoder reads otherwise.

    Call it before :func:`~avalanche_gd.data.model_space.on_device`, which stores what a
    transform happens to draw.

    :param benchmark: has ``train_stream`` and ``test_stream``, whose datasets have labels.
    :return: 64 hexadecimal digits; ``""`` if images are not stored so, as those of a
        benchmark that applies transforms.
    """
    digest = sha256()
    for stream in (benchmark.train_stream, benchmark.test_stream):
        images: list[bytes] = []
        for experience in stream:
            stored = _stored(experience.dataset)
            if stored is None:
                return ""
            images += _image_digests(stored, labels_of(experience.dataset).tolist())
        digest.update(f"{len(images)} images".encode())
        digest.update(b"".join(sorted(images)))
    return digest.hexdigest()


def _stored(dataset: Any) -> _Stored | None:
    """Where the images of a dataset are stored; None if one of them is not."""
    places = [place_of(dataset, index) for index in range(len(dataset))]
    stored = [place for place in places if place is not None]
    return stored if len(stored) == len(places) else None


def _image_digests(stored: _Stored, labels: list[int]) -> Iterator[bytes]:
    """A digest of each image with its label."""
    for start in range(0, len(stored), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        images = torch.stack([kept.images[at] for kept, at in stored[chunk]]).cpu()
        kind = f"{images.dtype} {tuple(images.shape[1:])}"
        rows = images.flatten(1).view(torch.uint8).numpy()
        for row, label in zip(rows, labels[chunk], strict=True):
            yield sha256(f"{kind} {label} ".encode() + row.tobytes()).digest()
