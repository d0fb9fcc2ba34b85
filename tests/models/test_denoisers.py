"""Which denoisers fit which models, known before any training."""

import diffusers
import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from avalanche_gd import DiffusionModel, ddim_scheduler
from avalanche_gd.models.unet import PRESETS, unet
from tests.helpers.own_denoisers import Widening
from tests.helpers.small_models import SHAPE, ClassDenoiser, TinyDenoiser, images, seeded


def small_unet(**options):
    """A U-Net of 8x8 images."""
    return UNet2DModel(**(PRESETS["digits"] | options))


def model(denoiser, shape=SHAPE, **options):
    return DiffusionModel(denoiser, ddim_scheduler(), shape, **options)


@pytest.mark.parametrize("denoiser", [None, "digits", UNet2DModel, torch.relu, 3])
def test_what_is_no_module_is_refused(denoiser):
    with pytest.raises(TypeError, match=r"denoiser must be a torch\.nn\.Module, not"):
        model(denoiser)


class Sampled(nn.Module):
    """Takes whatever it is given."""

    def forward(self, *inputs, **options):
        return inputs[0]


@pytest.mark.parametrize(
    ("make", "num_classes", "message"),
    [
        (lambda: nn.Conv2d(1, 1, 3), None, r"Conv2d.forward\(\) too many positional"),
        (lambda: TinyDenoiser(), 10, "unexpected keyword argument 'class_labels'"),
        (lambda: ClassDenoiser(), None, "missing a required argument: 'class_labels'"),
        (
            lambda: diffusers.UNet2DConditionModel(
                block_out_channels=(8,),
                down_block_types=("DownBlock2D",),
                up_block_types=("UpBlock2D",),
                norm_num_groups=4,
                cross_attention_dim=8,
            ),
            None,
            "missing a required argument: 'encoder_hidden_states'",
        ),
        (lambda: TinyDenoiser(), None, None),
        (lambda: ClassDenoiser(), 10, None),
        (lambda: Sampled(), None, None),
        (lambda: Sampled(), 10, None),
        (lambda: torch.compile(small_unet()), None, None),
    ],
)
def test_a_denoiser_that_takes_other_arguments_is_refused(make, num_classes, message):
    if message is None:
        assert model(make(), num_classes=num_classes).num_classes == num_classes
        return
    with pytest.raises(TypeError, match=message):
        model(make(), num_classes=num_classes)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (12, 8), (30, 30), (7, 7)])
def test_a_unet_takes_the_sizes_that_its_levels_divide(levels, size):
    """And no others, as a pass shows."""
    denoiser = small_unet(
        block_out_channels=(16,) * levels,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
    )
    shape = (1, *size)
    try:
        with torch.no_grad():
            fits = denoiser(torch.zeros(1, *shape), 0).sample.shape[1:] == shape
    except RuntimeError:
        fits = False
    if fits:
        assert model(denoiser, shape).sample_shape == shape
        return
    with pytest.raises(ValueError, match=f"multiples of {2 ** (levels - 1)}, not a sample"):
        model(denoiser, shape)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 8, 8)),
        (
            dict(out_channels=2),
            SHAPE,
        ),  # with learned variance, which a loss would broadcast
        (dict(in_channels=2), SHAPE),
    ],
)
def test_a_unet_of_other_channels_is_refused(options, shape):
    with pytest.raises(
        ValueError, match=f"channels does not fit .*; both must be {shape[0]}"
    ):
        model(small_unet(**options), shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(time_embedding_type="fourier"), "divides by its timesteps"),
        (
            dict(time_embedding_type="learned", num_train_timesteps=50),
            "embeddings of 50 timesteps does not fit a noise_scheduler of 1000",
        ),
    ],
)
def test_a_unet_of_other_timesteps_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        model(small_unet(**options))


@pytest.mark.parametrize("embeddings", [None, 1, 9, 10, 11, 12])
@pytest.mark.parametrize("num_classes", [None, 1, 9, 10, 11])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_unet_needs_an_embedding_of_each_class_and_for_dropout_one_more(
    embeddings, num_classes, dropout
):
    """Whatever is let through samples, trains and drops classes without an error."""
    options = dict(num_classes=num_classes, condition_dropout=dropout)
    denoiser = small_unet(num_class_embeds=embeddings)
    if num_classes is None:
        fits = embeddings is None and not dropout
    else:
        fits = embeddings == num_classes + 1 or (embeddings == num_classes and not dropout)
    if not fits:
        with pytest.raises(ValueError, match=r"embedding|need num_classes="):
            model(denoiser, **options)
        return
    made = model(denoiser, **options)
    output = made(images(20))
    if num_classes is None:
        assert made.generate(2, steps=1).shape == (2, *SHAPE)
        return
    assert made.none == (num_classes if embeddings > num_classes else None)
    assert made.num_conditions == embeddings
    output.given(torch.arange(20) % num_classes)
    assert made.generate(20, steps=1).shape == (20, *SHAPE)


@pytest.mark.parametrize("kind", ["timestep", "identity"])
@pytest.mark.parametrize("num_classes", [None, 10])
def test_a_unet_whose_classes_are_no_table_is_refused(kind, num_classes):
    with pytest.raises(ValueError, match=f"class_embed_type='{kind}' is not supported"):
        model(small_unet(class_embed_type=kind), num_classes=num_classes)


def test_a_model_without_an_embedding_for_none_says_so_where_none_is_asked_for():
    made = model(small_unet(num_class_embeds=10), num_classes=10)
    for guidance in (0.0, 2.0):
        with pytest.raises(
            ValueError, match="need an embedding for no class; the denoiser has"
        ):
            model(small_unet(num_class_embeds=10), num_classes=10, guidance=guidance)
    with pytest.raises(
        ValueError, match="has no embedding for no class, so it always needs one"
    ):
        made.get_features(images(2))
    noise, none = made.draw_noise(2, seeded()), torch.tensor([1, 10])
    with pytest.raises(
        ValueError, match="from 0 to 9, where no value means no class, got 10"
    ):
        made.reverse(noise, none, steps=1)
    with pytest.raises(ValueError, match="seen no class yet"):
        made.generate(2, steps=1)


@pytest.mark.parametrize("condition", [[0, 11], [-1, 0]])
def test_a_condition_that_there_is_not_is_refused(condition):
    made = model(ClassDenoiser(), num_classes=10)
    with pytest.raises(ValueError, match="from 0 to 10, where 10 means no class, got"):
        made.denoise(images(2), torch.zeros(2).long(), torch.tensor(condition))


def test_a_denoiser_that_gives_another_shape_is_refused_where_a_loss_would_broadcast():
    with pytest.raises(
        ValueError, match=r"must return \(2, 1, 8, 8\).*Widening returns \(2, 3"
    ):
        model(Widening())(images(2))


@pytest.mark.parametrize(
    ("preset", "count"), [("paper-fmnist", 42_855_873), ("paper-cifar10", 35_746_307)]
)
def test_the_papers_u_nets_have_as_many_parameters(preset, count):
    with torch.device("meta"):
        denoiser = unet(preset)
    assert sum(p.numel() for p in denoiser.parameters()) == count
    on_cifar = preset == "paper-cifar10"
    expected = (1, False, 1e-6) if on_cifar else (0, True, 1e-5)
    config = denoiser.config
    assert (config.freq_shift, config.flip_sin_to_cos, config.norm_eps) == expected
