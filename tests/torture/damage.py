"""What can happen to a file: each by a random state, and beside another of its kind."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch


def flip(path: Path, random: Random, other: Path) -> None:
    """Turn one bit around."""
    content = bytearray(path.read_bytes())
    if content:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def cut(path: Path, random: Random, other: Path) -> None:
    """Keep the beginning."""
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content) or 1)])


def swap(path: Path, random: Random, other: Path) -> None:
    """Put the other there."""
    shutil.copy(other, path)


def edit(path: Path, random: Random, other: Path) -> None:
    """Change one number, in a checkpoint as in a text; of pixels or tensors, one byte."""
    content = path.read_bytes()
    if path.suffix == ".pt":
        path.write_bytes(_other_checkpoint(content, random))
    elif digits := [match.start() for match in re.finditer(rb"[0-9]", content)]:
        place = random.choice(digits)
        digit = random.choice([d for d in b"0123456789" if d != content[place]])
        path.write_bytes(content[:place] + bytes([digit]) + content[place + 1 :])


def _other_checkpoint(content: bytes, random: Random) -> bytes:
    """One that torch can read, with another metric or another weight."""
    checkpoint = torch.load(io.BytesIO(content), weights_only=True)
    rows = checkpoint["state"]["rows"]
    if random.random() < 0.5:
        place = random.randrange(len(rows))
        experience, metric, value = rows[place]
        rows[place] = experience, metric, value * 0.5 + 0.1
    else:
        strategies = checkpoint["state"]["learner"]["strategies"]
        name = random.choice(sorted(strategies))
        for weight in strategies[name]["model"].values():
            if weight.is_floating_point():
                weight.mul_(1.001)
    changed = io.BytesIO()
    torch.save(checkpoint, changed)
    return changed.getvalue()


def empty(path: Path, random: Random, other: Path) -> None:
    """Keep nothing of it."""
    path.write_bytes(b"")


def folder(path: Path, random: Random, other: Path) -> None:
    """Put a folder there."""
    path.unlink()
    path.mkdir()


def nowhere(path: Path, random: Random, other: Path) -> None:
    """Put a link there that leads nowhere."""
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


DAMAGE: tuple[Callable[[Path, Random, Path], None], ...] = (
    flip,
    edit,
    cut,
    swap,
    empty,
    folder,
    nowhere,
)
