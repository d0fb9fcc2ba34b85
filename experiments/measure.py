"""Measures an experiment: tunes the methods that have a weight, then runs all of them.

python experiments/measure.py split_fmnist_small --jobs 2

The trials are kept in experiments/NAME/trials.csv, the runs below --out; both go on where
they stopped. At the end the settings, metrics and run.json of the complete ones are copied
to experiments/NAME/runs, and runs.csv has all that are there, also those of other machines.
Settings such as benchmark.options.root=FOLDER say where data are, and win over the
experiment's; --only METHOD,... leaves the rest for later. With --weights FILE, FID of the
saved models in MobileNetV2's features goes to features.csv.
"""

import argparse
import csv
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from avalanche_gd.checks import check_integer
from avalanche_gd.evaluation.measure import Judge, Plan
from avalanche_gd.evaluation.subjects import Subject, compose_settings
from avalanche_gd.metrics.features import feature_extractor
from avalanche_gd.report.collect import collect, shown
from avalanche_gd.report.report_command import write_report
from avalanche_gd.report.section import Section
from avalanche_gd.report.tables import runs_as_csv
from avalanche_gd.runs.columns import METRICS, features_in_words
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.errors import (
    OneLineParser,
    ending_when_interrupted,
    ending_with_one_line,
)
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.results import csv_text, is_complete
from avalanche_gd.runs.run import make_benchmark
from avalanche_gd.runs.seeds import seed_everything
from avalanche_gd.runs.side_by_side import end_with_failures, run_all
from avalanche_gd.storage import write_text
from avalanche_gd.training import NonFiniteLossError

HERE = Path(__file__).parent
TRIAL_SEED, TRIAL_EXPERIENCES = 100, 3
TRIED = (0.1, 1.0, 10.0)
"""What is tried, as multiples of the value of a method's authors."""

FEATURES = ("method", "settings", "seed", "features", "images", "FID", "model", "run")
"""Of ``features.csv``; the model is known by the SHA-256 of what was evaluated."""

DECIDED = {
    "seed": "give --seeds",
    "out": "give --out",
    "method": "give --only",
    "threads": "each run has one; give --jobs",
}
"""Settings that are not taken, by name, and what to do."""

Settings = tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """A method of an experiment, and the weight of its own that is tuned first."""

    settings: Settings
    weight: str = ""
    """The setting; empty for none."""
    around: float = 0.0
    """The value of its authors, or Avalanche's."""
    beside: str = ""
    """The method whose tuned weight it takes over: it is that one and a weight more."""

    @property
    def name(self) -> str:
        """As in ``trials.csv``."""
        return " ".join(part.removeprefix("method=") for part in self.settings)


@dataclass(frozen=True)
class Experiment:
    """Methods on a benchmark, with the same data, steps, batches and model."""

    shared: Settings
    methods: Sequence[Method]
    seeds: Sequence[int]
    tuned_in: str = ""
    """The experiment whose trials the weights are from; empty for trials of its own."""
    shows_samples: bool = False
    """True to keep the last samples of each method's seed 0, in ``samples/LABEL.png``."""

    def beside(self, method: Method) -> list[Method]:
        """The methods whose weights it has, itself last."""
        chain = [method]
        while other := next((m for m in self.methods if m.name == chain[0].beside), None):
            chain.insert(0, other)
        return chain


def plain(*names: str) -> list[Method]:
    """Methods without a weight."""
    return [Method((f"method={name}",)) for name in names]


def tuned(name: str, weight: str, around: float, *more: str, beside: str = "") -> Method:
    """A method with one."""
    return Method((f"method={name}", *more), f"method.{weight}", around, beside)


MEASURES = "evaluation.measures=[kid,precision_recall,afid,transfer]"
DISTILLATION = "generative_distillation"
# At most 5F a step with what a pool costs: 4.5F, and 11 passes for each of 1,000 pairs.
FEW_PASSES = ("method.replay_ratio=0.5", "method.teacher_steps=10", "method.pool_size=1000")
SMALL_POOL = ("method.replay_ratio=0.34", "method.pool_size=1500")
SOLVERS = [
    *plain("solver_naive", "solver_cumulative", "solver_replay"),
    tuned("solver_ewc", "lambd", 1000),
    tuned("solver_si", "lambd", 1),
    tuned("solver_lwf", "lambd", 1),
]

