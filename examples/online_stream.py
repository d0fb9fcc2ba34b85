"""A diffusion model in an online stream: data in pieces that are seen once.

Avalanche's ``split_online_stream`` cuts experiences into pieces. Pieces of one experience
count as one: the teacher is from the previous experience, not from the previous piece, and
the weights of the losses stay the same. So only one thing changes: train on the pieces.

You should see that with distillation the samples are of all digits so far, and without it
only of the last two.

    python examples/online_stream.py
"""

import argparse

import torch
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    Sampling,
    SplitDigits,
    class_balance_metrics,
)

parser = argparse.ArgumentParser(description="A diffusion model in an online stream.")
parser.add_argument("--steps", type=int, default=30, help="optimizer steps on a piece")
args = parser.parse_args()

benchmark = SplitDigits(n_experiences=5, shuffle=False)
balance = {"histogram": True, "sampling": Sampling(images=500)}
for plugins in [GenerativeDistillationPlugin()], []:
    torch.manual_seed(0)
    model = DiffusionModel.from_preset("digits")
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
        plugins=plugins,
        train_steps=args.steps,
        evaluator=EvaluationPlugin(class_balance_metrics(**balance), loggers=[]),
    )
    print("with distillation" if plugins else "without")
    for experience in benchmark.train_stream:
        for piece in split_online_stream([experience], experience_size=64, seed=0):
            strategy.train(piece)
        values = strategy.eval(benchmark.test_stream)
        shares = [share for name, share in values.items() if "ClassRatio" in name]
        print(
            f"  after {experience.classes_in_this_experience}, share of each digit:",
            end=" ",
        )
        print(*(f"{share:.2f}" for share in shares))
