"""A solver with a diffusion model as its generator, in Avalanche's own GenerativeReplay.

This is Avalanche's example of a solver and a generator on split MNIST, with split digits
and with a diffusion model instead of a VAE, which ``generator_strategy`` trains. In each
experience, Avalanche's strategy trains the generator after the solver. Distillation keeps
the generator from forgetting.

You should see that the solver still knows the first digits at the end, with the same budget
with which it forgets all but the last two without replay.

    python examples/generative_replay_solver.py
"""

import argparse

import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import SimpleMLP
from avalanche.training import GenerativeReplay, Naive
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    SplitDigits,
)

parser = argparse.ArgumentParser(description="A solver that replays from a generator.")
parser.add_argument("--steps", type=int, default=200, help="of the generator")
parser.add_argument("--epochs", type=int, default=20, help="of the solver")
args = parser.parse_args()

benchmark = SplitDigits(n_experiences=5, shuffle=False)
for strategy_class in Naive, GenerativeReplay:
    torch.manual_seed(0)
    solver = SimpleMLP(num_classes=10, input_size=64)
    options = {}
    if strategy_class is GenerativeReplay:
        model = DiffusionModel.from_preset("digits")
        options["generator_strategy"] = DiffusionTraining(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
            plugins=[GenerativeDistillationPlugin()],
            train_steps=args.steps,
            evaluator=None,
        )
    strategy = strategy_class(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters(), lr=1e-3),
        train_mb_size=64,
        train_epochs=args.epochs,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True), loggers=[]),
        **options,
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    accuracies = list(strategy.eval(benchmark.test_stream).values())
    print(strategy_class.__name__, *(f"{accuracy:.2f}" for accuracy in accuracies))
