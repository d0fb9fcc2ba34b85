"""What helps a solver that replays, whose newest classes displace the older ones.

python experiments/solver_gap/solver_gap.py benchmark=image_folder \\
    benchmark.options.root=CIFAR10 benchmark.n_classes=10

A diffusion model learns the stream once by generative distillation, with and without
conditioning on the class; its state after each experience is saved below --out. Then
solvers learn the same stream from it in different ways: with real images of the current
classes or samples of them, and with replay that is labelled by the solver itself, by the
condition, or by an oracle, which is not available in a real stream. At the end a new solver
learns only from samples of the last model, labelled by the condition or by the oracle.
Results that are in solver_gap.csv already are not measured again.
"""

import argparse
import csv
from functools import partial
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.data import stream_tensors
from avalanche_gd.metrics import Sampling
from avalanche_gd.metrics.classification_accuracy import trained_classifier
from avalanche_gd.metrics.shared_images import classifier_labels, generate_samples
from avalanche_gd.models import oracle_classifier
from avalanche_gd.models.classifier import classifier
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.passes import PassCounter
from avalanche_gd.runs.results import csv_text
from avalanche_gd.runs.run import make_benchmark
from avalanche_gd.runs.seeds import SeedPlugin, seed_everything
from avalanche_gd.runs.strategies import solver_replay
from avalanche_gd.storage import write_text, write_whole
from avalanche_gd.training import BudgetedTemplate

BUDGET = (
    *("generator.steps=800", "generator.decay_steps=300", "evaluation.images=500"),
    *("solver.steps=300", "solver.learning_rate=1e-3", "solver.replay_steps=5"),
    "solver.pool_size=2000",
    *("method=generative_distillation", "threads=1", "seed=0"),
)
WAYS: dict[str, tuple[str, ...]] = {
    "real images of current classes": (),
    "samples only from step 150": ("solver.samples_only_from=150",),
    "samples only": ("solver.samples_only_from=0",),
}
"""The settings of the ways."""
CONDITIONED = ("model.conditional=true", "solver.replay_labels=condition")
SOLVER_SEEDS = range(2)
HERE = Path(__file__).parent


class OracleLabels(SupervisedPlugin):
    """Makes an oracle label what a solver replays.

    :param replay: the solver's replay plugin.
    """

    def __init__(self, replay: Any, oracle: torch.nn.Module):
        super().__init__()
        self.replay, self.oracle = replay, oracle

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the old solver by the oracle."""
        if self.replay.old_model is not None:
            self.replay.old_model = self.oracle


class Recorded:
    """Replaces the strategy that trains a generator: it loads saved states."""

    def __init__(self, model: torch.nn.Module, folder: Path):
        self.model, self.folder = model, folder

    def train(self, experience: Any, **kwargs: Any) -> None:
        """Load the weights from after an experience."""
        path = self.folder / f"experience_{experience.current_experience}.pt"
        self.model.load_state_dict(torch.load(path, weights_only=True))


def record(config: RunConfig, stream: Any, folder: Path) -> None:
    """Train a generator and save its state after each experience, unless that is done."""
    last = stream.train_stream[-1].current_experience
    if (folder / f"experience_{last}.pt").is_file():
        return
    seed_everything(config.seed)
    learner = Learner(
        config.replaced({"method.solver": False, "method.solver_replays": False})
    )
    for experience in stream.train_stream:
        learner.train(experience)
        state = learner.strategies["generator"].model.state_dict()
        path = folder / f"experience_{experience.current_experience}.pt"
        write_whole(path, lambda beside, state=state: torch.save(state, beside))


def accuracies(
    config: RunConfig, stream: Any, folder: Path, seed: int, *, by_oracle: bool = False
) -> list[Any]:
    """The accuracy on each experience's test images at the end, and F a step."""
    seed_everything(seed)
    model = config.model.make(config.benchmark.n_classes)
    counter = PassCounter(model, config.solver.batch_size)
    solver = classifier("small_cnn", config.model.shape, config.benchmark.n_classes)
    (replay,) = solver_replay(config.solver, Recorded(model, folder))
    oracle = [OracleLabels(replay, oracle_of(stream))] if by_oracle else []
    strategy = BudgetedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters(), config.solver.learning_rate),
        criterion=torch.nn.CrossEntropyLoss(),
        plugins=[
            SeedPlugin(seed, 2),
            counter.plugin("solver"),
            replay,
            *oracle,
        ],
        train_steps=config.solver.steps,
        train_mb_size=config.solver.batch_size,
        evaluator=None,
    )
    strategy.train(stream.train_stream, eval_streams=[])
    right = [known(solver.eval(), experience) for experience in stream.test_stream]
    counter.passes["generator"] = counter.passes["solver"]
    return [*right, counter.summary(config.solver.steps or 1)["F_per_step"]]


def oracle_of(stream: Any) -> torch.nn.Module:
    """The oracle of all classes."""
    return oracle_classifier(*stream_tensors(stream.train_stream))


def known(solver: torch.nn.Module, *experiences: Any) -> float:
    """The share of the images of experiences that a solver classifies correctly."""
    images, labels = stream_tensors(experiences)
    return float((classifier_labels(solver, images, 500) == labels).double().mean())


def of_samples_alone(config: RunConfig, stream: Any, folder: Path, seed: int) -> list[Any]:
    """The same for a new solver that saw only samples of the last model, in 600 steps."""
    model = config.model.make(config.benchmark.n_classes)
    Recorded(model, folder).train(stream.train_stream[-1])
    images, labels = generate_samples(model, Sampling(5000, config.solver.replay_steps))
    if labels is None:
        labels = classifier_labels(oracle_of(stream), images, 500)

    def make(shape: tuple[int, int, int], count: int) -> torch.nn.Module:
        return classifier("small_cnn", shape, count)

    solver = trained_classifier(make, images, labels, steps=600, seed=seed)
    return [*(known(solver, experience) for experience in stream.test_stream), ""]


def main() -> None:
    """Measure all ways and write ``solver_gap.csv``."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", default="runs", help="the folder of what is kept")
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="of the data")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    path = HERE / "solver_gap.csv"
    rows: list[list[Any]] = []
    if path.is_file():
        with open(path, newline="") as file:
            _, *rows = csv.reader(file)
    for conditional in (False, True):
        shared = (*options.settings, *BUDGET, *(CONDITIONED if conditional else ()))
        config = compose_config(shared)
        stream = make_benchmark(config)
        kind = "conditioned" if conditional else "not conditioned"
        folder = Path(options.out) / "solver_gap" / kind.replace(" ", "_")
        record(config, stream, folder)
        measures: dict[str, Any] = {
            way: (accuracies, compose_config([*shared, *more]))
            for way, more in WAYS.items()
        }
        if not conditional:
            by_oracle = partial(accuracies, by_oracle=True)
            measures["replay labelled by the oracle"] = by_oracle, config
        measures["a new solver of samples alone, 600 steps"] = of_samples_alone, config
        for way, (measure, own) in measures.items():
            for seed in SOLVER_SEEDS:
                if [kind, way, str(seed)] in (list(map(str, row[:3])) for row in rows):
                    continue
                *right, cost = measure(own, stream, folder, seed)
                rows.append([kind, way, seed, sum(right) / len(right), *right, cost])
                print(*rows[-1], flush=True)
                parts = [f"experience_{i + 1}" for i in range(len(right))]
                head = ["model", "way", "seed", "accuracy", *parts, "F_per_step"]
                write_text(path, csv_text(head, rows))


if __name__ == "__main__":
    main()
