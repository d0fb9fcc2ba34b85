"""What a sweep does before its first run and after its last."""

import hashlib
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from avalanche_gd.distributed.launch import is_main, process_count
from avalanche_gd.report.report_command import write_report
from avalanche_gd.runs.composition import read_config
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import ending_with_one_line
from avalanche_gd.runs.results import is_complete
from avalanche_gd.runs.side_by_side import Countdown, end_with_failures


class SweepCallback(Callback):
    """Checks all runs of a sweep before the first begins, and reports them at the end.

    Where runs are made in this process, it also says after each what is left.
    """

    def __init__(self) -> None:
        self.configs: list[RunConfig] = []
        self.failures: dict[Path, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """As new in a launcher's process, which does not know of the others' runs."""
        return vars(SweepCallback())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose and check every run."""
        with ending_with_one_line(reraise=False):
            _check_launcher(config)
            self.configs = [read_config(job) for job in _compose_jobs(config)]
            if not self.configs:
                raise ValueError("the sweep has no run: a glob of it matches no choice")
            self.countdown = Countdown(self.configs)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note when it began."""
        if self.configs:
            self.countdown.begin(self.configs[config.hydra.job.num])

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note what went wrong, and say what is left."""
        if not self.configs or job_return.status is not JobStatus.COMPLETED:
            return
        run, failure = self.configs[config.hydra.job.num], job_return.return_value
        if failure is not None:
            self.failures[run.folder] = failure
        with ending_with_one_line(reraise=False):
            self.countdown.end(run, failure)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report the complete runs, print the tables, and list what went wrong."""
        if not is_main():
            return
        if not self.configs[0].check:
            folders = list(dict.fromkeys(config.folder for config in self.configs))
            complete = list(filter(_is_whole, folders))
            for folder in set(folders) - set(complete):
                self.failures.setdefault(folder, "see above, or its launcher's log")
            if complete:
                self._report(complete)
        end_with_failures(self.failures)

    def _report(self, folders: Sequence[Path]) -> None:
        out = Path(self.configs[0].out).expanduser()
        names = sorted(str(folder.relative_to(out)) for folder in folders)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        with ending_with_one_line(reraise=False):
            write_report(folders, out / f"report-{digest}")


def _is_whole(folder: Path) -> bool:
    """True for a complete run; one that is damaged has been said."""
    try:
        return is_complete(folder)
    except ValueError:
        return False


def split_sweep(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each run of a sweep, the last one's values turning fastest.

    As Hydra's own sweeper splits them: of two for one key the later holds, in the place
    of the earlier.

    :raises HydraException: for a sweep over an interval, which has no values.
    """
    values = {}
    for override in overrides:
        if override.is_sweep_override():
            values[override.get_key_element()] = list(override.sweep_string_iterator())
        else:
            values[override.get_key_element()] = [override.get_value_element_as_str()]
    parts = [[f"{key}={value}" for value in own] for key, own in values.items()]
    return [list(job) for job in product(*parts)]


def _check_launcher(config: DictConfig) -> None:
    """Raise ValueError if a launcher would start processes where it cannot."""
    name = config.hydra.launcher._target_.rpartition(".")[2]
    if name == "BasicLauncher":  # which runs in this process
        return
    if process_count() > 1:
        raise ValueError(
            f"hydra/launcher={name} starts processes of its own; leave it out, or torchrun"
        )
    if config.check:  # of which nothing is left to tell what failed elsewhere
        raise ValueError(
            f"hydra/launcher={name} cannot tell which check failed; leave it out of --check"
        )
    if name == "SlurmLauncher" and shutil.which("srun") is None:
        raise ValueError(
            "hydra/launcher=submitit_slurm finds no srun here; go where Slurm is"
        )
    if name == "RayLauncher" and not Path(config.out).expanduser().is_absolute():
        raise ValueError(
            f"out={config.out} is another folder where hydra/launcher=ray runs; give the "
            "whole path of one that all machines see"
        )


def _compose_jobs(config: DictConfig) -> list[DictConfig]:
    """The composed configuration of each run of a sweep by Hydra's basic sweeper."""
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(config_loader=loader)
    params = config.hydra.sweeper.get("params") or {}
    swept = [f"{key}={value}" for key, value in params.items()]
    overrides = parser.parse_overrides([*swept, *config.hydra.overrides.task])
    return [loader.load_sweep_config(config, job) for job in split_sweep(overrides)]
