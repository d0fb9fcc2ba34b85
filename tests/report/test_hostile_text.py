"""Names and settings that a page, a paper, a terminal or a file system would obey."""

import re
import shutil
import subprocess

import pytest

from avalanche_gd.report.collect import collect
from avalanche_gd.report.report_command import write_report
from avalanche_gd.report.section import Section
from avalanche_gd.report.tex import as_tex, escape
from tests.helpers.fake_runs import write_run

pytestmark = pytest.mark.usefixtures("sketched")

COMMANDS = ["textbackslash", "textasciitilde", "textasciicircum", "char34"]
COMMANDS += ["textless", "textgreater", "textbar"]
PDFLATEX = shutil.which("pdflatex")
HOSTILE = [
    "mine 50% #1",
    r"\input{x}",
    r"\immediate\write18{touch x}",
    r"\end{table}",
    "}{",
    "{" * 9,
    "a & b ~ c ^ d _ e $f$ $",
    "[5pt] * |<>|\"'`",
    "two\nlines\r\n\nand \\\\",
    "bell \a, escape \x1b[31m, zero \0",
    "\N{RIGHT-TO-LEFT OVERRIDE} \N{LINE SEPARATOR} \N{SNOWMAN} é",
    "half \ud800",
    "%",
    "a--b, a---b, ``c'' ?`d !`e µ ðþÐÞ ªº ß",
]


def check_tex(text):
    """Fail unless text is printed by TeX: no comment, unknown command or open group."""
    rest = re.sub(rf"\\({'|'.join(COMMANDS)})\{{\}}", "", text)
    rest = re.sub(r"\\[_&%$#{}]", "", rest)
    rest = re.sub(r"\$(\\pm|\\downarrow|\\uparrow|\\mu|-)\$", "", rest)
    assert not re.search(r"[\\_&%$#~^<>|\"]", rest), rest
    depth = 0
    for sign in rest:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert re.search(r"(?<!\{)[\[*]", rest) is None  # an argument of the line's end
    assert all(sign.isprintable() for sign in rest)
    rest.encode("latin-1")


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_printed_by_tex(text):
    check_tex(escape(text))


def test_what_tex_would_read_as_another_sign_or_does_not_have_is_written_apart():
    assert escape("a--b---c") == "a-{}-b-{}-{}-c"
    assert escape("``a'' ?`b !`c,,") == "`{}`a'{}' ?{}`b !{}`c,{},"
    assert escape("5 \N{EN DASH} 7, a-b, x -\N{EN DASH}") == "5 -- 7, a-b, x -{}--"
    assert escape("µß") == r"$\mu$ß"
    for sign in "ðþÐÞªº":  # of T1 and TS1, which an article does not load
        assert escape(sign) == f"{{[}}U+{ord(sign):04X}]"


def parts_of(tex):
    """What of the tables is text: captions, labels and cells."""
    for line in tex.splitlines():
        line = line.strip()
        if match := re.fullmatch(r"\\(caption|label)\{(.*)\}", line):
            yield match[2]
        elif line.endswith(r" \\"):
            yield from re.split(r"(?<!\\)&", line.removesuffix(r" \\"))


def reported(tmp_path, text):
    """The folder of a report whose labels and titles have the text."""
    for seed, own in enumerate((text, "own")):
        write_run(
            tmp_path / "runs", "ewc", seed, settings={"method.plugins.0.sampler": own}
        )
    settings = {"benchmark.options.root": text}
    write_run(tmp_path / "more", "joint", settings=settings, generates=False)
    write_report([tmp_path / "runs", tmp_path / "more"], tmp_path / "report")
    return tmp_path / "report"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_setting_is_text_wherever_it_is_shown(tmp_path, text, capsys):
    out = reported(tmp_path, text)
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "more", "report"}
    parts = list(parts_of((out / "table.tex").read_text()))
    assert len(parts) > 20 and any("own" in part for part in parts)
    for part in parts:
        check_tex(part.replace(r"\textbf", ""))
    shown = capsys.readouterr().out
    assert "own" in shown
    assert all(sign.isprintable() for line in shown.split("\n") for sign in line)


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed")
def test_pdflatex_sets_the_tables(tmp_path):
    for i, text in enumerate(HOSTILE):
        out = reported(tmp_path / str(i), text)
        shutil.copy(out / "table.tex", tmp_path / f"table{i}.tex")
    tables = "".join(rf"\input{{table{i}}}" for i in range(len(HOSTILE)))
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}"
        rf"\begin{{document}}{tables}\end{{document}}"
    )
    command = [PDFLATEX, "-halt-on-error", "-no-shell-escape", "paper.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=100)


@pytest.mark.parametrize("slug", HOSTILE)
def test_a_label_has_no_sign_that_tex_would_obey(tmp_path, slug):
    write_run(tmp_path)
    (section,) = collect([tmp_path]).sections
    tex = as_tex([Section(**vars(section) | {"slug": slug})])
    (label,) = re.findall(r"\\label\{(.*)\}\n", tex)
    assert re.fullmatch(r"tab:[A-Za-z0-9.-]*", label)


def test_each_section_has_files_and_a_label_of_its_own(tmp_path):
    for place, name, steps in (
        *(("a", "digits", 2), ("b", "digits", 9), ("c", "digits-2", 2)),
        *(("d", "my_digits", 2), ("e", "my-digits", 2), ("f", "My_Digits", 2)),
    ):
        settings = {"benchmark.name": name, "generator.steps": steps}
        folder = write_run(tmp_path / place, settings=settings)
        folder.rename(tmp_path / f"run-{place}")
    write_report([tmp_path], tmp_path / "report")
    tex = (tmp_path / "report" / "table.tex").read_text()
    labels = re.findall(r"\\label\{(.*)\}", tex)
    assert len({label.lower() for label in labels}) == len(labels) == 6
    names = [path.name.lower() for path in (tmp_path / "report" / "figures").glob("*.pdf")]
    assert len(set(names)) == len(names) == 6 * 7
