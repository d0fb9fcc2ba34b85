"""The command ``avalanche-gd-evaluate``."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from avalanche_gd.checks import HIGHEST_SEED, check_integer, check_number
from avalanche_gd.data.digest import data_digest
from avalanche_gd.evaluation.measure import Judge, Outcome, Plan
from avalanche_gd.evaluation.outcome_table import as_csv, as_text, drawings
from avalanche_gd.evaluation.subjects import Subject, check_fits, compose_settings
from avalanche_gd.models.sampler import SAMPLERS, check_sampler
from avalanche_gd.plugins.pool import check_memory
from avalanche_gd.runs.columns import features_in_words
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import (
    OneLineParser,
    ending_when_interrupted,
    ending_with_one_line,
    quiet,
)
from avalanche_gd.runs.identity import deciding_settings
from avalanche_gd.runs.provenance import provenance
from avalanche_gd.runs.run import make_benchmark
from avalanche_gd.runs.run_files import reading
from avalanche_gd.runs.small_files import read_small
from avalanche_gd.storage import expanded, unwritable, write_bytes, write_json

_COMMAND = "avalanche-gd-evaluate"
_STEPS = [2, 5, 10, 20, 50]
_LARGEST_RECORD = 2**20  # bytes
_EXECUTION = {"model.precision", "model.channels_last", "model.compile"}
_DECIDING = {"seed", "benchmark", "evaluation"} | _EXECUTION
_DESCRIPTION = """\
Find out which sampler and how many steps are enough for a saved model. The command
generates images with each sampler, number of steps and guidance, and compares them with all
test images of a benchmark.

MODEL is a folder that DiffusionModel.save_pretrained wrote, or the folder of a complete
run. From a run, also of its folder model/, it takes the model and its precision, and the
benchmark, the seed and evaluation.* unless others are given; for another model give
benchmark=NAME. KEY=VALUE are settings as in avalanche-gd, such as benchmark=split_fmnist,
evaluation.features=inception or evaluation.measures=[kid].

    avalanche-gd-evaluate runs/split_digits/joint/seed-0-* --samplers own,unipc
    avalanche-gd-evaluate model benchmark=split_digits --steps 5,10 --images 500,2000

