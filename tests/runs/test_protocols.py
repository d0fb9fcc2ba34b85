"""The paper's experiments beside the protocol of its authors' code, row by row."""

from functools import cache
from importlib.resources import files
from itertools import product

import pytest
import torch
import yaml

from avalanche_gd.models.classifier import classifier
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.strategies import generator_strategy, solver_strategy
from tests.helpers.small_runs import small_config

BENCHMARKS = ("fmnist", "cifar10")
SWEEPS = ("", "_teacher_steps", "_lambda", "_lambda_gaussian", "_lambda_current", "_solver")
NAMES = [f"paper_{benchmark}{sweep}" for benchmark, sweep in product(BENCHMARKS, SWEEPS)]
METHODS = (
    *("naive", "joint", "generative_replay", "generative_distillation"),
    *("gaussian_distillation", "current_distillation"),
)
LAMBDAS = dict(
    generative_distillation=0.75, gaussian_distillation=8, current_distillation=1.25
)


def row(benchmark, fashion, cifar):
    return fashion if benchmark == "fmnist" else cifar


@cache
def composed(benchmark, *overrides):
    return compose_config([f"experiment=paper_{benchmark}", *overrides])


def swept(name):
    """What a sweep sets by itself: names to values, in the order of the file's defaults."""
    folder = files("avalanche_gd.conf")
    own = yaml.safe_load(folder.joinpath(f"experiment/{name}.yaml").read_text())
    protocol = yaml.safe_load(folder.joinpath("protocol/paper.yaml").read_text())
    params = dict(protocol["hydra"]["sweeper"]["params"])
    params |= own.get("hydra", {}).get("sweeper", {}).get("params", {})
    return {key: str(value).split(",") for key, value in params.items()}


@pytest.fixture(params=BENCHMARKS)
def benchmark(request):
    return request.param


@pytest.fixture(params=METHODS)
def config(request, benchmark):
    return composed(benchmark, f"method={request.param}")


