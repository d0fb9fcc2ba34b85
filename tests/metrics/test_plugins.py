"""The metrics in Avalanche's EvaluationPlugin."""

import hashlib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import InteractiveLogger, TensorboardLogger, TextLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from diffusers import DDPMScheduler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    DiffusionTraining,
    ddim_scheduler,
    flow_scheduler,
    oracle_classifier,
)
from avalanche_gd.data import stream_tensors
from avalanche_gd.metrics import (
    Sampling,
    class_balance_metrics,
    fid,
    fid_metrics,
    generate_images,
    generated_image_metrics,
)
from avalanche_gd.metrics.features import feature_extractor
from avalanche_gd.metrics.shared_images import SharedImages, generate_samples, in_ratios
from avalanche_gd.metrics.trained import label_counts
from tests.helpers.bits import truncate
from tests.helpers.plain_fid import plain_fid
from tests.helpers.seeding import forbid_seeding
from tests.helpers.small_models import SHAPE, conditioned, tiny

SAMPLING = Sampling(images=60, steps=2, batch_size=25)
FID = "FID_Stream/eval_phase/test_stream"
KLD = "KLD_Stream/eval_phase/test_stream"
ARD = "ARD_Stream/eval_phase/test_stream"


def trained(model, digits, *metrics, experiences=2, template=None, loggers=()):
    evaluator = EvaluationPlugin(*metrics, loggers=list(loggers))
    strategy = (template or DiffusionTraining)(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        criterion=DenoisingLoss(),
        train_mb_size=64,
        eval_mb_size=64,
        evaluator=evaluator,
    )
    if experiences:
        strategy.train(digits.train_stream[:experiences], eval_streams=[])
    return strategy


@pytest.mark.parametrize("scheduler", [ddim_scheduler, flow_scheduler])
def test_they_judge_the_model_on_the_classes_trained_on(digits, scheduler):
    tiny_model = tiny(scheduler())
    strategy = trained(
        tiny_model,
        digits,
        fid_metrics(sampling=SAMPLING),
        class_balance_metrics(histogram=True, sampling=SAMPLING),
    )
    values = strategy.eval(digits.test_stream)  # all five, of which two were trained on
    oracle = oracle_classifier(*stream_tensors(digits.train_stream))
    real, labels = stream_tensors(digits.test_stream[:2])
    images = generate_images(tiny_model, SAMPLING)
    with torch.no_grad():
        expected = plain_fid(
            oracle.get_features(real).numpy(), oracle.get_features(images).numpy()
        )
        generated = oracle(images).argmax(1).numpy()
    p = np.bincount(labels.numpy(), minlength=10) / len(labels)
    q = np.bincount(generated, minlength=10) / 60
    assert values[FID] == pytest.approx(expected, rel=1e-4)
    assert values[KLD] == pytest.approx(np.sum(p * np.log((p + 1e-8) / (q + 1e-8))), 1e-5)
    assert values[ARD] == pytest.approx(np.abs(p - q).sum() / 2, 1e-5)
    ratios = {name: value for name, value in values.items() if "ClassRatio" in name}
    names = [f"ClassRatio_Stream/eval_phase/test_stream/Class{c:03d}" for c in range(10)]
    assert ratios == pytest.approx(
        dict(zip(names[: len(ratios)], q.tolist(), strict=False))
    )
    assert sum(ratios.values()) == pytest.approx(1)  # above the last, all ratios are 0


def share_of(experience, benchmark):
    """How many of the generated images are of an experience, by that of the real ones."""
    total = sum(len(other.dataset) for other in benchmark.test_stream)
    return SAMPLING.images * len(experience.dataset) // total


