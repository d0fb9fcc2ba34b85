"""Compare methods on your own images, some classes at a time.

ROOT is a folder with train/CLASS/* and test/CLASS/*, or with CLASS/* only; then a fifth of
each class is used for tests. Images become 16x16 in colour (paper: 32x32).

    python benchmarks/image_folder.py benchmark.options.root=ROOT benchmark.n_classes=10

Each of the benchmark.n_experiences=5 experiences gets the same number of classes. Paper:
the protocol of arXiv 2311.14028 for CIFAR-10, for a GPU. --check estimates how long it
takes.
"""

from avalanche_gd.runs.suite import main

if __name__ == "__main__":
    main(
        __doc__,
        {
            "small": ["benchmark=image_folder"],
            "paper": [
                "experiment=paper_cifar10",
                "benchmark=image_folder",
                "model=paper-cifar10",
            ],
        },
    )
