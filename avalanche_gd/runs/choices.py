"""What there is to choose, as the files of ``conf/`` and their comments say it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from avalanche_gd.models import preset_shape, unet
from avalanche_gd.runs.plain_yaml import load_plain_yaml

_COST = re.compile(r"([\d.]+F(?: to [\d.]+F)?) a step")
_SETTING = re.compile(r"( *)(\w+):.*")
_GENERATORS = {
    "diffusion": "Methods of a diffusion model, and a solver that may replay from it:",
    "vae": "With a VAE in its place:",
    "none": "Of the solver alone:",
}


class Choice:
    """A file of a group of ``conf/``, with what it says in comments.

    :param path: of the file.
    :param section: that its settings are in, unless it says that they are of the whole.
    """

    def __init__(self, path: Any, section: str):
        self.name = path.name.removesuffix(".yaml")
        self.text = path.read_text()
        self.section = "" if self.text.startswith("# @package _global_") else section
        self.content: dict[str, Any] = load_plain_yaml(self.text)

    @property
    def about(self) -> str:
        """The comment at its head: a sentence, and more."""
        head = re.match(r"(?:# @package.*\n)?((?:#.*\n)*)", self.text)
        return " ".join(head[1].replace("#", " ").split()) if head else ""

    @property
    def sentence(self) -> str:
        """The first of that comment."""
        return re.split(r"(?<=\.)\s(?=[A-Z\d])", self.about)[0]

    @property
    def cost(self) -> str:
        """Of a step of a method, in F; empty without a denoiser."""
        found = _COST.search(self.about)
        return found[1] if found else ""

    @property
    def preset(self) -> str:
        """The one that it chooses; empty if it leaves that to others."""
        chosen = (one for one in self.content.get("defaults", ()) if isinstance(one, dict))
        return next((one[key] for one in chosen for key in one if "/model" in key), "")

    def comments(self) -> dict[str, str]:
        """What it says of its settings, by dotted name; of some over several lines."""
        found: dict[str, str] = {}
        setting = ""
        for line, name in named_lines(self.text, self.section):
            comment = line.partition("#")[2].strip()
            setting = name or setting
            if comment and name:
                found[setting] = comment
            elif comment and line.startswith(" ") and setting in found:
                found[setting] += f" {comment}"
        return found


def named_lines(text: str, section: str = "") -> Iterator[tuple[str, str]]:
    """The lines of a YAML text, each with the dotted name of the setting that it is of.

    :param section: that all are in.

    >>> list(named_lines("model:\\n  compile: false\\n", "a"))
    [('model:', 'a.model'), ('  compile: false', 'a.model.compile')]
    """
    above = [(-1, section)]
    for line in text.splitlines():
        match = _SETTING.fullmatch(line)
        if match:
            while above[-1][0] >= len(match[1]):
                above.pop()
            above.append((len(match[1]), f"{above[-1][1]}.{match[2]}".lstrip(".")))
        yield line, above[-1][1] if match else ""


def choices(group: str, more: Iterable[Path] = ()) -> dict[str, Choice]:
    """The files of a group, by name.

    :param group: a folder of ``conf/``.
    :param more: folders like ``conf/``, as ``--config-dir`` takes them.
    """
    folders = [folder / group for folder in (files("avalanche_gd.conf"), *more)]
    paths = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    yamls = sorted((p for p in paths if p.name.endswith(".yaml")), key=lambda p: p.name)
    section = group.partition("/")[0].removesuffix("_of_protocol")
    return {path.name.removesuffix(".yaml"): Choice(path, section) for path in yamls}


def methods() -> str:
    """The methods, a line each, by what they train."""
    own = choices("method").values()
    lines = [
        "method=NAME, and what a step costs: F is a forward pass of the denoiser over a"
    ]
    lines += ["batch, at k = 2. avalanche-gd method=NAME --help says more."]
    for kind, title in _GENERATORS.items():
        chosen = [m for m in own if m.content.get("generator", "diffusion") == kind]
        lines += ["", title, *_in_columns([(m.name, m.cost, m.sentence) for m in chosen])]
    return "\n".join(lines)


def benchmarks() -> str:
    """The benchmarks, a line each: images, classes and experiences."""
    rows = [("benchmark=NAME", "images", "classes", "experiences", "")]
    for choice in choices("benchmark").values():
        settings = choice.content["benchmark"]
        counts = (str(settings[key]) for key in ("n_classes", "n_experiences"))
        row = choice.name, _shape(choice.preset), *counts, choice.sentence
        rows.append(tuple(cell.replace("???", "yours") for cell in row))
    return "\n".join(_in_columns(rows))


def presets() -> str:
    """The presets, a line each: images, parameters, and what they are the default of."""
    takers = [*choices("benchmark").values(), *choices("experiment").values()]
    rows = [("model=NAME", "images", "parameters", "default of", "")]
    for choice in choices("model").values():
        with torch.device("meta"):
            denoiser: Any = unet(choice.content["preset"])
        count = sum(weight.numel() for weight in denoiser.parameters())
        default_of = ", ".join(one.name for one in takers if one.preset == choice.name)
        shape = _shape(choice.content["preset"])
        rows.append((choice.name, shape, f"{count:,}", default_of or "-", choice.sentence))
    return "\n".join(_in_columns(rows))


LISTS = {"methods": methods, "benchmarks": benchmarks, "presets": presets}
"""By the argument of ``avalanche-gd``."""


def _shape(preset: str) -> str:
    return "x".join(map(str, preset_shape(preset)))


def _in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (map(str.ljust, row, widths) for row in rows)
    return [
        f"  {'  '.join(cell for cell in row if cell.strip())}".rstrip() for row in padded
    ]
