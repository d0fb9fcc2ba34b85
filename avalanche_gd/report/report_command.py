"""The command ``avalanche-gd-report``."""

from collections.abc import Sequence
from pathlib import Path

from avalanche_gd.report.collect import collect
from avalanche_gd.report.figure_files import write_figures
from avalanche_gd.report.page import SectionView, render
from avalanche_gd.report.publish import publish
from avalanche_gd.report.style import styles_of
from avalanche_gd.report.tables import as_csv, as_text, runs_as_csv
from avalanche_gd.report.tex import as_tex
from avalanche_gd.runs.errors import (
    OneLineParser,
    ending_when_interrupted,
    ending_with_one_line,
)
from avalanche_gd.storage import write_bytes

_COMMAND = "avalanche-gd-report"


def write_report(
    folders: Sequence[Path], out: Path, *, publish_to: Path | None = None
) -> None:
    """Write a report on runs, and print its tables and the path of its page.

    The files are ``report.html``, ``runs.csv``, ``table.csv``, ``table.tex``, and each
    figure as ``figures/*.pdf`` and ``figures/*.svg``. All is read and drawn before the
    first file is written; copies of runs are written first.

    :param folders: folders with runs, at any depth.
    :param out: the folder of the report. Of an earlier report there, nothing stays; other
        files do.
    :param publish_to: where copies of the results of complete runs go, as in
        :func:`~avalanche_gd.report.publish.publish`; None for no copies.
    :raises ValueError: if there is no run, one is damaged or contradicts itself, two
        contradict each other, or the files cannot be written or removed; and as in
        :func:`~avalanche_gd.report.publish.publish`.
    """
    for path in (out, out / "figures"):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; choose a folder with --out")
    collection = collect(folders)
    sections = collection.sections
    styles = styles_of(sections)
    views = [SectionView(section, styles) for section in sections]
    texts = {
        "report.html": render(collection, views, styles, out),
        "runs.csv": runs_as_csv(sections),
        "table.csv": as_csv(sections),
        "table.tex": as_tex(sections),
    }
    # Names of files may have bytes that are not text.
    files = {name: text.encode(errors="backslashreplace") for name, text in texts.items()}
    figures: dict[str, bytes] = {}
    for drawing in (drawing for view in views for drawing in view.drawings):
        figures |= drawing.files
    if publish_to is not None:
        publish(collection.runs, publish_to)
        print(f"{len(collection.runs)} runs are published in {publish_to}")
    for name, content in files.items():
        write_bytes(out / name, content)
    write_figures(out, figures)
    number = len(collection.unfinished)
    verb = "run is" if number == 1 else "runs are"
    note = f"\n\n{number} {verb} not finished, and in no mean." if number else ""
    print(f"\n{as_text(sections)}{note}\n\n{out / 'report.html'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a report; on a wrong value, print one line and exit with status 2.

    The status is 130 after an interruption.
    """
    parser = OneLineParser(
        prog=_COMMAND,
        description="Write one page, tables and figures on all runs in some folders.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="a folder with runs"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        help="the folder of the report (default: report)",
    )
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="FOLDER",
        help="also copy settings, metrics and run.json of the complete runs there, for "
        "others to report on",
    )
    line = f"{_COMMAND}: interrupted; run it again for a complete report"
    with ending_when_interrupted(line), ending_with_one_line(_COMMAND, reraise=False):
        options = parser.parse_args(arguments)
        write_report(options.folders, options.out, publish_to=options.publish)


if __name__ == "__main__":
    main()
