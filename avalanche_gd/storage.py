"""Files that are whole or absent, and the cache of computed tensors."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_BESIDE = re.compile(r"\..*-[0-9a-f]{16}(\.\w+)?")
"""The name of what is not whole yet."""


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
    :raises ValueError: if it cannot be written; what was there is then still there.
    """
    with _saying_why(path), _beside(path, Path.touch) as beside:
        write(beside)
        _flush(beside)
        os.replace(beside, path)


def write_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a folder written beside its place, flushed to disk, and renamed into it.

    :param path: where it goes; replaced if it is there.
    :param write: writes into the empty folder that it is given.
    :raises ValueError: if it cannot be written; what was there is then still there.
    """
    with _saying_why(path), _beside(path, Path.mkdir) as beside:
        write(beside)
        beside.chmod(0o755)
        for file in filter(Path.is_file, beside.rglob("*")):
            _flush(file)
        if path.exists():
            path.rename(beside.with_name(_name_beside(path)))
        beside.rename(path)
        remove_leftovers(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what is written beside its place by processes that live no more.

    :param folder: in which something is written whole.
    """
    for name in filter(_BESIDE.fullmatch, os.listdir(folder)):
        beside = folder / name
        # An error is of another process, which removes it too, or still writes it.
        with suppress(OSError), held(beside, wait=False):
            _remove(beside)


@contextmanager
def _beside(path: Path, make: Callable[[Path], Any]) -> Iterator[Path]:
    """A file or folder beside another, that is held as long as this process lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    beside = path.with_name(_name_beside(path))
    make(beside)
    with held(beside):
        if not beside.exists():  # taken for a leftover before it was held
            make(beside)
        try:
            yield beside
        finally:
            _remove(beside)


def _name_beside(path: Path) -> str:
    return f".{path.stem}-{secrets.token_hex(8)}{path.suffix}"


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file or folder, as one process at a time can, at most as long as it lives.

    :param wait: until another process lets go of it.
    :raises OSError: if it is not there or, without waiting, another process holds it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _flush(file: Path) -> None:
    """Have a file on disk, for all to read: safetensors lets only its owner."""
    with open(file, "rb+") as written:
        os.fsync(written.fileno())
    file.chmod(0o644)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _saying_why(path: Path) -> Iterator[None]:
    """Have an error say which file cannot be written."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        if reason is None:  # torch's and safetensors' own words
            reason = " ".join(str(error).split())
            reason = "the disk may be full" if "unexpected pos" in reason else reason
        raise ValueError(f"cannot write {path}: {reason}") from error


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
    except ValueError as error:
        warnings.warn(
            f"{error}; set AVALANCHE_GD_CACHE to a folder that can be written",
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


def folder_digest(folder: Path) -> str:
    """The SHA-256 of the names and the content of all files in a folder.

    But of its ``README.md``: what is told of a model does not decide what it gives.

    :raises OSError: if one cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(filter(Path.is_file, folder.rglob("*"))):
        if path == folder / "README.md":
            continue
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(repr((str(path.relative_to(folder)), content)).encode())
    return digest.hexdigest()


def content_digest(content: object) -> str:
    """The SHA-256 of tensors in plain containers, with their structure.

    Of a tensor, its type, shape and bytes; of what is no container, its ``repr``.
    """
    return _digest(_parts(content))


def _parts(content: object) -> Iterator[object]:
    if isinstance(content, dict):
        yield "dict", len(content)
        for key, value in content.items():
            yield key
            yield from _parts(value)
    elif isinstance(content, list | tuple):
        yield type(content).__name__, len(content)
        for value in content:
            yield from _parts(value)
    else:
        yield content


def _digest(parts: Iterable[object]) -> str:
    """The SHA-256 of tensors, by type, shape and bytes, and of the rest, by ``repr``."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(repr((part.dtype, part.shape)).encode())
            flat = part.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
        else:
            digest.update(repr((part,)).encode())
    return digest.hexdigest()
