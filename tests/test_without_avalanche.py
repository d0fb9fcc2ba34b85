"""docs/without_avalanche.md: its loops, as they stand there, are run."""

import re

import pytest
import torch
from diffusers import DDIMPipeline

from avalanche_gd import functional
from avalanche_gd.functional import distillation_loss
from tests.helpers.bits import same_bits, weights
from tests.helpers.repository import ROOT

PAGE = (ROOT / "docs" / "without_avalanche.md").read_text()
LOOP, ADAPTER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run code of the page, in steps that are few."""
    monkeypatch.chdir(tmp_path)

    def run(code, **scope):
        code, replaced = re.subn(r"STEPS = \d+", "STEPS = 4", code)
        assert replaced == (code.startswith("import torch"))
        exec(compile(code, "docs/without_avalanche.md", "exec"), scope)
        return scope

    return run


def test_the_functions_of_the_page_are_public():
    named = set(re.findall(r"`(\w+)\(", PAGE.split("## Two tasks")[0]))
    assert len(named) == 9
    for name in named:
        assert name in functional.__all__


def test_the_loop_is_short_and_distils_the_first_task(run, tmp_path, monkeypatch):
    assert len(LOOP.splitlines()) <= 60
    losses, weighted = [], functional.weighted_loss
    monkeypatch.setattr(
        functional,
        "weighted_loss",
        lambda *both, n: losses.append((n, both[1].item())) or weighted(*both, n=n),
    )
    scope = run(LOOP)
    assert [n for n, _ in losses] == [2] * 4
    assert losses[0][1] < 1e-10 < losses[-1][1]  # the student begins as its teacher
    saved = DDIMPipeline.from_pretrained(tmp_path / "digits").unet
    assert same_bits(weights(saved), weights(scope["unet"]))


def test_the_teacher_of_an_adapter_is_its_base(run):
    pytest.importorskip("peft")
    scope = run(LOOP)
    unet, x_t, t = scope["unet"], torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    before, first = weights(unet), unet(x_t, t).sample
    code, merge = ADAPTER.split("unet = student")
    scope = run(code, **scope)
    student, base = scope["student"], scope["teacher"].denoiser
    assert base.student is student
    assert torch.equal(base(x_t, t).sample, first)
    adapted = student(x_t, t).sample
    expected = (first - adapted).square().mean().item()
    assert expected > 0
    loss = distillation_loss(student, base, x_t, t)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(weight.grad is not None for weight in scope["trained"])
    kept = {
        name.replace("base_layer.", ""): value
        for name, value in weights(student.base_model.model).items()
        if "lora" not in name
    }
    assert same_bits(kept, before)
    merged = run("unet = student" + merge, **scope)["unet"]
    assert torch.allclose(merged(x_t, t).sample, adapted, atol=1e-5)
