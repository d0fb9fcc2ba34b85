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
from pathlib import Path
from typing import Any

from avalanche_gd.checks import check_integer
from avalanche_gd.metrics.features import feature_extractor
from avalanche_gd.report.collect import collect
from avalanche_gd.report.report_command import write_report
from avalanche_gd.report.tables import runs_as_csv
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.errors import (
    OneLineParser,
    ending_when_interrupted,
    ending_with_one_line,
)
from avalanche_gd.runs.results import is_complete
from avalanche_gd.runs.side_by_side import end_with_failures, run_all
from avalanche_gd.storage import write_text
from methods import EXPERIMENTS, Method
from saved_models import copy_samples, write_features
from trials import Trials, is_tuned, overrides, tune

HERE = Path(__file__).parent
DECIDED = {
    "seed": "give --seeds",
    "out": "give --out",
    "method": "give --only",
    "threads": "each run has one; give --jobs",
}
"""Settings that are not taken, by name, and what to do."""
PLACES = ("benchmark.options.root=", "device=")
"""Settings that trials may be made with."""


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
    chosen = experiment.named(options.only)
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
        others = [s for s in more if not s.lstrip("+").startswith(PLACES)]
        if others and any(m.weight and trials.lacks(m) for m in chosen):
            raise ValueError(f"weights are tuned without {others[0]}; do that first")
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
