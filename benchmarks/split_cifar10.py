"""Compare methods on CIFAR-10, two classes at a time.

Small: 16x16 images and a small U-Net, for two cores. Paper: the protocol of arXiv
2311.14028 at 32x32, for a GPU. --check estimates how long either takes.
experiments/split_cifar10_small is the small one with twice as many steps.

    python benchmarks/split_cifar10.py --methods generative_replay,generative_distillation
    python benchmarks/split_cifar10.py --scale paper --seeds 42,69,1714

The data are read from the folder benchmark.options.root, in torchvision's layout, or
are downloaded.
"""

from avalanche_gd.runs.suite import main

if __name__ == "__main__":
    main(
        __doc__,
        {"small": ["benchmark=split_cifar10"], "paper": ["experiment=paper_cifar10"]},
    )
