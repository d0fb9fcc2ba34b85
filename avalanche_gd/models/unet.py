"""Denoisers by name: diffusers U-Nets in the sizes of the experiments."""

from typing import Any

from diffusers import UNet2DModel

from avalanche_gd.checks import check_choice, check_integer


def _arguments(
    size: int,
    channels: int,
    widths: tuple[int, ...],
    *,
    attention: int | None,
    layers: int = 1,
    groups: int = 8,
) -> dict[str, Any]:
    """The arguments of a :class:`diffusers.UNet2DModel`.

    :param size: height and width of an image.
    :param channels: the channels of an image.
    :param widths: the channels of the levels, from the largest images to the smallest.
    :param attention: the level with attention (then the middle block has it too); None for
        none.
    """
    attends = [level == attention for level in range(len(widths))]
    down = ["AttnDownBlock2D" if own else "DownBlock2D" for own in attends]
    up = ["AttnUpBlock2D" if own else "UpBlock2D" for own in reversed(attends)]
    return dict(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=layers,
        norm_num_groups=groups,
        add_attention=attention is not None,
    )


def _of_diffusers(channels: int) -> dict[str, Any]:
    """The arguments of arXiv 2509.23593; the others are diffusers' defaults."""
    return dict(
        sample_size=32,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(128, 256, 256, 256),
    )


PRESETS: dict[str, dict[str, Any]] = {
    "digits": _arguments(8, 1, (16, 32), attention=None),
    "fmnist-small": _arguments(16, 1, (16, 32, 64), attention=2),
    "fmnist-fast": _arguments(16, 1, (16, 32, 64), attention=None),
    "cifar-small": _arguments(16, 3, (16, 32, 64), attention=2),
    "paper-fmnist": _arguments(32, 1, (64, 128, 256, 512), attention=3, groups=32),
    "paper-cifar10": _arguments(
        32, 3, (128, 256, 256, 256), attention=1, layers=2, groups=32
    )
    | dict(freq_shift=1, flip_sin_to_cos=False, norm_eps=1e-6),
    "rank1-mnist": _of_diffusers(1),
    "rank1-cifar10": _of_diffusers(3),
}
"""Arguments of :class:`diffusers.UNet2DModel`, by preset."""


def unet(preset: str, *, num_classes: int | None = None) -> UNet2DModel:
    """Make a denoiser of a preset's size, with random weights.

    The two ``paper-`` presets are the U-Nets of generative distillation
    (arXiv 2311.14028, appendix, and its authors' code): 42,855,873 parameters for
    Fashion-MNIST and 35,746,307 for CIFAR-10. The two ``rank1-`` presets are those of
    arXiv 2509.23593, for MNIST and Fashion-MNIST (one channel) and for CIFAR-10. The small
    ones run on a CPU. ``fmnist-fast`` is ``fmnist-small`` without attention.

    :param preset: a key of :data:`PRESETS`.
    :param num_classes: for a model conditioned on that many classes: adds an embedding of
        each, and one, the last, of no class.
    :return: a U-Net for images of shape ``(in_channels, sample_size, sample_size)``,
        both in its ``config``.
    :raises ValueError: if there is no such preset, or ``num_classes`` is below 1.

    >>> unet("digits").config.block_out_channels
    (16, 32)
    """
    embeddings = None
    if num_classes is not None:
        embeddings = check_integer("num_classes", num_classes) + 1
    return UNet2DModel(**_preset(preset), num_class_embeds=embeddings)


def preset_shape(preset: str) -> tuple[int, int, int]:
    """The image shape ``(C, H, W)`` of a preset.

    :raises ValueError: if there is no such preset.
    """
    settings = _preset(preset)
    return settings["in_channels"], settings["sample_size"], settings["sample_size"]


def _preset(preset: str) -> dict[str, Any]:
    return PRESETS[check_choice("preset", preset, PRESETS)]
