"""A suite: several methods and seeds on one benchmark, with a report."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from avalanche_gd.distributed.launch import process_count
from avalanche_gd.report.report_command import write_report
from avalanche_gd.runs.composition import compose_config, method_names
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import (
    OneLineParser,
    ending_when_interrupted,
    ending_with_one_line,
)
from avalanche_gd.runs.overrides import quoted
from avalanche_gd.runs.side_by_side import end_with_failures, run_all
from avalanche_gd.storage import expanded

MAIN_METHODS = ("generative_distillation", "generative_replay", "joint", "naive")
"""The default methods of a suite, the longest first."""

_FLAGS = {"out": "--out", "check": "--check", "method": "--methods", "seed": "--seeds"}
"""Settings that a suite sets by its own flags."""

Overrides = Sequence[str]
"""Hydra's overrides, such as ``["benchmark=split_digits", "generator.steps=100"]``."""


def main(
    description: str,
    scales: dict[str, Overrides],
    *,
    methods: Sequence[str] = MAIN_METHODS,
    arguments: Sequence[str] | None = None,
) -> None:
    """Run the command line of a suite.

    :param description: what it compares, on which data and how long it takes.
    :param scales: the overrides by scale; the first is the default.
    :param methods: the default methods.
    :param arguments: those of the command line; None for the process's own.
    """
    line = "interrupted; run the same command again to continue"
    with ending_when_interrupted(line), ending_with_one_line():
        if process_count() > 1:
            raise ValueError("a suite starts its own processes (--jobs); remove torchrun")
        options = _parser(description, scales, methods).parse_intermixed_args(arguments)
        for override in options.overrides:
            if flag := _FLAGS.get(override.lstrip("+~").partition("=")[0]):
                raise ValueError(f"{override}: for a suite, use {flag} instead")
            if OverridesParser.create().parse_override(override).is_sweep_override():
                raise ValueError(
                    f"{override}: a suite takes several --methods and --seeds; for "
                    "several values of another setting, use avalanche-gd -m"
                )
        if options.jobs < 1:
            raise ValueError(f"--jobs must be 1 or more, got {options.jobs}")
        threads = []
        if options.jobs > 1:
            threads = ["threads=1"]
            torch.set_num_threads(1)  # OpenMP's threads do not survive in a copy
        place = [f"out={quoted(options.out)}", f"check={options.check}"]
        shared = [*threads, *scales[options.scale], *place, *options.overrides]
        names = method_names() if options.methods == ["all"] else options.methods
        configs = [
            compose_config([*shared, f"method={name}", f"seed={seed}"])
            for seed in options.seeds
            for name in names
        ]
        report = expanded(options.out) / f"{Path(sys.argv[0]).stem}-report"
        run_and_report(configs, options.jobs, None if options.check else report)


def run_and_report(configs: Sequence[RunConfig], jobs: int, report: Path | None) -> None:
    """Run what is missing, report complete runs, and list the errors at the end.

    :param configs: the settings of the runs, in the order to start them.
    :param jobs: how many runs at a time.
    :param report: the folder of the report; None for no report.
    """
    failures = run_all(configs, jobs)
    made = dict.fromkeys(config.folder for config in configs)
    folders = [folder for folder in made if folder not in failures]
    if folders and report:
        write_report(folders, report)
    end_with_failures(failures)


def _parser(
    description: str, scales: dict[str, Overrides], methods: Sequence[str]
) -> OneLineParser:
    parser = OneLineParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        default=list(methods),
        help=f"separated by commas, or all (default: {','.join(methods)})",
    )
    parser.add_argument(
        "--seeds", type=_seeds, default=[0], help="separated by commas (default: 0)"
    )
    parser.add_argument("--scale", choices=list(scales), default=next(iter(scales)))
    parser.add_argument(
        "--jobs",
        type=int,
        default=1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1),
        help="runs at a time, each on one thread if more than one (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only take a few steps of each run, evaluate, and estimate the time",
    )
    parser.add_argument(
        "--out", default="runs", help="the folder of all runs (default: %(default)s)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings of the runs, as in avalanche-gd",
    )
    return parser


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"seeds are integers separated by commas, got {text!r}"
        ) from None
