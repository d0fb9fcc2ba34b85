"""Text and JSON files that are whole or absent."""

import json
from pathlib import Path
from typing import Any

from avalanche_gd.models.files import write_whole


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_whole(path, lambda beside: beside.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")
