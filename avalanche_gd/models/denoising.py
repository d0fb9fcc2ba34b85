"""What a pass of a diffusion model hands to the criterion."""

from typing import Any, NamedTuple

from torch import Tensor


class Denoising(NamedTuple):
    """What one pass of a diffusion model predicts, and what it should.

    Avalanche hands it to the criterion as the model's output; that of a conditioned
    model comes from :meth:`NoisyImages.given`.
    """

    prediction: Tensor
    """The denoiser's output, ``(N, C, H, W)``."""
    target: Tensor
    """What it is taught: the noise, unless the scheduler predicts something else."""
    timesteps: Tensor
    """The timestep of each sample, ``(N,)``, integers in ``[0, T)``."""


class NoisyImages:
    """The output of a conditioned model, which waits for the classes.

    Avalanche's strategies and plugins give a model the images, and the labels only to
    the criterion. So the denoiser runs there: ``criterion(model(x), y)`` is conditioned
    in all of them.

    :param model: the conditioned :class:`~avalanche_gd.DiffusionModel`.
    :param x_t: noisy images, ``(N, C, H, W)``.
    :param target: as in :class:`Denoising`.
    :param timesteps: as in :class:`Denoising`.
    """

    def __init__(self, model: Any, x_t: Tensor, target: Tensor, timesteps: Tensor):
        self.model = model
        self.x_t = x_t
        self.target = target
        self.timesteps = timesteps
        self._given: tuple[Tensor, Denoising] | None = None

    def given(self, labels: Tensor | None) -> Denoising:
        """The denoising under these classes: one forward pass, and none if asked again.

        :param labels: integers in ``[0, num_classes)``, ``(N,)``. In training mode, each
            is left out with the probability of the model's ``condition_dropout``.
        :raises ValueError: without labels, or if they do not fit.
        """
        if labels is None:
            raise ValueError("a conditioned model is trained with labels; got none")
        if self._given is None or self._given[0] is not labels:
            condition = self.model.check_condition(labels, len(self.x_t))
            if self.model.training:
                self.model.conditioning.see(condition)
                condition = self.model.drop_condition(condition)
            prediction = self.model.denoise(self.x_t, self.timesteps, condition)
            self._given = labels, Denoising(prediction, self.target, self.timesteps)
        return self._given[1]
