"""Writes the pages that say what code, comments and CSVs say already.

Methods from ``conf/method/`` and the docstrings of their plugins, results from
``experiments/``, the reference from docstrings, the examples and the tutorial as they are.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import avalanche_gd
import picture
import results  # experiments/results.py
from avalanche_gd.plugins import SOURCES
from avalanche_gd.runs.choices import Choice, choices
from avalanche_gd.runs.columns import COSTS, METRICS

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
PACKAGES = ("models", "training", "plugins", "metrics", "data", "functional")


def write(folder: Path) -> None:
    """Write all pages, and leave those alone that say the same as before."""
    for name, text in all_pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def all_pages() -> dict[str, str]:
    """The text of each page, by its path below ``docs/generated/``."""
    return {
        "picture.svg": picture.svg(),
        "tutorial.md": tutorial(ROOT / "docs" / "tutorial.ipynb"),
        "examples.md": examples(),
        "columns.md": columns(),
        **methods(),
        **measured(),
        **reference(),
    }


def tutorial(notebook: Path) -> str:
    """A notebook as a page: its text, and its code as blocks."""
    cells = json.loads(notebook.read_text())["cells"]
    texts = ((cell["cell_type"], "".join(cell["source"])) for cell in cells)
    return "\n\n".join(
        text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in texts
    )


def examples() -> str:
    """The scripts of ``examples/``, each under its title, with what one should see."""
    parts = [
        "# Examples\n\nEach is one file in `examples/`, runs on scikit-learn's digits with "
        "nothing to download, and takes about a minute or two; on a machine that others "
        "use too, set `OMP_NUM_THREADS=1`. `--help` has the settings."
    ]
    for path in sorted((ROOT / "examples").glob("*.py")):
        head, _, text = (ast.get_docstring(ast.parse(path.read_text())) or "").partition(
            "\n"
        )
        title = path.stem.replace("_", " ").capitalize().replace("ewc", "EWC")
        parts += [f"## {title}", f"{head}\n{text}"]
        parts += [f"```{{literalinclude}} ../../examples/{path.name}\n:language: python"]
        parts[-1] += "\n:start-at: import argparse\n```"
    return "\n\n".join(parts)


def columns() -> str:
    """A table of what reports show, with which values are better."""
    lines = ["| column | better | range | asked for by |", "| --- | --- | --- | --- |"]
    for column in (*METRICS, *COSTS):
        asked = f"`evaluation.measures=[{column.asked_as}]`" if column.asked_as else ""
        possible = "" if column in COSTS else column.possible.replace("-inf or more", "any")
        cells = [column.word, column.better, possible, asked]
        lines += [f"| {' | '.join(cell or '-' for cell in cells)} |"]
    return "\n".join(lines)


# Methods


def methods() -> dict[str, str]:
    """A page for each method, and ``methods.md``, whose tables link to them."""
    own = choices("method")
    text = (ROOT / "docs" / "methods.md").read_text().replace("](generated/", "](../")
    text = re.sub(
        r"^\| `(\w+)`",
        lambda row: f"| [`{row[1]}`]({row[1]}.md)" if row[1] in own else row[0],
        text,
        flags=re.M,
    )
    names = "\n".join(own)
    found = {f"methods/{name}.md": method(choice) for name, choice in own.items()}
    return {
        "methods/index.md": f"{text}\n```{{toctree}}\n:hidden:\n\n{names}\n```\n",
        **found,
    }


def method(choice: Choice) -> str:
    """The page of a method."""
    objects = list(taking_part(choice.content))
    told = [choice.about, *(inspect.getdoc(one) or "" for _, one in objects)]
    papers = sorted(
        set(re.findall(r"arXiv (\d{4}\.\d{5})", " ".join(" ".join(told).split())))
    )
    command = f"avalanche-gd method={choice.name}"
    if choice.content.get("teacher") == "???":
        command += " method.teacher=FOLDER"
    parts = [f"# {choice.name}", choice.about, f"    {command}", "## What it does"]
    parts += [part_of_method(title, one) for title, one in objects]
    if not objects:
        parts += ["It has no plugin: the loss is that of the data alone."]
    parts += ["## Settings", settings(choice)]
    measured_in = "\n\n".join(results_of(choice.name))
    if measured_in:
        parts += ["## Results", measured_in]
    if papers:
        links = (f"[arXiv {paper}](https://arxiv.org/abs/{paper})" for paper in papers)
        parts += ["## Source", ", ".join(links)]
    return "\n\n".join(parts)


def taking_part(content: Any) -> Iterator[tuple[str, Any]]:
    """The plugins of a method, and what they are given, each with its dotted name."""
    if isinstance(content, list):
        for value in content:
            yield from taking_part(value)
    if isinstance(content, dict):
        if "_target_" in content:
            module, _, name = content["_target_"].rpartition(".")
            yield content["_target_"], getattr(import_module(module), name)
        yield from taking_part(list(content.values()))
        source = content.get("source")
        if isinstance(source, str) and source in SOURCES:
            yield f"avalanche_gd.plugins.{SOURCES[source].__name__}", SOURCES[source]


def part_of_method(name: str, one: Any) -> str:
    """What a docstring says before its fields; of Avalanche's, the first paragraph."""
    text = inspect.getdoc(one) or ""
    if not name.startswith("avalanche_gd."):
        return f"`{name}`: {' '.join(text.split(chr(10) * 2)[0].split())}"
    text = re.split(r"^:(?:param|raises|returns)", text, flags=re.MULTILINE)[0].rstrip()
    return f"{{py:obj}}`{name}`\n\n```{{eval-rst}}\n{text}\n```"


