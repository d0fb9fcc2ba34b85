"""The highest memory use."""

from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")  # on Linux; on other systems nothing is known


def restart_peak(device: torch.device) -> None:
    """Start to measure a new peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # resets VmHWM, see proc(5)


def peak_mb(device: torch.device) -> float | None:
    """The highest use since :func:`restart_peak`; None if it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError):
        lines = (_PROCESS / "status").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
        return int(kilobytes) / 1024
    return None
