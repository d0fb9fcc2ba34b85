"""The memory that is held, and the most that was."""

from pathlib import Path

import psutil
import torch

_MB = 2**20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_mb(device: torch.device) -> float:
    """What tensors hold on a GPU, or what the process holds."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / _MB
    return psutil.Process().memory_info().rss / _MB


def restart_peak(device: torch.device) -> None:
    """Begin a new peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _RESET.write_text("5")  # resets VmHWM, see proc(5)
    except OSError:
        return  # not Linux: the peak is that of the process's life


def peak_mb(device: torch.device) -> float | None:
    """The most since :func:`restart_peak`; None where it cannot be known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MB
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) / 1024