It prints a table and writes it as evaluation.csv; FID against passes, seconds and images
as figures/*.pdf and *.svg; and the settings as evaluation.json. A folder that has the same
evaluation is written again; a folder that has anything else is not changed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate models; on a wrong value, print one line and exit with status 2.

    The status is 130 after an interruption.
    """
    quiet()
    sys.path.append("")  # for modules of the user's, as python -m has it
    line = f"{_COMMAND}: interrupted; run it again for a complete evaluation"
    with ending_when_interrupted(line), ending_with_one_line(_COMMAND, reraise=False):
        options = _parser().parse_intermixed_args(arguments)
        settings = [part for part in options.models if _is_setting(part)]
        labels = [part for part in options.models if not _is_setting(part)]
        if not labels:
            raise ValueError(f"no MODEL is given; see {_COMMAND} --help")
        subjects = Subject.each(labels)
        twice = [part for part in settings if part.startswith("evaluation.images=")]
        if options.images and twice:
            raise ValueError(f"give --images or {twice[0]}, not both")
        config = compose_settings(subjects, settings, options.out)
        plan = Plan(
            options.samplers,
            options.steps,
            sorted(set(options.images or [config.evaluation.images])),
            options.guidance,
            check_integer("--noise-seed", options.noise_seed, 0, HIGHEST_SEED),
        )
        evaluate(subjects, config, plan, options.out)


def evaluate(
    subjects: Sequence[Subject], config: RunConfig, plan: Plan, out: Path
) -> list[Outcome]:
    """Evaluate saved models. All is checked before the first image is generated.

    :param subjects: the models.
    :param config: from :func:`~avalanche_gd.evaluation.subjects.compose_settings`.
    :param plan: how they are sampled.
    :param out: the folder of the result.
    :raises ValueError: for a model that does not fit the benchmark, if something cannot be
        sampled or measured, or if the folder has something else or cannot be written.
    """
    _check(subjects, config, plan)
    if (reason := unwritable(out)) is not None:
        raise ValueError(f"--out {out} cannot be written, because {reason} cannot")
    torch.set_num_threads(config.threads)
    benchmark = make_benchmark(config)
    # Of data that have no digest, the place has to do.
    data = data_digest(benchmark) or str(config.benchmark.options.get("root"))
    record = _record(subjects, config, plan, data)
    _check_out(out, record)
    judge = Judge(config, benchmark, plan)
    outcomes = [one for subject in subjects for one in judge.outcomes(subject)]
    made = {"made": provenance(config.torch_device)}
    write_json(out / "evaluation.json", {"evaluation": record, **made})
    features = features_in_words(vars(config.evaluation))
    table = as_csv(outcomes).encode(errors="backslashreplace")
    write_bytes(out / "evaluation.csv", table)
    for drawing in drawings(outcomes, features):
        for name, content in drawing.files.items():
            write_bytes(out / name, content)
    caption = (
        f"{config.benchmark.name}, all of its test images; seconds are of sampling. "
        f"Measures that compare features use those of {features}."
    )
    print(f"{fill(caption, 88)}\n\n{as_text(outcomes)}\n\n{out / 'evaluation.csv'}")
    return outcomes


def _check(subjects: Sequence[Subject], config: RunConfig, plan: Plan) -> None:
    """Raise ValueError unless each model fits, and can be sampled in each way."""
    for subject, guidance in product(subjects, plan.guidance):
        model = subject.load(guidance)
        check_fits(subject.label, model, config)
        images = max(plan.images)
        what = f"an evaluation of {images} images"
        check_memory(what, model, 2 * images, config.torch_device)
        for sampler, steps in product(plan.samplers, plan.steps):
            model.check_steps(steps, sampler)


def _record(
    subjects: Sequence[Subject], config: RunConfig, plan: Plan, data: str
) -> dict[str, Any]:
    """What decides the result, in the form in which JSON is read back.

    :param data: what tells the benchmark's data from others.
    """
    settings = {
        name: value
        for name, value in deciding_settings(config).items()
        if {name, name.partition(".")[0]} & _DECIDING
        and name not in ("evaluation.images", "evaluation.steps")
    }
    models = {subject.label: subject.digest() for subject in subjects}
    record = {"models": models, "settings": settings, "data": data, **asdict(plan)}
    return json.loads(json.dumps(record))


def _check_out(out: Path, record: dict[str, Any]) -> None:
    """Raise ValueError if a folder has something else than this evaluation."""
    path = out / "evaluation.json"
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose a folder with --out")
    if path.exists():
        with reading(path, "choose another folder with --out"):
            known = json.loads(read_small(path, limit=_LARGEST_RECORD))
            if not isinstance(known, dict):
                raise ValueError("it is not an evaluation")
        if known.get("evaluation") != record:
            raise ValueError(f"{out} has another evaluation; choose a folder with --out")
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} has something else in it; choose a folder with --out")


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog=_COMMAND,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL, KEY=VALUE",
        help="models and settings, as above",
    )
    parser.add_argument(
        "--samplers",
        type=_listed(check_sampler),
        default=["own"],
        help=f"any of {','.join(SAMPLERS)}; own is the model's (default: own)",
    )
    parser.add_argument(
        "--steps",
        type=_listed(int),
        default=_STEPS,
        help=f"numbers of sampling steps (default: {','.join(map(str, _STEPS))})",
    )
    parser.add_argument(
        "--images",
        type=_listed(lambda text: check_integer("--images", int(text), 2)),
        help="how many images are compared; several numbers share their images "
        "(default: evaluation.images)",
    )
    parser.add_argument(
        "--guidance",
        type=_listed(lambda text: check_number("--guidance", float(text), "0 or more")),
        default=[None],
        help="for models conditioned on the class (default: the model's own)",
    )
    parser.add_argument(
        "--noise-seed",
        type=int,
        default=0,
        help="seed of the noise that images are made from (default: 0, as in runs)",
    )
    parser.add_argument(
        "--out",
        type=expanded,
        default=Path("evaluation"),
        help="the folder of the results (default: evaluation)",
    )
    return parser


def _listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Make a parser of values that are separated by commas."""

    def values(text: str) -> list[Any]:
        try:
            return list(dict.fromkeys(kind(part) for part in text.split(",")))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}") from error

    return values


def _is_setting(text: str) -> bool:
    return "=" in text and not Path(text).is_dir()


if __name__ == "__main__":
    main()
