"""Tunes the weight of a method: three trials on the first experiences of a stream."""

import csv
import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import make_benchmark
from avalanche_gd.runs.seeds import seed_everything
from avalanche_gd.storage import write_text
from avalanche_gd.training import NonFiniteLossError
from methods import Experiment, Method, Settings

TRIAL_SEED, TRIAL_EXPERIENCES = 100, 3
TRIED = (0.1, 1.0, 10.0)
"""What is tried, as multiples of the value of a method's authors."""


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
