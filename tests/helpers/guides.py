"""The files and the code of the guides, as they stand there."""

import re
import sys
from pathlib import Path

from tests.helpers.repository import ROOT

GUIDES = ROOT / "docs" / "guides"
_FILE = re.compile(r"`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", re.DOTALL)


def files_of(page: str) -> dict[str, str]:
    """The files that a page tells to write, by name."""
    return dict(_FILE.findall(page))


def code_of(page: str) -> list[str]:
    """The blocks of Python of a page that are not files."""
    return re.findall(r"```python\n(.*?)```", _FILE.sub("", page), re.DOTALL)


def write_files(page: str, folder: Path) -> None:
    """Write the files of a page."""
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def forget_modules() -> None:
    """Have Python import the files of a page anew."""
    for module in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[module]