def settings(choice: Choice) -> str:
    """The method's own settings with their defaults, as a table."""
    rows = ["| setting and default | what it is |", "| --- | --- |"]
    for name, comment in choice.comments().items():
        value = choice.content.get(name.rpartition(".")[2])
        shown = value if isinstance(value, str) else json.dumps(value)
        rows += [f"| `{name}` = `{shown}` | {comment} |"]
    return "\n".join(rows) if rows[2:] else "None of its own."


# Results


def measured() -> dict[str, str]:
    """A page for each experiment, and one with their tables."""
    listed = (EXPERIMENTS / "README.md").read_text()
    names = [path.parent.name for path in sorted(EXPERIMENTS.glob("*/README.md"))]
    tables = re.sub(r"\]\(experiments/(\w+)\)", r"](\1.md)", results.section())
    listed = re.sub(r"\]\((\w+)\)", r"](\1.md)", listed.partition("\n")[2])
    listed = listed.replace("](../docs/", "](../../")
    parts = [
        "# Results",
        "Mean over seeds after the last experience, ± the half width of its 95% confidence "
        "interval (Student's t; one seed has none). ↓: lower is better, ↑: higher. FID is "
        "in the features of an oracle classifier, and cannot be compared with FID in those "
        "of InceptionV3. The methods of a table had the same data, steps and batch sizes.",
        tables,
        "## All experiments",
        listed,
        "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```",
    ]
    found = {f"results/{name}.md": experiment(name) for name in names}
    return {"results/index.md": "\n\n".join(parts), **found}


def experiment(name: str) -> str:
    """An experiment's README, with the figures and files beside it, and its table."""
    folder, up = EXPERIMENTS / name, f"../../../experiments/{name}"
    text = re.sub(r"\]\(\.\./(\w+)\)", r"](\1.md)", (folder / "README.md").read_text())
    text = text.replace("](../../docs/", "](../../")
    text = re.sub(r"\]\(((?:[\w-]+/)*[\w-]+\.(?!md)\w+)\)", rf"]({up}/\1)", text)
    names = (figure.name for figure in sorted(folder.glob("*.png")))
    figures = [f"![]({up}/{name})" for name in names if f"/{name})" not in text]
    runs, table = folder / "runs.csv", []
    if runs.is_file() and results.BEGIN not in text:
        table = ["## Means over seeds", results.table(runs)]
    return "\n\n".join([text, *figures, *table])


def results_of(name: str) -> Iterator[str]:
    """The lines of a method in the tables of experiments."""
    for path in sorted(EXPERIMENTS.glob("*/runs.csv")):
        lines = results.table(path).splitlines()
        own = [line for line in lines if re.match(rf"\| `{name}[,`]", line)]
        if own:
            title = f"[`{path.parent.name}`](../results/{path.parent.name}.md)"
            yield "\n".join([f"{title}:\n", *lines[:2], *own])


# Reference


def reference() -> dict[str, str]:
    """A page for each package: the public names first, then what else it has."""
    pages, documented = {}, set()
    for package in PACKAGES:
        module = import_module(f"avalanche_gd.{package}")
        public = [n for n in module.__all__ if n in avalanche_gd.__all__]
        parts = [f"avalanche_gd.{package}\n{'=' * 40}", inspect.getdoc(module) or ""]
        for title, prefix, names in (
            ("Public names", "avalanche_gd", public),
            ("More", module.__name__, sorted(set(module.__all__) - set(public))),
        ):
            new = [name for name in names if id(getattr(module, name)) not in documented]
            documented |= {id(getattr(module, name)) for name in new}
            if new and (public or title == "More"):
                parts += [f"{title}\n{'-' * 40}"] if public else []
                parts += [
                    directive(f"{prefix}.{name}", getattr(module, name)) for name in new
                ]
        pages[f"reference/{package}.rst"] = "\n\n".join(parts) + "\n"
    return pages


def directive(name: str, one: Any) -> str:
    """What has Sphinx show a docstring."""
    if isinstance(one, type):
        return f".. autoclass:: {name}"
    if inspect.isfunction(one):
        return f".. autofunction:: {name}"
    package, _, own = name.rpartition(".")  # a constant is documented where it is defined
    defined = next(
        module
        for module in sys.modules
        if module.startswith(f"{package}.")
        and own in inspect.get_annotations(sys.modules[module])
    )
    return f".. autodata:: {defined}.{own}\n   :no-value:"
