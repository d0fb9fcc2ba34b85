"""What the pages of experiments conclude from several numbers, computed from the CSVs.

``python experiments/results.py --check`` fails if a page does not say it.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from statistics import fmean

from measured import by_method

HERE = Path(__file__).parent

BySeed = Mapping[str, float]


class Numbers:
    """The numbers of an experiment.

    :param folder: with its ``runs.csv``.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def rows(self) -> dict[str, dict[str, list[dict[str, str]]]]:
        return by_method(self.folder / "runs.csv")

    def __call__(self, method: str, column: str = "FID", after: int = -1) -> BySeed:
        """A column of a method, by seed.

        :param after: which of the evaluated experiences: 0 the first, -1 the last.
        """
        rows = self.rows[method]
        return {seed: float(own[after][column]) for seed, own in rows.items()}


def times(a: BySeed, b: BySeed) -> list[float]:
    """How many times as high as b, for each seed of both."""
    return [a[seed] / b[seed] for seed in a if seed in b]


def above(a: BySeed, b: BySeed) -> list[float]:
    """How much higher than b, for each seed of both."""
    return [a[seed] - b[seed] for seed in a if seed in b]


def span(values: Iterable[float], digits: int = 2) -> str:
    """From the lowest to the highest; one number where both read the same."""
    ends = sorted(values)
    texts = dict.fromkeys(f"{end:.{digits}f}" for end in (ends[0], ends[-1]))
    return " to ".join(texts)


def each(values: Iterable[float] | BySeed, digits: int = 1) -> str:
    """Every number, in the order of seeds."""
    numbers = values.values() if isinstance(values, Mapping) else values
    *others, last = (f"{value:.{digits}f}" for value in numbers)
    return f"{', '.join(others)} and {last}" if others else last


def when(holds: bool, sentence: str) -> str:
    """The sentence, if it holds; else its contrary, which no page says."""
    return sentence if holds else f"it is not so that {sentence}"


GD, GR = "generative_distillation", "generative_replay"


def split_digits(of: Numbers) -> Iterator[str]:
    yield f"{span(times(of(GD), of(GR)))} times the FID of generative replay"
    gain = above(of(GD, "accuracy"), of(GR, "accuracy"))
    yield f"a solver that is better by {span(gain)}."
    yield f"Its FID is {span(times(of(GD), of('joint')), 1)} times that of joint training."
    yield f"from {span(of(GR, 'accuracy').values())} over the seeds"


def split_digits_conditional(of: Numbers) -> Iterator[str]:
    without = Numbers(HERE / "split_digits")
    for method, name in ((GD, "distillation"), (GR, "replay")):
        lower = min(above(without(method, "KLD"), of(method, "KLD"))) > 0
        yield when(lower, f"{span(of(method, 'KLD').values(), 3)} for {name}")
    yield f"on each seed its FID is {span(times(of(GD), of(GR)))} times that of replay"
    joint = without("joint")
    yield f"({span((joint[seed] for seed in of(GD)), 0)} on these seeds)"


def beside_replay(of: Numbers, settings: Iterable[str]) -> str:
    """How distillation stands beside replay with each of the settings and seeds."""
    pairs = [(GD + setting, GR + setting) for setting in settings]
    ratios = [ratio for a, b in pairs for ratio in times(of(a), of(b))]
    gains = [x for a, b in pairs for x in above(of(a, "accuracy"), of(b, "accuracy"))]
    return when(min(gains) > 0, f"{span(ratios)} times as high, and a better solver")


def teacher_steps(of: Numbers) -> Iterator[str]:
    k = {steps: f", method.teacher_steps={steps}" for steps in (1, 2, 5, 10)}
    yield beside_replay(of, k.values())
    yield f"FID {span(of(GR + k[10]).values(), 0)} at 16F a step"
    yield f"against {span(of(GD + k[2]).values(), 0)} at 9F"


def lambda_(of: Numbers) -> Iterator[str]:
    weights = {w: f", method.lambd={w}" for w in (0.5, 1.0, 2.0, 3.0)}
    yield beside_replay(of, weights.values())
    rise = above(of(GD + weights[2.0]), of(GD + weights[1.0]))
    yield f"from 1 to 2, FID rises by {span(rise, 0)}"


