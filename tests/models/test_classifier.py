"""The architectures of a solver."""

import pytest
from avalanche.models import SimpleCNN, SimpleMLP
from torch import nn
from torch.nn import functional as F

from avalanche_gd.models import SmallCNN
from avalanche_gd.models.classifier import CLASSIFIERS, classifier
from tests.helpers.small_models import images


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("shape", [(1, 10, 10), (1, 32, 32), (3, 16, 16)])
def test_a_classifier_gives_a_logit_of_each_class(name, shape):
    model = classifier(name, shape, 7)
    logits = model(images(3, shape))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("channels", "count"), [(1, 119_722), (3, 120_298)])
def test_the_simple_cnn_has_the_parameters_of_the_papers_solver(channels, count):
    model = classifier("simple_cnn", (channels, 32, 32), 10)
    assert isinstance(model, SimpleCNN) and parameters(model) == count


def test_the_simple_cnn_is_the_sequence_of_layers_of_the_papers_solver():
    model = classifier("simple_cnn", (1, 32, 32), 10).eval()
    kept = iter([m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)])

    def convolved(x, padding):
        layer = next(kept)
        return F.relu(F.conv2d(x, layer.weight, layer.bias, padding=padding))

    x = images(4, (1, 32, 32))
    expected = F.max_pool2d(convolved(convolved(x, 1), 0), 2)
    expected = F.max_pool2d(convolved(convolved(expected, 1), 0), 2)
    expected = convolved(expected, 0).amax(dim=(2, 3))
    last = next(kept)
    expected = F.linear(expected, last.weight, last.bias)
    assert (model(x) - expected).abs().max() < 1e-5
    assert len([m for m in model.modules() if isinstance(m, nn.Dropout)]) == 3


def test_the_others_are_what_they_are_named_after():
    assert isinstance(classifier("small_cnn", (1, 8, 8), 10), SmallCNN)
    mlp = classifier("mlp", (3, 8, 8), 10)
    assert isinstance(mlp, SimpleMLP)
    first = next(m for m in mlp.modules() if isinstance(m, nn.Linear))
    assert first.in_features == 192


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet", (1, 8, 8), 10), "no solver architecture 'resnet'; choose from small_"),
        (("simple_cnn", (1, 9, 32), 10), "needs images of 10x10 or more, got 9x32"),
        (("small_cnn", (1, 3, 8), 10), "images must be at least 4x4, got 3x8"),
        (("mlp", (8, 8), 10), r"sample_shape must be \(C, H, W\)"),
        (("mlp", (1, 8, 8), 0), "num_classes must be an integer of 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        classifier(*arguments)
    assert len(str(error.value).splitlines()) == 1
