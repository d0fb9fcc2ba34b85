"""Compare methods on Fashion-MNIST, two classes at a time.

Small: 16x16 images and a small U-Net; generative distillation and generative replay take
13 minutes together on two cores. Paper: the protocol of arXiv 2311.14028 at 32x32, for
a GPU (--check estimates the time).

    python benchmarks/split_fmnist.py --methods generative_replay,generative_distillation
    python benchmarks/split_fmnist.py --scale paper --seeds 42,69,1714

The data are read from the folder benchmark.options.root, or from that of Debian's package
dataset-fashion-mnist, or are downloaded.
"""

from avalanche_gd.runs.suite import main

if __name__ == "__main__":
    main(
        __doc__,
        {"small": ["benchmark=split_fmnist"], "paper": ["experiment=paper_fmnist"]},
    )
