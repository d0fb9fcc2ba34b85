"""Checkpoints of a run: one file per experience; the last two are kept."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from avalanche_gd.storage import content_digest, write_whole

_KEPT = 2


class Checkpoint(NamedTuple):
    """A saved state of a run."""

    experience: int
    """The index of the last experience that was trained."""
    state: dict[str, Any]


def save_checkpoint(folder: Path, run: str, experience: int, state: dict[str, Any]) -> None:
    """Save the state after an experience, with what identifies it.

    :param folder: the folder of the checkpoints.
    :param run: the digest of the settings that decide the run's result.
    :param experience: the index of the experience.
    :param state: tensors and plain containers only.
    :raises ValueError: if it cannot be written.
    """
    content = {"run": run, "code": code_digest(), "experience": experience}
    content["state"] = state
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
    """Load the last complete checkpoint of this run; None if there is none.

    Only tensors and plain containers are unpickled. Older checkpoints than the last two
    are removed.

    :param folder: the folder of the checkpoints.
    :param run: the same digest as when it was saved.
    :param n_experiences: the number of experiences of the run.
    :param device: where the tensors go.
    :param refused: called with a message for each later checkpoint that cannot be used.
    :raises ValueError: if it was written by other code of this package, which may measure
        or train in another way.
    """
    code = code_digest()  # now: the files may change while the run goes on
    for experience in reversed(range(n_experiences)):
        path = _path(folder, experience)
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            digest = content.pop("digest")
            whole = digest == content_digest(content)
        except Exception:  # zipfile, pickle and torch raise errors of many kinds
            whole = False
        if not whole:
            refused(f"{path} is cut short or damaged")
        elif content["run"] != run:
            refused(f"{path} is of another run")
        elif content["experience"] != experience:
            refused(f"{path} is of experience {content['experience'] + 1}")
        elif content.get("code") != code:
            raise ValueError(
                f"the checkpoints in {folder} were written by another version of this "
                "package; use that version, or delete the folder"
            )
        else:
            _remove_old(folder, experience)  # a kill may have come before that
            return Checkpoint(experience, content["state"])
    return None


@cache
def code_digest() -> str:
    """The SHA-256 of this package's own code, as it was when it was first asked for."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(repr((str(path.relative_to(package)), path.read_bytes())).encode())
    return digest.hexdigest()


def _remove_old(folder: Path, last: int) -> None:
    """Remove the checkpoints before the last ones."""
    for old in range(last - _KEPT + 1):
        _path(folder, old).unlink(missing_ok=True)


def _path(folder: Path, experience: int) -> Path:
    return folder / f"exp_{experience:03d}.pt"