def split_fmnist_small(of: Numbers) -> Iterator[str]:
    yield f"FID of distillation is {each(times(of(GD), of(GR)), 2)} times that of replay"
    lower = max(above(of(GD, "KLD"), of(GR, "KLD"))) < 0
    gain = above(of(GD, "accuracy"), of(GR, "accuracy"))
    yield when(lower, f"its KLD is lower, and its solver is better by {each(gain, 2)}.")
    yield f"is {span(times(of(GR), of('naive')))} times that of naive training"
    real = "experience_replay"
    one = sum(more < 0 for more in above(of(real), of(GD))) == 1
    yield when(one, "lower FID on one seed of three and the higher on two")
    yield f"higher on two, {each(of(real))} against {each(of(GD))}"
    kld = f"higher KLD on each, {each(of(real, 'KLD'), 3)} against {each(of(GD, 'KLD'), 3)}"
    yield when(min(above(of(real, "KLD"), of(GD, "KLD"))) > 0, kld)
    memory = above(of(real, "accuracy"), of(GD, "accuracy"))
    yield f"a solver that is better on each, by {each(memory, 3)}"
    alone = above(of("solver_replay", "accuracy"), of(GD, "accuracy"))
    yield f"between {-min(alone):.3f} worse and {max(alone):.3f} better"
    yield f"{span(times(of('gem'), of(GD)))} times that of distillation"
    yield f"higher on each, {each(of('gem', 'KLD'), 3)} against {each(of(GD, 'KLD'), 3)}"
    better, *worse = sorted(above(of("gem", "accuracy"), of(GD, "accuracy")), reverse=True)
    split = (
        f"better by {better:.3f} on one seed and worse by up to {-min(worse):.3f} on two"
    )
    yield when(better > 0 > max(worse), split)
    path = "trajectory_distillation"
    yield f"FID {each(of(path))} against {each(of(GD))}, KLD {each(of(path, 'KLD'), 3)}"
    apart = max(map(abs, above(of(path, "accuracy"), of(GD, "accuracy"))))
    yield f"with solvers within {math.ceil(1000 * apart) / 1000} of each other"
    yield f"higher FID on each seed, {each(of('vae_replay'))} against {each(of(GD))}"
    vae = of("vae_replay", "accuracy")
    behind = above(of(GD, "accuracy"), vae)
    yield when(min(behind) > 0, f"{each(vae, 3)}, which is worse by {span(behind, 3)}")
    flow, joint = of(f"{GD}, flow"), of("joint, flow")
    yield f"{each(times(flow, of(GD)), 2)} times the FID of DDPM, {each(flow)}"
    gain = above(of(f"{GD}, flow", "accuracy"), of(GD, "accuracy"))
    yield f"a better solver, by {each(gain, 3)}; joint training has {each(joint)}"
    penalties = ("mas", "si", "rwalk", "rank1_ewc", "ewc")
    yield f"Their solvers end at {span(solvers(of, penalties))}."
    penalized = span(solvers(of, ("solver_ewc", "solver_si", "solver_lwf")))
    plain = span(solvers(of, ("solver_naive",)))
    yield f"EWC, SI or LwF ends at {penalized}, as without them ({plain})"
    yield f"its FID is {span(times(of(GD), of('joint')), 1)} times as high"
    behind = above(of("joint", "accuracy"), of(GD, "accuracy"))
    yield f"its solver is {span(behind)} behind"
    partial, guided = of("partial_generation_distillation"), of("balanced_distillation")
    worse = min(above(partial, of(GD))) > 0
    yield when(worse, f"behind on each, {each(partial)} against {each(of(GD))}")
    beside = {seed: of(GD)[seed] for seed in guided}
    yield f"FID {each(guided)} against {each(beside)}"
    options = "method.pool_size=2000, method.replay_ratio=0.5"
    larger = of(f"pooled_distillation, {options}")
    yield f"half a batch, at 5.8F, has {each(larger)}"
    options = "method.pool_size=1500, method.replay_ratio=0.34"
    small, samples = of(f"pooled_distillation, {options}", "KLD"), of(GD, "KLD")
    lower = max(above(small, samples)) < 0
    yield when(lower, f"lower KLD on each, {each(small, 3)} against {each(samples, 3)}")


def solvers(of: Numbers, methods: Iterable[str]) -> list[float]:
    """The accuracy of the solver, of each method and seed."""
    return [value for method in methods for value in of(method, "accuracy").values()]


def split_cifar10_small(of: Numbers) -> Iterator[str]:
    yield f"is {span(times(of(GD), of(GR)))} times that of replay"
    yield f"({span(of(GD).values(), 1)} and {span(of(GD, after=0).values(), 1)})"
    yield f"is {span(times(of(GR), of('naive')), 1)} times that of naive training"
    ways = [f"{way}, conditional" for way in ("experience_replay", GD)]
    memory, distillation = (of(way) for way in ways)
    yield f"{span(above(distillation, memory), 1)} lower than that of distillation"


