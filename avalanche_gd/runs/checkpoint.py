"""Checkpoints of a run: one file an experience, of which the last two are kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from avalanche_gd.storage import content_digest, write_whole

_KEPT = 2


class Checkpoint(NamedTuple):
    """What a run has reached."""

    experience: int
    """The index of the last experience that it holds."""
    state: dict[str, Any]


def save_checkpoint(folder: Path, run: str, experience: int, state: dict[str, Any]) -> None:
    """Keep the state after an experience, and what it is the state of.

    :param folder: of the checkpoints.
    :param run: the digest of the settings that decide the run's result.
    :param experience: its index.
    :param state: tensors and plain containers only.
    :raises ValueError: if it cannot be written.
    """
    content = {"run": run, "experience": experience, "state": state}
    content["digest"] = content_digest(content)
    path = _path(folder, experience)
    write_whole(path, lambda beside: torch.save(content, beside))
    _remove_old(folder, experience)


def load_checkpoint(
    folder: Path,
    run: str,
    n_experiences: int,
    device: torch.device,
    refused: Callable[[str], None],
) -> Checkpoint | None:
    """The last checkpoint that is whole and this run's; None if there is none.

    It is unpickled as tensors and plain containers only. Those that are no longer kept
    are removed.

    :param folder: of the checkpoints.
    :param run: as it was saved with.
    :param n_experiences: of the run.
    :param device: where the tensors go.
    :param refused: called with a line about each later one that cannot be used.
    """
    for experience in reversed(range(n_experiences)):
        path = _path(folder, experience)
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            digest = content.pop("digest")
            whole = digest == content_digest(content)
        except Exception:  # whatever zipfile, pickle and torch raise
            whole = False
        if not whole:
            refused(f"{path} is cut short or damaged")
        elif content["run"] != run:
            refused(f"{path} is of another run")
        elif content["experience"] != experience:
            refused(f"{path} is of experience {content['experience'] + 1}")
        else:
            _remove_old(folder, experience)  # if a kill came before
            return Checkpoint(experience, content["state"])
    return None


def _remove_old(folder: Path, last: int) -> None:
    """Remove the checkpoints before the last ones."""
    for old in range(last - _KEPT + 1):
        _path(folder, old).unlink(missing_ok=True)


def _path(folder: Path, experience: int) -> Path:
    return folder / f"exp_{experience:03d}.pt"
