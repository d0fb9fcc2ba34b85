"""Methods on any folder of class folders, some classes at a time.

ROOT holds train/CLASS/* and test/CLASS/*, or CLASS/* alone, of which a fifth of each class
is then for testing. Images become 16x16 in colour (paper: 32x32).

    python benchmarks/image_folder.py benchmark.options.root=ROOT benchmark.n_classes=10

The classes are dealt to benchmark.n_experiences=5 experiences. Paper: the protocol of
arXiv 2311.14028 for CIFAR-10, for a GPU. --check estimates how long it takes.
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
