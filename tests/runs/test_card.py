"""The card of a run's model."""

import re
import shlex
import warnings
from dataclasses import replace

import diffusers
import pytest
import torch
import yaml
from safetensors.torch import load_model

from avalanche_gd import DiffusionModel
from avalanche_gd.runs.card import model_card
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.identity import run_digest
from avalanche_gd.runs.results import read_run
from avalanche_gd.runs.run import make_benchmark, run
from avalanche_gd.storage import folder_digest
from tests.helpers.own_denoisers import OWN
from tests.helpers.small_models import TinyDenoiser
from tests.helpers.small_runs import small_config

QUICK = ["benchmark.n_experiences=2", "evaluation.images=70"]


def card_of(folder):
    return (folder / "model" / "README.md").read_text()


def head_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def command_in(card):
    found = re.search(r"^    (avalanche-gd .*)$", card, re.MULTILINE)
    return shlex.split(found[1])[1:] if found else None


def run_code(card, folder, **scope):
    """Run each block of a card, and give what it defines."""
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(block.replace("FOLDER", str(folder)), scope)
        yield scope


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    overrides = ["method=generative_distillation", "method.teacher_steps=1", *QUICK]
    return run(small_config(tmp_path_factory.mktemp("runs"), *overrides))


def test_a_card_says_what_the_model_is(folder):
    card, result = card_of(folder), read_run(folder)
    assert head_of(card) == {
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": [
            *("avalanche-gd", "continual-learning"),
            *("split_digits", "generative_distillation"),
        ],
    }
    plain = " ".join(card.split())
    assert "# generative_distillation on split_digits" in card
    assert "1,437 training images of 10 classes, as 1x8x8 in [-1, 1]" in plain
    benchmark = make_benchmark(small_config(folder, *QUICK))
    for experience in benchmark.train_stream:
        classes = sorted(experience.classes_in_this_experience)
        assert ", ".join(map(str, classes)) in plain
    assert "learn the teacher's predictions on the teacher's samples. 9F a step" in plain
    assert "70 images from 2 sampling steps. FID uses the features of an oracle" in plain
    last = {r.metric.split("/")[1]: r.value for r in result.rows if r.experience == 1}
    assert f"| FID ↓ | {last['FID_Stream']:.1f} |" in card
    assert f"| Solver: Accuracy ↑ | {last['Top1_Acc_Stream']:.3f} |" in card
    assert (
        f"Seed 0. Versions: python {result.times[0]['versions']['python']}, torch " in plain
    )
    assert "## Licence Not chosen yet. Whoever publishes this model must say here" in plain
    assert "license" not in head_of(card)
    assert str(folder.parents[3]) not in card


def test_what_it_says_of_loading_works_and_gives_the_same_images(folder):
    (ours, theirs) = (dict(s) for s in run_code(card_of(folder), folder / "model"))
    assert ours["images"].shape == (16, 1, 8, 8)
    assert theirs["images"][0].size == (8, 8) and len(theirs["images"]) == 16
    assert isinstance(theirs["DDIMPipeline"], type)


@pytest.mark.parametrize(
    ("overrides", "pipelines"),
    [
        (["model.process=flow"], ["DDPMPipeline"]),
        (["model.conditional=true"], []),
    ],
)
def test_models_of_other_kinds_say_what_opens_them(tmp_path, overrides, pipelines):
    folder = run(small_config(tmp_path, "method=naive", *overrides, *QUICK))
    card = card_of(folder)
    assert re.findall(r"(\w+)\.from_pretrained", card) == ["DiffusionModel", *pipelines]
    assert ("pipeline_tag" in head_of(card)) == bool(pipelines)
    assert len(list(run_code(card, folder / "model"))) == 1 + len(pipelines)


def test_a_denoiser_of_ones_own_says_how_its_weights_are_read(tmp_path):
    folder = run(small_config(tmp_path, *OWN, "method=naive", *QUICK))
    card = card_of(folder)
    assert "library_name" not in head_of(card)
    denoiser = TinyDenoiser()
    list(run_code(card, folder / "model", denoiser=denoiser))
    again = TinyDenoiser()
    load_model(again, folder / "model" / "denoiser.safetensors")
    assert torch.equal(denoiser.convolution.weight, again.convolution.weight)


MADE = {
    "by default": [],
    "of other settings": ["method=ewc", "seed=3", "method.lambd=0.5"],
    "of a setting that is added": ["method=joint", "+method.solver=false"],
    "of lists and texts": ["evaluation.measures=[afid]", "solver.replay_labels=solver"],
    "of a protocol": ["experiment=rank1_fmnist", "evaluation.features=oracle"],
    "of another preset": ["benchmark=split_fmnist", "model=fmnist-fast"],
    "of a flag": ["model.conditional=true", "generator.ema_decay=0.9", "solver.steps=1"],
}


@pytest.mark.parametrize("name", MADE)
def test_its_command_makes_the_same_run(tmp_path, name):
    config = compose_config([*MADE[name], f"out={tmp_path}", "threads=1", "device=cpu"])
    command = command_in(
        model_card(config, DiffusionModel.from_preset("digits"), [], [], {})
    )
    assert run_digest(compose_config(command)) == run_digest(config)
    assert not any(part.startswith(("out", "threads", "device")) for part in command)


def test_a_path_is_not_in_its_command(tmp_path):
    root = [f"benchmark.options.root={tmp_path}", "benchmark.n_classes=4"]
    config = compose_config(["benchmark=image_folder", *root, "benchmark.n_experiences=2"])
    command = command_in(
        model_card(config, DiffusionModel.from_preset("digits"), [], [], {})
    )
    assert "benchmark.options.root=PATH" in [part.replace('"', "") for part in command]


@pytest.mark.parametrize("part", ["method", "benchmark"])
def test_without_a_command_it_says_where_the_settings_are(tmp_path, part):
    config = compose_config([f"out={tmp_path}"])
    own = replace(config, **{part: replace(getattr(config, part), name="mine")})
    card = model_card(own, DiffusionModel.from_preset("digits"), [], [], {})
    assert command_in(card) is None and "`config.yaml` of its run" in card


def test_a_card_changes_neither_the_model_nor_what_is_named_after_it(folder):
    path = folder / "model" / "README.md"
    before, text = folder_digest(folder / "model"), path.read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diffusers.DDIMPipeline.from_pretrained(folder / "model")
    path.write_text("license: mine")
    assert folder_digest(folder / "model") == before
    path.unlink()
    assert folder_digest(folder / "model") == before
    path.write_text(text)
    (folder / "model" / "unet" / "README.md").touch()
    assert folder_digest(folder / "model") != before
    (folder / "model" / "unet" / "README.md").unlink()
