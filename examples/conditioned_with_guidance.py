"""A diffusion model conditioned on the class, sampled with classifier-free guidance.

With ``num_classes`` a strategy trains the model with the labels of its data, and replay
draws the classes evenly. ``condition_dropout`` trains it also without the class, which
guidance needs. A classifier of all real digits tells if an image shows the right digit.

You should see that most images show the digit that was asked for, also those of the first
experience, and more of them with guidance than without (w = 1).

    python examples/conditioned_with_guidance.py
"""

import argparse

import torch
from torchvision.utils import save_image

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    SplitDigits,
    oracle_classifier,
)
from avalanche_gd.data import stream_tensors

parser = argparse.ArgumentParser(description="A conditioned model with guidance.")
parser.add_argument("--steps", type=int, default=200, help="optimizer steps an experience")
args = parser.parse_args()

torch.manual_seed(0)
benchmark = SplitDigits(n_experiences=5, shuffle=False)
model = DiffusionModel.from_preset("digits", num_classes=10, condition_dropout=0.1)
strategy = DiffusionTraining(
    model=model,
    optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
    plugins=[GenerativeDistillationPlugin()],
    train_steps=args.steps,
    evaluator=None,
)
for experience in benchmark.train_stream:
    strategy.train(experience)

classifier = oracle_classifier(*stream_tensors(benchmark.train_stream))
digits = torch.arange(10).repeat_interleave(50)
for guidance in 1.0, 2.0, 4.0:
    model.guidance = guidance
    images = model.generate(len(digits), condition=digits)
    shown = classifier(images).argmax(dim=1)
    right = (shown == digits).float().view(10, 50).mean(dim=1)
    print(f"w = {guidance:.0f}: {right.mean():.2f} of the images show the digit asked for;")
    print("  of each digit", *(f"{share:.2f}" for share in right))
    rows = images.view(10, 50, *model.sample_shape)[:, :16].flatten(0, 1)
    save_image(rows, f"guidance_{guidance:.0f}.png", nrow=16, normalize=True)
