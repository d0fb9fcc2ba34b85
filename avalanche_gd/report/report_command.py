"""The command ``avalanche-gd-report``."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from avalanche_gd.report.collect import collect
from avalanche_gd.report.page import render, view
from avalanche_gd.report.style import styles_of
from avalanche_gd.report.tables import as_csv
from avalanche_gd.report.tex import as_tex
from avalanche_gd.runs.errors import (
    USER_ERRORS,
    OneLineParser,
    exit_with,
    take_over_errors,
)
from avalanche_gd.storage import write_text, write_whole

_COMMAND = "avalanche-gd-report"


def write_report(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write ``report.html``, ``table.csv``, ``table.tex`` and ``figures/*.pdf``.

    All is read and drawn before the first file is written.

    :param folders: of runs, at any depth.
    :param out: where the report goes; what else is there stays.
    :return: the files.
    :raises ValueError: if there is no run, one is damaged, two contradict each other, or
        the files cannot be written.
    """
    _check_place(out)
    collection = collect(folders)
    styles = styles_of(collection.sections)
    views = [view(section, styles) for section in collection.sections]
    texts = {
        out / "report.html": render(collection, views),
        out / "table.csv": as_csv(collection.sections),
        out / "table.tex": as_tex(collection.sections),
    }
    drawings = {
        out / "figures" / f"{drawing.name}.pdf": drawing.pdf
        for view in views
        for drawing in view.drawings()
    }
    try:
        for path, text in texts.items():
            write_text(path, text)
        for path, pdf in drawings.items():
            write_whole(path, partial(Path.write_bytes, data=pdf))
    except OSError as error:
        raise ValueError(f"cannot write {error.filename}: {error.strerror}") from error
    return [*texts, *drawings]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a report, and end with one line and status 2 on a wrong value."""
    take_over_errors()
    try:
        options = _parser().parse_args(arguments)
        for path in write_report(options.folders, options.out):
            print(path)
    except USER_ERRORS as error:
        exit_with(error, _COMMAND)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=_COMMAND,
        description="Write one page, tables and figures on all runs below some folders.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a folder of runs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="where to (default: report)"
    )
    return parser


def _check_place(out: Path) -> None:
    for path in (out, out / "figures"):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; choose a folder with --out")


if __name__ == "__main__":
    main()
