"""The features in which FID compares images."""

import hashlib
import importlib
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance

MAX_FEATURES = 8192
"""More of them need covariances of over 512 MiB each, and a root of those."""

_INCEPTION_FEATURES = 2048
_SHA256 = "6726825d"  # its beginning, of the file of weights
_INCEPTION_FILE = f"weights-inception-2015-12-05-{_SHA256}.pth"


class InceptionFeatures(nn.Module):
    """torchmetrics' InceptionV3, for images in model space.

    The weights are torch-fidelity's file and no other: its SHA-256 has to be the one in its
    name. It is read once, and nothing in it is executed.

    :param weights_path: the file of the weights; None for the one in torch's hub folder,
        to which it is downloaded.
    :raises ValueError: if torch-fidelity is not installed, or the weights cannot be read or
        are another file.
    """

    def __init__(self, weights_path: str | Path | None = None):
        super().__init__()
        try:
            weights: Any = _inception_weights(weights_path)
            fid = FrechetInceptionDistance(
                _INCEPTION_FEATURES, feature_extractor_weights_path=weights
            )
        except ModuleNotFoundError as error:
            raise ValueError(
                'features="inception" needs torch-fidelity: '
                "pip install 'avalanche-gd[inception]'"
            ) from error
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"no InceptionV3 weights ({reason[0]}); put {_INCEPTION_FILE} of "
                "torch-fidelity on this machine and give its path as weights_path"
            ) from error
        self.inception = fid.inception

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` in ``[-1, 1]``, C = 1 or 3, to ``(N, 2048)``."""
        pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        return self.inception(pixels)


def _inception_weights(weights_path: str | Path | None) -> BytesIO:
    """The content of the file of weights, which torch-fidelity alone would unpickle."""
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    path = Path(torch.hub.get_dir(), "checkpoints", _INCEPTION_FILE)
    if weights_path is not None:
        path = Path(weights_path)
    elif not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(module.URL_INCEPTION_V3, str(path), progress=False)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(_SHA256):
        raise ValueError(f"the SHA-256 of {path} begins with {digest[:8]}, not {_SHA256}")
    torch.load(BytesIO(content), weights_only=True)
    return BytesIO(content)


def feature_extractor(features: Any, weights_path: str | Path | None) -> Any:
    """A function from images to features, or None for the oracle of the benchmark.

    :param features: ``"oracle"``, ``"inception"``, or a module called with images in
        model space that returns ``(N, D)``.
    :raises ValueError: for another name, or as :class:`InceptionFeatures` does.
    :raises TypeError: if it is neither a name nor callable.
    """
    if weights_path is not None and features != "inception":
        raise ValueError('weights_path goes with features="inception"')
    if isinstance(features, str):
        if features == "oracle":
            return None
        if features == "inception":
            return InceptionFeatures(weights_path)
        raise ValueError(f"no features {features!r}; choose from oracle, inception")
    if isinstance(features, Metric):
        raise TypeError(
            f"features must be a name or a module from images to (N, D), got the metric "
            f"{type(features).__name__}; give the module that it takes features from"
        )
    if not callable(features):
        raise TypeError(f"features must be a name or a module, got {features!r}")
    return features.eval() if isinstance(features, nn.Module) else features


def checked_features(function: Any, images: Tensor) -> Tensor:
    """What a function of images gives, if it can be compared.

    :param function: gives features ``(N, D)``, D up to :data:`MAX_FEATURES`.
    :param images: ``(N, C, H, W)``.
    :raises ValueError: if the features have another shape or are not finite.
    """
    features = function(images)
    if not isinstance(features, Tensor):
        raise ValueError(f"features must be a tensor (N, D), not {type(features).__name__}")
    shape = tuple(features.shape)
    if len(shape) != 2 or shape[0] != len(images) or not 1 <= shape[1] <= MAX_FEATURES:
        raise ValueError(
            f"features must be a tensor (N, D) with D from 1 to {MAX_FEATURES}, but of "
            f"{len(images)} images they are {shape}; pool or flatten them"
        )
    if not features.is_floating_point() or not features.isfinite().all():
        raise ValueError(
            f"features must be finite numbers, but some of {shape} ({features.dtype}) are "
            "not; look at the images that were generated, and at the module of features"
        )
    return features
