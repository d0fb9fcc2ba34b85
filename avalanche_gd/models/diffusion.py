"""A diffusion model as an Avalanche generator."""

import copy
from pathlib import Path
from typing import Any

import torch
from avalanche.models.generator import Generator
from torch import Tensor, nn

from avalanche_gd.checks import check_integer, check_sample_shape
from avalanche_gd.distributed.shares import draw_share
from avalanche_gd.models.conditioning import ConditionedDenoiser
from avalanche_gd.models.denoiser_check import check_unet
from avalanche_gd.models.denoising import (
    Denoising,
    Noised,
    NoisyImages,
    Question,
    denoise_together,
    noise_images,
)
from avalanche_gd.models.evaluation_mode import in_evaluation_mode
from avalanche_gd.models.execution import Execution
from avalanche_gd.models.image_check import ImageCheck, check_images
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.models.pretrained import load_pipeline, save_pipeline
from avalanche_gd.models.sampler import Guide, Sampler
from avalanche_gd.models.scheduler import scheduler_of
from avalanche_gd.models.unet import preset_shape, unet
from avalanche_gd.storage import expanded


class DiffusionModel(ConditionedDenoiser, Generator):
    """A denoiser and its noise scheduler, as one Avalanche generative model.

    Called with clean images, it noises them, each at a random timestep, and denoises
    them again (DDPM, arXiv 2006.11239, algorithm 1). So the two calls of an Avalanche
    strategy, ``model(x)`` and ``criterion(output, y)``, are a training step of a diffusion
    model, with :class:`~avalanche_gd.DenoisingLoss` as the criterion.

    Images are in model space: float, ``(N, C, H, W)``, values in ``[-1, 1]``.

    With ``num_classes`` the model is conditioned on the class: it is trained with the
    labels of the batch, and ``generate(n, condition=labels)`` samples from these classes.
    Without a condition, samples are of the classes trained on so far, as many of each.

    :param denoiser: a module called with noisy images ``(N, C, H, W)`` and timesteps
        ``(N,)``; returns a tensor of the images' shape, or an object that has it as
        ``sample``, as a :class:`diffusers.UNet2DModel` does. With ``num_classes``, it is
        also called with ``class_labels``, ``(N,)``, where ``num_classes`` itself means no
        class (except for a U-Net with exactly ``num_classes`` class embeddings, which
        cannot predict without a class).
    :param noise_scheduler: a diffusers scheduler with ``alphas_cumprod``, which decide the
        noise and nothing else does, or one of flow matching, whose shift decides it
        (:class:`~avalanche_gd.models.prediction.NoiseProcess`). Its configuration decides
        what the denoiser predicts and how images are sampled, except for the spacing of
        the timesteps, which is ``"trailing"``. The model has a copy of it.
    :param sample_shape: ``(C, H, W)`` of an image. A :class:`diffusers.UNet2DModel` of L
        levels needs multiples of ``2**(L - 1)``.
    :param sampling_steps: the default steps of :meth:`generate`, which Avalanche's own
        plugins use.
    :param num_classes: how many classes; None for a model that is not conditioned.
    :param condition_dropout: the probability that a sample is trained without its class,
        in ``[0, 1)``.
    :param guidance: w of classifier-free guidance (arXiv 2207.12598, with w = 1 for none)
        in all sampling: ``eps = eps(none) + w (eps(class) - eps(none))``. Other than 1,
        it doubles the cost of sampling.
    :param execution: the denoiser's precision, memory layout and compilation; by default,
        float32 and no changes.
    :raises TypeError: if the denoiser is not a module or takes other arguments, if the
        scheduler has no ``alphas_cumprod`` and is not of flow matching, or if ``execution``
        is of another type.
    :raises ValueError: if the scheduler's ``prediction_type`` is not of its process, if it
        does not sample from the noise that it is trained with (it is tested on images whose
        distribution is known), for a shape that is not three positive integers or that a
        :class:`diffusers.UNet2DModel` cannot take, if ``sampling_steps`` is not an integer
        in ``[1, T]`` that the scheduler can make, if ``num_classes`` is below 1 or does not
        fit the U-Net, if the dropout is not in ``[0, 1)``, if the guidance is negative or
        not finite, for dropout or guidance without classes or without an embedding for no
        class, or for guidance without dropout.

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
        num_classes: int | None = None,
        condition_dropout: float = 0.0,
        guidance: float = 1.0,
        execution: Execution | None = None,
    ):
        super().__init__(
            denoiser,
            num_classes=num_classes,
            condition_dropout=condition_dropout,
            guidance=guidance,
            execution=execution,
        )
        self.noise_scheduler = copy.deepcopy(noise_scheduler)
        self.process = NoiseProcess(self.noise_scheduler)
        """The noise process, and what the denoiser predicts."""
        self.sample_shape = check_sample_shape(sample_shape)
        check_unet(denoiser, self.sample_shape, self.num_timesteps)
        self.questions: list[Question] = []
        """What is denoised in the same pass as the next batch that is trained on."""
        self.one_pass = True
        """Whether plugins use that; if not, they make their own passes, for comparison."""
        self._noised: tuple[Tensor, Noised] | None = None
        self._check_images = ImageCheck(self.sample_shape)
        self._samplers = {"own": Sampler(self.noise_scheduler)}
        self.sampling_steps = self.check_steps(sampling_steps)
        # A buffer, so that it is copied, moved and saved together with the weights. Drawn
        # from torch's seed, so that the sequences of neighbouring seeds are far apart.
        drawn = torch.Generator().manual_seed(torch.initial_seed() & 0x7FFF_FFFF_FFFF_FFFF)
        self.register_buffer("sampling_seed", torch.randint(2**62, (), generator=drawn))

    @classmethod
    def from_preset(
        cls,
        preset: str,
        *,
        process: str | None = None,
        noise_scheduler: Any = None,
        num_classes: int | None = None,
        **options: Any,
    ) -> "DiffusionModel":
        """Make a model of a preset's size, with random weights.

        :param preset: a key of :data:`~avalanche_gd.models.unet.PRESETS`.
        :param process: ``"ddpm"``, the default, for :func:`ddim_scheduler`, ``"flow"`` for
            :func:`flow_scheduler`.
        :param noise_scheduler: as in the class, in the place of a ``process``.
        :param num_classes: as in the class.
        :param options: further arguments of the class.
        :raises ValueError: if there is no such preset or process, for a process together
            with a noise scheduler, and as in the class.
        :raises TypeError: as in the class.
        """
        if noise_scheduler is None:
            noise_scheduler = scheduler_of(process or "ddpm")
        elif process is not None:
            raise ValueError("give process or noise_scheduler, not both")
        # diffusers' classes are not typed as modules
        denoiser: Any = unet(preset, num_classes=num_classes)
        shape = preset_shape(preset)
        return cls(denoiser, noise_scheduler, shape, num_classes=num_classes, **options)

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps the model is trained on."""
        return self.process.num_timesteps

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.sampling_seed.device

    def forward(self, x0: Tensor) -> Denoising | NoisyImages:
        """Noise each image at a timestep of its own, and predict the target.

        :param x0: clean images in model space, ``(N, C, H, W)``.
        :return: the denoising; for a conditioned model, an object that waits for the
            classes, which the criterion gets.
        :raises ValueError: if the images are not float, not of the model's shape or not in
            model space (of the values, on an accelerator only each 50th batch is checked,
            and the first 8), or if the weights are of another type of float (which mixed
            precision converts, except for float64). If 8 batches are in ``[0, 1]``, there
            is a warning.
        """
        self._check_images(x0, self.execution.dtype_for(self.denoiser, x0))
        ahead, self._noised = self._noised, None
        noised = (
            ahead[1]
            if ahead is not None and ahead[0] is x0
            else noise_images(self.process, x0)
        )
        questions: list[Question] = []
        if self.training and torch.is_grad_enabled():
            questions, self.questions = self.questions, []
        output: Denoising | NoisyImages
        if self.num_classes is None:
            prediction = denoise_together(self, noised, None, questions)
            output = Denoising(prediction, noised.target, noised.timesteps)
        else:
            output = NoisyImages(self, noised, questions)
        for question in questions:
            question.output = output
        return output

    def check_images(self, images: Tensor) -> None:
        """Raise ValueError unless images fit the model, as those of :meth:`forward`.

        Their values are read on the CPU only, as an accelerator would have to wait.

        :param images: ``(N, C, H, W)``.
        """
        dtype = self.execution.dtype_for(self.denoiser, images)
        check_images(images, self.sample_shape, dtype)

    def noise_ahead(self, x0: Tensor) -> Noised:
        """Noise a batch now, with the noise that the next forward pass will use.

        :param x0: the same tensor object that the model will be called with.
        """
        noised = noise_images(self.process, x0)
        self._noised = x0, noised
        return noised

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """See :meth:`~avalanche_gd.models.prediction.NoiseProcess.add_noise`."""
        return self.process.add_noise(x0, noise, timesteps)

    def generate(
        self,
        batch_size: int | None = None,
        condition: Tensor | None = None,
        *,
        steps: int | None = None,
        eta: float = 0.0,
        sampler: str = "own",
        generator: torch.Generator | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """Sample images from noise.

        Leaves the module's mode, its gradients and all random state except that of
        ``generator`` unchanged.

        :param batch_size: how many images; None for a single one without the batch
            axis, as Avalanche's generators do.
        :param condition: for a conditioned model: the classes, ``(batch_size,)``, integers
            in ``[0, num_classes)``; None for those of :meth:`draw_condition`.
        :param steps: k, the denoiser's passes, in ``[1, T]``; costs k F (F is one forward
            pass over the batch). The default is ``sampling_steps``. (A scheduler of second
            order, such as ``HeunDiscreteScheduler``, makes up to twice as many passes.)
        :param eta: from 0 for DDIM to 1 for ancestral sampling, for schedulers that have
            it.
        :param sampler: a name in :data:`~avalanche_gd.models.sampler.SAMPLERS`.
        :param generator: the source of all randomness. Without one, each call draws
            from the next seed of a sequence that belongs to this model. A copy goes on
            with the seeds that its original has next. So two copies have the same noise
            if the original did not sample in between, as with Avalanche's own
            ``GenerativeReplayPlugin``, which samples from a new copy in an experience. For
            other noise, change the original before it is copied:
            ``model.sampling_seed += 1_000_000``.
        :param guide: changes the predictions, such as
            :meth:`ClassifierGuidance.guide <avalanche_gd.ClassifierGuidance>`.
        :return: images in model space, ``(batch_size, C, H, W)``, on the model's device.
        :raises ValueError: for a ``batch_size`` that is not an integer of 0 or more, for a
            condition that does not fit, for steps that the sampler cannot make, for an
            unknown sampler, for an eta outside of ``[0, 1]`` or that the sampler does not
            have, or if the samples are not finite.
        """
        count = 1 if batch_size is None else check_integer("batch_size", batch_size, 0)
        self.check_steps(self.sampling_steps if steps is None else steps, sampler)
        self.check_eta(eta, sampler)
        if condition is not None:
            condition = self.check_condition(condition, count)
        if generator is None:
            generator = torch.Generator().manual_seed(int(self.sampling_seed))
            self.sampling_seed += 1
        if condition is None:
            condition = self.draw_condition(count, generator)
        noise = self.draw_noise(count, generator)
        images = self.reverse(
            noise,
            condition,
            steps=steps,
            eta=eta,
            sampler=sampler,
            generator=generator,
            guide=guide,
        )
        return images[0] if batch_size is None else images

    def draw_noise(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise of the images' shape, on the model's device.

        It is drawn in float32; if the weights are of another type, so is the noise.
        """
        shape, device = self.sample_shape, generator.device
        noise = draw_share(
            batch_size,
            lambda n: torch.randn(n, *shape, generator=generator, device=device),
        ).to(self.device)
        return noise.to(self.execution.dtype_for(self.denoiser, noise))

    @torch.no_grad()
    def reverse(
        self,
        noise: Tensor,
        condition: Tensor | None = None,
        *,
        steps: int | None = None,
        eta: float = 0.0,
        sampler: str = "own",
        generator: torch.Generator | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """Run the reverse process: from noise to images in model space.

        :param noise: standard normal, ``(N, C, H, W)``.
        :param condition: for a conditioned model: the classes, ``(N,)``.
        :param steps: as in :meth:`generate`.
        :param eta: as in :meth:`generate`.
        :param sampler: as in :meth:`generate`.
        :param generator: the source of the noise that is added during sampling.
        :param guide: as in :meth:`generate`.
        :raises ValueError: as in :meth:`generate`.
        """
        k = self.sampling_steps if steps is None else steps
        denoise = self.guided(condition)
        if guide is not None:
            denoise = guide(denoise)
        with in_evaluation_mode(self):
            return self._sampler(sampler).reverse(denoise, noise, k, eta, generator)

    def sampling_timesteps(self, steps: int) -> list[int]:
        """The k timesteps that DDIM visits, evenly spaced down from T - 1."""
        return self.process.trailing_timesteps(self.check_steps(steps))

    def check_steps(self, steps: int, sampler: str = "own") -> int:
        """Return ``steps``, or raise ValueError if the sampler cannot make so many.

        :raises ValueError: unless they are an integer in ``[1, T]`` that the sampler's
            scheduler accepts, and the sampler fits the model's noise; for fewer than 100
            steps, also if a perfect denoiser would not lead to the right images.
        """
        return self._sampler(sampler).check_steps(steps)

    def check_eta(self, eta: float, sampler: str = "own") -> None:
        """Raise ValueError unless the sampler has this eta.

        :raises ValueError: if it is outside of ``[0, 1]``, or above 0 for a sampler that
            does not have it.
        """
        self._sampler(sampler).check_eta(eta)

    def draws_noise(self, sampler: str = "own") -> bool:
        """True if the sampler's steps draw noise, even with an eta of 0.

        :param sampler: as in :meth:`generate`.
        """
        return self._sampler(sampler).draws_noise

    def get_features(self, x: Tensor) -> Tensor:
        """Features of clean images, as Avalanche's models give them.

        :param x: images in model space, ``(N, C, H, W)``.
        :return: the activations of the denoiser's ``mid_block`` at timestep 0 (or of its
            output, if it has no such block), ``(N, D)``; for a conditioned model, without
            a class.
        :raises ValueError: if a conditioned model has no embedding for no class, or was not
            trained with it, as its ``condition_dropout`` is 0.
        """
        start = torch.zeros(len(x), dtype=torch.long, device=x.device)
        none = None if self.num_classes is None else self.no_class(start)
        if none is not None and self.condition_dropout == 0:
            raise ValueError(
                "features are without a class, which this model is not trained for; make "
                "it with condition_dropout, for example 0.1"
            )
        features: list[Any] = []
        block = getattr(self.denoiser, "mid_block", None) or self.denoiser
        hook = block.register_forward_hook(
            lambda module, inputs, output: features.append(
                getattr(output, "sample", output)
            )
        )
        try:
            Execution()(self.denoiser, x, start, **self.class_labels(none, len(x)))
        finally:
            hook.remove()
        return features[-1].flatten(1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the layout of a diffusers pipeline, whole or not at all.

        ``diffusers.DDIMPipeline.from_pretrained(folder)`` opens it (for flow matching use
        ``DDPMPipeline``, which spaces its steps differently). It can sample only from a
        model that is not conditioned, as that pipeline gives its denoiser no classes. What
        that layout has no place for is in an extra file, for :meth:`from_pretrained`.

        :param folder: a new or empty one, or that of an older model, which is replaced.
        :raises TypeError: if the denoiser or the noise scheduler is not of diffusers.
        :raises ValueError: if the folder has anything else, is the current one or is a
            file, if the denoiser's weights are of several types, or if the configuration of
            the denoiser or the noise scheduler, which is what is saved, does not give its
            layers, the noise levels and the samples of this model; for example after
            ``set_shift``, a change of ``alphas_cumprod`` or a layer that was replaced.
        """
        state = {
            "sample_shape": self.sample_shape,
            "sampling_steps": self.sampling_steps,
            "num_classes": self.num_classes,
            "condition_dropout": self.condition_dropout,
            "guidance": self.guidance,
            "classes_seen": self.classes_seen.nonzero().flatten().tolist(),
            "sampling_seed": int(self.sampling_seed),
        }
        own = self._samplers["own"]
        save_pipeline(self.denoiser, self.noise_scheduler, own, state, expanded(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "DiffusionModel":
        """Read what :meth:`save_pretrained` wrote, or a pipeline of diffusers.

        From what :meth:`save_pretrained` wrote comes a model that samples the same bits,
        under the same ``execution``, which is not saved.

        A pipeline of diffusers must have a :class:`diffusers.UNet2DModel` and a scheduler
        and nothing else, such as DDIM or DDPM. The ``sample_size`` of its U-Net is the size
        of the images. If it has class embeddings, each stands for a class, and all of them
        can be sampled; if the last one means no class, give ``num_classes``, one fewer.

        :param options: arguments of the class that replace what the folder says.
        :raises ValueError: if the folder does not hold a complete model, and as in the
            class.
        :raises TypeError: as in the class.
        """
        denoiser, scheduler, state = load_pipeline(expanded(folder))
        seen, seed = (state.pop(key, None) for key in ("classes_seen", "sampling_seed"))
        arguments = state | options
        if "sample_shape" not in arguments:
            raise ValueError(
                f"the U-Net in {folder} does not say its sample_size; give sample_shape="
            )
        model = cls(denoiser, scheduler, **arguments)
        if seen is None:
            model.classes_seen.fill_(True)
        elif seen:
            model.see_classes(model.check_condition(torch.tensor(seen), len(seen)))
        if seed is not None:
            model.sampling_seed.fill_(seed)
        return model

    def _sampler(self, name: str) -> Sampler:
        if name not in self._samplers:
            self._samplers[name] = Sampler(self.noise_scheduler, name)
        return self._samplers[name]
