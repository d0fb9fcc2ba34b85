"""Numbers in the text of pages, which are to be in a CSV of the experiments.

``python experiments/results.py --check`` fails if one is not. Those of less than three
digits are not looked for, as any would be found; ``findings.py`` computes the main ones.
"""

import contextlib
import csv
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

DECIMAL = re.compile(r"(?<![\w.,=/:-])-?\d+(?:,\d{3})*\.\d+(?![\w/]|\.\d)")
TABLES = re.compile(r"<!-- results: .*?<!-- results end -->", re.DOTALL)
"""Which are made of the CSVs."""
LINK = re.compile(r"\]\(\.\./(\w+)\)")
"""To another experiment."""
NO_NUMBERS = re.compile(
    r"```.*?```|`[^`]*`|\]\([^)]*\)"  # code, addresses
    r"|\b(?:arXiv|Python|torch|torchvision|diffusers|avalanche-lib)\s+[\d.]+"
    r"(?: to [\d.]+)?",
    re.DOTALL,
)
NOT_MEASURED = ("1.25", "1.75", "1.33333", "2.25", "1.61")
"""Settings of papers, and a calculation on the page of ``paper_fmnist``."""


def in_text(text: str) -> Iterator[tuple[int, str]]:
    """The line and the digits of each decimal number of three digits or more."""
    for kind in (TABLES, NO_NUMBERS):
        text = kind.sub(lambda found: "\n" * found[0].count("\n"), text)
    for line, words in enumerate(text.splitlines(), 1):
        for number in DECIMAL.findall(words):
            digits = number.replace(",", "").lstrip("-")
            if len(digits.replace(".", "").lstrip("0")) >= 3 and digits not in NOT_MEASURED:
                yield line, digits


def in_csvs(folder: Path) -> Iterator[float]:
    """The numbers of an experiment's CSVs, but those in ``runs/``."""
    for path in (*folder.glob("*.csv"), *folder.glob("metrics/*.csv")):
        with open(path, newline="") as file:
            for row in csv.reader(file):
                for cell in row:
                    with contextlib.suppress(ValueError):  # of words
                        yield float(cell)


def numbers(text: str) -> Iterator[float]:
    """All numbers with a decimal point, also those of tables."""
    return (float(number.replace(",", "")) for number in DECIMAL.findall(text))


def measured(page: Path, experiments: Path) -> list[float]:
    """What a page may say: of its experiment, of those that it links to, of its table.

    A page of the documentation, and that of all experiments, may quote each of them.

    :param experiments: their folder.
    """
    text = page.read_text()
    folders = [page.parent, *(experiments / name for name in LINK.findall(text))]
    if page.parent.parent != experiments:
        folders = [experiments, *(path for path in experiments.iterdir() if path.is_dir())]
    found = [value for folder in folders for value in in_csvs(folder)]
    return [*found, *(value for table in TABLES.findall(text) for value in numbers(table))]


def unknown(page: Path, known: Iterable[float]) -> list[tuple[int, str]]:
    """The numbers in the text of a page that no known one is rounded to, with their lines.

    :param known: numbers, whose sign is not looked at.
    """
    ordered = sorted(abs(value) for value in known if math.isfinite(value))
    missing = []
    for line, digits in in_text(page.read_text()):
        half = 0.5 * 10.0 ** -len(digits.partition(".")[2]) * (1 + 1e-6)
        at = bisect_left(ordered, float(digits) - half)
        if at == len(ordered) or ordered[at] > float(digits) + half:
            missing.append((line, digits))
    return missing
