"""What a run was made with, in words."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from avalanche_gd.runs.results import RunResult
from avalanche_gd.runs.run_files import JUDGES


@dataclass
class Provenance:
    """What a run was made with; if it was continued, of all times. Empty if not known."""

    device: str
    threads: str
    commit: str
    measured_by: str
    """The oracles and labellers, by the SHA-256 of their weights."""

    @classmethod
    def of(cls, run: RunResult, length: int | None = None) -> "Provenance":
        """The provenance of a run, from all times that it started or continued.

        :param length: how many characters of a commit or a digest; None for all.
        """
        machines = [time["machine"] for time in run.times]
        return cls(
            _each(map(_device, machines)),
            _each(machine.get("threads") for machine in machines),
            _each((time["commit"] or "")[:length] for time in run.times),
            _each(digest[:length] for kind in JUDGES for digest in run.info[kind]),
        )


def _each(found: Iterable[Any]) -> str:
    """The known values, without repetition."""
    return ", ".join(dict.fromkeys(str(one) for one in found if one))


def _device(machine: dict[str, Any]) -> str:
    device, processor = machine.get("device"), machine.get("processor")
    return f"cpu ({processor})" if device == "cpu" and processor else str(device or "")
