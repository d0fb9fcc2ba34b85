"""The denoising loss and its weights."""

import numpy as np
import pytest
import torch
from avalanche.training.templates import SupervisedTemplate
from torch.nn.functional import smooth_l1_loss

from avalanche_gd import (
    Denoising,
    DenoisingLoss,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    ddim_scheduler,
    flow_scheduler,
)
from tests.helpers.lessons import note_losses
from tests.helpers.small_models import PREDICTING, SHAPE, conditioned, seeded, tiny
from tests.helpers.small_trainings import train_generator

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


@pytest.mark.parametrize("predicting", PREDICTING)
def test_a_weighted_error_on_a_prediction_is_that_on_the_image(predicting):
    scheduler = PREDICTING[predicting]()
    loss = DenoisingLoss("none", min_snr_gamma=GAMMA, noise_scheduler=scheduler)
    t = torch.tensor([50, 500, 900])
    one, other = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    x_t, process = torch.randn(3, *SHAPE), tiny(scheduler).process
    images = [process.image_and_noise(x_t, output, t)[0] for output in (one, other)]
    on_image = ((images[0] - images[1]) ** 2).mean(dim=(1, 2, 3))
    sigma = (t.numpy() + 1) / 1000
    ratio = (1 / sigma - 1) ** 2 if "flow" in predicting else snr(t.numpy())
    expected = torch.tensor(np.minimum(ratio, GAMMA)) * on_image
    assert loss(Denoising(one, other, t)).numpy() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("make", [tiny, conditioned])
def test_a_criterion_of_ones_own_gets_a_denoising_of_any_model(digits, make):
    def huber(output, labels):
        prediction, target, _ = output.given(labels)
        return smooth_l1_loss(prediction, target)

    losses = []
    for criterion in (huber, DenoisingLoss()):
        torch.manual_seed(0)
        plugin = GenerativeDistillationPlugin(generator=seeded())
        noted = note_losses(plugin)
        train_generator(make(), digits.train_stream[:2], plugin, criterion=criterion)
        losses.append([loss.item() for loss in noted])
    assert len(losses[0]) == len(losses[1]) > 0 and losses[0] != losses[1]


@pytest.mark.parametrize("predicting", PREDICTING)
def test_distillation_trains_under_it(digits, predicting):
    scheduler = PREDICTING[predicting]()
    model = tiny(scheduler)
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
    ("make", "other"),
    [
        (ddim_scheduler, ddim_scheduler(prediction_type="v_prediction")),
        (ddim_scheduler, ddim_scheduler(beta_end=0.03)),
        (ddim_scheduler, ddim_scheduler(num_train_timesteps=500)),
        (ddim_scheduler, flow_scheduler()),
        (flow_scheduler, ddim_scheduler()),
        (flow_scheduler, flow_scheduler(shift=2.0)),
    ],
)
def test_weights_of_another_scheduler_than_the_models_are_refused(make, other, digits):
    model = tiny(make())
    optimizer = torch.optim.Adam(model.parameters())
    options = dict(model=model, optimizer=optimizer, evaluator=None)
    for scheduler in (model.noise_scheduler, make()):
        right = DenoisingLoss(min_snr_gamma=GAMMA, noise_scheduler=scheduler)
        DiffusionTraining(criterion=right, **options)
    wrong = DenoisingLoss(min_snr_gamma=GAMMA, noise_scheduler=other)
    message = r"than the model's; give it model\.noise_schedu"
    with pytest.raises(ValueError, match=message):
        DiffusionTraining(criterion=wrong, **options)
    plain = SupervisedTemplate(criterion=wrong, **options)
    with pytest.raises(ValueError, match=message):
        plain.train(digits.train_stream[:1], eval_streams=[])
    with pytest.raises(ValueError, match=message):
        plain.eval(digits.test_stream[:1])


def test_a_loss_for_each_sample_is_refused_before_a_step_is_trained(digits):
    with pytest.raises(ValueError, match=r"'none', but a training step needs one number"):
        train_generator(tiny(), digits.train_stream[:1], criterion=DenoisingLoss("none"))
