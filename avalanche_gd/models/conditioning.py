"""The classes that a diffusion model is conditioned on."""

import torch
from torch import Tensor, nn

from avalanche_gd.distributed.shares import draw_share, gathered


class ClassConditioning(nn.Module):
    """How many classes there are, which were trained on, and how often none is given.

    :param num_classes: their number; ``num_classes`` itself stands for no class.
    :param dropout: the probability that a class is left out in training, in ``[0, 1)``.
    """

    seen: Tensor

    def __init__(self, num_classes: int, dropout: float):
        super().__init__()
        self.number = num_classes
        self.dropout = dropout
        # A buffer, so that a teacher and a checkpoint know it too.
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def see(self, labels: Tensor) -> None:
        """Note that these classes are trained on."""
        self.seen[gathered(labels)] = True  # in every process

    def check(self, labels: Tensor, count: int) -> Tensor:
        """The labels as a condition.

        :raises ValueError: unless they are ``count`` integers in ``[0, num_classes)``.
            (The range only on the CPU: an accelerator would have to wait.)
        """
        labels = torch.as_tensor(labels)
        if labels.shape != (count,) or labels.is_floating_point():
            raise ValueError(
                f"a condition for {count} images must be {count} integers, "
                f"got {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if labels.device.type == "cpu" and count:
            low, high = (int(bound) for bound in torch.aminmax(labels))
            if low < 0 or high >= self.number:
                raise ValueError(
                    f"labels must be from 0 to num_classes - 1 = {self.number - 1}, "
                    f"got {low if low < 0 else high}"
                )
        return labels.to(self.seen.device)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Classes trained on so far, as many of each, ``(count,)``.

        :param count: where it does not divide, which classes come once more is drawn.
        :param generator: the source of all randomness.
        :raises ValueError: if none was trained on.
        """
        seen = self.seen.nonzero().flatten()
        if len(seen) == 0:
            raise ValueError(
                "the model has seen no class yet; train it, or give condition="
            )
        first = torch.randint(
            len(seen), (1,), generator=generator, device=generator.device
        ).to(seen.device)
        return draw_share(
            count, lambda n: seen[(torch.arange(n, device=seen.device) + first) % len(seen)]
        )

    def drop(self, condition: Tensor, generator: torch.Generator | None) -> Tensor:
        """The condition with each class left out with the probability ``dropout``."""
        if self.dropout == 0:
            return condition
        device = condition.device if generator is None else generator.device
        draw = draw_share(
            len(condition), lambda n: torch.rand(n, generator=generator, device=device)
        )
        return condition.masked_fill(draw.to(condition.device) < self.dropout, self.number)


def check_conditioning(num_classes: int | None, dropout: float, guidance: float) -> None:
    """Whether these arguments of a :class:`~avalanche_gd.DiffusionModel` go together.

    :raises ValueError: if they do not, or one is out of its range.
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
    if not 0 <= dropout < 1:
        raise ValueError(f"condition_dropout must be in [0, 1), got {dropout}")
    if guidance < 0:
        raise ValueError(f"guidance must be 0 or more, got {guidance}")
    if num_classes is None and (dropout or guidance != 1):
        raise ValueError("condition_dropout and guidance need num_classes=")
    if guidance != 1 and dropout == 0:
        raise ValueError(
            "guidance needs a model that was also trained without the class; "
            "give condition_dropout, for example 0.1"
        )
