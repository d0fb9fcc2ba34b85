"""Compare methods on CIFAR-100, ten classes at a time.

Small: the model and the budget of split_cifar10, over ten experiences. Paper: its protocol
for CIFAR-10 (it has no CIFAR-100), for a GPU. --check estimates how long either takes.

    python benchmarks/split_cifar100.py --methods generative_replay,generative_distillation

The data are read from the folder benchmark.options.root, in torchvision's layout, or
are downloaded.
"""

from avalanche_gd.runs.suite import main

if __name__ == "__main__":
    main(
        __doc__,
        {
            "small": ["benchmark=split_cifar100"],
            "paper": [
                "experiment=paper_cifar10",
                "benchmark=split_cifar100",
                "model=paper-cifar10",
            ],
        },
    )
