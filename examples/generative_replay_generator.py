"""A diffusion model that replays its own samples, and one that is distilled.

This is Avalanche's example of a VAE that replays its own samples, with a diffusion model:
one plugin in the generator's strategy is enough. The digits come two classes at a time.

You should see that the model which is retrained on its own samples gets worse with each
experience (FID grows; it is 0 for real images), and that the model which is taught the
noise that it predicted before stays close to where it was. The images show samples, one row
after each experience.

    python examples/generative_replay_generator.py
"""

import argparse

import torch
from avalanche.training.plugins import EvaluationPlugin
from torchvision.utils import save_image

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    Sampling,
    SplitDigits,
    fid_metrics,
)

parser = argparse.ArgumentParser(description="A diffusion model replays its own samples.")
parser.add_argument("--steps", type=int, default=200, help="optimizer steps an experience")
parser.add_argument("--images", type=int, default=500, help="generated for metrics")
args = parser.parse_args()

benchmark = SplitDigits(n_experiences=5, shuffle=False)
sampling = Sampling(images=args.images)
for plugin in GenerativeReplayPlugin(), GenerativeDistillationPlugin():
    name = type(plugin).__name__
    torch.manual_seed(0)
    model = DiffusionModel.from_preset("digits")
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
        plugins=[plugin],
        train_steps=args.steps,
        evaluator=EvaluationPlugin(fid_metrics(sampling=sampling), loggers=[]),
    )
    rows = []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        values = strategy.eval(benchmark.test_stream)
        fid = values["FID_Stream/eval_phase/test_stream"]
        print(f"{name}, after the digits up to {2 * len(rows) + 1}: FID {fid:.0f}")
        rows.append(model.generate(16))
    save_image(torch.cat(rows), f"{name}.png", nrow=16, normalize=True, value_range=(-1, 1))
    print(f"{name}: samples after each experience are in {name}.png")