def test_fid_by_experience_takes_the_images_of_its_classes(tiny_model, digits):
    oracle = oracle_classifier(*stream_tensors(digits.train_stream))
    strategy = trained(
        tiny_model, digits, fid_metrics(experience=True, stream=False, sampling=SAMPLING)
    )
    values = strategy.eval(digits.test_stream)
    images = generate_images(tiny_model, SAMPLING)
    labels = oracle(images).argmax(1)
    for exp in digits.test_stream[:2]:
        own = [i for i, c in enumerate(labels) if int(c) in exp.classes_in_this_experience]
        own = own[: share_of(exp, digits)]
        value = values[f"{FID.replace('Stream', 'Exp', 1)}/Exp{exp.current_experience:03d}"]
        if len(own) < 2:
            assert np.isnan(value)
            continue
        real, _ = stream_tensors([exp])
        expected = plain_fid(
            oracle.get_features(real).numpy(), oracle.get_features(images[own]).numpy()
        )
        assert value == pytest.approx(expected, rel=1e-3)


def test_fid_by_experience_of_a_conditioned_model_takes_the_classes_asked_for(digits):
    oracle = oracle_classifier(*stream_tensors(digits.train_stream))
    model = DiffusionModel.from_preset("digits", num_classes=10)
    metrics = fid_metrics(experience=True, stream=False, sampling=SAMPLING)
    values = trained(model, digits, metrics).eval(digits.test_stream)
    real_labels = label_counts(digits.test_stream[:2])
    images, condition = generate_samples(model, SAMPLING, real=real_labels)
    for exp in digits.test_stream[:2]:
        asked = [int(c) in exp.classes_in_this_experience for c in condition]
        assert sum(asked) == pytest.approx(30, abs=1)
        own = [i for i, is_own in enumerate(asked) if is_own][: share_of(exp, digits)]
        real, _ = stream_tensors([exp])
        expected = plain_fid(
            oracle.get_features(real).numpy(), oracle.get_features(images[own]).numpy()
        )
        name = f"FID_Exp/eval_phase/test_stream/Exp{exp.current_experience:03d}"
        assert values[name] == pytest.approx(expected, rel=1e-3)


def test_a_conditioned_model_is_asked_for_classes_in_the_ratios_of_the_real_ones(digits):
    model = DiffusionModel.from_preset("digits", num_classes=10)
    strategy = trained(model, digits, fid_metrics(sampling=SAMPLING))
    seen = label_counts(digits.test_stream[:2])
    assert len(set(seen.values())) > 1
    for stream, real in (
        (digits.test_stream[:2], seen),  # and the others do not count yet
        (digits.test_stream, seen),
        (digits.test_stream[:1], seen),  # in the ratios of all that count
    ):
        strategy.eval(stream)
        images, asked = SharedImages.of(strategy).samples(model, SAMPLING)
        expected = generate_samples(model, SAMPLING, real=real)
        assert torch.equal(images, expected[0]) and torch.equal(asked, expected[1])
    counts = torch.bincount(generate_samples(model, SAMPLING, real=seen)[1])
    for label, count in seen.items():
        exact = SAMPLING.images * count / seen.total()
        assert abs(counts[label] - exact) < 1


def test_ratios_are_met_by_all_and_by_the_first_of_the_classes():
    labels = in_ratios({0: 1000, 4: 250, 7: 250, 9: 0}, 600)
    assert torch.bincount(labels).tolist() == [400, 0, 0, 0, 100, 0, 0, 100]
    assert torch.bincount(labels[:60]).tolist() == [40, 0, 0, 0, 10, 0, 0, 10]
    assert len(in_ratios({1: 3, 2: 5, 3: 7}, 100)) == 100


@pytest.mark.parametrize("real", [None, {}, {0: 5, 1: 5}, {0: 5, 1: 4, 2: 1}])
def test_equal_or_other_real_classes_leave_it_at_as_many_images_of_each(real):
    model = conditioned(seen=(0, 1))
    plain, given = (generate_samples(model, SAMPLING, real=r) for r in (None, real))
    assert torch.equal(plain[0], given[0]) and torch.equal(plain[1], given[1])


