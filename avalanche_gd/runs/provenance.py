"""Which code on which machine made a result."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from avalanche_gd.distributed.launch import process_count

_PACKAGES = (
    "avalanche-gd",
    "avalanche-lib",
    "torchvision",
    "torchmetrics",
    "diffusers",
    "numpy",
)


def provenance(device: torch.device) -> dict[str, Any]:
    """Versions, commit and machine, for ``run.json``."""
    on_gpu = device.type == "cuda"
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,  # with the tag of its build
            **{package: package_version(package) for package in _PACKAGES},
        },
        "commit": commit_of(Path(__file__).parents[1]),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "processes": process_count(),
        },
    }


def package_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout is not installed
        return None


def commit_of(package: Path) -> str | None:
    """The commit of the checkout that a package is in; None if it is in none.

    It ends in ``-dirty`` if files of the package were changed. Others may have been, such
    as results that a command wrote.

    :param package: its folder.
    """

    def git(*command: str) -> str:
        line = ["git", "-C", str(package), *command]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout

    try:
        git("ls-files", "--error-unmatch", ".")
        commit = git("rev-parse", "HEAD").strip()
        is_changed = git("status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if is_changed else commit


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
