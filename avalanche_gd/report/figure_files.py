"""Write the files of a report's figures in the place of an earlier report's."""

import json
from hashlib import sha256
from pathlib import Path

from avalanche_gd.storage import write_bytes, write_json

_FOLDER = "figures"
_LIST = "avalanche-gd-report.json"
"""The file of the SHA-256 of each figure that a report wrote, by the figure's name."""


def write_figures(out: Path, figures: dict[str, bytes]) -> None:
    """Write figures, then remove those of an earlier report that are not among them.

    A file that no report wrote stays, and so does one that was changed since. The list of
    both reports' figures is written first, so that an interruption leaves none unlisted.

    :param out: the folder of the report.
    :param figures: the content of each file, by its path in ``out``.
    :raises ValueError: if a file cannot be written or removed.
    """
    folder = out / _FOLDER
    earlier = _listed(folder)
    new = {Path(name).name: sha256(figures[name]).hexdigest() for name in figures}
    write_json(folder / _LIST, earlier | new)
    for name, content in figures.items():
        write_bytes(out / name, content)
    for path in folder.iterdir():
        if path.name in new or path.name not in earlier:
            continue
        try:
            if sha256(path.read_bytes()).hexdigest() == earlier[path.name]:
                path.unlink()
        except OSError as error:
            raise ValueError(
                f"cannot remove {path}, of an earlier report: {error.strerror}; delete it"
            ) from error
    write_json(folder / _LIST, new)


def _listed(folder: Path) -> dict[str, str]:
    """The list of an earlier report; empty if there is none that can be read."""
    try:
        known = json.loads((folder / _LIST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