FASHION_MNIST = [
    tuned(DISTILLATION, "lambd", 0.75),
    tuned("generative_replay", "lambd", 1),
    *plain("naive", "joint", "iid"),
    tuned("pair_distillation", "lambd", 0.75, *FEW_PASSES),
    tuned("pooled_distillation", "lambd", 0.75),
    Method(("method=pooled_distillation", *SMALL_POOL), beside="pooled_distillation"),
    tuned("gaussian_distillation", "lambd", 8),
    tuned("symmetric_gaussian_distillation", "lambd", 8),
    tuned("current_distillation", "lambd", 1.25),
    tuned("partial_generation_distillation", "lambd", 0.75),
    tuned("trajectory_distillation", "lambd", 0.75),
    tuned("snr_split_distillation", "lambd", 0.75, "method.snr_threshold=0.1"),
    tuned("balanced_distillation", "guidance_scale", 1, beside=DISTILLATION),
    tuned("rank1_distillation", "penalty", 15_000, beside=DISTILLATION),
    tuned("ewc_distillation", "penalty", 7_500, beside=DISTILLATION),
    tuned("rank1_ewc", "penalty", 15_000),
    tuned("rank1_replay", "penalty", 15_000, beside="generative_replay"),
    tuned("ewc", "lambd", 10_000),
    tuned("si", "lambd", 10),
    tuned("mas", "lambd", 1),
    tuned("rwalk", "lambd", 1),
    *plain("experience_replay", "gem", "agem", "mir", "vae_replay"),
    *SOLVERS,
    Method((f"method={DISTILLATION}", "model.process=flow"), beside=DISTILLATION),
    Method(("method=generative_replay", "model.process=flow"), beside="generative_replay"),
    Method(("method=naive", "model.process=flow")),
    Method(("method=joint", "model.process=flow")),
]
CONDITIONED = ("model.conditional=true",)
# What closes the solver's gap (experiments/solver_gap); without a replay, nothing changes.
CLOSED = ("solver.replay_labels=condition", "solver.samples_only_from=0")
ON_CIFAR10 = (
    *("naive", "joint", "generative_replay", "generative_distillation"),
    *("pooled_distillation", "experience_replay", "ewc", "rank1_distillation"),
)
CIFAR10 = [method for method in FASHION_MNIST if method.name in ON_CIFAR10]


def conditioned(method: Method) -> Method:
    """The same with a model conditioned on the class, and a solver that uses this."""
    return Method(method.settings + CONDITIONED + CLOSED, beside=method.name)


EXPERIMENTS = {
    "split_digits": Experiment(
        ("benchmark=split_digits", "evaluation.measures=[afid]"),
        plain("naive", "joint", "generative_replay", "generative_distillation"),
        range(5),
        shows_samples=True,
    ),
    "split_fmnist_small": Experiment(
        ("benchmark=split_fmnist", MEASURES), FASHION_MNIST, range(3)
    ),
    "split_cifar10_small": Experiment(
        (
            "benchmark=split_cifar10",
            "generator.steps=3000",
            "generator.decay_steps=1000",
            "evaluation.measures=[kid,precision_recall,afid]",
        ),
        [*CIFAR10, *map(conditioned, CIFAR10)],
        range(1),
        tuned_in="split_fmnist_small",  # each trial would be of 9,000 steps
        shows_samples=True,
    ),
}


def criterion(config: Any) -> Any:
    """What a weight is chosen by: FID, or the accuracy of a solver alone."""
    name = "accuracy" if config.method.generator == "none" else "FID"
    return next(column for column in METRICS if column.name == name)


def trial(settings: Sequence[str]) -> tuple[float, float]:
    """The criterion after the first experiences of a stream, and the seconds it took.

    Not a number if the training diverged. Other measures are left out, and the solver where
    it changes no image.
    """
    torch.set_num_threads(1)
    started = time.perf_counter()
    config = compose_config([*settings, "evaluation.measures=[]"])
    guided = any("guidance" in plugin for plugin in config.method.plugins)
    if criterion(config).name == "FID" and not guided:
        config.method.solver = config.method.solver_replays = False
    stream = make_benchmark(config)
    seed_everything(config.seed)
    learner = Learner(config)
    try:
        for experience in stream.train_stream[:TRIAL_EXPERIENCES]:
            learner.train(experience)
        values = learner.evaluate(stream.test_stream[:TRIAL_EXPERIENCES])
        result = values[criterion(config).key]
    except NonFiniteLossError:
        result = math.nan
    return result, time.perf_counter() - started


