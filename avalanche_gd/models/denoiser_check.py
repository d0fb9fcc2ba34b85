"""Check that a denoiser can be used in a diffusion model."""

import inspect
from typing import Any

from diffusers import UNet2DModel
from torch import nn


def check_denoiser(denoiser: Any, *, num_classes: int | None) -> None:
    """Raise an error unless a diffusion model can call the denoiser.

    :param num_classes: the number of classes of the condition; None without a condition.
    :raises TypeError: if it is not a module, or takes other arguments.
    :raises ValueError: if the class embeddings of a :class:`diffusers.UNet2DModel` are
        not one for each class, or those and a last one for no class.
    """
    if not isinstance(denoiser, nn.Module):
        raise TypeError(
            f"denoiser must be a torch.nn.Module, not {type(denoiser).__name__}; "
            "give one of avalanche_gd.unet, or your own"
        )
    if _is_unet(denoiser):
        _check_embeddings(denoiser, num_classes)
    with_classes = {} if num_classes is None else {"class_labels": None}
    try:
        inspect.signature(denoiser.forward).bind(None, None, **with_classes)
    except TypeError as error:
        raise TypeError(
            f"{type(denoiser).__name__}.forward() {error}; a denoiser is called with noisy "
            "images and timesteps, and with num_classes= also with class_labels="
        ) from error


def check_unet(
    denoiser: Any, sample_shape: tuple[int, int, int], num_timesteps: int
) -> None:
    """Raise ValueError if a :class:`diffusers.UNet2DModel` cannot denoise such images.

    For another denoiser nothing is known before it is called.

    :param sample_shape: ``(C, H, W)`` of the images.
    :param num_timesteps: T.
    """
    if not _is_unet(denoiser):
        return
    config: Any = denoiser.config
    channels, *size = sample_shape
    if (config.in_channels, config.out_channels) != (channels, channels):
        raise ValueError(
            f"a U-Net from {config.in_channels} to {config.out_channels} channels does not "
            f"fit a sample_shape of {sample_shape}; both must be {channels}"
        )
    levels = len(config.block_out_channels)
    if any(length % 2 ** (levels - 1) for length in size):
        raise ValueError(
            f"a U-Net of {levels} levels needs images whose height and width are multiples "
            f"of {2 ** (levels - 1)}, not a sample_shape of {sample_shape}; resize them, "
            "or use fewer levels"
        )
    if config.time_embedding_type == "fourier":
        raise ValueError(
            'a U-Net with time_embedding_type="fourier" divides by its timesteps, but one '
            'of them is 0 here; use "positional"'
        )
    embedded = config.num_train_timesteps
    if config.time_embedding_type == "learned" and embedded < num_timesteps:
        raise ValueError(
            f"a U-Net with embeddings of {embedded} timesteps does not fit a "
            f"noise_scheduler of {num_timesteps}; give both the same num_train_timesteps"
        )


def class_embeddings(denoiser: Any) -> int | None:
    """How many class embeddings a :class:`diffusers.UNet2DModel` has; None if none.

    It is also None for other denoisers, for which the number is not known.
    """
    return denoiser.config.num_class_embeds if _is_unet(denoiser) else None


def _is_unet(denoiser: object) -> bool:
    return type(denoiser) is UNet2DModel  # a subclass may be called in another way


def _check_embeddings(denoiser: Any, num_classes: int | None) -> None:
    kind, embeddings = denoiser.config.class_embed_type, class_embeddings(denoiser)
    if kind is not None:
        raise ValueError(
            f"a U-Net with class_embed_type={kind!r} is not supported; give a U-Net with a "
            "table of class embeddings, num_class_embeds"
        )
    if embeddings is None and num_classes is not None:
        raise ValueError(
            f"a model of {num_classes} classes needs a U-Net with class embeddings; give "
            f"it num_class_embeds={num_classes + 1}, of which the last is for no class"
        )
    if embeddings is not None and num_classes not in (embeddings, embeddings - 1):
        raise ValueError(
            f"a U-Net with {embeddings} class embeddings needs num_classes of {embeddings} "
            f"or, if the last is for no class, {embeddings - 1}, got {num_classes}"
        )
