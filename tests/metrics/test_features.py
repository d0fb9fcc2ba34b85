"""Which features FID takes, and which it refuses."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
import torchvision.models
from avalanche.training.plugins import EvaluationPlugin
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchvision.transforms.functional import gaussian_blur

from avalanche_gd import DiffusionTraining, SmallCNN, SplitFMNIST
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.fashion_mnist import DEBIAN_ROOT
from avalanche_gd.metrics import Sampling, fid_metrics, kid_metrics, recovery_steps
from avalanche_gd.metrics.features import (
    MAX_FEATURES,
    CheckedFeatures,
    as_pixels,
    feature_extractor,
    torchvision_classifiers,
    without_last_linear,
)
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.metrics.precision_recall import precision_recall
from tests.helpers.repository import ROOT
from tests.helpers.small_models import SHAPE, tiny
from tests.helpers.small_streams import FirstPixels, Pixels
from tests.helpers.small_streams import strategy_with as small_strategy_with
from tests.helpers.stream_builders import by_class

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
    "maps": (lambda x: x, r"for 1 images they are \(1, 1, 8, 8\); pool or flatten"),
    "numbers": (lambda x: x.flatten(1).mean(1), r"they are \(1,\)"),
    "none": (lambda x: x.flatten(1)[:, :0], r"they are \(1, 0\)"),
    "of all images": (lambda x: x.flatten(1).mean(0)[None, :4].expand(2, 4), r"\(2, 4\)"),
    "too many": (
        lambda x: torch.zeros(1, 1).expand(len(x), 2**24),
        r"D from 1 to 8192, but for 1 images they are \(1, 16777216\)",
    ),
    "not a tensor": (lambda x: x.flatten(1).numpy(), "got ndarray"),
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
    assert CheckedFeatures(lambda x: features)(torch.zeros(2, *SHAPE)) is features


def test_every_byte_comes_back_from_model_space():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_pixels(pixels / 255 * 2 - 1), pixels.expand(1, 3, 16, 16))


def test_pixels_are_cut_as_torchmetrics_cuts_them():
    tenths = torch.randint(1, 10, (50, 3, 8, 8)) / 10
    shades = (torch.randint(0, 255, tenths.shape) + tenths) / 255
    assert torch.equal(as_pixels(shades * 2 - 1), (shades * 255).byte())


def test_images_of_other_channels_have_no_pixels():
    with pytest.raises(ValueError, match="need 1 or 3 channels, got 2; give your own"):
        as_pixels(torch.zeros(1, 2, 8, 8))


FAMILIES = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024,
    "resnet18": 512,
    "resnext50_32x4d": 2048,
    "shufflenet_v2_x0_5": 1024,
    "swin_t": 768,
    "swin_v2_t": 768,
    "vgg11": 4096,
    "vit_b_32": 768,
    "wide_resnet50_2": 2048,
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:The default weight initialization")
def test_what_the_last_linear_layer_gets_are_features_of_each_family(name):
    assert name in torchvision_classifiers()
    with torch.device("meta"):
        classifier = torchvision.models.get_model(name, weights=None)
        size = 299 if name == "inception_v3" else 224
        features = without_last_linear(classifier.eval())(torch.zeros(2, 3, size, size))
    assert features.shape == (2, FAMILIES[name])


SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    """A file like torchvision's of its smallest classifier, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "any name.pth"
    with torch.random.fork_rng(devices=[]):
        torch.save(torchvision.models.get_model(SMALL).state_dict(), path)
    return path