class Trials:
    """What was tried, in ``trials.csv``."""

    fields = ("method", "setting", "value", "criterion", "result", "seconds")

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with open(path, newline="") as file:
                self.rows = list(csv.DictReader(file))

    def best(self, method: Method) -> float | None:
        """The value with the best result; None until all were tried."""
        own = [row for row in self.rows if row["method"] == method.name]
        if len(own) < len(TRIED):
            return None
        sign = 1 if own[0]["criterion"] == "FID" else -1
        finite = [row for row in own if math.isfinite(float(row["result"]))]
        if not finite:
            raise ValueError(f"all trials of {method.name} diverged; try lower weights")
        return float(min(finite, key=lambda row: sign * float(row["result"]))["value"])

    def lacks(self, method: Method) -> list[float]:
        """The values that are still to try."""
        done = {float(r["value"]) for r in self.rows if r["method"] == method.name}
        return [v for f in TRIED if (v := float(f"{f * method.around:.6g}")) not in done]

    def add(self, row: Iterable[Any]) -> None:
        """Keep a result."""
        self.rows.append(dict(zip(self.fields, map(str, row), strict=True)))
        lines = [self.fields, *([row[name] for name in self.fields] for row in self.rows)]
        write_text(self.path, "".join(f"{','.join(line)}\n" for line in lines))


def is_tuned(experiment: Experiment, method: Method, trials: Trials) -> bool:
    """Whether the weights of a method are known."""
    chain = experiment.beside(method)
    return all(not m.weight or trials.best(m) is not None for m in chain)


def overrides(experiment: Experiment, method: Method, trials: Trials) -> Settings:
    """The settings of a method, but for a weight that is still to tune.

    :raises ValueError: if a method that it is beside has not been tuned.
    """
    settings = (*experiment.shared, *method.settings)
    for other in (m for m in experiment.beside(method) if m.weight):
        best = trials.best(other)
        if best is not None:
            settings += (f"{other.weight}={best:g}",)
        elif other is not method:
            raise ValueError(f"{method.name} is beside {other.name}; tune that first")
    return settings


