"""The command line of the speed measurement."""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from avalanche_gd.models import PRESETS
from avalanche_gd.models.execution import PRECISIONS
from avalanche_gd.profiling.machine import denoiser_gflops, product_gflops
from avalanche_gd.profiling.measure import (
    measure_evaluation,
    measure_sampling,
    measure_steps,
)
from avalanche_gd.profiling.speed_figure import save_figure
from avalanche_gd.profiling.timing_table import Measurement, as_csv, as_table
from avalanche_gd.runs.composition import compose_config, method_names
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import (
    OneLineParser,
    ending_when_interrupted,
    ending_with_one_line,
)
from avalanche_gd.runs.provenance import provenance
from avalanche_gd.storage import write_json, write_text, write_whole

_GROWING = "generative_distillation"
_EXPERIENCES = (1, 2, 5, 10, 20, 50)
_SMALL = [name for name in PRESETS if not name.startswith(("paper-", "rank1-"))]


def main(description: str, arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write ``speed.csv``, ``speed.json``, ``speed.png``.

    :param description: the description of the command.
    :param arguments: those of the command line; None for the process's own.
    """
    line = "interrupted; speed.csv has what was measured before, if anything"
    with ending_when_interrupted(line), ending_with_one_line():
        options = _parse(description, arguments)
        out = Path(options.out)
        if (out / "speed.json").exists():
            raise ValueError(f"{out} has another measurement; choose a folder with --out")
        configs = _diffusion_configs(options)
        torch.set_num_threads(options.threads)
        write_json(out / "speed.json", _machine(configs[0]))
        print((out / "speed.json").read_text())
        rows: list[Measurement] = []
        for more in _measurements(options, configs):
            print(as_table(more) + "\n", flush=True)
            rows += more
            write_text(out / "speed.csv", as_csv(rows))
        write_whole(out / "speed.png", lambda path: save_figure(rows, path))
        print(out / "speed.csv")


def _measurements(
    options: argparse.Namespace, configs: Sequence[RunConfig]
) -> Iterator[list[Measurement]]:
    repeats, few = options.repeats, max(1, options.repeats // 4)
    for config in configs:
        yield measure_steps(config, repeats)
    config = _config(options, _GROWING)
    yield measure_sampling(config, repeats)
    yield measure_evaluation(config, few)
    if not options.growth:
        return
    for batch_size in (16, 64, 256):
        larger = config.replaced({"generator.batch_size": batch_size})
        yield measure_steps(larger, repeats, part="step by batch")
    for preset in PRESETS if config.torch_device.type == "cuda" else _SMALL:
        other = config.replaced({"model.preset": preset})
        weights = round(sum(p.numel() for p in other.model.make(1).parameters()) / 1000)
        rows = measure_steps(other, repeats, part="step by model")
        yield [dataclasses.replace(row, name=preset, at=weights) for row in rows]
    yield measure_steps(config, few, part="step by experience", experiences=_EXPERIENCES)


def _machine(config: RunConfig) -> dict[str, object]:
    device = config.torch_device
    model = config.model.make(config.benchmark.n_classes).to(device)
    return {
        "preset": config.model.preset,
        "batch_size": config.generator.batch_size,
        "execution": dataclasses.asdict(model.execution),
        "matrix_product_GFLOPs": round(product_gflops(device)),
        "denoiser_GFLOPs": round(denoiser_gflops(model, config.generator.batch_size)),
        **provenance(device),
    }


def _parse(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="fmnist-small")
    parser.add_argument(
        "--methods",
        type=lambda text: text.split(","),
        help="separated by commas (default: all that train a diffusion model)",
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--repeats", type=int, default=20, help="per timing (default: %(default)s)"
    )
    parser.add_argument(
        "--growth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also measure 50 experiences, other batch sizes and other models",
    )
    parser.add_argument(
        "--out",
        default="runs/speed",
        help="the folder of the results (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        raise ValueError(f"--repeats must be 1 or more, got {options.repeats}")
    return options


def _config(options: argparse.Namespace, method: str) -> RunConfig:
    overrides = [
        f"method={method}",
        f"model={options.preset}",
        f"model.precision={options.precision}",
        f"model.channels_last={options.channels_last}",
        f"model.compile={options.compile}",
        f"generator.batch_size={options.batch_size}",
        f"device={options.device}",
        f"threads={options.threads}",
    ]
    return compose_config(overrides)


def _diffusion_configs(options: argparse.Namespace) -> list[RunConfig]:
    """The settings of the chosen methods, else of all that train a diffusion model."""
    configs = [_config(options, name) for name in options.methods or method_names()]
    others = [c.method.name for c in configs if c.method.generator != "diffusion"]
    if options.methods and others:
        raise ValueError(f"{others[0]} trains no diffusion model to measure")
    return [config for config in configs if config.method.name not in others]
