"""The table for a paper, in LaTeX."""

import re
from collections.abc import Sequence

from avalanche_gd.report.section import Section
from avalanche_gd.report.tables import Cell, caption_of, headings_of, lines_of

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
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "[": "{[}",  # LaTeX would read it as an argument of the end of the line before
    "*": "{*}",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "µ": r"$\mu$",
}
_NEED_FONTS = "ªºÐÞðþ"  # of Latin-1, but only in encodings that a paper has to ask for
_LIGATURE = re.compile("(?<=[-\N{EN DASH}`',?!])(?=[-\N{EN DASH}`',])")
"""Between two signs of which TeX would make one, such as a dash of two hyphens."""


def as_tex(sections: Sequence[Section]) -> str:
    r"""``table.tex``: a ``table`` for each section, at most as wide as the text.

    It needs ``booktabs`` and ``graphicx``. Seconds and F in total are only in
    ``table.csv``.
    """
    head = "% By avalanche-gd-report. In the preamble: \\usepackage{booktabs,graphicx}\n"
    return head + "".join("\n" + _table(section) for section in sections)


def escape(text: str) -> str:
    r"""Text for LaTeX, in one line; characters that LaTeX does not have become numbers.

    Without packages it has no ``ð`` or ``þ``.

    >>> print(escape("generative_replay, 50%"))
    generative\_replay, 50\%
    >>> print(escape("\N{SNOWMAN}"))
    {[}U+2603]
    >>> print(escape("lr--decay \N{EN DASH} Þ"))
    lr-{}-decay -- {[}U+00DE]
    """
    return "{}".join("".join(map(_escaped, part)) for part in _LIGATURE.split(text))


def _table(section: Section) -> str:
    lines = lines_of(section, "paper")
    headings = [escape(heading) for heading in headings_of(lines)]
    rows = [
        [escape(line.label), str(len(line.seeds)), *map(_cell, line.cells)]
        for line in lines
    ]
    best = " Best mean in bold." if len(lines) > 1 else ""
    caption = escape(f"{section.title}, {caption_of(section, lines)}{best}")
    label = re.sub(r"[^A-Za-z0-9.-]", "-", section.slug)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering\small\setlength{\tabcolsep}{4pt}",
            rf"  \caption{{{caption}}}",
            rf"  \label{{tab:{label}}}",
            r"  \par\medskip",
            rf"  \sbox0{{\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"    \toprule",
            "    " + " & ".join(headings) + r" \\",
            r"    \midrule",
            *("    " + " & ".join(row) + r" \\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            r"\end{table}",
            "",
        ]
    )


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isspace():
        return " "
    has_sign = character.isascii() and character.isprintable()
    is_letter = character.isalpha() and ord(character) < 256
    is_known = has_sign or (is_letter and character not in _NEED_FONTS)
    return character if is_known else f"{{[}}U+{ord(character):04X}]"


def _cell(cell: Cell) -> str:
    mean = escape(cell.mean.replace("-", "\N{MINUS SIGN}"))
    return (rf"\textbf{{{mean}}}" if cell.is_best else mean) + escape(cell.spread)