@pytest.fixture
def known(monkeypatch):
    """``known(path)`` has a file pass for one that torchvision publishes."""

    def known(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr("avalanche_gd.metrics.features._digits", lambda url: digest)

    return known


def test_a_torchvision_classifier_gives_what_its_last_layer_gets(small_weights, known):
    known(small_weights)
    classifier = torchvision.models.get_model(SMALL)
    classifier.load_state_dict(torch.load(small_weights, weights_only=True))
    got = []
    classifier.fc.register_forward_pre_hook(lambda _, inputs: got.append(inputs[0]))
    pixels = torch.randint(0, 256, (70, 1, 8, 8), dtype=torch.uint8)
    prepare = torchvision.models.get_model_weights(SMALL).DEFAULT.transforms()
    extractor = feature_extractor(SMALL, small_weights)
    extractor.train()  # which it does not do
    with torch.no_grad():
        classifier.eval()(prepare(pixels.expand(-1, 3, -1, -1)))
        features = extractor(pixels / 255 * 2 - 1)
    assert features.shape == (70, 1024)
    assert torch.allclose(features, got[0], atol=1e-5)


def test_a_classifier_of_torchvision_judges_a_stream(
    tiny_model, digits, small_weights, known
):
    known(small_weights)
    strategy = strategy_with(tiny_model, features=SMALL, weights_path=small_weights)
    strategy.train(digits.train_stream[0], eval_streams=[])
    values = strategy.eval(digits.test_stream[:1])
    assert values["FID_Stream/eval_phase/test_stream"] > 0


def test_a_weights_file_of_another_model_is_refused(small_weights, tmp_path):
    renamed = tmp_path / "resnet18-f37072fd.pth"
    renamed.symlink_to(small_weights)
    with pytest.raises(
        ValueError,
        match=r"no resnet18 weights \(the SHA-256 of .* begins "
        r"with \w{8}, not f37072fd\); put resnet18-f37072fd.pth of torch",
    ):
        fid_metrics(features="resnet18", weights_path=renamed)
    with pytest.raises(ValueError, match=r"name of any name\.pth does not end in f37072fd"):
        fid_metrics(features="resnet18", weights_path=small_weights)


class Evil:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


def test_weights_of_torchvision_are_not_unpickled(tmp_path, known, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = torchvision.models.get_model_weights(SMALL).DEFAULT.url
    path = tmp_path / "checkpoints" / Path(url).name
    path.parent.mkdir()
    torch.save({"evil": Evil()}, path)
    with pytest.raises(ValueError, match=r"begins with \w{8}, not f707e7126e"):
        feature_extractor(SMALL)
    known(path)
    with pytest.raises(ValueError, match=f"no {SMALL} weights"):
        feature_extractor(SMALL)


def test_a_name_that_is_almost_known_is_completed():
    with pytest.raises(ValueError, match=r"no features 'mobilnet_v2'; .* mobilenet_v2"):
        fid_metrics(features="mobilnet_v2")
    with pytest.raises(ValueError, match="no features 'squeezenet1_0'; choose from oracle"):
        fid_metrics(features="squeezenet1_0")


MOBILENET = Path(
    os.environ.get("AVALANCHE_GD_MOBILENET_V2")
    or ROOT.parent / "shared" / "data" / "mobilenet_v2-b0353104.pth"
)


@pytest.mark.skipif(not MOBILENET.exists(), reason="no weights of MobileNetV2 here")
def test_mobilenet_gives_1280_features_of_either_of_its_files():
    extractor = feature_extractor("mobilenet_v2", MOBILENET)
    assert extractor.preprocess.resize_size == [256]  # of the older of its two files
    assert extractor(torch.zeros(2, 1, 8, 8)).shape == (2, 1280)


@pytest.mark.skipif(
    not (MOBILENET.exists() and DEBIAN_ROOT.exists()),
    reason="no weights of MobileNetV2, or no Fashion-MNIST here",
)
def test_mobilenet_orders_changes_of_real_images():
    pytest.importorskip("prdc", reason="prdc is not installed")
    images, labels = stream_tensors(SplitFMNIST(image_size=28).test_stream)
    own = torch.stack([(labels == label).nonzero()[:8, 0] for label in range(10)])
    half, other = own[:, :4].flatten(), own[:, 4:].flatten()
    noise = torch.randn(images[other].shape)
    changed = {
        "other half": images[other],
        "small noise": (images[other] + 0.05 * noise).clamp(-1, 1),
        "big noise": (images[other] + 0.2 * noise).clamp(-1, 1),
        "blur": gaussian_blur(images[other], [9, 9], [2.0, 2.0]),
    }
    extractor = feature_extractor("mobilenet_v2", MOBILENET)
    real, *sides = extractor(torch.cat([images[half], *changed.values()])).split(40)
    found = dict(zip(changed, sides, strict=True))
    # Of two classes, the images of the other half and no others.
    found["two classes"] = found["other half"][:8]
    fid = {name: frechet_distance(Moments.of(real), side) for name, side in found.items()}
    assert fid["other half"] < fid["small noise"] < fid["big noise"]
    near = {name: precision_recall(real, side, 5) for name, side in found.items()}
    assert near["blur"]["Precision"] < near["other half"]["Precision"]
    assert near["two classes"]["Recall"] < near["other half"]["Recall"]


class Moved(Pixels):
    """Notes where it is moved to."""

    def __init__(self):
        super().__init__()
        self.places = []

    def to(self, *args, **kwargs):
        self.places.append(args)
        return super().to(*args, **kwargs)


@pytest.mark.parametrize("given", [lambda module: module, lambda module: module.forward])
def test_a_module_of_features_and_that_of_a_method_go_to_the_strategys_device(given):
    module, benchmark = Moved(), by_class(2, task_labels=False)
    options = dict(features=given(module), sampling=SAMPLING)
    strategy = small_strategy_with(fid_metrics(**options))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    assert set(module.places) == {(strategy.device,)}
    module.places.clear()
    recovery_steps(tiny(), benchmark, 0, 1e9, **options)
    assert set(module.places) == {(torch.device("cpu"),)}


class Elsewhere(torch.Tensor):
    """A tensor as if on another device: it can be used once it is moved."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is not torch.Tensor.to:
            raise RuntimeError("tensors are on different devices")
        return args[0].as_subclass(torch.Tensor)


def test_what_is_kept_of_real_images_follows_a_strategy_to_another_device():
    benchmark = by_class(2, task_labels=False)
    options = dict(features=Pixels(), sampling=SAMPLING)
    metrics = [
        *fid_metrics(experience=True, oracle=FirstPixels(), **options),
        *kid_metrics(subsets=2, subset_size=10, **options),
    ]
    strategy = small_strategy_with(metrics)
    strategy.train(benchmark.train_stream, eval_streams=[])
    before = strategy.eval(benchmark.test_stream)
    for key, kept in metrics[0]._real.items():
        parts = (part.as_subclass(Elsewhere) for part in (kept.mean, kept.scatter))
        metrics[0]._real[key] = Moments(*parts, kept.count)
    for parts in metrics[1]._real.values():
        parts[:] = [part.as_subclass(Elsewhere) for part in parts]
    assert strategy.eval(benchmark.test_stream) == before
