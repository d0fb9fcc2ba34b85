"""Runs with a denoiser of one's own in the place of a preset."""

import re

import pytest
import torch
from safetensors.torch import load_model

from avalanche_gd.runs.run import run
from tests.helpers.own_denoisers import OWN
from tests.helpers.small_models import TinyDenoiser
from tests.helpers.small_runs import (
    FILES,
    files_left,
    metrics,
    run_killed_after,
    small_config,
)


def test_a_run_keeps_the_weights_of_its_denoiser(tmp_path):
    folder = run(small_config(tmp_path, *OWN, "model.channels_last=true"))
    assert files_left(folder) == FILES
    names = {path.name for path in (folder / "model").iterdir()}
    assert names == {"README.md", "denoiser.safetensors"}
    denoiser = TinyDenoiser()
    before = denoiser.convolution.weight.clone()
    load_model(denoiser, folder / "model" / "denoiser.safetensors")
    assert not torch.equal(denoiser.convolution.weight, before)
    assert "generator/FID_Stream" in metrics(folder)


def test_one_that_inherits_from_diffusers_is_kept_as_ones_own(tmp_path):
    own = [*OWN, "model._target_=tests.helpers.own_denoisers.OwnUNet"]
    folder = run(small_config(tmp_path, *own))
    names = {path.name for path in (folder / "model").iterdir()}
    assert names == {"README.md", "denoiser.safetensors"}


def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(tmp_path):
    whole = run(small_config(tmp_path / "whole", *OWN))
    config = small_config(tmp_path / "killed", *OWN)
    run_killed_after(2, config)
    folder = run(config)
    assert metrics(folder) == metrics(whole)
    weights = [(f / "model/denoiser.safetensors").read_bytes() for f in (folder, whole)]
    assert weights[0] == weights[1]


def test_a_conditioned_one_is_called_with_the_classes(tmp_path, capsys):
    conditioned = [
        *OWN,
        "model._target_=tests.helpers.own_denoisers.Conditioned",
        "model.options={classes: 10}",
        "model.conditional=true",
    ]
    config = small_config(tmp_path, *conditioned)
    capsys.readouterr()  # of the check
    run(config)
    lines = capsys.readouterr().out.splitlines()
    called = {n for line in lines if "classes" in line for n in line.split()[1:]}
    assert called == set(map(str, range(11)))  # 10 stands for none


def test_one_that_knows_too_few_classes_is_refused_in_one_line(tmp_path):
    conditioned = [
        *OWN,
        "model._target_=tests.helpers.own_denoisers.Conditioned",
        "model.options={classes: 9}",  # it embeds one more
        "model.conditional=true",
    ]
    message = "model: Conditioned fails, given x_t of (2, 1, 8, 8) and timesteps, and "
    message += "class_labels from 0 to 10, which stands for no class: IndexError("
    with pytest.raises(ValueError, match=re.escape(message)):
        small_config(tmp_path, *conditioned)


def test_a_check_takes_it_too(tmp_path, capsys):
    run(small_config(tmp_path, *OWN, "check=true"))
    assert "works; about" in capsys.readouterr().out


def test_its_settings_decide_the_folder(tmp_path):
    cases = [], OWN, [*OWN, "model.options={channels: 1}"]
    assert len({small_config(tmp_path, *options).folder for options in cases}) == 3
