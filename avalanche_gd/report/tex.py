"""The table for a paper, in LaTeX."""

from collections.abc import Sequence

from avalanche_gd.report.collect import Section
from avalanche_gd.report.tables import Cell, Line, lines_of

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\N{EN DASH}": "--",
}


_LEFT_OUT = {"seconds", "F_total"}  # a page is narrow, and F a step says what it costs


def as_tex(sections: Sequence[Section]) -> str:
    r"""``table.tex``: a ``table`` for each section, at most as wide as the text.

    Asks for ``booktabs`` and ``graphicx``. Seconds and F in all are left to ``table.csv``.
    """
    head = "% By avalanche-gd-report. In the preamble: \\usepackage{booktabs,graphicx}\n"
    return head + "".join("\n" + _table(section) for section in sections)


def escape(text: str) -> str:
    r"""Text as LaTeX prints it.

    >>> print(escape("generative_replay, 50%"))
    generative\_replay, 50\%
    """
    return "".join(_ESCAPES.get(character, character) for character in text)


def _table(section: Section) -> str:
    lines = lines_of(section)
    shown = [
        index
        for index in range(len(lines[0].cells))
        if any(line.cells[index].estimate is not None for line in lines)
        and lines[0].cells[index].column.name not in _LEFT_OUT
    ]
    headings = ["Method", "Seeds"]
    headings += [_heading(lines[0].cells[index]) for index in shown]
    rows = [
        [escape(line.label), str(len(line.seeds)), *_cells(line, shown)] for line in lines
    ]
    body = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering\small\setlength{\tabcolsep}{4pt}",
            rf"  \caption{{{_caption(section, lines)}}}",
            rf"  \label{{tab:{section.slug.replace('_', '-')}}}",
            r"  \par\medskip",
            rf"  \sbox0{{\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"    \toprule",
            "    " + " & ".join(headings) + r" \\",
            r"    \midrule",
            *(f"    {row}" for row in body),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            r"\end{table}",
            "",
        ]
    )


def _caption(section: Section, lines: Sequence[Line]) -> str:
    extra = f" ({section.difference})" if section.difference else ""
    has_interval = any(cell.half_width for line in lines for cell in line.cells)
    spread = r" $\pm$ 95\% confidence interval (Student's $t$)" if has_interval else ""
    seeds = "" if has_interval else "; one seed has no interval"
    best = " Best mean in bold." if len(lines) > 1 else ""
    return (
        f"{escape(section.benchmark + extra)} after {section.n_experiences} experiences: "
        f"mean over seeds{spread}{seeds}. "
        f"FID is in the features of {escape(section.features)}.{best}"
    )


def _heading(cell: Cell) -> str:
    arrow = {"lowest": r" $\downarrow$", "highest": r" $\uparrow$"}
    return escape(cell.column.heading) + arrow.get(cell.column.best, "")


def _cells(line: Line, shown: Sequence[int]) -> list[str]:
    return [_cell(line.cells[index]) for index in shown]


def _cell(cell: Cell) -> str:
    mean = escape(cell.mean)
    if mean.startswith("-") and not mean.startswith("--"):
        mean = f"$-${mean[1:]}"
    if cell.is_best:
        mean = rf"\textbf{{{mean}}}"
    spread = rf" $\pm$ {cell.half_width}" if cell.half_width else ""
    note = f" ({escape(cell.note)})" if cell.note else ""
    return mean + spread + note
