"""Diffusion models on disk, in the layout of diffusers' pipelines."""

import json
from pathlib import Path
from typing import Any

import diffusers

from avalanche_gd.storage import write_folder


def save_pipeline(denoiser: Any, noise_scheduler: Any, folder: Path) -> None:
    """See :meth:`avalanche_gd.DiffusionModel.save_pretrained`."""
    if not isinstance(denoiser, diffusers.ModelMixin):
        raise TypeError(
            "save_pretrained needs a diffusers denoiser; "
            f"save the state_dict of a {type(denoiser).__name__} instead"
        )
    model: Any = denoiser  # diffusers' classes are not typed
    index = {
        "_class_name": "DDIMPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(noise_scheduler).__name__],
        "unet": ["diffusers", type(denoiser).__name__],
    }

    def write(beside: Path) -> None:
        model.save_pretrained(beside / "unet")
        noise_scheduler.save_pretrained(beside / "scheduler")
        (beside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    write_folder(folder, write)


def load_pipeline(folder: Path) -> tuple[Any, Any]:
    """The denoiser and the noise scheduler of a folder.

    :raises ValueError: if the folder does not hold a whole model.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        denoiser_class, scheduler_class = (
            getattr(diffusers, index[part][1]) for part in ("unet", "scheduler")
        )
        denoiser = denoiser_class.from_pretrained(folder / "unet")
        scheduler = scheduler_class.from_pretrained(folder / "scheduler")
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else error
        raise ValueError(
            f"no whole model in {folder}: {reason}; "
            "give a folder written by save_pretrained"
        ) from error
    return denoiser, scheduler