def test_fid_by_experience_is_of_as_many_images_after_each_experience(digits, monkeypatch):
    counts = []

    def count(real, features):
        counts.append(len(features))
        return 1.0

    monkeypatch.setattr(fid, "frechet_distance", count)
    model = DiffusionModel.from_preset("digits", num_classes=10)
    strategy = trained(
        model, digits, fid_metrics(stream=False, afid=True, sampling=SAMPLING)
    )
    for experience in digits.train_stream[2:]:
        strategy.eval(digits.test_stream)
        strategy.train(experience)
    strategy.eval(digits.test_stream)
    shares = [share_of(experience, digits) for experience in digits.test_stream]
    assert counts == [share for number in (2, 3, 4, 5) for share in shares[:number]]


def test_one_set_of_images_serves_all_metrics(tiny_model, digits):
    strategy = trained(
        tiny_model,
        digits,
        fid_metrics(experience=True, sampling=SAMPLING),
        class_balance_metrics(sampling=SAMPLING),
    )
    drawn = []
    draw = tiny_model.draw_noise
    tiny_model.draw_noise = lambda *args: drawn.append(args) or draw(*args)
    strategy.eval(digits.test_stream[:2])
    assert len(drawn) == 1
    strategy.eval(digits.test_stream[:2])
    assert len(drawn) == 2


def test_features_of_real_images_are_computed_once_a_stream(tiny_model, digits):
    seen = []

    class Pixels(nn.Module):
        def forward(self, images):
            seen.append(len(images))
            return images.flatten(1)[:, 20:28]

    metrics = fid_metrics(features=Pixels(), sampling=SAMPLING)
    strategy = trained(tiny_model, digits, metrics)
    seen.clear()  # of an image of each experience that is trained on
    for _ in range(2):
        strategy.eval(digits.test_stream)  # of which two were trained on
    real = sum(len(exp.dataset) for exp in digits.test_stream[:2])
    assert sum(seen) == real + 2 * SAMPLING.images


@pytest.mark.parametrize("num_classes", [None, 10])
def test_the_order_and_the_batch_size_do_not_matter(digits, num_classes):
    model = DiffusionModel.from_preset("digits", num_classes=num_classes)
    if num_classes:
        seen = digits.train_stream[0].classes_in_this_experience
        model.see_classes(torch.tensor(sorted(seen)))
    results = []
    for batch_size, order in ((7, 1), (64, -1)):
        sampling = Sampling(images=60, steps=2, batch_size=batch_size)
        metrics = [fid_metrics(sampling=sampling), class_balance_metrics(sampling=sampling)]
        strategy = trained(model, digits, *metrics[::order], experiences=0)
        strategy.eval_mb_size = batch_size
        for experience in digits.train_stream[:2]:
            SharedImages.of(strategy).observe(experience)
        results.append(strategy.eval(digits.test_stream[:2]))
    for name in (FID, KLD, ARD):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-5)


def test_they_work_in_a_plain_template_and_reach_the_loggers(tiny_model, digits, tmp_path):
    with open(tmp_path / "log.txt", "w") as file:
        strategy = trained(
            tiny_model,
            digits,
            loss_metrics(stream=True),
            fid_metrics(sampling=SAMPLING),
            experiences=1,
            template=SupervisedTemplate,
            loggers=[TextLogger(file)],
        )
        strategy.eval(digits.test_stream)
    assert FID in (tmp_path / "log.txt").read_text()


def test_a_grid_of_the_same_images_reaches_tensorboard(tiny_model, digits, tmp_path):
    strategy = trained(
        tiny_model,
        digits,
        fid_metrics(sampling=SAMPLING),
        generated_image_metrics(sampling=SAMPLING, shown=16),
        experiences=1,
        loggers=[TensorboardLogger(tmp_path), InteractiveLogger()],
    )
    values = strategy.eval(digits.test_stream[:1])
    grid = values["GeneratedImages/eval_phase/test_stream"].image
    assert grid.shape == (3, 2 * 9 + 1, 8 * 9 + 1)
    first = generate_images(tiny_model, SAMPLING)[0, 0]
    assert torch.allclose(grid[0, 1:9, 1:9], (first + 1) / 2)
    strategy.evaluator.loggers[0].writer.flush()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert "GeneratedImages/eval_phase/test_stream" in events.Tags()["images"]


