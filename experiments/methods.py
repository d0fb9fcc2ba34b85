"""The experiments of measure.py: their methods, budgets, seeds and weights to tune."""

from collections.abc import Sequence
from dataclasses import dataclass

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

    def named(self, names: str) -> list[Method]:
        """Its methods, or those of them that are named, by commas.

        :raises ValueError: for a name that it does not have.
        """
        own = [method.settings[0].removeprefix("method=") for method in self.methods]
        asked = list(filter(None, names.split(","))) or own
        if unknown := sorted({*asked} - {*own}):
            known = ", ".join(sorted({*own}))
            raise ValueError(f"--only: no {unknown[0]} here, but {known}")
        return [m for m, name in zip(self.methods, own, strict=True) if name in asked]


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
