"""Models on disk: what is written, and what is read back."""

import json

import diffusers
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from avalanche_gd import DiffusionModel, ddim_scheduler, flow_scheduler
from avalanche_gd.models.sampler import FITTING, SAMPLERS
from avalanche_gd.models.unet import PRESETS
from tests.helpers.bits import same_bits, truncate, weights
from tests.helpers.own_denoisers import OwnUNet
from tests.helpers.small_models import PREDICTING, TinyDenoiser, images, seeded

FLOW = [
    diffusers.FlowMatchEulerDiscreteScheduler,
    diffusers.FlowMatchHeunDiscreteScheduler,
]

CONDITIONS = {
    "no classes": {},
    "classes": dict(num_classes=10),
    "no class left out": dict(num_classes=10, condition_dropout=0.2),
    "guidance": dict(num_classes=10, condition_dropout=0.2, guidance=2.0),
}


def small_unet(**options):
    return UNet2DModel(**(PRESETS["digits"] | options))


def bits(model):
    """Samples by default, from a given state, and under given classes."""
    eta = float(hasattr(model.noise_scheduler, "alphas_cumprod"))
    samples = [model.generate(4), model.generate(3, steps=2, eta=eta, generator=seeded())]
    if model.num_classes is not None:
        samples.append(model.generate(2, torch.tensor([4, 1]), generator=seeded()))
    return samples


@pytest.mark.parametrize("predicting", PREDICTING)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_model_that_is_read_back_samples_the_same_bits(tmp_path, predicting, condition):
    options = CONDITIONS[condition]
    classes = options.get("num_classes")
    embeddings = None if classes is None else classes + 1
    model = DiffusionModel(
        small_unet(sample_size=32, num_class_embeds=embeddings),
        PREDICTING[predicting](),
        (1, 16, 8),
        sampling_steps=3,
        **options,
    )
    if classes:
        model.see_classes(torch.tensor([1, 4]))
    model.generate(2)  # the next samples without a generator are others
    model.save_pretrained(tmp_path / "model")
    again = DiffusionModel.from_pretrained(tmp_path / "model")
    assert again.sample_shape == (1, 16, 8)
    assert torch.equal(again.classes_seen, model.classes_seen)
    for name in ("sampling_steps", "num_classes", "condition_dropout", "guidance", "none"):
        assert getattr(again, name) == getattr(model, name)
    assert same_bits(weights(again), weights(model))
    for first, second in zip(bits(model), bits(again), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", FITTING)
def test_a_model_with_a_fitting_scheduler_samples_the_same_when_read_back(tmp_path, name):
    scheduler = getattr(diffusers, name)()
    model = DiffusionModel.from_preset("digits", noise_scheduler=scheduler)
    model.save_pretrained(tmp_path / "model")
    again = DiffusionModel.from_pretrained(tmp_path / "model")
    samples = [m.generate(2, steps=4, generator=seeded()) for m in (model, again)]
    assert type(again.noise_scheduler) is type(scheduler)
    assert torch.equal(*samples)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize(
    "make", [ddim_scheduler, diffusers.DDIMScheduler, DDPMScheduler, flow_scheduler]
)
def test_each_sampler_samples_the_same_when_read_back(tmp_path, make, kind):
    model = DiffusionModel.from_preset("digits", noise_scheduler=make())
    model.save_pretrained(tmp_path / "model")
    again = DiffusionModel.from_pretrained(tmp_path / "model")
    how = dict(steps=4, sampler=kind)
    samples = [m.generate(2, **how, generator=seeded()) for m in (model, again)]
    assert torch.equal(*samples)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_type_are_read_back_as_they_are(tmp_path, dtype):
    model = DiffusionModel.from_preset("digits").to(dtype)
    model.save_pretrained(tmp_path / "model")
    again = DiffusionModel.from_pretrained(tmp_path / "model")
    assert same_bits(weights(again), weights(model))
    samples = [m.generate(2, steps=2, generator=seeded()) for m in (model, again)]
    assert samples[0].dtype == dtype and torch.equal(*samples)


def test_weights_of_several_types_are_not_saved_as_they_would_be_read_as_one(tmp_path):
    model = DiffusionModel.from_preset("digits")
    model.denoiser.conv_out.double()
    with pytest.raises(ValueError, match=r"weights of torch\.float32, torch\.float64, "):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_nothing_but_an_older_model_is_replaced(tmp_path, monkeypatch):
    model = DiffusionModel.from_preset("digits")
    results, notes, disk = (tmp_path / name for name in ("results", "notes", "disk"))
    for folder in (results, disk):
        folder.mkdir()
    (results / "data.csv").write_text("1\n")
    notes.write_text("2\n")
    with pytest.raises(ValueError, match=r"has data\.csv, which is no part of a saved"):
        model.save_pretrained(results)
    with pytest.raises(ValueError, match="notes is a file; give a folder"):
        model.save_pretrained(notes)
    monkeypatch.chdir(disk)
    with pytest.raises(ValueError, match="disk is the current folder; give one in it"):
        model.save_pretrained(".")
    assert (results / "data.csv").read_text() == "1\n" and notes.read_text() == "2\n"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for _ in range(2):  # a new one, and then an older one with a description
        model.save_pretrained(link)
        (link / "README.md").write_text("3\n")
    model.save_pretrained(link)
    assert link.is_symlink() and (tmp_path / "elsewhere" / "unet").is_dir()
    assert not (link / "README.md").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        *("results", "notes", "disk", "link", "elsewhere")
    }


