"""What is evaluated: saved models, with the settings of their runs."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avalanche_gd.metrics.shared_images import has_classes
from avalanche_gd.models import DiffusionModel
from avalanche_gd.models.execution import Execution
from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import naming
from avalanche_gd.runs.overrides import literal
from avalanche_gd.runs.results import read_run
from avalanche_gd.storage import expanded, folder_digest

_OF_A_RUN = (
    "features",
    "weights_path",
    "images",
    "measures",
    "labeller",
    "labeller_weights",
)
"""The settings that are taken from a model's run unless others are given."""

_OF_TRAINING = sorted(
    {c.asked_as for c in METRICS if c.of_training}
    - {c.asked_as for c in METRICS if not c.of_training}
)
"""The measures that compare a model with what it was earlier."""

_USED = ("benchmark", "evaluation", "seed", "threads", "device", "experiment", "protocol")
_USED_OF_MODEL = (
    *("preset", "_target_", "sample_shape", "options"),
    *("precision", "channels_last", "compile"),
)
_BY_OPTION = {
    "out": "--out",
    "evaluation.steps": "--steps",
    "model.guidance": "--guidance",
}
"""Settings that an option of the command replaces."""


@dataclass
class Subject:
    """A saved model."""

    label: str
    """Its folder, as the user gave it."""
    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    """The settings of its run, if the user gave a run."""

    @classmethod
    def each(cls, labels: Iterable[str]) -> "list[Subject]":
        """The models of folders; of one that is given twice, once, by its first name.

        :raises ValueError: as in :meth:`of`.
        """
        found: dict[Path, Subject] = {}
        for label in labels:
            subject = cls.of(label)
            found.setdefault(subject.folder.resolve(), subject)
        return list(found.values())

    @classmethod
    def of(cls, label: str) -> "Subject":
        """The model of a folder, or of a run's folder, or of ``model/`` in that.

        :raises ValueError: if there is none, its run is damaged or not complete, or has a
            denoiser of the user's own.
        """
        folder = expanded(label.rstrip(os.sep) or label)
        label = str(folder)
        if not folder.is_dir():
            raise ValueError(f"no folder {label}; give one of a saved model or of a run")
        above = folder.absolute().parent
        if folder.name == "model" and _is_run(above):
            folder = above
        if not (folder / "config.yaml").is_file():
            return cls(label, folder)
        run = read_run(folder)
        if not (folder / "model").is_dir():
            raise ValueError(f"the run {label} has no model; it trains no diffusion model")
        if own := run.config["model"].get("_target_"):
            raise ValueError(
                f"the run {label} has a denoiser of your own, {own:.80}; only a U-Net of "
                "diffusers can be loaded, so evaluate that model in Python, with its "
                f"weights in {folder / 'model' / 'denoiser.safetensors'}"
            )
        return cls(label, folder / "model", run.config)

    def digest(self) -> str:
        """The SHA-256 of its files."""
        return folder_digest(self.folder)

    def load(
        self, guidance: float | None = None, execution: Execution | None = None
    ) -> DiffusionModel:
        """Load the model.

        :param guidance: the guidance of its sampling; None for its own.
        :param execution: how it computes, which is not saved with it.
        :raises ValueError: if the folder does not hold a model, or it cannot be guided.
        """
        options: dict[str, Any] = {} if guidance is None else {"guidance": guidance}
        options["execution"] = execution
        with naming(self.label):
            return DiffusionModel.from_pretrained(self.folder, **options)

    def settings(self) -> dict[str, Any]:
        """The settings of its run that an evaluation uses, by name."""
        if not self.run:
            return {}
        benchmark, evaluation = self.run["benchmark"], self.run["evaluation"]
        found = {
            "benchmark": benchmark["name"],
            "benchmark.n_experiences": benchmark["n_experiences"],
            "benchmark.n_classes": benchmark["n_classes"],
            "benchmark.shuffle": benchmark["shuffle"],
            "model.preset": self.run["model"]["preset"],
            "model.precision": self.run["model"].get("precision", "float32"),
            "seed": self.run["seed"],
            "threads": self.run["threads"],
            **{f"evaluation.{name}": evaluation[name] for name in _OF_A_RUN},
        }
        measures = evaluation["measures"]
        if isinstance(measures, list):  # otherwise refused later
            kept = [name for name in measures if name not in _OF_TRAINING]
            found["evaluation.measures"] = kept
        options = benchmark["options"]
        return found | {f"++benchmark.options.{name}": options[name] for name in options}


