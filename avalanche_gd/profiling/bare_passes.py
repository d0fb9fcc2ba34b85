"""The passes of a denoiser: which a piece of work makes, and what they take alone."""

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avalanche_gd.models import DiffusionModel
from avalanche_gd.runs.passes import BACKWARD


class Pass(NamedTuple):
    """A forward pass of the denoiser over a batch."""

    images: int
    backward: int = 0
    """How many backward passes follow it."""

    @property
    def cost(self) -> int:
        """In forward passes of one image."""
        return self.images * (1 + BACKWARD * self.backward)


class PassLog:
    """Notes the passes of a model and its copies.

    :param model: whose passes are noted from now on.
    """

    def __init__(self, model: DiffusionModel):
        self._passes: list[Pass] = []

        def note(images: int) -> Callable[[], None]:
            passes, index = self._passes, len(self._passes)
            passes.append(Pass(images))

            def note_backward() -> None:
                passes[index] = Pass(images, passes[index].backward + 1)

            return note_backward

        model.pass_hooks.append(note)

    def take(self) -> list[Pass]:
        """The passes since the last time."""
        taken, self._passes = self._passes, []
        return taken


class BarePasses:
    """The passes and the optimizer's step of a training step, and nothing else.

    On copies of the model, so that it may be asked in the midst of a training.

    :param model: with the weights, the device and the execution to take.
    :param learning_rate: of Adam.
    """

    def __init__(self, model: DiffusionModel, learning_rate: float):
        self._student: Any = copy.deepcopy(model.denoiser).train()
        self._teacher: Any = copy.deepcopy(model.denoiser).eval().requires_grad_(False)
        self._optimizer = torch.optim.Adam(
            self._student.parameters(), lr=learning_rate, fused=True
        )
        self._execution = model.execution
        self._device = model.device
        self._shape = model.sample_shape
        self._inputs: dict[int, tuple[Tensor, Tensor]] = {}

    def seconds(self, passes: list[Pass]) -> float:
        """How long they take, with a step of Adam if one of them is trained."""
        inputs = [self._input(images) for images, _ in passes]
        began = clock(self._device)
        losses: list[tuple[Tensor, int]] = []
        for (x_t, timesteps), (_, backward) in zip(inputs, passes, strict=True):
            if backward:
                prediction = self._execution(self._student, x_t, timesteps)
                losses.append(((prediction - x_t).square().mean(), backward))
            else:
                with torch.no_grad():
                    self._execution(self._teacher, x_t, timesteps)
        if losses:
            for loss, backward in losses:
                for _ in range(1, backward):
                    torch.autograd.grad(
                        loss, list(self._student.parameters()), retain_graph=True
                    )
            self._optimizer.zero_grad()
            torch.stack([loss for loss, _ in losses]).sum().backward()
            self._optimizer.step()
        return clock(self._device) - began

    def _input(self, images: int) -> tuple[Tensor, Tensor]:
        if images not in self._inputs:
            x_t = torch.randn(images, *self._shape, device=self._device)
            timesteps = torch.randint(1000, (images,), device=self._device)
            self._inputs[images] = x_t, timesteps
        return self._inputs[images]


def clock(device: torch.device) -> float:
    """The time in seconds once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
