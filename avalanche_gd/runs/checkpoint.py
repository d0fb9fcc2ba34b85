"""Checkpoints of a run: one file an experience, of which the last two are kept."""

from pathlib import Path
from typing import Any

import torch

from avalanche_gd.storage import write_whole

_KEPT = 2


def save_checkpoint(folder: Path, experience: int, state: dict[str, Any]) -> None:
    """Keep the state after an experience.

    :param folder: of the checkpoints.
    :param experience: its index.
    :param state: tensors and plain containers only.
    """
    path = folder / f"exp_{experience:03d}.pt"
    write_whole(path, lambda beside: torch.save(state, beside))
    for path in sorted(folder.glob("exp_*.pt"))[:-_KEPT]:
        path.unlink()


def load_checkpoint(folder: Path, device: torch.device) -> tuple[int, dict] | None:
    """The last experience with a checkpoint and its state; None if there is none.

    :raises ValueError: if the file is cut short or is not a checkpoint.
    """
    paths = sorted(folder.glob("exp_*.pt"))
    if not paths:
        return None
    path = paths[-1]
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint {path} is cut short or damaged; delete it, and the run goes on "
            "from the experience before"
        ) from error
    return int(path.stem.removeprefix("exp_")), state
