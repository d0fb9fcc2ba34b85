"""Read files of published weights, which are recognised by their SHA-256."""

import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from avalanche_gd.storage import expanded


def known_weights(
    urls: Mapping[str, str], weights_path: str | Path | None
) -> tuple[str, bytes, Any]:
    """Find, download and read one of some published files; nothing in it is executed.

    :param urls: where each file is, by the first digits of its SHA-256. Without a path the
        first is used.
    :param weights_path: one of these files, under any name; None for the one in torch's
        hub folder, which is downloaded if it is not there.
    :return: those digits, the bytes of the file, and the object in it.
    :raises ValueError: if the SHA-256 of the file is none of these.
    :raises Exception: errors of reading, of downloading or of torch.
    """
    first, url = next(iter(urls.items()))
    expected = list(urls)
    if weights_path is not None:
        path = expanded(weights_path)
    else:
        path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
        expected = [first]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    for digits in expected:
        if digest.startswith(digits):
            return digits, content, torch.load(BytesIO(content), weights_only=True)
    raise ValueError(
        f"the SHA-256 of {path} begins with {digest[:8]}, not {' or '.join(expected)}"
    )
