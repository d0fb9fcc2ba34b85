"""The denoising loss and its weights."""

import numpy as np
import pytest
import torch

from avalanche_gd import (
    Denoising,
    DenoisingLoss,
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    ddim_scheduler,
)
from tests.helpers.lessons import note_losses
from tests.helpers.small_models import SHAPE, TinyDenoiser

GAMMA = 5.0


def snr(t):
    a = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t]
    return a / (1 - a)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights(prediction_type):
    scheduler = ddim_scheduler(prediction_type=prediction_type)
    criterion = DenoisingLoss(min_snr_gamma=GAMMA, noise_scheduler=scheduler)
    t = torch.tensor([0, 10, 100, 300, 700, 999])
    prediction, target = torch.randn(6, *SHAPE), torch.randn(6, *SHAPE)
    errors = ((prediction - target) ** 2).mean(dim=(1, 2, 3)).double().numpy()
    on_image = np.minimum(snr(t.numpy()), GAMMA)
    divisor = {"epsilon": snr(t.numpy()), "v_prediction": snr(t.numpy()) + 1, "sample": 1}
    expected = errors * on_image / divisor[prediction_type]
    output = Denoising(prediction, target, t)
    assert criterion(output).item() == pytest.approx(expected.mean(), rel=1e-4)
    criterion.reduction = "none"
    assert criterion(output).numpy() == pytest.approx(expected, rel=1e-3)


def test_a_weighted_error_on_the_noise_is_that_on_the_image():
    scheduler = ddim_scheduler()
    loss = DenoisingLoss("none", min_snr_gamma=GAMMA, noise_scheduler=scheduler)
    t = torch.tensor([50, 500, 900])
    noise, other = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    a = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    x_t = torch.randn(3, *SHAPE)
    images = [(x_t - (1 - a).sqrt() * eps) / a.sqrt() for eps in (noise, other)]
    on_image = ((images[0] - images[1]) ** 2).mean(dim=(1, 2, 3))
    expected = torch.tensor(np.minimum(snr(t.numpy()), GAMMA)) * on_image
    assert loss(Denoising(noise, other, t)).numpy() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_distillation_trains_under_it(digits, prediction_type):
    scheduler = ddim_scheduler(prediction_type=prediction_type)
    model = DiffusionModel(TinyDenoiser(), scheduler, SHAPE)
    plugin = GenerativeDistillationPlugin()
    losses = note_losses(plugin)
    DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-2),
        criterion=DenoisingLoss(min_snr_gamma=GAMMA, noise_scheduler=scheduler),
        plugins=[plugin],
        train_steps=3,
        evaluator=None,
    ).train(digits.train_stream[:2], eval_streams=[])
    assert losses[0].item() < 1e-12 < losses[-1].item()


def test_half_a_min_snr_is_refused():
    with pytest.raises(ValueError, match="go together"):
        DenoisingLoss(min_snr_gamma=5.0)
    with pytest.raises(ValueError, match="go together"):
        DenoisingLoss(noise_scheduler=ddim_scheduler())
    with pytest.raises(ValueError, match="above 0"):
        DenoisingLoss(min_snr_gamma=0.0, noise_scheduler=ddim_scheduler())


@pytest.mark.parametrize(
    "other",
    [
        dict(prediction_type="v_prediction"),
        dict(beta_end=0.03),
        dict(num_train_timesteps=500),
    ],
)
def test_weights_of_another_scheduler_than_the_models_are_refused(tiny_model, other):
    optimizer = torch.optim.Adam(tiny_model.parameters())
    options = dict(model=tiny_model, optimizer=optimizer, evaluator=None)
    for scheduler in (tiny_model.noise_scheduler, ddim_scheduler()):
        right = DenoisingLoss(min_snr_gamma=GAMMA, noise_scheduler=scheduler)
        DiffusionTraining(criterion=right, **options)
    wrong = DenoisingLoss(min_snr_gamma=GAMMA, noise_scheduler=ddim_scheduler(**other))
    with pytest.raises(ValueError, match=r"than the model's; give it model\.noise_schedu"):
        DiffusionTraining(criterion=wrong, **options)