def test_more_images_than_there_are_cannot_be_shown():
    with pytest.raises(ValueError, match="shown must be from 1 to 60"):
        generated_image_metrics(sampling=SAMPLING, shown=61)


def test_before_any_training_there_is_nothing_to_judge(tiny_model, digits):
    strategy = trained(tiny_model, digits, fid_metrics(sampling=SAMPLING), experiences=0)
    with pytest.warns(UserWarning, match="there is no value"):
        assert FID not in strategy.eval(digits.test_stream)


def test_evaluating_leaves_the_random_state_alone(tiny_model, digits):
    strategy = trained(tiny_model, digits, fid_metrics(sampling=SAMPLING))
    state = torch.get_rng_state()
    strategy.eval(digits.test_stream)
    assert torch.equal(torch.get_rng_state(), state)


class DrawsFromTorch(nn.Module):
    """A generator such as Avalanche's VAE."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def generate(self, count):
        return torch.rand(count, *SHAPE)


@pytest.mark.parametrize("make", [tiny, conditioned, DrawsFromTorch])
def test_generating_reseeds_no_device_and_leaves_the_random_state(make, monkeypatch):
    model, sampling = make(), Sampling(images=20, steps=2, eta=1.0, seed=5)
    state = torch.get_rng_state()
    with monkeypatch.context() as patch:
        forbid_seeding(patch)
        first = generate_images(model, sampling)
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(3)
    assert torch.equal(generate_images(model, sampling), first)
    if make is DrawsFromTorch:
        torch.manual_seed(5)
        assert torch.equal(first, torch.rand(20, *SHAPE))


def test_parts_change_images_only_where_steps_draw_noise():
    for scheduler, is_alike in ((ddim_scheduler(), True), (DDPMScheduler(), False)):
        model = tiny(scheduler)
        whole, parts = (
            generate_images(model, Sampling(images=30, steps=5, batch_size=size))
            for size in (30, 7)
        )
        assert torch.allclose(whole, parts, atol=1e-5) == is_alike


class FrozenInPart(DrawsFromTorch):
    """A generator of which a part stays in evaluation mode while it is trained."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm2d(1).eval()
        self.trained = nn.Dropout()

    def generate(self, count):
        assert not self.training and not self.trained.training
        return super().generate(count)


@pytest.mark.parametrize("training", [True, False])
def test_generating_leaves_each_part_in_its_mode(training):
    model = FrozenInPart()
    model.training = model.trained.training = training
    generate_images(model, Sampling(images=2))
    modes = [part.training for part in (model, model.frozen, model.trained)]
    assert modes == [training, False, training]


def test_of_the_devices_only_the_generators_own_is_seeded(monkeypatch):
    seeded, forked = [], []
    place = torch.device("cuda", 1)
    model = DrawsFromTorch()
    monkeypatch.setattr(model, "parameters", lambda: iter([SimpleNamespace(device=place)]))

    class Noted:
        def __init__(self, device):
            self.device = device

        def manual_seed(self, seed):
            seeded.append((self.device.type, self.device.index, seed))

    @contextmanager
    def fork(devices):
        forked.extend(devices)
        yield

    monkeypatch.setattr("torch.random.fork_rng", fork)
    monkeypatch.setattr("avalanche_gd.models.random_state.default_generator", Noted)
    forbid_seeding(monkeypatch)
    generate_images(model, Sampling(images=2, seed=7))
    assert forked == [place]
    assert sorted(seeded, key=str) == [("cpu", None, 7), ("cuda", 1, 7)]


@pytest.mark.parametrize(
    "bad",
    [dict(images=1), dict(steps=0), dict(batch_size=0)],
)
def test_samplings_of_nothing_are_refused(bad):
    with pytest.raises(ValueError, match="or more"):
        Sampling(**bad)


