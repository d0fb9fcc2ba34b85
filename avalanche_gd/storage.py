"""Files that are whole or absent, and the cache of computed tensors."""

import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def cache_folder() -> Path:
    """Where computed tensors are kept between runs.

    ``$AVALANCHE_GD_CACHE``, else ``avalanche-gd`` in ``$XDG_CACHE_HOME`` or
    ``~/.cache``.
    """
    if folder := os.environ.get("AVALANCHE_GD_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / (
        "avalanche-gd"
    )


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a file written beside its place, flushed to disk, and renamed into it.

    :param path: where the file goes; its folder is made.
    :param write: writes a file at the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}-{secrets.token_hex(8)}{path.suffix}")
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        beside.chmod(0o644)  # safetensors lets only the owner read
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_whole(path, lambda beside: beside.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def cached(
    kind: str, key: Iterable[object], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that are made for a key, from the cache where they are there.

    A cached file that is damaged, or that was made for another key, is never used: there
    is a warning, and it is made anew. A cache folder that cannot be written is a warning
    too. Processes that make the same thing at once each write a whole file.

    :param kind: what the file is named after, beside a digest of the key.
    :param key: all that decides the result: tensors, and what differs in its ``repr``.
    :param make: gives contiguous tensors on the CPU that share no memory.
    :return: what ``make`` gave, now or then; if then, mapped from the file, not copied.
    """
    digest = _digest(key)
    path = cache_folder() / f"{kind}-{digest[:16]}.safetensors"
    try:
        return _read(path, digest)
    except FileNotFoundError:
        pass
    except Exception as error:  # a cache may be thrown away at any time
        warnings.warn(f"cannot use the cached {path} ({error}); made anew", stacklevel=3)
    content = make()
    metadata = _metadata(digest, content)
    try:
        write_whole(path, lambda beside: save_file(content, beside, metadata=metadata))
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"cannot cache {path} ({error}); set AVALANCHE_GD_CACHE to a folder that can "
            "be written",
            stacklevel=3,
        )
    return content


def _read(path: Path, digest: str) -> dict[str, Tensor]:
    """The content of a cached file, mapped; safetensors does not unpickle."""
    with safe_open(path, framework="pt") as file:
        metadata, names = file.metadata(), file.keys()
        content = {name: file.get_tensor(name) for name in names}
    if metadata != _metadata(digest, content):
        raise ValueError("damaged, or made for another key")
    return content


def _metadata(digest: str, content: dict[str, Tensor]) -> dict[str, str]:
    return {"key": digest, "content": _digest(chain.from_iterable(sorted(content.items())))}


def _digest(parts: Iterable[object]) -> str:
    """The SHA-256 of tensors, by type, shape and bytes, and of the rest, by ``repr``."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(repr((part.dtype, part.shape)).encode())
            digest.update(part.contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(repr((part,)).encode())
    return digest.hexdigest()
