"""Compare methods on scikit-learn's digits, two classes at a time.

For a first look: the 8x8 images come with a dependency, nothing is downloaded. Generative
distillation, generative replay, joint training and finetuning together take 1 to 6 minutes
on two cores; --check estimates what other methods take.

    python benchmarks/split_digits.py
    python benchmarks/split_digits.py --methods all --seeds 0,1,2
"""

from avalanche_gd.runs.suite import main

if __name__ == "__main__":
    main(__doc__, {"small": ["benchmark=split_digits"]})
