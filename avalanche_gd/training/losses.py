"""The criterion of a diffusion model."""

from torch import Tensor, nn

from avalanche_gd.models.diffusion import Denoising

_REDUCTIONS = ("mean", "none")


class DenoisingLoss(nn.Module):
    """Mean squared error between a diffusion model's prediction and its target.

    ``L = E || eps - eps_theta(x_t, t) ||^2`` per pixel (arXiv 2006.11239, equation 14),
    as the criterion of an Avalanche strategy.

    :param reduction: ``"mean"`` over the batch, or ``"none"`` for one loss a sample;
        an attribute, as some of Avalanche's plugins change it for a while.
    :raises ValueError: for another reduction.
    """

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"no reduction {reduction!r}; choose from {', '.join(_REDUCTIONS)}"
            )
        self.reduction = reduction

    def forward(self, denoising: Denoising, y: Tensor | None = None) -> Tensor:
        """The loss; labels are ignored.

        :return: a scalar, or ``(N,)`` with the reduction ``"none"``.
        """
        error = (denoising.prediction - denoising.target).square().flatten(1).mean(1)
        return error if self.reduction == "none" else error.mean()
