"""Compare methods on MNIST, two classes at a time.

Small: 16x16 images, with the model and the budget of split_fmnist, which says how long they
take. Paper: the protocol of arXiv 2509.23593 at 32x32, for a GPU (--check estimates the
time).

    python benchmarks/split_mnist.py --methods generative_replay,generative_distillation
    python benchmarks/split_mnist.py --scale paper --methods joint,generative_distillation

The data are read from the folder benchmark.options.root, in torchvision's layout or the
four idx files alone, or are downloaded.
"""

from avalanche_gd.runs.suite import main

if __name__ == "__main__":
    main(
        __doc__,
        {"small": ["benchmark=split_mnist"], "paper": ["experiment=rank1_mnist"]},
    )
