"""Class-incremental streams in model space."""

from avalanche_gd.data.cifar import SplitCIFAR10, SplitCIFAR100
from avalanche_gd.data.digits import SplitDigits
from avalanche_gd.data.fashion_mnist import SplitFMNIST
from avalanche_gd.data.image_folder import SplitImageFolder
from avalanche_gd.data.mnist import SplitMNIST
from avalanche_gd.data.model_space import stream_tensors, to_model_space

__all__ = [
    "SplitCIFAR10",
    "SplitCIFAR100",
    "SplitDigits",
    "SplitFMNIST",
    "SplitImageFolder",
    "SplitMNIST",
    "stream_tensors",
    "to_model_space",
]
