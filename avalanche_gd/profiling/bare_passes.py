"""The time of the passes of a step alone."""

import copy
import time
from typing import Any

import torch
from torch import Tensor

from avalanche_gd.models import DiffusionModel
from avalanche_gd.runs.passes import Passes


class BarePasses:
    """Makes the passes and the optimizer's step of a training step, and nothing else.

    It uses copies of the model, so that it can be called during a training.

    :param model: its weights, device and execution are used.
    :param learning_rate: of Adam.
    """

    def __init__(self, model: DiffusionModel, learning_rate: float):
        self._student: Any = copy.deepcopy(model.denoiser).train()
        self._teacher: Any = copy.deepcopy(model.denoiser).eval().requires_grad_(False)
        self._optimizer = torch.optim.Adam(
            self._student.parameters(), lr=learning_rate, fused=True
        )
        self._model = model

    def seconds(self, passes: Passes) -> float:
        """Measure the passes, with a step of Adam if one of them is trained."""
        execution, device = self._model.execution, self._model.device
        parameters = list(self._student.parameters())
        work = [
            (torch.randn(images, *self._model.sample_shape, device=device), backward)
            for images, backward in passes.elements()
        ]
        began = clock(device)
        losses: list[Tensor] = []
        for x_t, backward in work:
            timesteps = torch.zeros(len(x_t), dtype=torch.long, device=device)
            if not backward:
                with torch.no_grad():
                    execution(self._teacher, x_t, timesteps)
                continue
            prediction = execution(self._student, x_t, timesteps)
            losses.append((prediction - x_t).square().mean())
            for _ in range(1, backward):
                torch.autograd.grad(losses[-1], parameters, retain_graph=True)
        if losses:
            self._optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            self._optimizer.step()
        return clock(device) - began


def clock(device: torch.device) -> float:
    """The time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
