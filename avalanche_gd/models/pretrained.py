"""Diffusion models on disk, in the layout of diffusers' pipelines."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import diffusers

from avalanche_gd.models.denoiser_check import class_embeddings

_STATE = "avalanche_gd.json"  # what diffusers' layout has no place for


def is_of_diffusers(part: Any) -> bool:
    """True if diffusers itself can read such a denoiser or scheduler back."""
    return getattr(diffusers, type(part).__name__, None) is type(part)


def save_pipeline(
    denoiser: Any, noise_scheduler: Any, state: dict[str, Any], folder: Path
) -> None:
    """See :meth:`avalanche_gd.DiffusionModel.save_pretrained`.

    :param state: what else the model is; kept as JSON.
    """
    for name, part in (("denoiser", denoiser), ("noise_scheduler", noise_scheduler)):
        if not is_of_diffusers(part):
            raise TypeError(
                f"save_pretrained needs a {name} of diffusers, not a "
                f"{type(part).__name__}; save the state_dict of the model instead"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        denoiser.save_pretrained(beside / "unet")
        noise_scheduler.save_pretrained(beside / "scheduler")
        index = {
            "_class_name": "DDIMPipeline",
            "_diffusers_version": diffusers.__version__,
            "scheduler": ["diffusers", type(noise_scheduler).__name__],
            "unet": ["diffusers", type(denoiser).__name__],
        }
        for name, content in (("model_index.json", index), (_STATE, state)):
            (beside / name).write_text(json.dumps(content, indent=2) + "\n")
        for path in filter(Path.is_file, beside.rglob("*")):
            path.chmod(0o644)  # safetensors lets only the owner read
        beside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def load_pipeline(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """The denoiser, the noise scheduler and the state of a folder.

    Of a folder that diffusers wrote, the state is what its denoiser says.

    :raises ValueError: if the folder does not hold a whole model.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        denoiser_class, scheduler_class = (
            getattr(diffusers, index[part][1]) for part in ("unet", "scheduler")
        )
        denoiser = denoiser_class.from_pretrained(folder / "unet")
        scheduler = scheduler_class.from_pretrained(folder / "scheduler")
        state_file = folder / _STATE
        if state_file.exists():
            return denoiser, scheduler, dict(json.loads(state_file.read_text()))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else error
        raise ValueError(
            f"no whole model in {folder}: {reason}; "
            "give a folder written by save_pretrained"
        ) from error
    return denoiser, scheduler, _state_of(denoiser)


def _state_of(denoiser: Any) -> dict[str, Any]:
    """What a diffusers denoiser says of its images and its classes."""
    config = denoiser.config
    state: dict[str, Any] = {"num_classes": class_embeddings(denoiser)}
    size = config.get("sample_size")
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        state["sample_shape"] = config.in_channels, height, width
    return state
