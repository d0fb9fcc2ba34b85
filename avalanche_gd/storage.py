"""Files that are whole or absent, and the folder of those that are kept between runs."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where computed and unpacked files are kept between runs.

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
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix
    )
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        beside.chmod(0o644)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_whole(path, lambda beside: beside.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")
