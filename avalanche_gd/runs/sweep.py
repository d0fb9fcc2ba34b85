"""What a sweep does before its first run and after its last."""

import hashlib
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from avalanche_gd.distributed.launch import is_main, process_count
from avalanche_gd.runs.comparison import compare
from avalanche_gd.runs.composition import read_config
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import ending_with_one_line


class ComparisonCallback(Callback):
    """Checks all runs of a sweep before the first begins, and compares them at the end."""

    def __init__(self) -> None:
        self.configs: list[RunConfig] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose and check every run."""
        with ending_with_one_line(in_callback=True):
            _check_launcher(config)
            self.configs = [read_config(job) for job in _compose_jobs(config)]

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table, and write the CSV and the figure."""
        if self.configs[0].check or not is_main():
            return
        folders = list(dict.fromkeys(config.folder for config in self.configs))
        names = sorted(str(folder.relative_to(self.configs[0].out)) for folder in folders)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        out = Path(self.configs[0].out) / f"comparison-{digest}"
        with ending_with_one_line(in_callback=True):
            table = compare(folders, out)
        print(f"\n{table}\n\n{out / 'comparison.csv'}")
        print(out / "comparison.png")


def _check_launcher(config: DictConfig) -> None:
    """:raises ValueError: if both torchrun and a launcher would start processes."""
    name = config.hydra.launcher._target_.rpartition(".")[2]
    if process_count() > 1 and name != BasicLauncher.__name__:
        raise ValueError(
            f"hydra/launcher={name} starts processes of its own; leave it out, or torchrun"
        )


def _compose_jobs(config: DictConfig) -> list[DictConfig]:
    """The composed configuration of each run of a sweep by Hydra's basic sweeper."""
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(config_loader=loader)
    params = config.hydra.sweeper.get("params") or {}
    swept = [f"{key}={value}" for key, value in params.items()]
    overrides = parser.parse_overrides([*swept, *config.hydra.overrides.task])
    return [
        loader.load_sweep_config(config, job)
        for job in BasicSweeper.split_arguments(overrides, None)[0]
    ]
