"""The choices of methods, benchmarks and presets, from the files of ``conf/``."""

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
    "diffusion": "For a diffusion model (most also train a solver that replays from it):",
    "vae": "For a VAE instead:",
    "none": "For a solver alone, without a generator:",
}


class Choice:
    """A file of a group of ``conf/``, with its settings and comments.

    :param path: the path of the file.
    :param section: the section of its settings, unless the file says that they are global.
    """

    def __init__(self, path: Any, section: str):
        self.name = path.name.removesuffix(".yaml")
        self.text = path.read_text()
        self.section = "" if self.text.startswith("# @package _global_") else section
        self.content: dict[str, Any] = load_plain_yaml(self.text)

    @property
    def about(self) -> str:
        """The comment at the top of the file."""
        head = re.match(r"(?:# @package.*\n)?((?:#.*\n)*)", self.text)
        return " ".join(head[1].replace("#", " ").split()) if head else ""

    @property
    def sentence(self) -> str:
        """The first sentence of that comment."""
        return re.split(r"(?<=\.)\s(?=[A-Z\d])", self.about)[0]

    @property
    def cost(self) -> str:
        """The cost of a method's step in F; empty if it has no denoiser."""
        found = _COST.search(self.about)
        return found[1] if found else ""

    @property
    def preset(self) -> str:
        """The preset that it chooses; empty if it chooses none."""
        chosen = (one for one in self.content.get("defaults", ()) if isinstance(one, dict))
        return next((one[key] for one in chosen for key in one if "/model" in key), "")

    def comments(self) -> dict[str, str]:
        """The comments on its settings, by dotted name; some have several lines."""
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
    """The lines of a YAML text, each with the dotted name of its setting.

    :param section: the section of all settings.

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

    :param group: the name of a folder in ``conf/``.
    :param more: folders like ``conf/``, from ``--config-dir``.
    """
    folders = [folder / group for folder in (files("avalanche_gd.conf"), *more)]
    paths = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    yamls = sorted((p for p in paths if p.name.endswith(".yaml")), key=lambda p: p.name)
    section = group.partition("/")[0].removesuffix("_of_protocol")
    return {path.name.removesuffix(".yaml"): Choice(path, section) for path in yamls}


def methods() -> str:
    """The list of methods, one line each, by what they train."""
    own = choices("method").values()
    lines = ["Choose with method=NAME. The cost of a step is in F, one forward pass of the"]
    lines += ["denoiser over a batch, at k = 2. More: avalanche-gd method=NAME --help"]
    for kind, title in _GENERATORS.items():
        chosen = [m for m in own if m.content.get("generator", "diffusion") == kind]
        lines += ["", title, *_in_columns([(m.name, m.cost, m.sentence) for m in chosen])]
    return "\n".join(lines)


def benchmarks() -> str:
    """The list of benchmarks, one line each: images, classes and experiences."""
    rows = [("benchmark=NAME", "images", "classes", "experiences", "")]
    for choice in choices("benchmark").values():
        settings = choice.content["benchmark"]
        counts = (str(settings[key]) for key in ("n_classes", "n_experiences"))
        row = choice.name, _shape(choice.preset), *counts, choice.sentence
        rows.append(tuple(cell.replace("???", "yours") for cell in row))
    return "\n".join(_in_columns(rows))


def presets() -> str:
    """The list of presets, one line each: images, parameters, benchmarks."""
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
"""The functions by the argument of ``avalanche-gd``."""


def _shape(preset: str) -> str:
    return "x".join(map(str, preset_shape(preset)))


def _in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (map(str.ljust, row, widths) for row in rows)
    return [
        f"  {'  '.join(cell for cell in row if cell.strip())}".rstrip() for row in padded
    ]
