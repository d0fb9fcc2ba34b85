"""Your own images: a folder with a folder of images for each class.

Without a folder it draws ellipses, then rectangles. Images become 8x8 and grey, which is
quick; the preset "cifar-small" is for 16x16 in colour.

You should see that after the second experience there are samples of all four classes, also
of the first two; they are in ``image_folder.png``.

    python examples/image_folder.py [FOLDER --experiences 5]
"""

import argparse
import random
import tempfile
from pathlib import Path

import torch
from avalanche.training.plugins import EvaluationPlugin
from PIL import Image, ImageDraw
from torchvision.utils import save_image

import avalanche_gd as gd


def draw_images(folder):
    for name in "ellipse-fill", "ellipse-outline", "rectangle-fill", "rectangle-outline":
        shape, paint = name.split("-")
        (folder / name).mkdir()
        for number in range(100):
            image, (x, y, size) = Image.new("L", (24, 24)), random.choices(range(6), k=3)
            draw = getattr(ImageDraw.Draw(image), shape)
            draw((x, y, x + 12 + size, y + 12 + size), **{paint: 255}, width=3)
            image.save(folder / name / f"{number}.png")
    return folder


parser = argparse.ArgumentParser(description="Your own images.")
parser.add_argument("folder", nargs="?", type=Path, help="with a folder for each class")
parser.add_argument("--experiences", type=int, default=2, help="of as many classes each")
parser.add_argument("--steps", type=int, default=300, help="optimizer steps an experience")
args = parser.parse_args()
args.folder = args.folder or draw_images(Path(tempfile.mkdtemp()))
options = dict(root=args.folder, image_size=8, channels=1, shuffle=False)
benchmark = gd.SplitImageFolder(args.experiences, **options)
torch.manual_seed(0)
model = gd.DiffusionModel.from_preset("digits")
strategy = gd.DiffusionTraining(
    model=model,
    optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
    plugins=[gd.GenerativeDistillationPlugin()],
    train_steps=args.steps,
    evaluator=EvaluationPlugin(gd.class_balance_metrics(histogram=True), loggers=[]),
)
for experience in benchmark.train_stream:
    strategy.train(experience)
    values = strategy.eval(benchmark.test_stream).items()
    shares = [share for name, share in values if "ClassRatio" in name]
    print("share of each class", *(f"{share:.2f}" for share in shares))
save_image(model.generate(64), "image_folder.png", normalize=True, value_range=(-1, 1))