def tune(
    experiment: Experiment,
    methods: Sequence[Method],
    trials: Trials,
    jobs: int,
    more: Settings,
) -> None:
    """Try what has not been tried: first the methods that others are beside."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for group in (
            [m for m in methods if not m.beside],
            [m for m in methods if m.beside],
        ):
            waiting = {}
            for method in (method for method in group if method.weight):
                settings = overrides(experiment, method, trials)
                for value in trials.lacks(method):
                    tried = (*settings, *more, f"{method.weight}={value:g}")
                    tried += (f"seed={TRIAL_SEED}", "threads=1")
                    waiting[pool.submit(trial, tried)] = method, value, tried
            for future in as_completed(waiting):
                method, value, tried = waiting[future]
                result, seconds = future.result()
                name = criterion(compose_config(tried)).name
                row = method.name, method.weight, value, name, result, f"{seconds:.0f}"
                trials.add(row)
                print(*row, flush=True)


def write_features(
    sections: Sequence[Section], out: Path, settings: Settings, path: Path
) -> None:
    """Write FID of saved models in other features, and evaluate those that the CSV lacks.

    Of a model's first images, sampled as in its run, and the test images of all classes.
    Rows of models that are not here, and in other features, stay.

    :param sections: the runs.
    :param out: the folder in which those are that have a model here.
    :param settings: what differs, such as ``evaluation.features=mobilenet_v2``.
    """
    heads = {
        shown(run.folder): [label, section.difference, str(run.seed)]
        for section in sections
        for label, own in section.methods.items()
        for run in own
    }
    subjects = {
        name: Subject.of(str(out / name))
        for name in heads
        if (out / name / "model").is_dir()
    }
    # Whatever the seed, the test images of all classes are the same.
    shared = ("seed=0", "evaluation.measures=[]", *settings)
    config = compose_settings([*subjects.values()], shared, path.parent)
    sampling = config.evaluation
    way = [features_in_words(vars(sampling)), str(sampling.images)]
    others: list[list[str]] = []
    known: dict[str, str] = {}
    if path.is_file():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                if row.get("run") in subjects and [row["features"], row["images"]] == way:
                    known[row["model"]] = row["FID"]
                else:
                    cells = [row.get(name) or "" for name in FEATURES]
                    others.append([*heads.get(cells[-1], cells[:3]), *cells[3:]])
    digests = {name: subject.digest() for name, subject in subjects.items()}
    judge = None
    for name, digest in digests.items():
        if digest not in known:
            subject = subjects[name]
            steps = subject.run["evaluation"]["steps"]
            plan = Plan(["own"], [steps], [sampling.images])
            judge = judge or Judge(config, make_benchmark(config), plan)
            (outcome,) = judge.outcomes(subject)
            known[digest] = str(outcome.values["FID"])
            print(*heads[name], *way, known[digest], flush=True)
        done = [
            [*heads[run], *way, known[of], of, run]
            for run, of in digests.items()
            if of in known
        ]
        write_text(path, csv_text(FEATURES, [*others, *done]))


def methods_of(experiment: str, only: str) -> list[Method]:
    """The methods of an experiment, or those of them that are named, by commas.

    :raises ValueError: for a name that it does not have.
    """
    methods = EXPERIMENTS[experiment].methods
    named = [method.settings[0].removeprefix("method=") for method in methods]
    asked = list(filter(None, only.split(","))) or named
    if unknown := sorted({*asked} - {*named}):
        known = ", ".join(sorted({*named}))
        raise ValueError(f"--only: no {unknown[0]} in {experiment}, but {known}")
    return [method for method, name in zip(methods, named, strict=True) if name in asked]


def copy_samples(sections: Sequence[Section], out: Path, folder: Path) -> None:
    """Copy the pictures of seed 0 after the last experience.

    As ``LABEL.png``, or below the name of the section if it is not the first.

    :param sections: the runs.
    :param out: the folder in which those are that have pictures here.
    """
    for section in sections:
        own = folder / section.slug if section.number > 1 else folder
        last = f"samples/exp_{section.n_experiences - 1:03d}.png"
        for label, runs in section.methods.items():
            pictures = [out / shown(run.folder) / last for run in runs if run.seed == 0]
            for picture in filter(Path.is_file, pictures):  # a solver alone has none
                own.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, own / f"{label}.png")


def main() -> None:
    """Tune, run and write."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--out", default="runs", help="the folder of all runs")
    parser.add_argument("--only", default="", help="methods, separated by commas")
    parser.add_argument("--seeds", default="", help="more or fewer, separated by commas")
    parser.add_argument("--weights", help="torchvision's file of MobileNetV2's, as above")
    parser.add_argument("--images", type=int, default=2000, help="that --weights looks at")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of all runs")
    options = parser.parse_intermixed_args()
    check_integer("--images", options.images, 2)
    check_integer("--jobs", options.jobs)
    for setting in options.settings:
        if (name := setting.lstrip("+").partition("=")[0]) in DECIDED:
            raise ValueError(f"{name} is not taken here; {DECIDED[name]}")
    if options.weights:
        feature_extractor("mobilenet_v2", options.weights)  # before the work of hours
    experiment = EXPERIMENTS[options.experiment]
    chosen = methods_of(options.experiment, options.only)
    seeds = [
        check_integer("--seeds", int(seed) if seed.isdecimal() else seed, 0)
        for seed in filter(None, options.seeds.split(","))
    ] or experiment.seeds
    folder, more = HERE / options.experiment, tuple(options.settings)
    published = folder / "runs"
    if published.is_dir():
        collect([published])  # a damaged one is found before the work of hours
    trials = Trials(HERE / (experiment.tuned_in or options.experiment) / "trials.csv")
    if not experiment.tuned_in:
        tune(experiment, chosen, trials, options.jobs, more)
    elif lacking := [m.name for m in chosen if not is_tuned(experiment, m, trials)]:
        names = ", ".join(lacking)
        raise ValueError(f"{experiment.tuned_in} tunes {names}; measure that first")

    def config(method: Method, seed: int) -> Any:
        settings = (*overrides(experiment, method, trials), *more)
        return compose_config(
            [*settings, f"seed={seed}", "threads=1", f"out={options.out}"]
        )

    failures = run_all([config(m, seed) for seed in seeds for m in chosen], options.jobs)
    known = [m for m in experiment.methods if is_tuned(experiment, m, trials)]
    every = sorted({*experiment.seeds, *seeds})
    folders = [config(m, seed).folder for seed in every for m in known]
    out = Path(options.out)
    if done := [path for path in folders if is_complete(path)]:
        write_report(done, out / f"{options.experiment}-report", publish_to=published)
        sections = collect([published]).sections
        write_text(folder / "runs.csv", runs_as_csv(sections))
        if experiment.shows_samples:
            copy_samples(sections, out, folder / "samples")
        if options.weights:
            weights = f"evaluation.weights_path='{options.weights}'"
            settings = (weights, "evaluation.features=mobilenet_v2")
            settings += (f"evaluation.images={options.images}",)
            write_features(sections, out, settings, folder / "features.csv")
    end_with_failures(failures)


if __name__ == "__main__":
    line = "interrupted; run the same command again to continue"
    with ending_when_interrupted(line), ending_with_one_line():
        main()