def beyond(of: Numbers) -> Iterator[str]:
    plain = of(GD)

    def worse(method: str) -> list[float]:
        return above(of(method), plain)

    flow = [-points for points in worse(f"{GD}, flow")]
    yield f"lower by {span(flow, 0)} points on each seed"
    conditional = [-points for points in worse(f"{GD}, conditional")]
    yield f"pays too: {span(conditional, 0)} points"
    pairs = sorted(worse("pair_distillation, method.pool_size=2000"), reverse=True)
    yield f"FID {pairs[0]:.0f} points worse on one seed"
    yield f"{-pairs[1]:.0f} and {-pairs[2]:.0f} better on the others"
    split = "snr_split_distillation, method.snr_threshold={}".format
    yield f"(by {span(worse(split('1.0')) + worse(split('10.0')), 0)} points"
    rank1 = "rank1_distillation, method.penalty={}".format
    yield f"worse by {min(worse(rank1('15000.0'))):.0f} points or more"
    shares = [of(rank1(p), "fisher_share").values() for p in ("100.0", "15000.0")]
    low, high = (span((100 * share for share in own), 0) for own in shares)
    yield f"holds {low}% of the trace at 100, {high}% at 15,000"
    diagonal = worse("rank1_distillation, method.control=diagonal, method.penalty=100.0")
    yield f"worse on each seed, by {span(diagonal, 0)} points"
    yield f"is worse by {span(worse('ewc_distillation'), 1)}."
    guided = max(-points for points in worse("balanced_distillation"))
    yield f"to {guided:.0f} points better"


def protocol_differences(of: Numbers) -> Iterator[str]:
    zero = ", terminal_alpha_bar=1e-08"
    low, one = f"{GD}, method.lambd=0.75", f"{GD}, method.lambd=1.0"

    def gain(a: str, b: str, column: str = "FID") -> float:
        """How much better a is than b."""
        (more,) = above(of(a, column), of(b, column))
        return more if column == "accuracy" else -more

    schedules = [(low + own, one + own) for own in (zero, "")]
    points = each((gain(*pair) for pair in schedules), 0)
    accuracy = each((gain(*pair, "accuracy") for pair in schedules), 2)
    yield f"by {points} points of FID, and by {accuracy} of the solver's accuracy"
    yield (
        f"{gain(low + zero, low):.0f} points better at lambda = 0.75 and "
        f"{-gain(one + zero, one):.0f} worse at 1"
    )
    yield (
        f"its solver {-gain(low + zero, low, 'accuracy'):.2f} worse and "
        f"{gain(one + zero, one, 'accuracy'):.2f} better"
    )
    yield (
        f"of replay, {-gain(GR + zero, GR):.0f} points worse, and its solver "
        f"{-gain(GR + zero, GR, 'accuracy'):.2f}"
    )
    pairs = [(way + own, GR + own) for own in (zero, "") for way in (low, one)]
    ratios = [ratio for a, b in pairs for ratio in times(of(a), of(b))]
    yield f"distillation's FID is {span(ratios)} times that of replay"


def split_fmnist_h200(of: Numbers) -> Iterator[str]:
    cpu = Numbers(HERE / "split_fmnist_small")
    here, there = times(of(GD), of(GR))[0], times(cpu(GD), cpu(GR))[0]
    yield f"{here:.2f} times that of replay, on the CPU {there:.2f} times"


def solver_gap(of: Numbers) -> Iterator[str]:
    with open(of.folder / "solver_gap.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    mean = {}
    for model, way in dict.fromkeys((row["model"], row["way"]) for row in rows):
        own = [row for row in rows if (row["model"], row["way"]) == (model, way)]
        seeds = [float(row["accuracy"]) for row in own]
        mean[model, way] = f"{fmean(seeds):.3f}"
        accuracy = f"{mean[model, way]} ({', '.join(f'{seed:.3f}' for seed in seeds)})"
        parts = (fmean(float(row[f"experience_{i}"]) for row in own) for i in range(1, 6))
        yield f"| {way} | {accuracy} | {', '.join(f'{part:.2f}' for part in parts)} |"
    plain, conditioned = "not conditioned", "conditioned"
    real, only = "real images of current classes", "samples only"
    later = mean[conditioned, "samples only from step 150"]
    yield f"raises the accuracy from {mean[conditioned, real]} to {later} and"
    yield f"`solver.samples_only_from=0` to {mean[conditioned, only]}"
    yield f"by the condition, {mean[plain, real]} to {mean[conditioned, real]}"
    yield f"samples only, {mean[plain, real]} to {mean[plain, only]}"
    yield f"the same samples give {mean[plain, 'replay labelled by the oracle']}"


FINDINGS: dict[str, Callable[[Numbers], Iterator[str]]] = {
    function.__name__.rstrip("_"): function
    for function in (
        *(split_digits, split_digits_conditional, teacher_steps, lambda_, beyond),
        *(split_fmnist_small, split_fmnist_h200, protocol_differences),
        *(split_cifar10_small, solver_gap),
    )
}
