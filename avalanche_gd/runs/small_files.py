"""Read a whole file, if it is a regular one of limited size."""

import os
import stat
from pathlib import Path

_MIB = 2**20


def read_small(path: Path, *, limit: int) -> bytes:
    """The content of a regular file.

    A named pipe, on which the reader would wait, or a device is not read.

    :param path: the path of the file, or of a link to it.
    :param limit: the highest number of bytes that is allowed.
    :raises OSError: if it cannot be read.
    :raises ValueError: if it is not a regular file, or is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit / _MIB:g} MiB")
    return content
