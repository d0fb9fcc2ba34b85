"""The features by which images are compared, given by a name or a module."""

import importlib
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torchvision.models
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.models import WeightsEnum

from avalanche_gd.metrics.weights import known_weights

MAX_FEATURES = 8192
"""With more features a covariance takes over 512 MiB, and FID needs its root as well."""

_INCEPTION_FEATURES = 2048
_SHA256 = "6726825d"  # the beginning of the SHA-256 of InceptionV3's weights
_INCEPTION_FILE = f"weights-inception-2015-12-05-{_SHA256}.pth"
_NO_WEIGHTS_NEEDED = (
    'weights_path is for features="inception" or a classifier of torchvision'
)
_AT_ONCE = 64  # images per batch of a classifier, which makes them large


def as_pixels(images: Tensor) -> Tensor:
    """Convert images in model space to the pixels of a colour picture.

    The value is cut to a whole number and not rounded, as in torchmetrics:
    ``floor(255 (x + 1) / 2)``. First 1e-4 is added, as 63 of the 256 values of a pixel come
    back from model space slightly too low and would lose 1.

    :param images: ``(N, C, H, W)``, C = 1 or 3; values outside of ``[-1, 1]`` are clipped.
    :return: uint8, ``(N, 3, H, W)``; a grey channel is repeated.
    :raises ValueError: for another number of channels.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(
            f"features of pictures need 1 or 3 channels, got {channels}; give your own "
            "module as features"
        )
    pixels = ((images + 1) * 127.5 + 1e-4).clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


class InceptionFeatures(nn.Module):
    """torchmetrics' InceptionV3, for images in model space.

    The weights must be torch-fidelity's file: the file's SHA-256 is compared with the one
    in its name. It is read once, and nothing in it is executed.

    :param weights_path: the file of the weights; None for the one in torch's hub folder,
        which is downloaded if it is not there.
    :raises ValueError: if torch-fidelity is not installed, if the weights cannot be read,
        or if they are another file.
    """

    def __init__(self, weights_path: str | Path | None = None):
        super().__init__()
        try:
            module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
            urls = {_SHA256: module.URL_INCEPTION_V3}
            _, content, _ = known_weights(urls, weights_path)
            weights: Any = BytesIO(content)  # torch-fidelity itself would unpickle it
            fid = FrechetInceptionDistance(
                _INCEPTION_FEATURES, feature_extractor_weights_path=weights
            )
        except ModuleNotFoundError as error:
            raise ValueError(
                'features="inception" needs torch-fidelity: '
                "pip install 'avalanche-gd[inception]'"
            ) from error
        except Exception as error:
            files = f"{_INCEPTION_FILE} of torch-fidelity"
            raise ValueError(_no_weights("InceptionV3", files, error)) from error
        self.inception = fid.inception

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` in ``[-1, 1]``, C = 1 or 3, to ``(N, 2048)``."""
        return self.inception(as_pixels(images))


