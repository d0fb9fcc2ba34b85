"""The card of a saved model: ``README.md`` in its folder, as Hugging Face shows it."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from avalanche_gd.models import DiffusionModel
from avalanche_gd.models.prediction import is_flow
from avalanche_gd.models.pretrained import is_of_diffusers
from avalanche_gd.runs.choices import choices
from avalanche_gd.runs.columns import METRICS, features_in_words
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.identity import NOT_DECIDING, run_digest
from avalanche_gd.runs.results import Row

_CARD = """\
---
{head}---

# {method} on {benchmark}

A diffusion model of images, trained by avalanche-gd.

## Data

`{benchmark}` (`{target}`): {images:,} training images of {n_classes} classes, as
{shape} in [-1, 1]. The classes of its {n_experiences} experiences: {classes}.

## Method

`{method}`. {about}

## Metrics

After the last experience, on {judged:,} images from {steps} sampling steps. FID uses the
features of {features}.

| Metric | Value |
| --- | --- |
{metrics}

## Made by

{command}

Seed {seed}. Versions: {versions}.

## Load it

{loading}
## Licence

Not chosen yet. Whoever publishes this model must say here, and as `license:` at the top of
this file, how it may be used. Its training images have their own terms; the MIT licence of
avalanche-gd is for its code only.
"""
_LOADING = """\
```python
from avalanche_gd import DiffusionModel

model = DiffusionModel.from_pretrained("FOLDER")
images = model.generate(16)  # in [-1, 1]
```
"""
_PIPELINE = """
```python
from diffusers import {pipeline}

images = {pipeline}.from_pretrained("FOLDER")(16, num_inference_steps={steps}).images
```
"""
_OF_ONES_OWN = """\
```python
from safetensors.torch import load_model

load_model(denoiser, "FOLDER/denoiser.safetensors")  # a new {denoiser}
```
"""


def model_card(
    config: RunConfig,
    model: DiffusionModel,
    train_stream: Sequence[Any],
    rows: Sequence[Row],
    versions: Mapping[str, str | None],
) -> str:
    """The text of a card, without any path of the machine.

    :param config: the settings of the run.
    :param model: the saved model.
    :param train_stream: the training stream of the run's benchmark.
    :param rows: the metrics of the run.
    :param versions: the versions of packages.
    """
    benchmark, method, evaluation = config.benchmark, config.method, config.evaluation
    head: dict[str, Any] = {"library_name": "diffusers"}
    loading, steps = _LOADING, evaluation.steps
    if not is_of_diffusers(model.denoiser):
        head, loading = {}, _OF_ONES_OWN.format(denoiser=type(model.denoiser).__name__)
    elif model.num_classes is None:  # a pipeline cannot be given a class
        head["pipeline_tag"] = "unconditional-image-generation"
        pipeline = "DDPMPipeline" if is_flow(model.noise_scheduler) else "DDIMPipeline"
        loading += _PIPELINE.format(pipeline=pipeline, steps=steps)
    head["tags"] = ["avalanche-gd", "continual-learning", benchmark.name, method.name]
    metrics = {
        f"Solver: {m.heading}" if "solver/" in m.key else m.heading: m for m in METRICS
    }
    classes = (sorted(part.classes_in_this_experience) for part in train_stream)
    values = {
        row.metric: row.value for row in rows if row.experience == rows[-1].experience
    }
    several = len({row.experience for row in rows}) > 1
    known = choices("method").get(method.name)
    command = _command(config)
    return _CARD.format(
        head=yaml.safe_dump(head, sort_keys=False),
        method=method.name,
        benchmark=benchmark.name,
        target=benchmark._target_,
        images=sum(len(experience.dataset) for experience in train_stream),
        shape="x".join(map(str, model.sample_shape)),
        n_classes=benchmark.n_classes,
        n_experiences=len(train_stream),
        classes="; ".join(", ".join(map(str, part)) for part in classes),
        about=known.about if known else "A method of its own.",
        judged=evaluation.images,
        steps=steps,
        features=features_in_words(asdict(evaluation)),
        metrics="\n".join(
            f"| {heading} | {metric.text(values[metric.key])} |"
            for heading, metric in metrics.items()
            if metric.key in values and (several or not metric.of_several)
        ),
        command=f"    {command}"
        if command
        else "Settings that `config.yaml` of its run has.",
        seed=config.seed,
        versions=", ".join(
            f"{name} {version}" for name, version in versions.items() if version
        ),
        loading=loading,
    )


def _command(config: RunConfig) -> str | None:
    """The command that makes the same run; None if it uses choices of the user's own.

    Paths are replaced by ``PATH``.
    """
    names = (("benchmark", config.benchmark.name), ("method", config.method.name))
    given = dict([*names, ("seed", config.seed)])
    try:
        with initialize_config_module("avalanche_gd.conf", version_base="1.3"):
            composed = compose("config", _overrides(given))
        known = dict(_leaves(OmegaConf.to_container(composed)))
        structured = OmegaConf.merge(OmegaConf.structured(RunConfig), composed)
        defaults = dict(_leaves(OmegaConf.to_container(structured)))
        for name, value in _leaves(asdict(config)):
            is_decided = name in NOT_DECIDING and name != "benchmark.options.root"
            if not is_decided and "plugins" not in name and value != defaults.get(name):
                given[name if name in known else f"+{name}"] = value
        place = {"out": config.out, "device": config.device}
        if run_digest(compose_config(_overrides(given | place))) != run_digest(config):
            return None
    except Exception:  # the user's choices may raise errors of any kind
        return None
    hidden = {n: "PATH" if os.sep in str(value) else value for n, value in given.items()}
    return shlex.join(["avalanche-gd", *_overrides(hidden)])


def _leaves(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted name; lists are not split."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings in the form of a command line."""
    return [
        f"{name}={json.dumps(value).strip(chr(34))}" for name, value in settings.items()
    ]
