"""Which features FID takes, and which it refuses."""

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from avalanche_gd import DiffusionTraining, SmallCNN
from avalanche_gd.metrics import Sampling, fid_metrics
from avalanche_gd.metrics.features import MAX_FEATURES, checked_features
from tests.helpers.small_models import SHAPE

SAMPLING = Sampling(images=20, steps=1)


def strategy_with(model, **options):
    return DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        train_steps=1,
        evaluator=EvaluationPlugin(fid_metrics(sampling=SAMPLING, **options)),
    )


class GivesFeatures(nn.Module):
    """A classifier whose features are of the wrong kind."""

    def __init__(self, features):
        super().__init__()
        self.get_features = features

    def forward(self, images):
        return images.flatten(1)[:, :10]


REFUSED = {
    "maps": (lambda x: x, r"of 1 images they are \(1, 1, 8, 8\); pool or flatten"),
    "numbers": (lambda x: x.flatten(1).mean(1), r"they are \(1,\)"),
    "none": (lambda x: x.flatten(1)[:, :0], r"they are \(1, 0\)"),
    "of all images": (lambda x: x.flatten(1).mean(0)[None, :4].expand(2, 4), r"\(2, 4\)"),
    "too many": (
        lambda x: torch.zeros(1, 1).expand(len(x), 2**24),
        r"D from 1 to 8192, but of 1 images they are \(1, 16777216\)",
    ),
    "not a tensor": (lambda x: x.flatten(1).numpy(), "not ndarray"),
    "not a number": (lambda x: x.flatten(1)[:, :4] * float("nan"), "must be finite"),
    "infinite": (lambda x: x.flatten(1)[:, :4] / 0, "must be finite"),
    "integers": (lambda x: x.flatten(1)[:, :4].long(), "torch.int64"),
}


@pytest.mark.parametrize("given_as", ["features", "oracle"])
@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED)
def test_features_of_the_wrong_kind_are_refused_before_training(
    tiny_model, digits, function, message, given_as
):
    given = GivesFeatures(function) if given_as == "oracle" else function
    strategy = strategy_with(tiny_model, **{given_as: given})
    with pytest.raises(ValueError, match=message) as caught:
        strategy.train(digits.train_stream[0], eval_streams=[])
    assert len(str(caught.value).splitlines()) == 1
    assert strategy.clock.train_iterations == 0


def test_features_that_fail_on_generated_images_only_are_refused(tiny_model, digits):
    def root(images):
        features = images.flatten(1)[:, 20:24]
        return features if len(features) == 1 else features * float("inf")

    strategy = strategy_with(tiny_model, features=root)
    strategy.train(digits.train_stream[0], eval_streams=[])
    with pytest.raises(ValueError, match="must be finite"):
        strategy.eval(digits.test_stream)


def test_a_metric_is_no_module_of_features():
    fid = FrechetInceptionDistance(SmallCNN(SHAPE, 2), input_img_size=SHAPE)
    with pytest.raises(TypeError, match="got the metric FrechetInceptionDistance; give"):
        fid_metrics(features=fid)


@pytest.mark.parametrize("number", [1, 64, 2048, MAX_FEATURES])
def test_as_many_features_as_papers_have_are_taken(number):
    features = torch.zeros(2, number)
    assert checked_features(lambda x: features, torch.zeros(2, *SHAPE)) is features
