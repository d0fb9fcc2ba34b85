"""A section of a report: runs that may be averaged together, and its name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from avalanche_gd.runs.columns import features_in_words
from avalanche_gd.runs.results import (
    RunResult,
)
from avalanche_gd.runs.run_files import JUDGES


@dataclass
class Section:
    """Complete runs of one benchmark that differ only in method and seed.

    Settings of what a run does not have do not count, so that it can be in several.
    """

    benchmark: str
    settings: dict[str, Any]
    """The settings that they share, by dotted name: all but the method's.

    A run without a condition, a generator, a solver or its replay lacks the settings of it.
    Among them is ``data`` where the content of the data tells runs apart.
    """
    methods: dict[str, list[RunResult]]
    """By label: the method, and those of its settings in which the runs differ."""
    differs: dict[str, Any] = field(default_factory=dict)
    """The settings in which it differs from the benchmark's other sections."""
    number: int = 1
    """Its number among the benchmark's sections."""
    slug: str = ""
    """Its name in files, links and LaTeX, different from all other sections."""
    lacks: tuple[str, ...] = ()
    """The dotted names of settings, and of sections, that its runs lack."""

    def has(self, name: str) -> bool:
        """True unless its runs lack what a setting is of."""
        is_lacking = {name, name.partition(".")[0]} & {*self.lacks}
        return name in self.settings or not is_lacking

    @property
    def runs(self) -> list[RunResult]:
        """All runs, method by method."""
        return [run for runs in self.methods.values() for run in runs]

    @property
    def has_equal_seeds(self) -> bool:
        """True if all methods have the same seeds."""
        seeds = {tuple(run.seed for run in runs) for runs in self.methods.values()}
        return len(seeds) == 1

    @property
    def judges(self) -> dict[str, int]:
        """How many oracles and labellers measured its runs, where there are several."""
        found = {
            kind: {one for run in self.runs for one in run.info[kind]} for kind in JUDGES
        }
        return {kind: len(ones) for kind, ones in found.items() if len(ones) > 1}

    @property
    def n_data(self) -> int:
        """Of how many different data its runs are, by their content, as far as is known."""
        return len({run.info["data"] for run in self.runs if run.info["data"]})

    @property
    def n_silent(self) -> int:
        """How many runs do not say what measured their images, where others do.

        Runs of earlier versions do not.
        """
        generating = [r for r in self.runs if r.config["method"]["generator"] != "none"]
        silent = [run for run in generating if not any(run.info[kind] for kind in JUDGES)]
        return len(silent) if len(silent) < len(generating) else 0

    @property
    def n_experiences(self) -> int:
        """The number of experiences in the stream."""
        return self.settings["benchmark.n_experiences"]

    @property
    def features(self) -> str:
        """The features by which images were compared, in words."""
        names = ("features", "weights_path")
        return features_in_words(
            {
                name: self.settings[f"evaluation.{name}"]
                for name in names
                if f"evaluation.{name}" in self.settings
            }
        )

    @property
    def length(self) -> str:
        """The number of experiences, in words."""
        return f"{self.n_experiences} experience{'s' if self.n_experiences > 1 else ''}"

    @property
    def difference(self) -> str:
        """How it differs from the benchmark's other sections, in words; or empty."""
        return ", ".join(f"{name} = {value}" for name, value in self.differs.items())

    @property
    def title(self) -> str:
        """The benchmark, and how it differs from its other sections."""
        return ": ".join(filter(None, [self.benchmark, self.difference]))


def split_difference(text: str) -> list[str]:
    """The settings in a section's ``difference``, each as ``name = value``.

    >>> split_difference("model.process = flow, benchmark.sizes = [8, 16]")
    ['model.process = flow', 'benchmark.sizes = [8, 16]']
    """
    return re.split(r", (?=[\w.]+ = )", text) if text else []


def in_words(differences: Iterable[str]) -> dict[str, str]:
    """A short name for each of several sections' differences, none for the first.

    Its first setting that the first section has not: its name if it is true, its value if
    that is a word, else both. If these are not all different, all such settings.

    >>> in_words(["model.process = ddpm", "model.process = flow"])
    {'model.process = ddpm': '', 'model.process = flow': 'flow'}
    >>> in_words(["c = False, n = 1", "c = True, n = 2"])
    {'c = False, n = 1': '', 'c = True, n = 2': 'c'}
    >>> in_words(["c = False, n = 1", "c = True, n = 1", "c = True, n = 2"])
    {'c = False, n = 1': '', 'c = True, n = 1': 'c=True', 'c = True, n = 2': 'c=True, n=2'}
    """
    texts = list(dict.fromkeys(differences))
    known = split_difference(texts[0]) if texts else []
    others = {
        text: [part for part in split_difference(text) if part not in known]
        for text in texts
    }
    words = {text: _word(*parts[:1]) for text, parts in others.items()}
    if len({*words.values()}) == len(words):
        return words
    return {
        text: ", ".join(part.replace(" = ", "=") for part in parts)
        for text, parts in others.items()
    }


def _word(setting: str = "") -> str:
    name, _, value = setting.partition(" = ")
    if value == "True":
        return name.rpartition(".")[2]
    is_word = re.fullmatch(r"[a-z_]+", value)
    return value if is_word or not name else f"{name.rpartition('.')[2]}={value}"
