"""How long a training step, a sample and an evaluation take, beside their own passes.

For each method, a step of its strategy in the second experience, in turns with the same
forward and backward passes of the denoiser and a step of Adam alone, and with the passes
that it would take if current and replayed images passed apart and no teacher looked ahead;
then sampling, an evaluation by its parts, and a step of generative distillation by batch
size, model and experience, up to 50. The images are random: nothing is read. About 15
minutes on two cores.

    python benchmarks/speed.py
    python benchmarks/speed.py --preset paper-fmnist --device cuda --precision bfloat16

Times are medians, with quartiles; cost is in F, one forward pass over the batch; ratio is
the time of the work over that of its passes, gain over that of the separate ones.
"""

from avalanche_gd.profiling.speed_command import main

if __name__ == "__main__":
    main(__doc__)