def _is_run(folder: Path) -> bool:
    """Whether a folder is that of a complete run with a model that can be loaded."""
    if not (folder / "config.yaml").is_file():
        return False
    try:
        return not read_run(folder).config["model"].get("_target_")
    except ValueError:
        return False


def compose_settings(
    subjects: Sequence[Subject], settings: Sequence[str], out: Path
) -> RunConfig:
    """Compose and check the settings of an evaluation.

    They are those of the models' runs, replaced by those that are given. The benchmark is
    the one that has the run's name here; nothing that a run's file names is called.

    :param settings: as in ``avalanche-gd``, such as ``["benchmark=split_digits"]``.
    :param out: the folder of the result.
    :raises ValueError: for a value that is not allowed, or if the runs differ in one; for a
        setting that changes no evaluation, or a measure that a saved model has no value of.
    """
    given = {setting.partition("=")[0].lstrip("+"): setting for setting in settings}
    _check_used(given)
    for subject in subjects:
        if not subject.run and "benchmark" not in given:
            raise ValueError(
                f"{subject.label} does not say what it was trained on; give benchmark=NAME"
            )
    common: dict[str, str] = {}
    for subject in subjects:
        for name, value in subject.settings().items():
            own = name.lstrip("+")
            if {own, own.partition(".")[0]} & set(given):
                continue
            with naming(f"the run {subject.label}: {own}"):
                setting = literal(value)
            if common.setdefault(name, setting) != setting:
                values = f"{common[name]} and {setting}"
                raise ValueError(
                    f"the runs differ in {own}, {values}; give {own}=VALUE, or evaluate "
                    "them one by one"
                )
    of_runs = [f"{name}={setting}" for name, setting in common.items()]
    place = f"out={literal(str(out))}"
    config = compose_config(["method=naive", *of_runs, *given.values(), place])
    if lost := [name for name in _OF_TRAINING if name in config.evaluation.measures]:
        raise ValueError(
            f"evaluation.measures: {', '.join(lost)} compares a model with what it was "
            "earlier in its training, which a saved model does not know; leave it out"
        )
    for subject in subjects:
        made, meant = config.benchmark._target_, subject.run.get("benchmark", {})
        if "benchmark" not in given and meant.get("_target_", made) != made:
            raise ValueError(
                f"{subject.label} was trained on another {config.benchmark.name}, "
                f"{meant['_target_']:.80}; give benchmark=NAME"
            )
    return config


def _check_used(names: Iterable[str]) -> None:
    """Raise ValueError for a setting that would change nothing."""
    for name in names:
        section, _, rest = name.partition(".")
        if name in _BY_OPTION:
            raise ValueError(f"{name} changes no evaluation; give {_BY_OPTION[name]}")
        used = rest.partition(".")[0] in ("", *_USED_OF_MODEL)
        if not (used if section == "model" else section in (*_USED, "hydra")):
            raise ValueError(
                f"{name:.80} changes no evaluation; what does is {', '.join(_USED)}, "
                f"model=NAME and model.{', model.'.join(_USED_OF_MODEL)}"
            )


def check_fits(label: str, model: DiffusionModel, config: RunConfig) -> None:
    """Raise ValueError unless a model can make images like those of the benchmark.

    :param label: the name of the model in messages.
    """
    shape, name = config.model.shape, config.benchmark.name
    if model.sample_shape != shape:
        raise ValueError(
            f"{label} makes images of {model.sample_shape}, but those of {name} are "
            f"{shape} with model={config.model.preset}; give another model= or benchmark="
        )
    if model.num_classes not in (None, config.benchmark.n_classes):
        raise ValueError(
            f"{label} knows {model.num_classes} classes, but {name} has "
            f"{config.benchmark.n_classes}"
        )
    if not has_classes(model):
        raise ValueError(f"{label} has seen no class yet; train it")
