"""What holds on a GPU too: pytest -m gpu, where torch finds one."""

import csv
import math
import re

import pytest
import torch

from avalanche_gd import DiffusionModel
from avalanche_gd.profiling.measure import measure_steps
from avalanche_gd.runs.composition import method_names
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import make_benchmark, run
from avalanche_gd.runs.seeds import seed_everything
from avalanche_gd.runs.side_by_side import run_all
from tests.helpers.small_models import SHAPE, images
from tests.helpers.small_runs import metrics, run_killed_after, small_config

GPU = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
DISTILLATION = "method=generative_distillation"
MORE = {
    "conditioned": ["model.conditional=true", "solver.replay_labels=condition"],
    "flow matching": ["model.process=flow"],
    "in bfloat16": ["model.precision=bfloat16"],
    "channels last": ["model.channels_last=true"],
    "a moving average": ["generator.ema_decay=0.9"],
    "the solver's pool": ["solver.pool_size=40"],
    "samples only": ["solver.samples_only_from=1"],
    "more measures": [
        "evaluation.measures=[kid,afid,transfer,classification_accuracy]",
        "evaluation.images=100",
    ],
}


def config_of(folder, *overrides):
    few = ["generator.steps=12", "generator.batch_size=16", "generator.learning_rate=1e-5"]
    return small_config(folder, f"device={GPU}", *few, *overrides)


def numbers(folder):
    """The values of a run's table, by experience and name."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {tuple(row[:-1]): float(row[-1]) for row in rows}


def assert_finite(values):
    """Losses and accuracies, which each experience has whatever the model makes."""
    checked = {key: value for key, value in values.items() if re.search("Loss|Acc", key[1])}
    assert checked
    assert not {key: v for key, v in checked.items() if not math.isfinite(v)}


@pytest.mark.parametrize("name", method_names())
def test_every_method_runs(name, tmp_path):
    config = config_of(tmp_path, f"method={name}")
    assert config.torch_device.type == GPU
    values = numbers(run(config))
    assert_finite(values)


@pytest.mark.parametrize("case", MORE)
def test_distillation_runs_with_other_settings(case, tmp_path):
    values = numbers(run(config_of(tmp_path, DISTILLATION, *MORE[case])))
    assert_finite(values)


@pytest.fixture
def deterministic():
    """Kernels that add in a fixed order."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_with_fixed_sums_one_seed_gives_one_result_killed_or_not(tmp_path):
    whole = metrics(run(config_of(tmp_path / "whole", DISTILLATION)))
    assert metrics(run(config_of(tmp_path / "again", DISTILLATION))) == whole
    run_killed_after(3, config_of(tmp_path / "killed", DISTILLATION))
    assert metrics(run(config_of(tmp_path / "killed", DISTILLATION))) == whole


@pytest.mark.parametrize("name", ["rank1_ewc", "experience_replay", "pooled_distillation"])
def test_a_killed_run_goes_on(name, tmp_path):
    method = f"method={name}"
    whole = numbers(run(config_of(tmp_path / "whole", method)))
    run_killed_after(3, config_of(tmp_path / "killed", method))
    went_on = numbers(run(config_of(tmp_path / "killed", method)))
    assert went_on.keys() == whole.keys()
    losses = [{k: v for k, v in n.items() if "Loss" in k[1]} for n in (went_on, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # sums in another order


def denoised(model, x, timesteps):
    return model.execution(model.denoiser, x, timesteps)


@pytest.mark.parametrize("preset", ["digits", "fmnist-small", "cifar-small"])
def test_a_model_computes_what_it_does_on_the_cpu(preset):
    model = DiffusionModel.from_preset(preset).eval()
    x = images(8, model.sample_shape)
    timesteps = torch.arange(0, 1000, 125)
    with torch.no_grad():
        there = denoised(model, x, timesteps)
        features = model.get_features(x)
        model.to(GPU)
        here = denoised(model, x.to(GPU), timesteps.to(GPU)).cpu()
        assert model.get_features(x.to(GPU)).cpu().shape == features.shape
    # TF32, torch's default in convolutions, keeps 10 bits of a float32.
    assert (here - there).norm() < 5e-3 * there.norm()


def test_samples_lie_on_the_device_and_in_the_range():
    model = DiffusionModel.from_preset("digits").to(GPU)
    samples = model.generate(5, steps=3)
    assert samples.device.type == GPU
    assert samples.shape == (5, *SHAPE)
    assert samples.abs().max() <= 1


def test_a_model_saved_there_is_read_here(tmp_path):
    folder = run(config_of(tmp_path, "method=naive"))
    model = DiffusionModel.from_pretrained(folder / "model")
    assert model.device.type == "cpu"
    assert model.generate(2, steps=2).shape == (2, *SHAPE)


def test_an_evaluation_changes_no_draw_of_the_training(tmp_path):
    config = config_of(tmp_path, DISTILLATION)
    stream = make_benchmark(config)
    weights = []
    for evaluates in (False, True):
        seed_everything(config.seed)
        learner = Learner(config)
        for experience in stream.train_stream[:2]:
            learner.train(experience)
            if evaluates:
                learner.evaluate(stream.test_stream[:1])
        drawn = torch.rand(3, device=GPU)
        weights.append([*(p.detach() for p in learner.model.parameters()), drawn])
        learner.close()
    for without, with_it in zip(*weights, strict=True):
        torch.testing.assert_close(without, with_it, rtol=1e-3, atol=1e-4)


def test_runs_side_by_side_are_those_one_after_the_other(tmp_path):
    configs = [config_of(tmp_path / "two", f"method={n}") for n in ("naive", "ewc")]
    assert not run_all(configs, 2)
    alone = run(config_of(tmp_path / "one", "method=ewc"))
    losses = [
        {key: value for key, value in numbers(folder).items() if "Loss" in key[1]}
        for folder in (configs[1].folder, alone)
    ]  # the oracle of a new process is not one of the tests' quick ones
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert metrics(configs[0].folder)


def test_memory_and_speed_are_measured(tmp_path):
    (row,) = measure_steps(config_of(tmp_path, DISTILLATION), 4)
    assert row.memory_mb > 1
    assert row.ratio > 0
