"""Run folders without the training, for tests of what reads them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf

from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.pictures import save_samples

N_EXPERIENCES = 3
ACCURACY = "solver/Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{:03d}"


def write_run(
    out: Path,
    method: str = "naive",
    seed: int = 0,
    *,
    values: dict[str, float] | None = None,
    settings: dict[str, Any] | None = None,
    generates: bool = True,
    cost: dict[str, float] | None = None,
    seconds: float = 10.0,
    experiences: int = N_EXPERIENCES,
    measured_by: dict[str, Sequence[str]] | None = None,
    data: str = "",
    teachers: Sequence[str] = (),
) -> Path:
    """Write a run's folder.

    :param values: the headline metrics after each experience.
    :param settings: of the configuration, by dotted name.
    :param generates: whether there are images, and metrics of images.
    :param experiences: that the run has got to: less than all is unfinished.
    :param measured_by: the digests of the oracles and the labellers.
    :param data: the digest of the data.
    :param teachers: the digests of the plugins' teachers.
    """
    folder = out / "split_digits" / method / f"seed-{seed}"
    folder.mkdir(parents=True)
    config = OmegaConf.create(_config(method, seed))
    for name, value in (settings or {}).items():
        OmegaConf.update(config, name, value)
    content = OmegaConf.to_container(config)
    text = yaml.safe_dump(content, sort_keys=False)  # also of half a character
    (folder / "config.yaml").write_text(text)
    keys = {metric.name: metric.key for metric in METRICS}
    always = [m.name for m in METRICS if not (m.asked_as or m.of_some_methods)]
    names = [name for name in always if generates or keys[name].startswith("solver/")]
    known = dict.fromkeys(names, 0.5) | (values or {})
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["experience", "metric", "value"])
        for i in range(experiences):
            writer.writerows([i, keys[name], known[name]] for name in known)
            writer.writerows([i, ACCURACY.format(j), (j + 1) / 10] for j in range(i + 1))
    info: dict[str, Any] = {
        "completed": experiences == N_EXPERIENCES,
        "benchmark": config.benchmark.name,
        "method": config.method.name,
        "seed": config.seed,
        "data": data,
        "teachers": [*teachers],
        "seconds": {"generator": seconds, "solver": 0.0},
        **(measured_by or {"oracles": []}),
        "versions": {"torch": "2.4.0"},
        "commit": "0123456789abcdef",
        "machine": {"device": "cpu", "processor": "abacus", "threads": 1},
    }
    if cost is not None:
        info["cost"] = cost
    (folder / "run.json").write_text(json.dumps(info) + "\n")
    if generates:
        (folder / "samples").mkdir()
        for i in range(experiences):
            images = torch.rand(64, 1, 8, 8) * 2 - 1
            save_samples(images, folder / "samples" / f"exp_{i:03d}.png")
    return folder


def _config(method: str, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "out": "runs",
        "device": "cpu",
        "threads": 1,
        "check": False,
        "model": {"preset": "digits"},
        "benchmark": {
            "name": "split_digits",
            "_target_": "avalanche_gd.SplitDigits",
            "n_experiences": N_EXPERIENCES,
            "n_classes": 6,
            "options": {},
        },
        "method": {
            "name": method,
            "generator": "none" if method.startswith("solver_") else "diffusion",
            "cumulative": method == "joint",
            "solver_replays": not method.startswith(("naive", "joint", "solver_")),
            "plugins": [{"_target_": "avalanche_gd.Plugin", "lambd": 1.0}],
            "lambd": 1.0,
            "teacher_steps": 2,
        },
        "generator": {
            "steps": 2,
            "batch_size": 64,
            "learning_rate": 0.002,
            "decay_steps": 0,
        },
        "solver": {
            "steps": 2,
            "batch_size": 64,
            "learning_rate": 0.003,
            "replay_steps": 2,
            "temperature": 2.0,
        },
        "evaluation": {"images": 70, "steps": 2, "batch_size": 500},
    }
