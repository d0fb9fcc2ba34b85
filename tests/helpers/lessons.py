"""What a source is asked, and what a plugin teaches, for the tests of both."""

import torch
from torch import Tensor

from avalanche_gd.plugins import LookAhead, Taught, TeachingRequest


def request_of(teacher, current: Tensor, *, steps: int = 2, seed: int = 3, student=None):
    """What a source would be asked in a step, with a random state of its own."""
    generator = torch.Generator().manual_seed(seed)
    drawn = LookAhead(1, steps=steps).draw(teacher, len(current), generator)
    return TeachingRequest(
        teacher=teacher,
        count=len(current),
        images=current,
        condition=drawn.condition,
        steps=steps,
        generator=generator,
        samples=drawn.images,
        student=student,
    )


def note_losses(plugin) -> list[Tensor]:
    """L_rep of each step that a distillation plugin teaches in from now on."""
    losses = []
    teach = plugin.distillation_loss
    plugin.distillation_loss = lambda strategy: losses.append(teach(strategy)) or losses[-1]
    return losses


def note_lessons(plugin) -> list[Taught]:
    """What a plugin teaches in each step from now on."""
    taught = []
    draw = plugin.lesson._draw
    plugin.lesson._draw = lambda *arguments: taught.append(draw(*arguments)) or taught[-1]
    return taught
