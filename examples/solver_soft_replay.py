"""A solver that replays samples of a diffusion model with soft labels.

``SoftGenerativeReplay`` trains the solver on an experience and on samples that are labelled
by the old solver's probabilities, and then the generator on the same experience. One line
chooses the method that keeps the generator from forgetting.

You should see that the accuracy on the first digits stays high if the generator is
distilled, and falls if it is retrained on its own samples or only finetuned.

    python examples/solver_soft_replay.py
"""

import argparse

import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
    SplitDigits,
)

parser = argparse.ArgumentParser(description="A solver that replays by soft labels.")
parser.add_argument("--steps", type=int, default=150, help="optimizer steps an experience")
args = parser.parse_args()

benchmark = SplitDigits(n_experiences=5, shuffle=False)
print("accuracy on the digits 0-1, 2-3, 4-5, 6-7, 8-9, and the mean, at the end")
for plugins in [], [GenerativeReplayPlugin()], [GenerativeDistillationPlugin()]:
    torch.manual_seed(0)
    model, solver = DiffusionModel.from_preset("digits"), SmallCNN((1, 8, 8), 10)
    generator = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
        plugins=plugins,
        train_steps=args.steps,
        evaluator=None,
    )
    strategy = SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters(), lr=3e-3),
        replay=SoftGenerativeReplayPlugin(generator, teacher_steps=7, pool_size=500),
        train_steps=args.steps,
        evaluator=EvaluationPlugin(
            accuracy_metrics(experience=True, stream=True), loggers=[]
        ),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    values = strategy.eval(benchmark.test_stream).values()
    name = type(plugins[0]).__name__ if plugins else "finetuned"
    print(f"{name:30}", *(f"{value:.2f}" for value in values))
