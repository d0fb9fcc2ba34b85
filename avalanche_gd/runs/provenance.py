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
    return {
        "versions": _versions(),
        "commit": _commit(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": (
                torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
            ),
            "threads": torch.get_num_threads(),
            "processes": process_count(),
        },
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "torch": torch.__version__,  # with the tag of its build
    }
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def _commit() -> str | None:
    """The commit of the checkout this package is in; None if it is installed."""
    package = Path(__file__).parent
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        tracked = subprocess.run(
            ["git", "-C", str(package), "ls-files", "--error-unmatch", __file__],
            capture_output=True,
        )
        if tracked.returncode:
            return None
        described = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return described.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
