import copy

import pytest
import torch
from torch import nn

from avalanche_gd import DiffusionModel, Execution
from avalanche_gd.models import execution
from avalanche_gd.runs.passes import PassCounter

N = 4


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, 1, 8, 8, generator=generator), torch.arange(0, 1000, 250)


def models(changed: Execution) -> tuple[DiffusionModel, DiffusionModel]:
    """A model as it is and one with the same weights under another execution."""
    torch.manual_seed(0)
    plain = DiffusionModel.from_preset("digits")
    other = DiffusionModel.from_preset("digits", execution=changed)
    other.load_state_dict(plain.state_dict())
    return plain, other


@pytest.fixture
def compiled(monkeypatch):
    """What is compiled, without a compiler."""
    functions = []
    compile_by_torch = torch.compile

    def compile_by_hand(function):
        functions.append(function)
        return compile_by_torch(function, backend="eager")

    execution._compiled.cache_clear()
    monkeypatch.setattr(execution.torch, "compile", compile_by_hand)
    yield functions
    execution._compiled.cache_clear()
    torch.compiler.reset()


def test_bfloat16_is_of_the_passes_alone(inputs):
    plain, other = models(Execution(precision="bfloat16"))
    expected, prediction = plain.denoise(*inputs), other.denoise(*inputs)
    assert prediction.dtype == torch.float32
    error = (prediction - expected).norm() / expected.norm()
    assert 1e-4 < error < 3e-2
    prediction.square().mean().backward()
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in other.parameters()} == {torch.float32}
    assert other.generate(2, steps=2).dtype == torch.float32


def test_channels_last_keeps_the_prediction(inputs):
    plain, other = models(Execution(channels_last=True))
    seen = []
    other.denoiser.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    torch.testing.assert_close(
        other.denoise(*inputs), plain.denoise(*inputs), rtol=1e-4, atol=1e-5
    )
    weight = copy.deepcopy(other).denoiser.mid_block.resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    x_t = torch.zeros(2, 3, 4, 4)
    Execution(channels_last=True)(Strides(seen), x_t, inputs[1])
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)


class Strides(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, x_t, t):
        self.seen.append(x_t)
        return x_t


def test_a_compiled_model_and_its_copies_run_with_their_own_weights(inputs, compiled):
    plain, other = models(Execution(compile=True))
    torch.testing.assert_close(other.denoise(*inputs), plain.denoise(*inputs))
    teacher = copy.deepcopy(other).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
        torch.testing.assert_close(teacher.denoise(*inputs), plain.denoise(*inputs))
        assert not torch.allclose(other.denoise(*inputs), plain.denoise(*inputs))
    assert len(compiled) == 1


@pytest.mark.usefixtures("compiled")
def test_passes_of_a_compiled_model_and_its_copies_are_counted(inputs):
    _, other = models(Execution(compile=True))
    counter = PassCounter(other, batch_size=N)
    counter.plugin("generator").before_training_exp(None)
    other.denoise(*inputs).sum().backward()
    teacher = copy.deepcopy(other)
    with torch.no_grad():
        teacher.denoise(*inputs)
        assert teacher.get_features(inputs[0].clamp(-1, 1)).shape == (N, 512)
    assert counter.passes["generator"] == [{(N, 1): 1, (N, 0): 1}]


def test_an_unknown_precision_is_refused():
    message = "no precision 'half'; choose from float32, bfloat16"
    with pytest.raises(ValueError, match=message):
        Execution(precision="half")


class TupleDenoiser(nn.Module):
    """Returns what diffusers' denoisers return with return_dict=False."""

    def forward(self, x_t, timesteps):
        return (x_t,)


def test_a_denoiser_that_returns_no_tensor_is_refused_by_name(inputs):
    message = "TupleDenoiser returns a tuple; let it return a tensor"
    with pytest.raises(TypeError, match=message):
        Execution()(TupleDenoiser(), *inputs)
