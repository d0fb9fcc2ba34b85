"""A diffusion model as an Avalanche generator."""

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from avalanche.models.generator import Generator
from torch import Tensor, nn

from avalanche_gd.models.pretrained import load_pipeline, save_pipeline
from avalanche_gd.models.scheduler import ddim_scheduler
from avalanche_gd.models.unet import preset_shape, unet

_TOLERANCE = 1e-3  # of model space: what resizing and rounding may add


class Denoising(NamedTuple):
    """What one pass of a diffusion model predicts, and what it should.

    Avalanche hands it to the criterion as the model's output.
    """

    prediction: Tensor
    """The denoiser's output, ``(N, C, H, W)``."""
    target: Tensor
    """What it is taught: the noise, unless the scheduler predicts something else."""
    timesteps: Tensor
    """The timestep of each sample, ``(N,)``, integers in ``[0, T)``."""


class DiffusionModel(nn.Module, Generator):
    """A denoiser and its noise scheduler, as one Avalanche generative model.

    Called with clean images it noises them, each at a random timestep, and denoises
    them again (DDPM, arXiv 2006.11239, algorithm 1). That makes the two calls of an
    Avalanche strategy, ``model(x)`` and ``criterion(output, y)``, a training step of a
    diffusion model, with :class:`~avalanche_gd.DenoisingLoss` as the criterion.

    Images are in model space: float, ``(N, C, H, W)``, values in ``[-1, 1]``.

    :param denoiser: a module called with noisy images ``(N, C, H, W)`` and timesteps
        ``(N,)``; returns a tensor of the images' shape, or an object that has it as
        ``sample``, as a :class:`diffusers.UNet2DModel` does.
    :param noise_scheduler: a diffusers scheduler with ``add_noise``. Its configuration
        decides what the denoiser predicts and how images are sampled. It is never
        changed by sampling.
    :param sample_shape: ``(C, H, W)`` of an image.
    :param sampling_steps: the steps of :meth:`generate` where none are asked for, as
        Avalanche's own plugins do.
    :raises TypeError: if the scheduler has no ``add_noise``.
    :raises ValueError: if ``sampling_steps`` is not in ``[1, T]``.

    >>> model = DiffusionModel.from_preset("digits")
    >>> model.generate(4, steps=2).shape
    torch.Size([4, 1, 8, 8])
    """

    sampling_seed: Tensor

    def __init__(
        self,
        denoiser: nn.Module,
        noise_scheduler: Any,
        sample_shape: tuple[int, int, int],
        *,
        sampling_steps: int = 10,
    ):
        super().__init__()
        if not callable(getattr(noise_scheduler, "add_noise", None)):
            raise TypeError(
                f"noise_scheduler must be a diffusers scheduler with add_noise, "
                f"not {type(noise_scheduler).__name__}"
            )
        self.denoiser: Any = denoiser
        self.noise_scheduler = noise_scheduler
        self.sample_shape = tuple(sample_shape)
        self.sampling_steps = self.check_steps(sampling_steps)
        # Sampling has a scheduler of its own: set_timesteps would change the model's.
        self._sampler = copy.deepcopy(noise_scheduler)
        accepted = inspect.signature(self._sampler.step).parameters
        self._step_takes = {"eta", "generator"} & set(accepted)
        # A buffer, so that it is copied, moved and saved with the weights.
        seed = torch.initial_seed() & 0x7FFF_FFFF_FFFF_FFFF
        self.register_buffer("sampling_seed", torch.tensor(seed))

    @classmethod
    def from_preset(cls, preset: str) -> "DiffusionModel":
        """A new model of a preset's size with :func:`ddim_scheduler`.

        :param preset: a key of :data:`~avalanche_gd.models.unet.PRESETS`.
        :raises ValueError: if there is no such preset.
        """
        denoiser: Any = unet(preset)  # diffusers' classes are not typed as modules
        return cls(denoiser, ddim_scheduler(), preset_shape(preset))

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps the model is trained on."""
        return self.noise_scheduler.config.num_train_timesteps

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.sampling_seed.device

    def forward(self, x0: Tensor) -> Denoising:
        """Noise each image at a timestep of its own, and predict the target.

        :param x0: clean images in model space, ``(N, C, H, W)``.
        :raises ValueError: if the images are not of the model's shape or, on the CPU, not
            in model space.
        """
        self._check_images(x0)
        timesteps = torch.randint(self.num_timesteps, (len(x0),), device=x0.device)
        noise = torch.randn_like(x0)
        prediction = self.denoise(self.add_noise(x0, noise, timesteps), timesteps)
        return Denoising(prediction, self._target(x0, noise, timesteps), timesteps)

    def denoise(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """The denoiser's prediction for noisy images: one forward pass, 1F.

        :param x_t: noisy images, ``(N, C, H, W)``.
        :param timesteps: their timesteps, ``(N,)``.
        :return: the predicted noise (or v, or image: as the scheduler's
            ``prediction_type`` says), ``(N, C, H, W)``.
        """
        output = self.denoiser(x_t, timesteps)
        return getattr(output, "sample", output)

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t = sqrt(alpha_bar[t]) x_0 + sqrt(1 - alpha_bar[t]) noise``.

        :param x0: clean images, ``(N, C, H, W)``.
        :param noise: standard normal, of the same shape.
        :param timesteps: ``(N,)``, in ``[0, T)``.
        """
        return self.noise_scheduler.add_noise(x0, noise, timesteps)

    def generate(
        self,
        batch_size: int | None = None,
        condition: None = None,
        *,
        steps: int | None = None,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sample images from noise.

        Leaves the module's mode, its gradients and all random state but that of
        ``generator`` as they were.

        :param batch_size: how many images; None for a single one without the batch
            axis, as Avalanche's generators do.
        :param condition: None; this model is not conditioned.
        :param steps: k, the denoiser's passes, in ``[1, T]``; costs k F. Defaults to
            ``sampling_steps``.
        :param eta: 0 for DDIM, 1 for ancestral sampling, for schedulers that know it.
        :param generator: the source of all randomness. Without one, each call draws
            from the next seed of a sequence that belongs to this model.
        :return: images in model space, ``(batch_size, C, H, W)``, on the model's device.
        :raises ValueError: for a condition, for steps outside ``[1, T]``, or for an eta
            that the scheduler does not know.
        """
        if condition is not None:
            raise ValueError("a condition was given, but this model is not conditioned")
        if generator is None:
            generator = torch.Generator().manual_seed(int(self.sampling_seed))
            self.sampling_seed += 1
        count = 1 if batch_size is None else batch_size
        noise = self.draw_noise(count, generator)
        images = self.reverse(noise, steps=steps, eta=eta, generator=generator)
        return images[0] if batch_size is None else images

    def draw_noise(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise of the images' shape, on the model's device."""
        shape = (batch_size, *self.sample_shape)
        noise = torch.randn(shape, generator=generator, device=generator.device)
        return noise.to(self.device)

    @torch.no_grad()
    def reverse(
        self,
        noise: Tensor,
        *,
        steps: int | None = None,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The reverse process: from noise to images in model space.

        :param noise: standard normal, ``(N, C, H, W)``.
        :param steps: as in :meth:`generate`.
        :param eta: as in :meth:`generate`.
        :param generator: the source of the noise added on the way.
        """
        sampler = self._sampler
        sampler.set_timesteps(
            self.sampling_steps if steps is None else self.check_steps(steps)
        )
        options = self._step_options(eta, generator)
        x_t = noise * sampler.init_noise_sigma
        with self._evaluating():
            for t in sampler.timesteps:
                timesteps = torch.full((len(x_t),), int(t), device=x_t.device)
                prediction = self.denoise(sampler.scale_model_input(x_t, t), timesteps)
                x_t = sampler.step(prediction, t, x_t, **options).prev_sample
        return x_t.clamp(-1, 1)

    def sampling_timesteps(self, steps: int) -> list[int]:
        """The timesteps that sampling in k steps visits, from the noisiest on."""
        self._sampler.set_timesteps(self.check_steps(steps))
        return [int(t) for t in self._sampler.timesteps]

    def ddim_step(self, x_t: Tensor, t: int, end: Tensor) -> Tensor:
        """One deterministic DDIM step to a timestep of each sample's own, 1F.

        (arXiv 2010.02502, equation 12 with sigma = 0, the predicted image clipped to
        model space.)

        :param x_t: noisy images at timestep ``t``, ``(N, C, H, W)``.
        :param t: their timestep.
        :param end: the timesteps to go to, ``(N,)``, in ``[0, T)``.
        """
        alpha_bar = self.noise_scheduler.alphas_cumprod.to(x_t)
        a, a_end = alpha_bar[t], alpha_bar[end].view(-1, 1, 1, 1)
        output = self.denoise(x_t, torch.full((len(x_t),), t, device=x_t.device))
        prediction_type = self.noise_scheduler.config.prediction_type
        if prediction_type == "epsilon":
            x0 = (x_t - (1 - a).sqrt() * output) / a.sqrt()
            noise = output
        elif prediction_type == "v_prediction":
            x0 = a.sqrt() * x_t - (1 - a).sqrt() * output
            noise = a.sqrt() * output + (1 - a).sqrt() * x_t
        else:
            x0 = output
            noise = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
        return a_end.sqrt() * x0.clamp(-1, 1) + (1 - a_end).sqrt() * noise

    def check_steps(self, steps: int) -> int:
        """:raises ValueError: unless ``steps`` is an integer in ``[1, T]``."""
        if not isinstance(steps, int) or not 1 <= steps <= self.num_timesteps:
            raise ValueError(
                f"sampling steps must be an integer from 1 to {self.num_timesteps}, "
                f"got {steps!r}"
            )
        return steps

    def get_features(self, x: Tensor) -> Tensor:
        """Features of clean images, as Avalanche's models have them.

        :param x: images in model space, ``(N, C, H, W)``.
        :return: the activations of the denoiser's ``mid_block`` at timestep 0 (of its
            output, if it has no such block), ``(N, D)``.
        """
        features: list[Any] = []
        block = getattr(self.denoiser, "mid_block", None) or self.denoiser
        hook = block.register_forward_hook(
            lambda module, inputs, output: features.append(
                getattr(output, "sample", output)
            )
        )
        try:
            self.denoise(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
        finally:
            hook.remove()
        return features[-1].flatten(1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the layout of a diffusers pipeline, whole or not at all.

        ``diffusers.DDIMPipeline.from_pretrained(folder)`` opens it.

        :param folder: replaced if it is there.
        :raises TypeError: if the denoiser is not a diffusers model.
        """
        save_pipeline(self.denoiser, self.noise_scheduler, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "DiffusionModel":
        """Read what :meth:`save_pretrained` wrote, or a diffusers DDIM/DDPM pipeline.

        :raises ValueError: if the folder does not hold a whole model.
        """
        denoiser, scheduler = load_pipeline(Path(folder))
        size = denoiser.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return cls(denoiser, scheduler, (denoiser.config.in_channels, height, width))

    def _target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        prediction_type = self.noise_scheduler.config.prediction_type
        if prediction_type == "epsilon":
            return noise
        if prediction_type == "v_prediction":
            return self.noise_scheduler.get_velocity(x0, noise, timesteps)
        return x0

    def _step_options(
        self, eta: float, generator: torch.Generator | None
    ) -> dict[str, Any]:
        options: dict[str, Any] = {"eta": eta, "generator": generator}
        if eta and "eta" not in self._step_takes:
            raise ValueError(
                f"{type(self._sampler).__name__} does not know eta; leave it at 0"
            )
        return {name: options[name] for name in self._step_takes}

    def _check_images(self, x0: Tensor) -> None:
        if x0.shape[1:] != self.sample_shape:
            raise ValueError(
                f"images of shape {tuple(x0.shape[1:])} do not fit a model of "
                f"{self.sample_shape}; resize them, for example with "
                "avalanche_gd.to_model_space"
            )
        # Reading a value would make an accelerator wait, so there only shapes count.
        if x0.device.type == "cpu" and x0.numel():
            low, high = (bound.item() for bound in torch.aminmax(x0))
            if max(-low, high) > 1 + _TOLERANCE:
                raise ValueError(
                    f"images must be in model space, [-1, 1]; these reach from "
                    f"{low:g} to {high:g}"
                )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        trained = [module for module in self.modules() if module.training]
        for module in trained:
            module.training = False
        try:
            yield
        finally:
            for module in trained:
                module.training = True
