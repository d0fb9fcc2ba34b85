"""The experiments of arXiv 2509.23593 beside its protocol, row by row."""

from functools import cache
from importlib.resources import files

import pytest
import torch
import yaml
from diffusers import UNet2DModel

from avalanche_gd import SplitDigits
from avalanche_gd.plugins import ReplayPool
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.dry_run import dry_run
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_command import main
from tests.helpers.fake_data import write_idx
from tests.helpers.small_runs import small_config

BENCHMARKS = ("mnist", "fmnist", "cifar10")
ORACLE = "evaluation.features=oracle"
METHODS = (
    *("iid", "naive", "ewc", "rank1_ewc"),
    *("generative_distillation", "ewc_distillation", "rank1_distillation"),
)
# Of the denoiser under ten classes, of which 11 x 512 are the embedding.
PARAMETERS = dict(mnist=38_384_129, fmnist=38_384_129, cifar10=38_388_739)


@cache
def composed(benchmark, method):
    return compose_config([f"experiment=rank1_{benchmark}", f"method={method}"])


def channels(benchmark):
    return 3 if benchmark == "cifar10" else 1


@pytest.fixture(params=BENCHMARKS)
def benchmark(request):
    return request.param


@pytest.fixture(params=METHODS)
def config(request, benchmark):
    return composed(benchmark, request.param)


def test_the_sweep_is_over_its_methods_and_three_seeds():
    folder = files("avalanche_gd.conf")
    protocol = yaml.safe_load(folder.joinpath("protocol/rank1.yaml").read_text())
    params = protocol["hydra"]["sweeper"]["params"]
    assert params == {"method": ",".join(METHODS), "seed": "0,1,2"}


def test_the_stream_is_of_two_classes_a_time_in_their_own_order(benchmark, config):
    assert config.benchmark.name == f"split_{benchmark}"
    assert (config.benchmark.n_experiences, config.benchmark.n_classes) == (5, 10)
    assert config.benchmark.shuffle is False and not config.benchmark.horizontal_flips


def test_the_images_are_padded_to_32x32(benchmark, config):
    assert config.model.shape == (channels(benchmark), 32, 32)
    fit = None if benchmark == "cifar10" else "pad"
    assert config.benchmark.options.get("fit") == fit


def test_the_u_net_is_as_diffusers_has_it(benchmark, config):
    denoiser = config.model.make(10, weights=False).denoiser
    with torch.device("meta"):
        theirs = UNet2DModel(
            sample_size=32,
            in_channels=channels(benchmark),
            out_channels=channels(benchmark),
            block_out_channels=(128, 256, 256, 256),
            num_class_embeds=11,
        )
    shapes = {name: p.shape for name, p in theirs.named_parameters()}
    assert {name: p.shape for name, p in denoiser.named_parameters()} == shapes
    assert dict(denoiser.config) == dict(theirs.config)
    count = sum(p.numel() for p in denoiser.parameters())
    assert count == PARAMETERS[benchmark]


def test_it_is_conditioned_without_dropout_or_guidance(config):
    model = config.model.make(10, weights=False)
    assert model.num_classes == 10
    assert (model.condition_dropout, model.guidance) == (0, 1)
    assert model.noise_scheduler.config.num_train_timesteps == 1000
    assert config.model.terminal_alpha_bar is None  # the linear betas of DDPM


def test_the_budget(config):
    budget = config.generator
    assert budget.steps is None and budget.epochs == 200 and budget.batch_size == 128
    assert budget.learning_rate == 2e-4 and budget.decay_steps == 0
    assert not budget.reset_optimizer and budget.ema_decay is None


@pytest.mark.parametrize("method", [name for name in METHODS if "distillation" in name])
def test_the_replay_is_from_a_pool_of_5000_samples_a_class(benchmark, method):
    plugin = composed(benchmark, method).make_plugins()[0]
    pool = plugin.lesson.samples
    assert isinstance(pool, ReplayPool) and pool.refresh_every is None
    assert [pool.samples_of(known) for known in (2, 4, 8)] == [10_000, 20_000, 40_000]
    assert pool.options == dict(steps=50, sampler="own", eta=0)
    assert (plugin.weighting, plugin.lambd) == ("constant", 0.5)
    assert plugin.lesson.ratio == 1


@pytest.mark.parametrize("method", ["ewc", "ewc_distillation"])
def test_ewc_has_half_of_their_lambda_as_avalanches_penalty_has_no_half(benchmark, method):
    assert composed(benchmark, method).make_plugins()[-1].ewc_lambda == 7500


@pytest.mark.parametrize("method", ["rank1_ewc", "rank1_distillation"])
def test_the_penalty_has_their_lambda_and_all_data(benchmark, method):
    penalty = composed(benchmark, method).make_plugins()[-1]
    assert penalty.lambd == 15_000 and penalty.samples is None and penalty.control is None