def test_a_model_without_an_embedding_for_none_is_read_back(tmp_path):
    denoiser = small_unet(num_class_embeds=10)
    model = DiffusionModel(denoiser, ddim_scheduler(), (1, 8, 8), num_classes=10)
    model.save_pretrained(tmp_path / "model")
    again = DiffusionModel.from_pretrained(tmp_path / "model")
    assert (again.num_classes, again.none) == (10, None)
    with pytest.raises(ValueError, match="seen no class yet"):
        again.generate(1)


LAST = torch.tensor(0.99995)


def _fall_faster(scheduler):
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**1.3


CHANGED = {
    "a shift": (flow_scheduler, lambda s: s.set_shift(3.0)),
    "noise levels": (ddim_scheduler, _fall_faster),
    "the last level": (ddim_scheduler, lambda s: vars(s).update(final_alpha_cumprod=LAST)),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_scheduler_whose_configuration_does_not_say_what_it_does_is_not_saved(
    tmp_path, what
):
    make, change = CHANGED[what]
    scheduler = make()
    change(scheduler)
    model = DiffusionModel.from_preset("digits", noise_scheduler=scheduler)
    with pytest.raises(ValueError, match="another configuration than the model uses"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_scheduler_that_was_changed_after_the_model_was_made_is_not_saved(tmp_path):
    model = DiffusionModel.from_preset("digits")
    model.noise_scheduler.register_to_config(prediction_type="v_prediction")
    with pytest.raises(ValueError, match="another configuration than the model uses"):
        model.save_pretrained(tmp_path / "model")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_saved_model_opens_in_diffusers_and_everybody_may_read_it(tmp_path, condition):
    model = DiffusionModel.from_preset("digits", **CONDITIONS[condition])
    folder = tmp_path / "model"
    for _ in range(2):  # the second replaces the first
        model.save_pretrained(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    pipeline = diffusers.DDIMPipeline.from_pretrained(folder)
    assert pipeline.scheduler.config.timestep_spacing == "trailing"
    assert same_bits(weights(pipeline.unet), weights(model.denoiser))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


@pytest.mark.parametrize("kind", FLOW)
def test_a_saved_flow_opens_in_diffusers_and_samples_from_its_noise(tmp_path, kind):
    unet = small_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)  # a velocity of 0.5 everywhere
    torch.nn.init.constant_(unet.conv_out.bias, 0.5)
    DiffusionModel(unet, kind(shift=2.0), (1, 8, 8)).save_pretrained(tmp_path / "model")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert type(pipeline) is diffusers.DDPMPipeline
    assert type(pipeline.scheduler) is kind and pipeline.scheduler.config.shift == 2.0
    images = pipeline(3, seeded(), num_inference_steps=5, output_type="np")[0]
    noise = torch.randn(3, 1, 8, 8, generator=seeded())
    expected = ((noise - 0.5) / 2 + 0.5).clamp(0, 1)
    assert (torch.from_numpy(images).movedim(-1, 1) - expected).abs().max() < 1e-5


def save_pipeline(folder, **options):
    """A pipeline as diffusers saves it."""
    scheduler = DDPMScheduler(timestep_spacing="trailing")
    pipeline = DDIMPipeline(small_unet(**options), scheduler)
    pipeline.save_pretrained(folder)
    return pipeline


def test_a_pipeline_of_diffusers_is_read(tmp_path):
    pipeline = save_pipeline(tmp_path)
    model = DiffusionModel.from_pretrained(tmp_path, sampling_steps=3)
    assert model.sample_shape == (1, 8, 8)
    assert (model.num_classes, model.sampling_steps) == (None, 3)
    assert same_bits(weights(model.denoiser), weights(pipeline.unet))
    assert model.generate(2).shape == (2, 1, 8, 8)


def test_each_embedding_of_a_pipeline_is_a_class_unless_one_is_left_for_none(tmp_path):
    save_pipeline(tmp_path, num_class_embeds=10)
    model = DiffusionModel.from_pretrained(tmp_path)
    assert (model.num_classes, model.none) == (10, None)
    drawn = model.draw_condition(20, seeded())
    assert torch.bincount(drawn).tolist() == [2] * 10
    assert model.generate(10, steps=1).shape == (10, 1, 8, 8)
    model(images(20)).given(torch.arange(20) % 10)
    guided = dict(num_classes=9, condition_dropout=0.1, guidance=2.0)
    model = DiffusionModel.from_pretrained(tmp_path, **guided)
    assert (model.num_classes, model.none, model.guidance) == (9, 9, 2.0)
    assert model.generate(9, steps=1).shape == (9, 1, 8, 8)
    with pytest.raises(ValueError, match=r"needs num_classes of 10 or, .* 9, got 5"):
        DiffusionModel.from_pretrained(tmp_path, num_classes=5)
    with pytest.raises(ValueError, match="need an embedding for no class"):
        DiffusionModel.from_pretrained(tmp_path, condition_dropout=0.1)


@pytest.mark.parametrize("kind", ["timestep", "identity"])
def test_a_pipeline_with_other_class_embeddings_is_refused(tmp_path, kind):
    save_pipeline(tmp_path, class_embed_type=kind)
    with pytest.raises(ValueError, match=f"class_embed_type='{kind}' is not supported"):
        DiffusionModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(("size", "shape"), [(16, (1, 16, 16)), ((8, 16), (1, 8, 16))])
def test_the_shape_of_a_pipeline_is_its_sample_size(tmp_path, size, shape):
    save_pipeline(tmp_path, sample_size=size)
    assert DiffusionModel.from_pretrained(tmp_path).sample_shape == shape


def test_a_pipeline_without_a_sample_size_needs_a_shape(tmp_path):
    save_pipeline(tmp_path, sample_size=None)
    with pytest.raises(
        ValueError, match="does not say its sample_size; give sample_shape="
    ):
        DiffusionModel.from_pretrained(tmp_path)
    model = DiffusionModel.from_pretrained(tmp_path, sample_shape=(1, 8, 8))
    assert model.generate(1, steps=1).shape == (1, 1, 8, 8)


def test_arguments_take_the_place_of_what_was_saved(tmp_path):
    model = DiffusionModel.from_preset("digits", **CONDITIONS["guidance"])
    model.see_classes(torch.tensor([2]))
    model.save_pretrained(tmp_path / "model")
    options = dict(guidance=1.0, sampling_steps=7, sample_shape=(1, 4, 4))
    again = DiffusionModel.from_pretrained(tmp_path / "model", **options)
    assert {name: getattr(again, name) for name in options} == options
    assert again.condition_dropout == 0.2
    assert again.classes_seen.nonzero().flatten().tolist() == [2]
    with pytest.raises(TypeError, match="samplingsteps"):
        DiffusionModel.from_pretrained(tmp_path / "model", samplingsteps=7)


@pytest.mark.parametrize(
    "name", ["diffusion_pytorch_model.safetensors", "model_index.json", "avalanche_gd.json"]
)
def test_a_saved_model_cut_short_is_refused(tmp_path, name):
    DiffusionModel.from_preset("digits").save_pretrained(tmp_path / "model")
    truncate(next((tmp_path / "model").rglob(name)))
    with pytest.raises(ValueError, match="no complete model in"):
        DiffusionModel.from_pretrained(tmp_path / "model")


class OwnScheduler(DDPMScheduler):
    """Inherits from what diffusers can read, but is not known to it."""


@pytest.mark.parametrize(
    ("denoiser", "scheduler", "name"),
    [
        (OwnUNet(), DDPMScheduler(), "OwnUNet"),
        (TinyDenoiser(), DDPMScheduler(), "TinyDenoiser"),
        (small_unet(), OwnScheduler(), "OwnScheduler"),
    ],
)
def test_what_diffusers_could_not_read_is_not_written(tmp_path, denoiser, scheduler, name):
    model = DiffusionModel(denoiser, scheduler, (1, 8, 8))
    with pytest.raises(TypeError, match=f"of diffusers, not a {name}; save the state_dict"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_diffusers_has_no_place_for_is_plain_json(tmp_path):
    model = DiffusionModel.from_preset("digits", **CONDITIONS["guidance"])
    model.see_classes(torch.tensor([1, 4]))
    model.save_pretrained(tmp_path / "model")
    state = json.loads((tmp_path / "model" / "avalanche_gd.json").read_text())
    assert state.pop("sampling_seed") == model.sampling_seed
    assert state == dict(
        sample_shape=[1, 8, 8],
        sampling_steps=10,
        num_classes=10,
        condition_dropout=0.2,
        guidance=2.0,
        classes_seen=[1, 4],
    )


class Hostile:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("is_hostile", [True, False])
def test_a_folder_is_never_unpickled(tmp_path, is_hostile):
    model = DiffusionModel.from_preset("digits")
    model.save_pretrained(tmp_path / "model")
    (file,) = (tmp_path / "model" / "unet").glob("*.safetensors")
    content = {"conv_in.weight": Hostile()} if is_hostile else model.denoiser.state_dict()
    torch.save(content, file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(ValueError, match="no complete model in"):
        DiffusionModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["DDIMPipeline", "utils", "no_such"])
def test_a_class_that_is_no_denoiser_is_not_called(tmp_path, name):
    DiffusionModel.from_preset("digits").save_pretrained(tmp_path / "model")
    index = tmp_path / "model" / "model_index.json"
    index.write_text(index.read_text().replace("UNet2DModel", name))
    with pytest.raises(
        ValueError, match=f"its unet is a {name}, which diffusers does not have"
    ):
        DiffusionModel.from_pretrained(tmp_path / "model")


def test_a_terminal_alpha_bar_is_saved(tmp_path):
    model = DiffusionModel(small_unet(), ddim_scheduler(1e-8), (1, 8, 8))
    model.save_pretrained(tmp_path / "model")
    again = DiffusionModel.from_pretrained(tmp_path / "model")
    assert torch.equal(again.process.alpha_bar, model.process.alpha_bar)
    seeds = [torch.Generator().manual_seed(1) for _ in range(2)]
    first, second = (
        m.generate(3, steps=2, generator=seed)
        for m, seed in zip((model, again), seeds, strict=True)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("change", ["without one", "with one more", "with another shape"])
def test_a_folder_with_other_weights_than_its_model_is_refused(tmp_path, change):
    DiffusionModel(small_unet(), ddim_scheduler(), (1, 8, 8)).save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    kept = load_file(file)
    bias = kept.pop("conv_out.bias")
    if change == "with one more":
        kept |= {"conv_out.bias": bias, "conv_out.other": bias.clone()}
    elif change == "with another shape":
        kept["conv_out.bias"] = torch.zeros(7)
    save_file(kept, file)
    with pytest.raises(
        ValueError, match=r"^no complete model in .*(conv_out|loading state_dict)"
    ) as error:
        DiffusionModel.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


class Adapter(nn.Module):
    """A layer with another of low rank beside it."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def with_an_adapter(net):
    net.time_embedding.linear_1 = Adapter(net.time_embedding.linear_1)


def with_another_layer(net):
    net.conv_out = nn.Conv2d(net.conv_out.in_channels, 1, 1)


def with_another_activation(net):
    net.conv_act = nn.ReLU()


CHANGES = {
    "an adapter": with_an_adapter,
    "a layer": with_another_layer,
    "an activation": with_another_activation,
    "a norm of weights": lambda net: nn.utils.parametrizations.weight_norm(net.conv_in),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_net_that_is_not_as_configured_is_not_saved(tmp_path, change):
    model = DiffusionModel(small_unet(), ddim_scheduler(), (1, 8, 8))
    change(model.denoiser)
    with pytest.raises(ValueError, match="UNet2DModel has other layers than its configur"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_pipeline_with_more_parts_than_a_net_is_refused(tmp_path):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2}
    blocks["up_block_types"] = ("UpDecoderBlock2D",) * 2
    vqvae = diffusers.VQModel(block_out_channels=(8, 16), norm_num_groups=4, **blocks)
    pipeline = diffusers.LDMPipeline(vqvae, small_unet(), DDIMScheduler())
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its images also need a vqvae, which would be"):
        DiffusionModel.from_pretrained(tmp_path)


def test_a_folder_below_home_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    DiffusionModel(small_unet(), ddim_scheduler(), (1, 8, 8)).save_pretrained("~/model")
    assert (tmp_path / "model" / "unet").is_dir()
    DiffusionModel.from_pretrained("~/model")


def test_a_run_in_the_place_of_its_model_is_told_where_that_is(tmp_path):
    tiny_unet = DiffusionModel.from_preset("digits")
    tiny_unet.save_pretrained(tmp_path / "run" / "model")
    with pytest.raises(ValueError, match=r"no complete model in .*run: .*; give .*model$"):
        DiffusionModel.from_pretrained(tmp_path / "run")
