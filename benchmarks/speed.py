"""Measure how long a training step, a sample and an evaluation take.

For each method it times a step of its strategy in the second experience. In turns with it,
it times the same forward and backward passes of the denoiser alone, with a step of Adam;
and the passes if current and replayed images passed separately and no teacher looked ahead.
Then it times sampling, the parts of an evaluation, and a step of generative distillation
for other batch sizes, models and experiences, up to 50. The images are random: nothing is
read. About 15 minutes on two cores.

    python benchmarks/speed.py
    python benchmarks/speed.py --preset paper-fmnist --device cuda --precision bfloat16

Times are medians, with quartiles. Cost is in F, one forward pass over the batch. Ratio is
the time of the work divided by that of its passes, gain by that of the separate passes.
"""

from avalanche_gd.profiling.speed_command import main

if __name__ == "__main__":
    main(__doc__)
