"""What happens before the first run of a sweep and after its last."""

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import suppress
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
from avalanche_gd.storage import expanded, write_bytes


class SweepCallback(Callback):
    """Checks all runs of a sweep before the first starts, and makes a report at the end.

    If the runs are made in this process, it also prints after each what is left.
    """

    def __init__(self) -> None:
        self.configs: list[RunConfig] = []
        self.failures: dict[Path, str] = {}
        self.own_file = Path()
        self.before: bytes | None = None  # its content before the sweep
        self.made: list[Path] = []  # the folders for it that were not there, the last first

    def __getstate__(self) -> dict[str, Any]:
        """Start as new in a launcher's process, which does not know the other runs."""
        return vars(SweepCallback())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose and check every run."""
        with ending_with_one_line(reraise=False):
            _check_launcher(config)
            self.configs = [read_config(job) for job in _compose_jobs(config)]
            if not self.configs:
                raise ValueError("the sweep has no run: its pattern fits no choice")
            self.countdown = Countdown(self.configs)
        self.own_file = Path(config.hydra.sweep.dir) / "multirun.yaml"
        self.before = self.own_file.read_bytes() if self.own_file.is_file() else None
        self.made = [path for path in self.own_file.parents if not path.exists()]

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the start time."""
        if self.configs:
            self.countdown.begin(self.configs[config.hydra.job.num])

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note the error message, and print what is left."""
        if not self.configs or job_return.status is not JobStatus.COMPLETED:
            return
        run, failure = self.configs[config.hydra.job.num], job_return.return_value
        if failure is not None:
            self.failures[run.folder] = failure
        with ending_with_one_line(reraise=False):
            self.countdown.end(run, failure)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Make a report of the complete runs, print the tables, and list the errors."""
        if not is_main():
            return
        if self.configs[0].check:
            self._leave_nothing()
        else:
            folders = list(dict.fromkeys(config.folder for config in self.configs))
            complete = list(filter(_is_whole, folders))
            for folder in set(folders) - set(complete):
                self.failures.setdefault(folder, "see above, or its launcher's log")
            if complete:
                self._report(complete)
        end_with_failures(self.failures)

    def _leave_nothing(self) -> None:
        """Take back what Hydra wrote about the sweep."""
        if self.before is not None:
            write_bytes(self.own_file, self.before)
            return
        self.own_file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for folder in self.made:
                folder.rmdir()

    def _report(self, folders: Sequence[Path]) -> None:
        out = expanded(self.configs[0].out)
        names = sorted(str(folder.relative_to(out)) for folder in folders)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        with ending_with_one_line(reraise=False):
            write_report(folders, out / f"report-{digest}")


def _is_whole(folder: Path) -> bool:
    """True for a complete run; an error message was printed if it is damaged."""
    try:
        return is_complete(folder)
    except ValueError:
        return False


def split_sweep(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each run of a sweep; the values of the last key change fastest.

    Split as Hydra's own sweeper does: if there are two for one key, the later one is used,
    at the place of the earlier one.

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
    if name == "BasicLauncher":  # it runs in this process
        return
    if process_count() > 1:
        raise ValueError(
            f"hydra/launcher={name} starts its own processes; remove it, or torchrun"
        )
    if config.check:  # it leaves no file that shows which run failed elsewhere
        raise ValueError(
            f"hydra/launcher={name} cannot tell which check failed; remove it for --check"
        )
    if name == "SlurmLauncher" and shutil.which("srun") is None:
        raise ValueError(
            "hydra/launcher=submitit_slurm finds no srun here; use a machine with Slurm"
        )
    if name == "RayLauncher" and not expanded(config.out).is_absolute():
        raise ValueError(
            f"with hydra/launcher=ray, out={config.out} differs from machine to machine; "
            "give the absolute path of a folder that all machines see"
        )


def _compose_jobs(config: DictConfig) -> list[DictConfig]:
    """The composed configuration of each run of a sweep by Hydra's basic sweeper.

    Hydra makes the sweep of an experiment only if that is not swept itself.

    :raises ValueError: if a sweep of an experiment or of a protocol would be lost.
    """
    loader = GlobalHydra.instance().config_loader()
    parse = OverridesParser.create(config_loader=loader).parse_overrides
    overrides = parse([*_own_sweep(config), *config.hydra.overrides.task])
    jobs = []
    for job in split_sweep(overrides):
        jobs.append(loader.load_sweep_config(config, job))
        wanted = {own.key_or_group for own in parse(_own_sweep(jobs[-1]))}
        if lost := sorted(wanted - {given.key_or_group for given in overrides}):
            bringers = [p for p in job if p.startswith(("experiment=", "protocol="))]
            names = " and ".join(lost)
            raise ValueError(
                f"{' '.join(bringers or job)} has its own sweep over {names}, which Hydra "
                f"does not make among others; use one command for each, or give {names} too"
            )
    return jobs


def _own_sweep(config: DictConfig) -> list[str]:
    """The overrides of the sweep that an experiment or a protocol brings."""
    params = config.hydra.sweeper.get("params") or {}
    return [f"{key}={value}" for key, value in params.items()]