def test_unknown_features_are_refused():
    with pytest.raises(ValueError, match="choose from oracle, inception"):
        fid_metrics(features="vgg")
    with pytest.raises(ValueError, match="weights_path is for"):
        fid_metrics(weights_path="weights.pth")
    with pytest.raises(TypeError, match="name or a module"):
        fid_metrics(features=3)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """A file like InceptionV3's, with random weights."""
    name = "torch_fidelity.feature_extractor_inceptionv3"
    module = pytest.importorskip(name, reason="torch-fidelity is not installed")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    inception = module.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict", lambda *_: None)
        extractor = inception("inception-v3-compat", ["2048"], str(path))
    torch.save(extractor.state_dict(), path)
    return path


@pytest.fixture
def known(monkeypatch):
    """``known(path)`` has a file pass for the one that everybody has."""

    def known(path):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr("avalanche_gd.metrics.features._SHA256", digest)

    return known


def test_inception_judges_in_2048_features(digits, inception_weights, known):
    known(inception_weights)
    extractor = feature_extractor("inception", inception_weights)
    real, _ = stream_tensors(digits.test_stream[:1])
    grey, colour = real[:3], real[:3].expand(-1, 3, -1, -1)
    features = extractor(grey)
    assert features.shape == (3, 2048)
    assert torch.equal(extractor(colour), features)
    cut = ((colour + 1) / 2 * 255).byte()  # as torchmetrics does with normalize=True
    assert torch.equal(extractor.inception(cut), features)
    rounded = ((colour + 1) / 2 * 255).round().byte()
    assert not torch.equal(extractor.inception(rounded), features)


class Evil:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("content", [{"not": torch.zeros(3)}, {"evil": Evil()}, None])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_file_that_is_not_inceptions_says_what_to_do(tmp_path, content, is_known, known):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    weights = tmp_path / "weights.pth"
    torch.save(content, weights)
    if content is None:
        truncate(weights)
    if is_known:
        known(weights)
    with pytest.raises(ValueError, match=r"no InceptionV3 weights \(.*\); put weights-"):
        fid_metrics(features="inception", weights_path=weights)
    with pytest.raises(ValueError, match=r"no InceptionV3 weights .* as weights_path"):
        fid_metrics(features="inception", weights_path=tmp_path / "absent.pth")


def test_the_weights_of_the_hub_are_not_unpickled_either(tmp_path, monkeypatch, known):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name = "weights-inception-2015-12-05-6726825d.pth"
    weights = tmp_path / "checkpoints" / name
    weights.parent.mkdir()
    torch.save({"evil": Evil()}, weights)
    with pytest.raises(ValueError, match=r"begins with \w{8}, not 6726825d"):
        fid_metrics(features="inception")
    known(weights)
    with pytest.raises(ValueError, match=f"no InceptionV3 weights .*; put {name}"):
        fid_metrics(features="inception")


def test_inception_weights_are_read_once(inception_weights, known, tmp_path, monkeypatch):
    """A file that is swapped after the check is not read."""
    known(inception_weights)
    path = tmp_path / "weights.pth"
    path.write_bytes(inception_weights.read_bytes())
    read = Path.read_bytes

    def swapped(self):
        content = read(self)
        if self == path:
            torch.save({"evil": Evil()}, path)
        return content

    monkeypatch.setattr(Path, "read_bytes", swapped)
    assert feature_extractor("inception", path) is not None


def test_inception_without_its_package_says_what_to_install(monkeypatch):
    from avalanche_gd.metrics import features

    def absent(*args, **kwargs):
        raise ModuleNotFoundError("torch-fidelity")

    monkeypatch.setattr(features.importlib, "import_module", absent)
    with pytest.raises(ValueError, match=r"pip install 'avalanche-gd\[inception\]'"):
        fid_metrics(features="inception")
