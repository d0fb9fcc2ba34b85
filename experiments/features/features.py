"""How features of MobileNetV2 and of the oracle react to changes of real images.

    python experiments/features/features.py --weights mobilenet_v2-b0353104.pth \
        --cifar10 FOLDER --fashion-mnist FOLDER

CIFAR-10 is a folder of ``train/CLASS/IMAGE`` and ``test/CLASS/IMAGE``. Writes ``real.csv``.
With ``--runs FOLDER``, a folder with runs on Fashion-MNIST at 16x16 with seed 0, it writes
``ranking.csv`` instead: FID of what their models generate, in both kinds of features.
"""

import argparse
import csv
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from avalanche_gd import DiffusionModel, SplitFMNIST, SplitImageFolder
from avalanche_gd.data import stream_tensors
from avalanche_gd.metrics import Sampling, generate_images
from avalanche_gd.metrics.features import feature_extractor
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.metrics.kid import kernel_distance
from avalanche_gd.metrics.precision_recall import precision_recall
from avalanche_gd.metrics.shared_images import SharedImages, in_batches
from avalanche_gd.metrics.trained import StreamKey

COUNT = 1000  # real images, and as many to compare with them

Row = dict[str, Any]


def functions(benchmark: Any, weights: Path) -> dict[str, Any]:
    """Functions from images to features, of MobileNetV2 and of the benchmark's oracle."""
    mobilenet = feature_extractor("mobilenet_v2", weights)
    mobilenet.to(memory_format=torch.channels_last)  # takes half the time
    oracle = SharedImages().oracle(StreamKey(benchmark, "train"), torch.device("cpu"))
    of = partial(in_batches, batch_size=16)
    return {
        "mobilenet_v2": partial(of, mobilenet),
        "oracle": partial(of, oracle.get_features),
    }


def measured(real: Tensor, features: Tensor) -> dict[str, float]:
    """FID, KID, precision and recall between features."""
    neighbours = precision_recall(real, features, nearest_k=5)
    return {
        "FID": frechet_distance(Moments.of(real), features),
        "KID": kernel_distance(real, features, subsets=100, subset_size=100),
        "precision": neighbours["Precision"],
        "recall": neighbours["Recall"],
    }


def of_real_images(data: str, benchmark: Any, weights: Path) -> list[Row]:
    """Compare half of some test images with the other: unchanged, changed, fewer classes.

    All classes have the same number of images in both halves.
    """
    generator = torch.Generator().manual_seed(0)
    images, labels = stream_tensors(benchmark.test_stream)
    mixed = torch.randperm(len(labels), generator=generator)
    by_class = torch.stack([mixed[labels[mixed] == label] for label in range(10)])
    half, rest = by_class[:, : COUNT // 10], by_class[:, COUNT // 10 :]
    chosen = {  # indices of images, one class after the other in turns
        "half": half.T.flatten(),
        "other half": rest[:, : COUNT // 10].T.flatten(),
        "5 of 10 classes": rest[:5, : COUNT // 5].T.flatten(),
        "2 of 10 classes": rest[:2, : COUNT // 2].T.flatten(),
    }
    other = images[chosen["other half"]]
    noise = torch.randn(other.shape, generator=generator)
    changed = {
        f"noise {scale}": (other + scale * noise).clamp(-1, 1) for scale in (0.05, 0.1, 0.2)
    } | {f"blur {width}": gaussian_blur(other, [9, 9], [width] * 2) for width in (0.5, 1.0)}
    used, places = torch.cat([*chosen.values()]).unique(return_inverse=True)
    rows = []
    for name, function in functions(benchmark, weights).items():
        parts = function(images[used])[places].split(COUNT)  # each image once
        sides = dict(zip(chosen, parts, strict=True))
        sides |= {key: function(side) for key, side in changed.items()}
        real = sides.pop("half")
        pairs = {key: (real, side) for key, side in sides.items()}
        for few in (COUNT // 4, COUNT // 2):
            pairs[f"other half, {few} a side"] = real[:few], sides["other half"][:few]
        for key, pair in pairs.items():
            rows.append({"data": data, "features": name, "side": key, **measured(*pair)})
    return rows


def of_runs(runs: Path, benchmark: Any, weights: Path) -> list[Row]:
    """FID of what the models of runs generate, against as many test images."""
    images, _ = stream_tensors(benchmark.test_stream)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    generated = {
        folder.parts[-3]: generate_images(
            DiffusionModel.from_pretrained(folder), Sampling(COUNT)
        )
        for folder in sorted(runs.glob("*/*/*/model"))
    }
    rows: list[Row] = [{"method": method} for method in generated]
    for name, function in functions(benchmark, weights).items():
        real = Moments.of(function(images[order[:COUNT]]))
        for row, samples in zip(rows, generated.values(), strict=True):
            row[f"FID_{name}"] = frechet_distance(real, function(samples))
    both = [[row[f"FID_{name}"] for row in rows] for name in ("oracle", "mobilenet_v2")]
    print(f"Spearman's rho of {len(rows)} methods: {spearmanr(*both).statistic:.2f}")
    return sorted(rows, key=lambda row: row["FID_oracle"])


def write(name: str, rows: list[Row]) -> None:
    """Write a CSV next to this file."""
    with open(Path(__file__).with_name(name), "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            numbers = {k: f"{v:.4g}" for k, v in row.items() if isinstance(v, float)}
            writer.writerow(row | numbers)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--fashion-mnist", type=Path)
    parser.add_argument("--runs", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.runs:
        benchmark = SplitFMNIST(root=given.fashion_mnist)
        write("ranking.csv", of_runs(given.runs, benchmark, given.weights))
        return
    fashion_mnist = SplitFMNIST(image_size=32, root=given.fashion_mnist)
    rows = of_real_images("Fashion-MNIST", fashion_mnist, given.weights)
    cifar10 = SplitImageFolder(5, image_size=32, root=given.cifar10)
    write("real.csv", rows + of_real_images("CIFAR-10", cifar10, given.weights))


if __name__ == "__main__":
    main()
