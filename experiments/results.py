"""Writes runs.csv of the runs that are published, and from the CSVs the tables of results.

python experiments/results.py            # write them
python experiments/results.py --check    # fail if they are not what the runs and CSVs say

The published runs of an experiment are in experiments/NAME/runs, the tables in the README
and beside the CSVs. A number in the text of a page that is in no CSV fails either way.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from avalanche_gd.report.collect import collect
from avalanche_gd.report.estimates import estimate
from avalanche_gd.report.tables import Cell, runs_as_csv
from avalanche_gd.runs.columns import COSTS, METRICS
from avalanche_gd.runs.errors import ending_with_one_line
from avalanche_gd.storage import write_text
from findings import FINDINGS, Numbers
from measured import finals
from quoted import measured, numbers, unknown

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- results: experiments/results.py -->\n", "<!-- results end -->\n"

EXPERIMENTS = {
    "split_digits": "digits at 8x8, 140 steps of batch 64 an experience",
    "split_fmnist_small": "Fashion-MNIST at 16x16, 400 steps of batch 64 an experience, "
    "weights of losses tuned",
    "split_fmnist_h200": "the same on a GPU, seed 0 with other draws",
    "split_digits_conditional": "digits, a model conditioned on the class",
    "teacher_steps": "the teacher's sampling steps k, on digits",
    "lambda": "the weight lambda of replay or distillation, on digits",
    "beyond": "what other work has added to distillation, on digits",
    "iid_distillation": "a new model taught a saved one without data, on digits",
    "split_cifar10_small": "CIFAR-10 at 16x16, 3,000 steps of batch 64 an experience, "
    "weights of losses from Fashion-MNIST; *conditional* is a model that gets the class, "
    "whose solver, if it replays, sees samples only",
    "cost_and_quality": "what cheaper replay costs, in forward passes F of the denoiser, "
    "and keeps, on Fashion-MNIST at 16x16",
}
"""What was measured, by folder. The documentation has all tables."""
IN_README = ("split_digits", "split_fmnist_small", "split_cifar10_small")
README_COLUMNS = ("FID", "KLD", "accuracy", "forgetting", "F_per_step")
README_METHODS = (
    *("naive", "joint", "ewc", "experience_replay", "gem", "vae_replay"),
    *("generative_replay", "generative_distillation", "gaussian_distillation"),
    *("current_distillation", "pooled_distillation"),
    "pooled_distillation, pool_size=1500, replay_ratio=0.34",
    *("experience_replay, conditional", "generative_replay, conditional"),
    *("generative_distillation, conditional", "pooled_distillation, conditional"),
    "joint, conditional",
)
"""As in the tables. The first screen has no room for more."""


def section(
    names: Iterable[str] = EXPERIMENTS,
    shown: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> str:
    """A table for each experiment of these that has been measured.

    :param shown: the columns; none for all that were measured.
    :param methods: the rows, likewise.
    """
    parts = []
    for name in names:
        title = EXPERIMENTS[name]
        path = HERE / name / "runs.csv"
        if path.is_file():
            rows = table(path, shown, methods)
            parts.append(f"[`{name}`](experiments/{name}): {title}.\n\n{rows}\n")
    return "\n".join(parts)


def table(path: Path, shown: Sequence[str] = (), methods: Sequence[str] = ()) -> str:
    """Means over seeds after the last experience, with their confidence intervals.

    :param shown: the columns; none for all that were measured.
    :param methods: the rows, likewise.
    """
    last = finals(path)
    known = {name for rows in last.values() for row in rows.values() for name in row}
    columns = [
        column
        for column in (*METRICS, *COSTS)
        if column.name in known
        and "paper" not in column.left_out_of
        and column.name in (shown or known)
    ]
    lines = [["Method", "Seeds", *(column.heading for column in columns)]]
    lines.append(["---"] * len(lines[0]))
    for method, by_seed in last.items():
        cells = []
        for column in columns:
            texts = [row.get(column.name) for row in by_seed.values()]
            values = [float(text) if text else None for text in texts]
            cells.append(Cell(column, estimate(values), len(by_seed)).text)
        label = method.replace("method.", "").replace("generator.", "")
        if methods and label not in methods:
            continue
        lines.append([f"`{label}`", str(len(by_seed)), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pages() -> dict[Path, str]:
    """Each page with tables of results, and what is to stand in it."""
    found = {README: section(IN_README, README_COLUMNS, README_METHODS)}
    for path in sorted(HERE.glob("*/README.md")):
        if BEGIN in path.read_text():
            found[path] = table(path.parent / "runs.csv")
    return found


def published() -> dict[Path, str]:
    """``runs.csv`` of each experiment whose runs are published, and what is to be in it."""
    return {
        folder.parent / "runs.csv": runs_as_csv(collect([folder]).sections)
        for folder in sorted(HERE.glob("*/runs"))
    }


def settle(path: Path, text: str, written: str) -> None:
    """Write what is to be in a file; with ``--check``, end if it is not there."""
    if "--check" not in sys.argv[1:]:
        write_text(path, written)
    elif written != text:
        name = path.relative_to(HERE.parent)
        sys.exit(f"{name} does not say what was measured: run experiments/results.py")


def check_text() -> None:
    """End if a page says what is in no CSV, or not what follows from its own.

    The numbers of ``docs/scale.md`` are those of ``scale.py``.
    """
    docs = README.parent / "docs"
    written = {*docs.glob("*.md"), *docs.glob("guides/*.md")} - {docs / "scale.md"}
    for page in (README, *sorted(HERE.rglob("README.md")), *sorted(written)):
        name = page.relative_to(README.parent)
        follows = FINDINGS.get(page.parent.name) if page.parent.parent == HERE else None
        findings = [*follows(Numbers(page.parent))] if follows else []
        said = " ".join(page.read_text().split())
        for finding in findings:
            if finding not in said:
                sys.exit(f"{name} does not say: {finding}")
        known = [*measured(page, HERE), *numbers(" ".join(findings))]
        for line, number in unknown(page, known):
            sys.exit(f"{name}:{line}: {number} is in no CSV of this experiment")


def main() -> None:
    """Write the CSVs and the tables, or check them."""
    for path, written in published().items():
        settle(path, path.read_text() if path.is_file() else "", written)
    for page, tables in pages().items():
        text = page.read_text()
        before, rest = text.split(BEGIN)
        _, after = rest.split(END)
        settle(page, text, f"{before}{BEGIN}\n{tables}\n{END}{after}")
    check_text()


if __name__ == "__main__":
    with ending_with_one_line():
        main()
