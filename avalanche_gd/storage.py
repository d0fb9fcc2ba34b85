"""Write files completely or not at all, and cache computed tensors."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_BESIDE = re.compile(r"\..*\.avalanche-gd-[0-9a-f]{16}(\.\w+)?")
"""The name of a file or folder that is not complete yet."""
_REPLACED = ".replaced"
"""The end of the name of an older folder, while the new one takes its place."""


def cache_folder() -> Path:
    """The folder in which computed tensors are kept between runs.

    ``$AVALANCHE_GD_CACHE``, else ``avalanche-gd`` in ``$XDG_CACHE_HOME`` or
    ``~/.cache``.
    """
    if folder := os.environ.get("AVALANCHE_GD_CACHE"):
        return expanded(folder)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "avalanche-gd"


def expanded(path: str | Path) -> Path:
    """A path in which a first ``~`` or ``~NAME`` is the home folder of a user.

    :raises ValueError: if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        name = Path(path).parts[0]
        raise ValueError(f"{path}: {name} is no user here; give ./{path}") from error


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name, flush it to disk, and rename it.

    So the file at ``path`` is complete or absent.

    :param path: where the file goes; its folder is made.
    :param write: a function that writes a file to the path that it gets.
    :raises ValueError: if it cannot be written; an older file at ``path`` stays.
    """
    with _saying_why(path), _beside(path, Path.touch) as beside:
        write(beside)
        _flush(beside)
        os.replace(beside, path)


def write_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a folder under a temporary name, flush its files to disk, and rename it.

    So the folder at ``path`` is complete or absent.

    :param path: where the folder goes; an older one is replaced.
    :param write: a function that writes into the empty folder that it gets.
    :raises ValueError: if it cannot be written; an older folder at ``path`` stays.
    """
    with _saying_why(path), _beside(path, Path.mkdir) as beside:
        write(beside)
        beside.chmod(0o755)
        for file in filter(Path.is_file, beside.rglob("*")):
            _flush(file)
        is_there = path.exists()
        older = path.with_name(_name_beside(path.with_name(path.name + _REPLACED)))
        with held(path) if is_there else nullcontext():  # also under its other name
            if is_there:
                path.rename(older)
            try:
                os.rename(beside, path)
            except OSError:
                if is_there:
                    older.rename(path)
                raise
        remove_leftovers(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that have ended.

    An older folder whose place is empty, as the process ended while it was replaced, takes
    its place again.

    :param folder: the folder in which they are.
    """
    for name in filter(_BESIDE.fullmatch, os.listdir(folder)):
        beside = folder / name
        # On an error, another process removes it at the same time, or still writes it.
        with suppress(OSError), held(beside, wait=False):
            replaced = folder / name[1:].rpartition(".avalanche-gd-")[0]
            if name.endswith(_REPLACED) and not replaced.exists():
                beside.rename(replaced)
            else:
                _remove(beside)


@contextmanager
def _beside(path: Path, make: Callable[[Path], Any]) -> Iterator[Path]:
    """Make a temporary file or folder next to ``path``, locked while this process lives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    beside = path.with_name(_name_beside(path))
    make(beside)
    with held(beside):
        if not beside.exists():  # another process removed it before it was locked
            make(beside)
        try:
            yield beside
        finally:
            _remove(beside)


def _name_beside(path: Path) -> str:
    return f".{path.stem}.avalanche-gd-{secrets.token_hex(8)}{path.suffix}"


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock a file or folder: one process at a time, at the longest until it ends.

    :param wait: True to wait until another process unlocks it.
    :raises OSError: if it does not exist or, with ``wait=False``, if another process has
        locked it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _flush(file: Path) -> None:
    """Flush a file to disk and let everyone read it: safetensors lets only its owner."""
    with open(file, "rb+") as written:
        os.fsync(written.fileno())
    file.chmod(0o644)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _saying_why(path: Path) -> Iterator[None]:
    """Turn an error of writing into a ValueError that names the file."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        if reason is None:  # torch's and safetensors' own words
            reason = " ".join(str(error).split())
            reason = "the disk may be full" if "unexpected pos" in reason else reason
        raise ValueError(f"cannot write {path}: {reason}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    write_whole(path, lambda beside: beside.write_bytes(content))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whatever the locale is, whole or not at all."""
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def cached(
    kind: str, key: Iterable[object], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the tensors for a key: from the cache if they are there, else made and kept.

    A cached file that is damaged, or that was made for another key, is never used: there is
    a warning, and the tensors are made again. If the cache folder cannot be written, there
    is a warning too. Processes that make the same tensors at the same time each write a
    complete file.

    :param kind: the first part of the file's name; the second is a digest of the key.
    :param key: all that decides the result: tensors, and objects that differ in ``repr``.
    :param make: returns contiguous tensors on the CPU that share no memory.
    :return: what ``make`` returned, now or earlier; if earlier, mapped from the file.
    """
    digest = _digest(key)
    path = cache_folder() / f"{kind}-{digest[:16]}.safetensors"
    try:
        return _read(path, digest)
    except FileNotFoundError:
        pass
    except Exception as error:  # users may delete a cache at any time
        warnings.warn(
            f"cannot use the cached {path} ({error}); it is made again", stacklevel=3
        )
    content = make()
    metadata = _metadata(digest, content)
    try:
        write_whole(path, lambda beside: save_file(content, beside, metadata=metadata))
    except ValueError as error:
        warnings.warn(
            f"{error}; set AVALANCHE_GD_CACHE to a folder that you can write to",
            stacklevel=3,
        )
    return content


def _read(path: Path, digest: str) -> dict[str, Tensor]:
    """The content of a cached file, memory-mapped; safetensors does not unpickle."""
    with safe_open(path, framework="pt") as file:
        metadata, names = file.metadata(), file.keys()
        content = {name: file.get_tensor(name) for name in names}
    if metadata != _metadata(digest, content):
        raise ValueError("damaged, or made for another key")
    return content


def _metadata(digest: str, content: dict[str, Tensor]) -> dict[str, str]:
    return {"key": digest, "content": _digest(chain.from_iterable(sorted(content.items())))}


def unwritable(folder: Path) -> Path | None:
    """What keeps files from being written to a folder: it, or the closest one above.

    :param folder: it need not be there.
    :return: None if they can be written.
    """
    while not folder.exists():
        folder = folder.parent
    can_be = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return None if can_be else folder


def folder_digest(folder: Path) -> str:
    """The SHA-256 of the names and the content of all files in a folder.

    ``README.md`` is left out: a description of a model does not change what it computes.

    :raises OSError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(filter(Path.is_file, folder.rglob("*"))):
        if path == folder / "README.md":
            continue
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(repr((str(path.relative_to(folder)), content)).encode())
    return digest.hexdigest()


def content_digest(content: object) -> str:
    """The SHA-256 of tensors in lists, tuples and dicts, with their structure.

    A tensor counts by its type, shape and bytes; any other object by its ``repr``.
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
