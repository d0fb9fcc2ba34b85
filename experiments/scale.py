"""Write the tables of docs/scale.md: what each method costs, calculated from counts.

python experiments/scale.py              # write them
python experiments/scale.py --check      # fail if they are not what the counts say
python experiments/scale.py --measure    # first measure a pass of each denoiser; minutes
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from avalanche.training.plugins import EWCPlugin, ReplayPlugin
from diffusers import UNet2DModel
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from avalanche_gd import RankOneEWCPlugin
from avalanche_gd.models import unet
from avalanche_gd.plugins.sources import Current, Generation, Retraining
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.model_config import ModelConfig
from avalanche_gd.runs.trial import seconds_an_image

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
MEASURED = Path(__file__).with_suffix(".csv")
BEGIN, END = "<!-- tables: experiments/scale.py -->\n", "<!-- tables end -->\n"

IMAGENET = "ImageNet at 64x64"
EXPERIMENTS = ("paper_fmnist", "paper_cifar10", "rank1_fmnist", "rank1_cifar10", IMAGENET)
IMAGES = {"split_fmnist": (60_000, 10_000), "split_cifar10": (50_000, 10_000)}
IMAGES["image_folder"] = 1_281_167, 50_000
"""Training and test images, by benchmark."""

IMAGENET_UNET: dict[str, Any] = dict(
    sample_size=64,
    block_out_channels=[192, 384, 576, 768],
    layers_per_block=3,
    down_block_types=["DownBlock2D", *["AttnDownBlock2D"] * 3],
    up_block_types=[*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    attention_head_dim=64,
    num_class_embeds=1001,
)
IMAGENET_SETTINGS = (
    *("benchmark=image_folder", "benchmark.options.root=IMAGENET"),
    *("benchmark.n_classes=1000", "benchmark.n_experiences=100", "model.conditional=true"),
    *("generator.steps=null", "generator.epochs=100", "generator.batch_size=128"),
    *("generator.decay_steps=0", "evaluation.images=10000", "evaluation.steps=50"),
    *("++method.solver=false", "++method.solver_replays=false"),
)
IMAGENET_METHODS = (
    *("naive", "joint", "experience_replay method.memory=20000", "generative_replay"),
    "generative_distillation",
    "generative_distillation method.pool_per_class=1300 method.teacher_steps=50",
    *("pooled_distillation method.pool_size=50000", "ewc", "rank1_distillation"),
)

_FLOAT = 4  # bytes
_ADAM = 2  # numbers per weight in its state


class Cost(NamedTuple):
    """The cost of a run: the passes of its training in F, and memory in bytes."""

    step: float
    """A step of the generator, in the last experience."""
    training: float
    solver: float
    """Passes of the generator during the training of the solver."""
    evaluation: float
    models: int
    """The denoisers, a gradient and the state of Adam."""
    penalty: int
    """What a penalty on the weights stores after the last experience."""
    pool: int
    memory: int
    """All of these, all images, and the measuring of a penalty; without activations."""
    checkpoint: int
    """Without the solver."""
    disk: int
    """Two checkpoints, the model and the cache."""


def cost(
    config: RunConfig, parameters: int, train: Sequence[int], test: Sequence[int]
) -> Cost:
    """Calculate the cost of a run of a method.

    :param parameters: P, the number of parameters of its denoiser.
    :param train: the number of images of each experience.
    :param test: those of the test stream.
    """
    method, batch, n = config.method, config.generator.batch_size, len(train)
    pixels, vector = prod(config.model.shape), _FLOAT * parameters
    pool = penalty = measuring = memory = teacher = 0
    seen = _images_seen(config, "generator", train)
    passes = [3.0 * count for count in seen]
    for plugin in config.make_plugins():
        for i in range(1, n):
            samples = _pooled(plugin, config, i)
            pool = max(pool, samples * pixels * _FLOAT)
            passes[i] += _beside(plugin, config) * seen[i] + samples * method.teacher_steps
        if isinstance(plugin, EWCPlugin | RankOneEWCPlugin):
            each = 9 if isinstance(plugin, RankOneEWCPlugin) else 3
            passes = [own + each * size for own, size in zip(passes, train, strict=True)]
            penalty = 2 * n * vector
            measuring = getattr(plugin, "chunk_size", 0) * vector
        if isinstance(plugin, ReplayPlugin):
            memory = plugin.mem_size * pixels
        teacher = teacher or hasattr(plugin, "lesson") or measuring > 0  # a copy for that
    replayed = sum(_images_seen(config, "solver", train)[1:]) * method.solver_replays
    tested = list(accumulate(test))[config.first_experience :]
    sampled = config.evaluation.images * config.evaluation.steps * len(tested)
    models = (1 + method.solver_replays + teacher + 1 + _ADAM) * vector
    images = (sum(train) + sum(test)) * pixels
    checkpoint = (1 + _ADAM) * vector + penalty + memory
    cached = images if config.benchmark.name == "image_folder" else 0
    return Cost(
        step=passes[-1] / seen[-1],
        training=sum(passes) / batch,
        solver=replayed * config.solver.replay_steps / batch,
        evaluation=(sampled + sum(tested)) / batch,
        models=models,
        penalty=penalty,
        pool=pool,
        memory=models + penalty + measuring + pool + images,
        checkpoint=checkpoint,
        disk=2 * checkpoint + vector + cached,
    )


def _images_seen(config: RunConfig, name: str, train: Sequence[int]) -> list[int]:
    """The current images in all steps of a model, by experience."""
    budget, first = config.budget(name), config.first_experience
    sizes = list(accumulate(train)) if config.method.cumulative else train
    fixed = (budget.steps or 0) * budget.batch_size
    seen = [fixed or budget.epochs * size for size in sizes]
    return [0] * first + seen[first:]


def _beside(plugin: Any, config: RunConfig) -> float:
    """Passes of an image that a plugin adds to the three of a current image."""
    if isinstance(plugin, ReplayPlugin):
        return 3
    lesson = getattr(plugin, "lesson", None)
    if lesson is None:
        return 0
    if isinstance(lesson.source, Current) and not config.model.conditional:
        return 1  # at the noisy images that the student is trained on
    samples = isinstance(lesson.source, Generation | Retraining) and lesson.is_fresh
    target = not isinstance(lesson.source, Retraining)
    return lesson.ratio * (lesson.steps * samples + target + 3)


def _pooled(plugin: Any, config: RunConfig, index: int) -> int:
    """The samples of a pool in an experience."""
    lesson = getattr(plugin, "lesson", None)
    known = config.benchmark.n_classes * index // config.benchmark.n_experiences
    if lesson is None or lesson.is_fresh:
        return 0
    return lesson.samples.samples_of(known if config.model.conditional else None)


def methods_of(experiment: str) -> Sequence[str]:
    """The methods of a table, with their settings."""
    if experiment == IMAGENET:
        return IMAGENET_METHODS
    protocol = files("avalanche_gd.conf") / "protocol" / f"{experiment.split('_')[0]}.yaml"
    content = OmegaConf.create(protocol.read_text())
    return content.hydra.sweeper.params.method.split(",")


def planned(experiment: str, method: str = "naive") -> RunConfig:
    """The settings of a run.

    :param method: one of :func:`methods_of`.
    """
    options = f"method={method} device=cpu".split()
    if experiment != IMAGENET:
        return compose_config([f"experiment={experiment}", *options])
    config = compose_config([*IMAGENET_SETTINGS, "model=digits", *options])
    own = None, "diffusers.UNet2DModel", IMAGENET_UNET, [3, 64, 64]
    return replace(config, model=ModelConfig(*own, conditional=True))  # and not built


def size_of(config: RunConfig) -> tuple[int, int]:
    """P, the weights of a denoiser, and the multiplications and additions of its pass."""
    model = config.model
    n_classes = config.benchmark.n_classes if model.conditional else None
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        preset = model.preset
        denoiser = (
            UNet2DModel(**IMAGENET_UNET)
            if preset is None
            else unet(preset, num_classes=n_classes)
        )
        zero = torch.zeros(1, dtype=torch.long)
        denoiser(torch.zeros(1, *model.shape), zero, zero if model.conditional else None)
    return sum(p.numel() for p in denoiser.parameters()), counter.get_total_flops()


def section() -> str:
    """Make the tables, one for each experiment."""
    with open(MEASURED, newline="") as file:
        ms = {row["experiment"]: float(row["ms"]) for row in csv.DictReader(file)}
    return "\n".join(
        _table(experiment, ms[experiment] / 1000) for experiment in EXPERIMENTS
    )


def _table(experiment: str, seconds: float) -> str:
    config = planned(experiment)
    parameters, operations = size_of(config)
    n, batch = config.benchmark.n_experiences, config.generator.batch_size
    images = IMAGES[config.benchmark.name]
    streams = [[count // n + (i < count % n) for i in range(n)] for count in images]
    lines = [
        f"**{experiment}**: {n} experiences, P = {parameters / 1e6:.1f} million, batch "
        f"{batch}, F = {batch * operations / 1e12:.2f} TFLOP = {batch * seconds:.1f} s\n",
        "| method | F a step | training | solver | evaluation | days | models | penalty | "
        "pool | memory | checkpoint | disk |",
        f"|{' --- |' * 12}",
    ]
    for method in methods_of(experiment):
        own = cost(planned(experiment, method), parameters, *streams)
        passes = own.training, own.solver, own.evaluation
        sizes = own.models, own.penalty, own.pool, own.memory, own.checkpoint, own.disk
        cells = [
            f"`{method.replace('method.', '')}`",
            f"{own.step:.1f}",
            *(f"{part / 1000:,.0f}" if part else "-" for part in passes),
            f"{sum(passes) * batch * seconds / 86400:,.0f}",
            *(f"{size / 1e9:.1f}" if size else "-" for size in sizes),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def measure() -> None:
    """Measure a pass per image of each denoiser here, on one thread."""
    torch.set_num_threads(1)
    rows = [(name, f"{1000 * seconds_an_image(planned(name)):.4g}") for name in EXPERIMENTS]
    with open(MEASURED, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("experiment", "ms"), *rows])


def main() -> None:
    """Write the tables, or check them."""
    if "--measure" in sys.argv[1:]:
        measure()
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    written = f"{before}{BEGIN}\n{section()}\n{END}{after}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written)
    elif written != text:
        sys.exit("docs/scale.md is not what the counts say: run experiments/scale.py")


if __name__ == "__main__":
    main()
