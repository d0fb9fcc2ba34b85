"""The settings of a diffusion model."""

from dataclasses import dataclass
from typing import Any

import torch

from avalanche_gd.models import DiffusionModel, Execution, preset_shape, unet
from avalanche_gd.models.scheduler import scheduler_of
from avalanche_gd.runs.overrides import instantiated


@dataclass
class ModelConfig:
    """The diffusion model: with a preset's denoiser, or with the user's own.

    :raises ValueError: for both of them, for neither, or if a part of the second lacks.
    """

    preset: str | None = None
    _target_: str | None = None
    """The class of the user's own denoiser."""
    options: dict[str, Any] | None = None
    """Its arguments."""
    sample_shape: list[int] | None = None
    """``[C, H, W]`` of its images."""
    conditional: bool = False
    """True if it is conditioned on the class."""
    condition_dropout: float = 0.1
    guidance: float = 1.0
    precision: str = "float32"
    """The number format of the denoiser: ``float32`` or ``bfloat16``."""
    channels_last: bool = False
    compile: bool = False
    terminal_alpha_bar: float | None = None
    """The last ``alpha_bar`` of a schedule rescaled to zero terminal SNR."""
    process: str = "ddpm"
    """The noise process: ``ddpm``, or ``flow`` for flow matching."""

    def __post_init__(self) -> None:
        own = self._target_ is not None
        shape = self.sample_shape or []
        is_whole = len(shape) == 3 if own else not (shape or self.options)
        if own == (self.preset is not None) or not is_whole:
            raise ValueError(
                "model is either preset=NAME, or preset=null, _target_=CLASS and "
                "sample_shape=[C,H,W] with options={NAME: VALUE}; give one of the two"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images.

        :raises ValueError: for an unknown preset.
        """
        if self.preset is not None:
            return preset_shape(self.preset)
        channels, height, width = self.sample_shape or []
        return channels, height, width

    @property
    def execution(self) -> Execution:
        """How the denoiser computes.

        :raises ValueError: for an unknown precision.
        """
        return Execution(self.precision, self.channels_last, self.compile)

    def make(self, n_classes: int, *, weights: bool = True) -> DiffusionModel:
        """Make the model, with random weights.

        :param n_classes: the number of classes of the benchmark.
        :param weights: False to make a preset's model without weights: it needs no memory,
            but raises the same errors.
        :raises ValueError: for an unknown value, or values that cannot be used together.
        """
        num_classes = n_classes if self.conditional else None
        if self.preset is None:
            target = {"_target_": self._target_, "_convert_": "all"}
            denoiser: Any = instantiated(target | (self.options or {}))
        else:
            with torch.device("cpu" if weights else "meta"):
                denoiser = unet(self.preset, num_classes=num_classes)
        return DiffusionModel(
            denoiser,
            scheduler_of(self.process, self.terminal_alpha_bar),
            self.shape,
            num_classes=num_classes,
            condition_dropout=self.condition_dropout if self.conditional else 0.0,
            guidance=self.guidance,
            execution=self.execution,
        )
