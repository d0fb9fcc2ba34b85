"""Denoisers by name: diffusers U-Nets at the sizes the experiments use."""

from typing import Any

from diffusers import UNet2DModel

_DOWN, _DOWN_ATTENTION = "DownBlock2D", "AttnDownBlock2D"
_UP, _UP_ATTENTION = "UpBlock2D", "AttnUpBlock2D"

PRESETS: dict[str, dict[str, Any]] = {
    "digits": dict(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        down_block_types=(_DOWN, _DOWN),
        up_block_types=(_UP, _UP),
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
    ),
    "fmnist-small": dict(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32, 64),
        down_block_types=(_DOWN, _DOWN, _DOWN_ATTENTION),
        up_block_types=(_UP_ATTENTION, _UP, _UP),
        layers_per_block=1,
        norm_num_groups=8,
    ),
    "fmnist-fast": dict(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32, 64),
        down_block_types=(_DOWN, _DOWN, _DOWN),
        up_block_types=(_UP, _UP, _UP),
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
    ),
    "cifar-small": dict(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=(16, 32, 64),
        down_block_types=(_DOWN, _DOWN, _DOWN_ATTENTION),
        up_block_types=(_UP_ATTENTION, _UP, _UP),
        layers_per_block=1,
        norm_num_groups=8,
    ),
    "paper-fmnist": dict(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        block_out_channels=(64, 128, 256, 512),
        down_block_types=(_DOWN, _DOWN, _DOWN, _DOWN_ATTENTION),
        up_block_types=(_UP_ATTENTION, _UP, _UP, _UP),
        layers_per_block=1,
        norm_num_groups=32,
    ),
    "paper-cifar10": dict(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=(_DOWN, _DOWN_ATTENTION, _DOWN, _DOWN),
        up_block_types=(_UP, _UP, _UP_ATTENTION, _UP),
        layers_per_block=2,
        norm_num_groups=32,
    ),
}
"""Arguments of :class:`diffusers.UNet2DModel`, by preset."""


def unet(preset: str, *, num_classes: int | None = None) -> UNet2DModel:
    """A new denoiser of a preset's size, with random weights.

    The two ``paper-`` presets are the U-Nets of generative distillation
    (arXiv 2311.14028, appendix); the small ones run on a CPU. ``fmnist-fast`` is
    ``fmnist-small`` without attention.

    :param preset: a key of :data:`PRESETS`.
    :param num_classes: for a model conditioned on that many classes: adds an embedding of
        each, and one, the last, of none.
    :return: a U-Net for images of shape ``(in_channels, sample_size, sample_size)``,
        both in its ``config``.
    :raises ValueError: if there is no such preset.

    >>> unet("digits").config.block_out_channels
    (16, 32)
    """
    embeddings = None if num_classes is None else num_classes + 1
    return UNet2DModel(**_preset(preset), num_class_embeds=embeddings)


def preset_shape(preset: str) -> tuple[int, int, int]:
    """The image shape ``(C, H, W)`` of a preset.

    :raises ValueError: if there is no such preset.
    """
    settings = _preset(preset)
    return settings["in_channels"], settings["sample_size"], settings["sample_size"]


def _preset(preset: str) -> dict[str, Any]:
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[preset]
