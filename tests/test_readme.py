"""The README's example runs as it stands, but for its budget."""

import re

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin

import avalanche_gd
from tests.helpers.repository import README


def test_the_example_trains_and_judges(capsys):
    text = README.read_text()
    block = text.split("## Use it")[1].split("Everything is Avalanche")[0]
    code = "\n".join(line[4:] for line in block.splitlines())
    code = code.replace("train_steps=300", "train_steps=2")
    code, replaced = re.subn(r"fid_metrics\(\)", "fid_metrics(sampling=small)", code)
    assert replaced == 1
    scope = {"small": avalanche_gd.Sampling(images=20, steps=1)}
    exec(compile(code, str(README), "exec"), scope)
    assert "FID_Stream/eval_phase/test_stream" in capsys.readouterr().out
    lines = [line for line in code.splitlines() if line.strip()]
    assert lines[0] == "import torch"


def test_a_source_a_denoiser_and_features_of_ones_own_train_and_judge(digits):
    text = README.read_text().split("## Extend it")[1].split("## Run experiments")[0]
    blocks = re.findall(r"(?:(?:    .*)?\n)+", text)
    blocks = [block for block in blocks if block.strip()]
    assert len(blocks) == 3
    scope = dict(vars(avalanche_gd), torch=torch)
    for block in blocks:
        assert len(block.strip().splitlines()) < 15
        exec(compile("if True:\n" + block, str(README), "exec"), scope)
    sampling = avalanche_gd.Sampling(images=40, steps=2)
    scope["metrics"][0].sampling = sampling
    strategy = avalanche_gd.DiffusionTraining(
        model=scope["model"],
        optimizer=torch.optim.Adam(scope["model"].parameters()),
        plugins=[scope["plugin"]],
        train_steps=2,
        evaluator=EvaluationPlugin(scope["metrics"]),
    )
    strategy.train(digits.train_stream[:2], eval_streams=[])
    values = strategy.eval(digits.test_stream[:2])
    assert values["FID_Stream/eval_phase/test_stream"] > 0


def test_the_conditioned_model_samples_the_classes_asked_for():
    text = README.read_text()
    block = text.split("over those seen:\n")[1].split("| name |")[0]
    scope = dict(vars(avalanche_gd), torch=torch)
    exec(compile("if True:\n" + block, str(README), "exec"), scope)
    assert scope["images"].shape == (2, 1, 8, 8)


def test_every_public_name_is_in_the_readme_or_documented():
    for name in avalanche_gd.__all__:
        assert getattr(avalanche_gd, name).__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()))
def test_links_lead_somewhere(link):
    assert (README.parent / link).exists()