def test_the_evaluation(config):
    evaluation = config.evaluation
    assert (evaluation.images, evaluation.steps) == (10_000, 50)
    assert evaluation.features == "inception" and evaluation.measures == ["afid"]


def test_outside_the_protocol_our_own_defaults_stay():
    config = compose_config(["benchmark=split_fmnist"])
    assert config.benchmark.shuffle and config.benchmark.options["fit"] == "resize"
    assert config.method.weighting == "experiences" and not config.model.conditional
    assert config.method.pool_per_class is None


SMALL = (
    *("model.preset=fmnist-small", "method.teacher_steps=2", "method.pool_per_class=3"),
    *("evaluation.features=oracle", "evaluation.images=20", "evaluation.steps=2"),
    *("generator.epochs=1", "solver.steps=2", "solver.replay_steps=1"),
    *("benchmark.n_experiences=2", "benchmark.options.fit=resize", "threads=1"),
)


@pytest.mark.parametrize("name", ["mnist", "fmnist"])
def test_the_protocol_runs_on_images_of_another_size(tmp_path, monkeypatch, name):
    root = write_idx(tmp_path / "idx")
    options = [f"out={tmp_path}", f"benchmark.options.root={root}", *SMALL]
    seen = []
    train = Learner.train
    monkeypatch.setattr(
        Learner,
        "train",
        lambda self, exp: seen.append(exp.classes_in_this_experience) or train(self, exp),
    )
    config = compose_config([f"experiment=rank1_{name}", *options])
    folder = run(config)
    assert (folder / "run.json").is_file()
    assert [sorted(part) for part in seen] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize("name", ["mnist", "fmnist"])
def test_images_too_small_to_pad_to_are_refused_in_one_line(call, tmp_path, name):
    root = write_idx(tmp_path / "idx")
    options = (f"benchmark.options.root={root}", f"out={tmp_path / 'runs'}")
    small = "model.preset=fmnist-small"
    status, output, errors = call(main, f"experiment=rank1_{name}", small, *options, ORACLE)
    assert status == 2 and not output
    assert errors == (
        "avalanche-gd: benchmark: images of 28x28 cannot be padded to 16x16; choose images "
        "of 28x28 or more, or fit=resize\n"
    )


BAD = {
    "a pool of each class of a model without": (
        ["model.conditional=false"],
        "method=generative_distillation: pool_per_class needs a model that is conditioned "
        "on the class; make it with model.conditional=true, or give pool_size",
    ),
    "both pools": (
        ["method.pool_size=100"],
        "method=generative_distillation: give pool_size or pool_per_class, not both",
    ),
    "an unknown weighting": (
        ["method.weighting=equal"],
        "method=generative_distillation: no weighting 'equal'; choose from experiences, "
        "constant",
    ),
    "an unknown fit": (
        ["benchmark.options.fit=crop"],
        "benchmark: no fit 'crop'; choose from resize, pad",
    ),
    "an order that is no truth value": (
        ["benchmark.shuffle=2"],
        "benchmark.shuffle must be true or false, got 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_setting_is_refused_in_one_line(call, tmp_path, name):
    settings, line = BAD[name]
    out = f"out={tmp_path / 'runs'}"
    status, output, errors = call(main, "experiment=rank1_fmnist", ORACLE, out, *settings)
    assert status == 2 and not output
    assert errors.startswith(f"avalanche-gd: {line}") and errors.count("\n") == 1


def test_a_benchmark_of_ones_own_need_not_know_of_an_order(call, tmp_path):
    own = ["benchmark._target_=tests.runs.test_rank1_protocol.without_order"]
    config = small_config(tmp_path, *own, "method=naive")
    run(config)
    own = [*own, "benchmark.shuffle=false", f"out={tmp_path / 'other'}", "method=naive"]
    with pytest.raises(ValueError, match=r"benchmark: .*unexpected keyword.* 'shuffle'"):
        run(small_config(tmp_path, *own))


def without_order(n_experiences, *, seed, image_size):
    return SplitDigits(n_experiences, seed=seed, image_size=image_size)


def test_a_check_fills_no_whole_pool(tmp_path, digits, monkeypatch):
    made = []
    fill = ReplayPool._fill
    monkeypatch.setattr(
        ReplayPool,
        "_fill",
        lambda pool, *a: fill(pool, *a) or made.append(len(pool._images)),
    )
    options = ["method=generative_distillation", "model.conditional=true"]
    options += ["method.pool_per_class=500", "solver.pool_size=500"]
    assert "works" in dry_run(small_config(tmp_path, *options), digits)
    assert sorted(made) == [2, 10]
