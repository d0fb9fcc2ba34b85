"""Small data sets on disk."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def write_idx(folder: Path) -> Path:
    """Write four small idx files of ten classes, as Fashion-MNIST has."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("t10k", 20)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">II", 0x801, count)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder


def write_class_folders(folder: Path) -> Path:
    """Write four images of each of two classes."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (i, i, i)).save(folder / name / f"{i}.png")
    return folder


def folder_of_images(folder, shade):
    """Ten grey images of each of two classes, for training and for testing."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            (folder / part / name).mkdir(parents=True)
            for i in range(10):
                image = Image.new("L", (8, 8), shade + i)
                image.save(folder / part / name / f"{i}.png")
    return folder