class TorchvisionFeatures(nn.Module):
    """The input of the last linear layer of a torchvision classifier.

    For most classifiers this is the last layer, pooled over the image: 1,280 features of
    MobileNetV2, 512 of ResNet-18. The weights are torchvision's, with the preprocessing
    that belongs to them: most resize images to 224x224. The SHA-256 of a file of weights
    must be the one in its name; it is read once, and nothing in it is executed.

    :param name: a name in :func:`torchvision_classifiers`.
    :param weights_path: any of torchvision's files for this classifier, under its own name;
        None for the default one in torch's hub folder, which is downloaded if necessary.
    :raises ValueError: if the weights cannot be read, or are another file.
    """

    def __init__(self, name: str, weights_path: str | Path | None = None):
        super().__init__()
        kinds = torchvision.models.get_model_weights(name)
        default: Any = next(kind for kind in kinds if kind is kinds.DEFAULT)
        entries = {_digits(entry.url): entry for entry in (default, *kinds)}
        urls = {digits: entry.url for digits, entry in entries.items()}
        try:
            if weights_path is not None:  # the weights are found later by this name
                urls = _named(urls, Path(weights_path).name)
            digits, _, state = known_weights(urls, weights_path)
            # The builders know how to read each file; this one was read already.
            with patch.object(WeightsEnum, "get_state_dict", lambda *_, **__: state):
                classifier = torchvision.models.get_model(name, weights=entries[digits])
        except Exception as error:
            files = " or ".join(Path(entry.url).name for entry in entries.values())
            raise ValueError(_no_weights(name, f"{files} of torchvision", error)) from error
        self.classifier = without_last_linear(classifier).eval().requires_grad_(False)
        self.preprocess = entries[digits].transforms()

    def train(self, mode: bool = True) -> "TorchvisionFeatures":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` in ``[-1, 1]``, C = 1 or 3, to ``(N, D)``."""
        parts = as_pixels(images).split(_AT_ONCE)
        return torch.cat([self.classifier(self.preprocess(part)) for part in parts])


def torchvision_classifiers() -> list[str]:
    """The names of torchvision's classifiers of images that end in a linear layer.

    These are all but SqueezeNet.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if not name.startswith("squeezenet")]


def without_last_linear(classifier: nn.Module) -> nn.Module:
    """Make a classifier return the input of its last linear layer.

    :param classifier: changed in place, and returned.
    """
    modules = classifier.named_modules()
    *_, last = [name for name, module in modules if isinstance(module, nn.Linear)]
    above, _, own = last.rpartition(".")
    setattr(classifier.get_submodule(above), own, nn.Identity())
    return classifier


def check_feature_name(name: str) -> None:
    """Raise ValueError unless there are features of this name."""
    classifiers = torchvision_classifiers()
    if name not in ("oracle", "inception", *classifiers):
        close = get_close_matches(name, classifiers) or ["mobilenet_v2", "resnet18"]
        raise ValueError(
            f"no features {name!r}; choose from oracle, inception, or the classifiers of "
            f"torchvision, such as {', '.join(close)}"
        )


def check_feature_choice(name: str, weights_path: str | Path | None) -> None:
    """Raise ValueError for an unknown name, or weights for features that need none."""
    check_feature_name(name)
    if weights_path is not None and name == "oracle":
        raise ValueError(_NO_WEIGHTS_NEEDED)


def feature_extractor(features: Any, weights_path: str | Path | None = None) -> Any:
    """Return a function from images to features, or None for the benchmark's oracle.

    :param features: ``"oracle"``, ``"inception"``, one of :func:`torchvision_classifiers`,
        or a module called with images in model space that returns ``(N, D)``.
    :param weights_path: the file of the weights; not for an oracle or a module.
    :raises ValueError: for another name, or as in :class:`InceptionFeatures` and
        :class:`TorchvisionFeatures`.
    :raises TypeError: if it is neither a name nor callable, or if it is not hashable.
    """
    if isinstance(features, str):
        check_feature_choice(features, weights_path)
        if features == "oracle":
            return None
        if features == "inception":
            return InceptionFeatures(weights_path)
        return TorchvisionFeatures(features, weights_path)
    if weights_path is not None:
        raise ValueError(_NO_WEIGHTS_NEEDED)
    if isinstance(features, Metric):
        raise TypeError(
            "features must be a name or a module from images to (N, D), got the metric "
            f"{type(features).__name__}; give the module that the metric uses"
        )
    if not callable(features):
        raise TypeError(f"features must be a name or a module, got {features!r}")
    try:
        hash(features)
    except TypeError as error:
        raise TypeError(
            f"features must be hashable, but a {type(features).__name__} is not; make its "
            "class with @dataclass(eq=False), or give one of its methods"
        ) from error
    return features


@dataclass(frozen=True)
class CheckedFeatures:
    """Calls a function of images and checks the features that it returns.

    :param function: from ``(N, C, H, W)`` to ``(N, D)``, D up to :data:`MAX_FEATURES`.
    """

    function: Any

    def __call__(self, images: Tensor) -> Tensor:
        """The features of images.

        :raises ValueError: if they have another shape or are not finite.
        """
        features = self.function(images)
        if not isinstance(features, Tensor):
            raise ValueError(
                f"features must be a tensor (N, D), got {type(features).__name__}"
            )
        shape = tuple(features.shape)
        if len(shape) != 2 or shape[0] != len(images) or not 1 <= shape[1] <= MAX_FEATURES:
            raise ValueError(
                f"features must be a tensor (N, D) with D from 1 to {MAX_FEATURES}, but "
                f"for {len(images)} images they are {shape}; pool or flatten them"
            )
        if not features.is_floating_point() or not features.isfinite().all():
            raise ValueError(
                f"features must be finite numbers, but some of {shape} ({features.dtype}) "
                "are not; look at the images that were generated, and at the module of "
                "features"
            )
        return features


def _digits(url: str) -> str:
    """The first digits of the SHA-256, from the name of a file of torchvision."""
    return Path(url).stem.rpartition("-")[2]


def _named(urls: dict[str, str], name: str) -> dict[str, str]:
    """The file among ``urls`` whose SHA-256 is in the name."""
    digits = _digits(name)
    if digits not in urls:
        raise ValueError(f"the name of {name} does not end in {' or '.join(urls)}")
    return {digits: urls[digits]}


def _no_weights(model: str, files: str, error: Exception) -> str:
    """The message that says where to get the weights."""
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"no {model} weights ({reason[0]}); put {files} on this machine and give its path "
        "as weights_path"
    )
