"""Save and load diffusion models, in the layout of diffusers' pipelines."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch

from avalanche_gd.models.denoiser_check import class_embeddings
from avalanche_gd.models.prediction import is_flow
from avalanche_gd.models.sampler import Sampler
from avalanche_gd.storage import write_folder

_STATE = "avalanche_gd.json"  # what diffusers' layout has no place for
_PARTS = {"model_index.json", _STATE, "unet", "scheduler", "README.md"}
"""What a folder of a model may have, with a description."""


def is_of_diffusers(part: Any) -> bool:
    """True if diffusers itself can read such a denoiser or scheduler back."""
    return getattr(diffusers, type(part).__name__, None) is type(part)


def save_pipeline(
    denoiser: Any,
    noise_scheduler: Any,
    sampler: Sampler,
    state: dict[str, Any],
    folder: Path,
) -> None:
    """See :meth:`avalanche_gd.DiffusionModel.save_pretrained`.

    :param sampler: the model's own, which is not saved.
    :param state: the model's other properties, which are saved as JSON.
    """
    for name, part in (("denoiser", denoiser), ("noise_scheduler", noise_scheduler)):
        if not is_of_diffusers(part):
            raise TypeError(
                f"save_pretrained needs a {name} of diffusers, not a "
                f"{type(part).__name__}; save the state_dict of the model instead"
            )
    kind = type(noise_scheduler)
    if not sampler.is_that_of(kind.from_config(noise_scheduler.config)):
        raise ValueError(
            f"the {kind.__name__} has another configuration than the model uses, which "
            "would be lost; make it with what was changed, such as trained_betas or shift"
        )
    _check_configured(denoiser)
    index = {
        # For flow matching, DDIMPipeline would make a DDIM scheduler instead.
        "_class_name": "DDPMPipeline" if is_flow(noise_scheduler) else "DDIMPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", type(noise_scheduler).__name__],
        "unet": ["diffusers", type(denoiser).__name__],
    }

    dtype = _dtype_of(denoiser)
    if dtype != torch.float32:  # else diffusers would convert the weights
        state = state | {"dtype": str(dtype).removeprefix("torch.")}
    folder = _replaceable(folder)

    def write(beside: Path) -> None:
        denoiser.save_pretrained(beside / "unet")
        noise_scheduler.save_pretrained(beside / "scheduler")
        for name, content in (("model_index.json", index), (_STATE, state)):
            (beside / name).write_text(json.dumps(content, indent=2) + "\n")

    write_folder(folder, write)


def _check_configured(denoiser: Any) -> None:
    """Raise ValueError unless a denoiser is as its configuration makes it."""
    kind = type(denoiser)
    with torch.device("meta"):
        made = kind.from_config(denoiser.config)
    shapes = [
        {name: part.shape for name, part in one.state_dict().items()}
        for one in (denoiser, made)
    ]
    if str(denoiser) != str(made) or shapes[0] != shapes[1]:
        raise ValueError(
            f"the {kind.__name__} has other layers than its configuration, which is what "
            "is saved; undo what was changed, or save the state_dict of the model instead"
        )


def _dtype_of(denoiser: Any) -> torch.dtype:
    """The type of all weights.

    :raises ValueError: if there are several, as diffusers loads all in one.
    """
    weights = {w.dtype for w in denoiser.state_dict().values() if w.is_floating_point()}
    if len(weights) > 1:
        names = ", ".join(sorted(map(str, weights)))
        raise ValueError(
            f"the denoiser has weights of {names}, which would be loaded as one; convert "
            "them, such as by denoiser.float()"
        )
    return weights.pop() if weights else torch.float32


def _replaceable(folder: Path) -> Path:
    """Return where a folder is, behind links.

    :raises ValueError: if it has anything that is not of a model, which would be lost.
    """
    folder = folder.resolve()
    if folder == Path.cwd():
        raise ValueError(f"{folder} is the current folder; give one in it")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give a folder")
    kept = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if others := kept - _PARTS:
        raise ValueError(
            f"{folder} has {min(others)}, which is no part of a saved model and would be "
            "lost; give a new folder, or that of an older model"
        )
    return folder


def load_pipeline(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Read the denoiser, the noise scheduler and the state; nothing is unpickled.

    For a folder that diffusers wrote, the state comes from its denoiser.

    :raises ValueError: if the folder does not hold a complete model.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        others = [
            name
            for name, part in index.items()
            if name not in ("unet", "scheduler") and isinstance(part, list) and any(part)
        ]
        if others:
            raise ValueError(f"its images also need a {others[0]}, which would be left out")
        denoiser_class = _class_of(index, "unet", diffusers.ModelMixin)
        scheduler_class = _class_of(index, "scheduler", diffusers.SchedulerMixin)
        state_file, state = folder / _STATE, None
        if state_file.exists():
            state = dict(json.loads(state_file.read_text()))
        dtype = getattr(torch, (state or {}).pop("dtype", "float32"))
        denoiser, told = denoiser_class.from_pretrained(
            folder / "unet",
            use_safetensors=True,
            torch_dtype=dtype,
            output_loading_info=True,
        )
        for what, names in told.items():  # missing, unexpected and mismatched weights
            if names:
                raise ValueError(
                    f"{what.replace('_', ' ')} in its U-Net: {min(names)!s:.80}"
                )
        scheduler = scheduler_class.from_pretrained(folder / "scheduler")
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else error
        of_run = folder / "model"
        meant = of_run if of_run.is_dir() else "a folder written by save_pretrained"
        raise ValueError(
            f"no complete model in {folder}: {reason}; give {meant}"
        ) from error
    return denoiser, scheduler, _state_of(denoiser) if state is None else state


def _class_of(index: dict[str, Any], part: str, kind: type) -> Any:
    """The class of diffusers for a part of a pipeline."""
    name = index[part][1]
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(f"its {part} is a {name}, which diffusers does not have")
    return found


def _state_of(denoiser: Any) -> dict[str, Any]:
    """What a diffusers denoiser tells about its images and its classes."""
    config = denoiser.config
    state: dict[str, Any] = {"num_classes": class_embeddings(denoiser)}
    size = config.get("sample_size")
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        state["sample_shape"] = config.in_channels, height, width
    return state