def test_there_is_an_experiment_for_each_sweep_of_the_paper():
    folder = files("avalanche_gd.conf").joinpath("experiment")
    names = {path.name.removesuffix(".yaml") for path in folder.iterdir()}
    assert {name for name in names if name.startswith("paper_")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_all_three_seeds_are_in_every_sweep(name):
    assert swept(name)["seed"] == ["42", "69", "1714"]


def test_the_stream_has_five_experiences_of_two_classes(benchmark, config):
    assert config.benchmark.name == f"split_{benchmark}"
    assert (config.benchmark.n_experiences, config.benchmark.n_classes) == (5, 10)
    assert config.benchmark.horizontal_flips is row(benchmark, False, True)


def test_the_images_are_32x32(benchmark, config):
    assert config.model.shape == (row(benchmark, 1, 3), 32, 32)
    assert config.model.conditional is False


def test_the_noise_schedule(config):
    model = config.model.make(10, weights=False)
    schedule = model.noise_scheduler.config
    assert schedule.num_train_timesteps == 1000 and schedule.prediction_type == "epsilon"
    assert schedule.clip_sample and schedule.set_alpha_to_one
    assert model.sampling_timesteps(2) == [999, 499]
    linear = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    root = (1 - linear).cumprod(0).sqrt()
    rescaled = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    assert (model.process.alpha_bar - rescaled).abs().max() < 1e-6
    assert model.process.alpha_bar[-1].item() == pytest.approx(1e-8, rel=1e-3)


def test_the_u_net(benchmark, config):
    denoiser = config.model.make(10, weights=False).denoiser
    count = sum(p.numel() for p in denoiser.parameters())
    assert count == row(benchmark, 42_855_873, 35_746_307)
    unet = denoiser.config
    widths = row(benchmark, (64, 128, 256, 512), (128, 256, 256, 256))
    assert unet.block_out_channels == widths and unet.norm_num_groups == 32
    assert unet.layers_per_block == row(benchmark, 1, 2)
    attends = [kind.startswith("Attn") for kind in unet.down_block_types]
    assert attends.index(True) == row(benchmark, 3, 1) and sum(attends) == 1
    embedding = unet.freq_shift, unet.flip_sin_to_cos, unet.norm_eps
    assert embedding == row(benchmark, (0, True, 1e-5), (1, False, 1e-6))


def test_the_budget_of_the_generator(benchmark, config):
    budget = config.generator
    assert budget.steps is None and budget.epochs == row(benchmark, 100, 200)
    assert budget.batch_size == row(benchmark, 128, 64)
    assert budget.learning_rate == 2e-4 and budget.reset_optimizer
    assert budget.decay_steps == 0 and budget.ema_decay is None


def test_the_optimizers_and_the_clipping(benchmark, tmp_path):
    small = ["model=digits", "solver.architecture=small_cnn", f"out={tmp_path}"]
    small += ["evaluation.features=oracle"]
    config = composed(benchmark, *small)
    generator = generator_strategy(config, config.model.make(10), [])
    solver = solver_strategy(config, [])
    for strategy, rate in ((generator, 2e-4), (solver, 1e-3)):
        assert isinstance(strategy.optimizer, torch.optim.Adam)
        (group,) = strategy.optimizer.param_groups
        assert group["lr"] == rate and group["weight_decay"] == 0
        assert group["betas"] == (0.9, 0.999)
    assert generator.max_grad_norm == 1 and not hasattr(solver, "max_grad_norm")


def test_replay_and_the_teacher(config):
    for plugin in config.make_plugins():
        lesson = plugin.lesson
        assert lesson.steps == 2 and lesson.ratio == 1 and lesson.size is None
        assert lesson.eta == 0 and lesson.start == 0 and not lesson.is_increasing
        assert plugin.lambd == LAMBDAS.get(config.method.name, 1)


def test_joint_training_is_over_all_data_so_far(benchmark):
    assert composed(benchmark, "method=joint").method.cumulative
    assert composed(benchmark, "method=solver_cumulative").method.cumulative


def test_the_sweep_over_methods(benchmark):
    assert swept(f"paper_{benchmark}")["method"] == list(METHODS)


def test_the_sweep_over_the_teachers_steps(benchmark):
    sweep = swept(f"paper_{benchmark}_teacher_steps")
    assert sweep["method.teacher_steps"] == ["2", "10", "100"]
    assert sweep["method"] == ["generative_replay", "generative_distillation"]
    name = f"experiment=paper_{benchmark}_teacher_steps"
    assert compose_config([name, "method.teacher_steps=10"]).method.lambd == 0.75


QUARTERS = [0.1, *(n / 4 for n in range(1, 13))]


@pytest.mark.parametrize(
    ("sweep", "method", "values"),
    [
        ("lambda", "generative_distillation", QUARTERS),
        ("lambda_gaussian", "gaussian_distillation", [1, *range(4, 29, 4)]),
        ("lambda_current", "current_distillation", QUARTERS[:8]),
    ],
)
def test_the_sweeps_over_lambda(benchmark, sweep, method, values):
    name = f"paper_{benchmark}_{sweep}"
    assert swept(name)["method"] == [method]
    assert [float(value) for value in swept(name)["method.lambd"]] == values
    config = compose_config([f"experiment={name}", f"method={method}", "method.lambd=2"])
    assert config.make_plugins()[0].lambd == 2  # and not the protocol's


def test_the_solver(benchmark, config):
    solver = config.solver
    assert solver.architecture == "simple_cnn"
    model = classifier(solver.architecture, config.model.shape, 10)
    count = sum(p.numel() for p in model.parameters())
    assert count == row(benchmark, 119_722, 120_298)
    assert solver.steps is None and solver.epochs == 20 and solver.batch_size == 128
    assert solver.learning_rate == 1e-3 and solver.reset_optimizer


def test_the_solvers_replay(benchmark, config):
    solver = config.solver
    assert solver.replay_steps == row(benchmark, 10, 20) and solver.replay_eta == 0
    assert solver.temperature == 2 and solver.replay_labels == "solver"
    assert solver.pool_size is None and not solver.increasing_replay_size
    replays = config.method.name not in ("naive", "joint")
    assert config.method.solver_replays is replays


def test_the_evaluation(benchmark, config):
    assert config.evaluation.images == 10_000
    assert config.evaluation.steps == row(benchmark, 10, 20)
    assert config.evaluation.features == "inception"
    assert config.evaluation.labeller == "resnet18"


def test_the_solvers_baselines(benchmark):
    assert swept(f"paper_{benchmark}_solver")["method"] == [
        *("solver_naive", "solver_cumulative", "solver_ewc", "solver_si", "solver_lwf")
    ]

    def plugin(method):
        (only,) = composed(benchmark, f"method={method}").make_plugins("solver")
        return only

    assert plugin("solver_ewc").ewc_lambda == 1 and plugin("solver_si").si_lambda == [1]
    lwf = plugin("solver_lwf").lwf
    assert lwf.alpha == [0, 0.5, 1.33333, 2.25, 3.2] and lwf.temperature == 2


def test_the_weights_of_lwf_are_taken_by_experience(tmp_path, digits):
    options = ["protocol=paper", "method=solver_lwf", "solver.architecture=small_cnn"]
    config = small_config(tmp_path, *options, "solver.epochs=null", "generator.steps=2")
    learner = Learner(config)
    lwf = learner.method_plugins["solver"][0].lwf
    added = []
    for index, alpha in enumerate([0, 0.5, 1.33333]):
        x, y = torch.zeros(2, 1, 8, 8), torch.zeros(2, 10)
        lwf._lwf_penalty, penalty = (lambda *_: torch.tensor(3.0)), lwf._lwf_penalty
        added.append(float(lwf(x, y, None)))
        lwf._lwf_penalty = penalty
        assert added[-1] == pytest.approx(3 * alpha)
        learner.train(digits.train_stream[index])


def test_outside_the_protocol_our_own_defaults_stay():
    config = compose_config(["benchmark=split_fmnist", "method=gaussian_distillation"])
    assert config.method.lambd == 1 and config.model.terminal_alpha_bar is None
    assert config.solver.architecture == "small_cnn"
    assert not config.generator.reset_optimizer and config.generator.epochs is None
    ewc = composed("fmnist", "method=ewc").method.lambd
    assert ewc == compose_config(["method=ewc"]).method.lambd
