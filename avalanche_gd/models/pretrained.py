"""Diffusion models on disk, in the layout of diffusers' pipelines."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import diffusers


def save_pipeline(denoiser: Any, noise_scheduler: Any, folder: Path) -> None:
    """See :meth:`avalanche_gd.DiffusionModel.save_pretrained`."""
    if not isinstance(denoiser, diffusers.ModelMixin):
        raise TypeError(
            "save_pretrained needs a diffusers denoiser; "
            f"save the state_dict of a {type(denoiser).__name__} instead"
        )
    model: Any = denoiser  # diffusers' classes are not typed
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(beside / "unet")
        noise_scheduler.save_pretrained(beside / "scheduler")
        index = {
            "_class_name": "DDIMPipeline",
            "_diffusers_version": diffusers.__version__,
            "scheduler": ["diffusers", type(noise_scheduler).__name__],
            "unet": ["diffusers", type(denoiser).__name__],
        }
        (beside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        beside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


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
