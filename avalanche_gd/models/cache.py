"""What is computed once and kept between runs."""

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


def save_cached(path: Path, write: Callable[[str], Any]) -> None:
    """Have a file written beside its place, and renamed into it.

    :param path: in :func:`cache_folder`, which is made.
    :param write: writes a file of the name it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)
