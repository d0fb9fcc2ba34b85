"""The command: sweeps, their report, and errors of one line."""

import csv
import re

import pytest

from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.overrides import quoted
from avalanche_gd.runs.run import read_benchmark
from avalanche_gd.runs.run_command import _ordered, main
from avalanche_gd.training import NonFiniteLossError
from tests.helpers.own_denoisers import OWN
from tests.helpers.small_runs import SMALL

pytestmark = pytest.mark.usefixtures("sketched")


@pytest.fixture
def command(call):
    """Call the command with the settings of a small run."""

    def of_a_small_run(*arguments):
        flags = [argument for argument in arguments if argument == "-m"]
        return call(main, *flags, *SMALL, *arguments[len(flags) :])

    return of_a_small_run


def test_a_sweep_ends_with_the_report(command, tmp_path):
    sweep = (
        "-m",
        "method=naive,generative_distillation",
        "seed=0,1",
        "benchmark.n_experiences=2",
    )
    status, output, errors = command(*sweep)
    assert status == 0, errors
    *_, head, naive, distillation, _, page = output.splitlines()
    assert head.split()[:3] == ["Method", "Seeds", "FID"]
    methods = ["naive", "generative_distillation"]
    lines = [naive.split(), distillation.split()]
    assert [line[:2] for line in lines] == [[method, "2"] for method in methods]
    (folder,) = (tmp_path / "runs").glob("report-*")
    assert tmp_path / page == folder / "report.html" and (tmp_path / page).is_file()
    with open(folder / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["method"], r["seed"], r["experience"]) for r in rows] == [
        (method, seed, experience)
        for method in methods
        for seed in "01"
        for experience in "12"
    ]
    last = [float(r["FID"]) for r in rows if r["method"] == "naive" and r["seconds"]]
    assert lines[0][2] == f"{sum(last) / 2:.1f}"
    done = [line for line in output.splitlines() if "runs done" in line]
    assert [line[:16] for line in done] == [f"{n} of 4 runs done" for n in (1, 2, 3, 4)]
    assert all(re.search(r", about \d+ seconds left$", line) for line in done[:3])
    costs = {(r["method"], r["F_per_step"]) for r in rows if r["F_per_step"]}
    assert costs == {("naive", "3.0"), ("generative_distillation", "9.0")}
    status, again, _ = command(*sweep)
    assert again.count("complete:") == 4
    assert again.splitlines()[-5:] == output.splitlines()[-5:]
    assert "left" not in again  # what was done before tells nothing of time


def test_a_run_ends_with_its_folder(command, tmp_path):
    arguments = ("method=naive", "benchmark.n_experiences=1")
    for _ in range(2):
        _, output, _ = command(*arguments)
        folder = output.splitlines()[-1]
        assert (tmp_path / folder / "run.json").is_file()


FOLDERS = [
    *("2024_05", "1e3", "true", "0x10", "it's", "results (v2)", "ü", "a,b", "a b=c", "[a]"),
    *("a\\", "\\'", 'a "b"', "{a: 1}", " a ", "a\\\n"),
]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_the_one_that_was_typed(folder):
    root = f"benchmark.options.root={folder}"
    config = compose_config([f"out={folder}", "benchmark=split_fmnist", root])
    assert (config.out, config.benchmark.options["root"]) == (folder, folder)
    assert quoted(folder) != folder and compose_config([f"out={quoted(folder)}"]) == (
        compose_config([f"out={folder}"])
    )


@pytest.mark.parametrize("flag", [(), ("-m",)])
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_folder_below_home_is_there_also_in_quotes(
    command, tmp_path, monkeypatch, flag, quote
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out = f"out={quote}~/its runs{quote}"
    status, _, errors = command(*flag, "method=naive", "benchmark.n_experiences=1", out)
    assert status == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["its runs"]


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("out=~/a b", "out='HOME/a b'"),
        (r"++out='~/it\'s'", r"out='HOME/it\'s'"),
        ("out='~/a','~/b'", "out='~/a','~/b'"),
    ],
)
def test_home_is_replaced_in_one_folder(monkeypatch, typed, given):
    monkeypatch.setenv("HOME", "/home/me")
    assert _ordered([typed]) == [given.replace("HOME", "/home/me")]


OF_A_CLASS = {
    "a plugin": ["method.plugins=[{_target_: Mine, text: 'TEXT'}]"],
    "a denoiser": [*OWN, "model.options={text: 'TEXT'}"],
    "a benchmark": ["benchmark._target_=mine.Benchmark", "+benchmark.options.text='TEXT'"],
}


def test_an_escaped_reference_is_a_text(monkeypatch):
    monkeypatch.setenv("HERE", "elsewhere")
    escaped = r"\${oc.env:HERE}"
    for typed, out in ((escaped, "${oc.env:HERE}"), ("${oc.env:HERE}", "elsewhere")):
        assert compose_config([f"out={typed}"]).out == out
    for overrides in OF_A_CLASS.values():
        given = [override.replace("TEXT", escaped) for override in overrides]
        with pytest.raises(ValueError, match=r"\{oc\.env:HERE\}' cannot be given to"):
            read_benchmark(compose_config(given))


@pytest.mark.parametrize("flag", [(), ("-m",)])
def test_the_command_writes_to_the_folder_that_was_typed(command, tmp_path, flag):
    run = ("method=naive", "benchmark.n_experiences=1", "out=1e3, it's (v2)")
    status, _, errors = command(*flag, *run)
    assert status == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["1e3, it's (v2)"]
    assert len(list(tmp_path.glob("*/split_digits/naive/*/run.json"))) == 1
    assert len(list(tmp_path.glob("*/report-*"))) == len(flag)


def test_settings_that_vary_within_a_method_are_told_apart(command):
    _, output, _ = command(
        "-m", "method.lambd=1,2", "benchmark.n_experiences=1", "method=generative_replay"
    )
    assert "generative_replay, method.lambd=1.0" in output
    assert "generative_replay, method.lambd=2.0" in output


BAD = {
    "an unknown method": (
        ["method=magic"],
        "no method 'magic'; choose from agem, balanced_distillation, ",
    ),
    "an unknown benchmark": (
        ["benchmark=imagenet"],
        "no benchmark 'imagenet'; choose from image_folder, split_cifar10, split_cifar100, "
        "split_digits, split_fmnist, split_mnist",
    ),
    "an unknown preset": (
        ["model=huge"],
        "no model 'huge'; choose from cifar-small, digits, fmnist-fast, fmnist-small, "
        "paper-cifar10, paper-fmnist, rank1-cifar10, rank1-mnist",
    ),
    "an unknown labeller": (
        ["evaluation.labeller=resnet50"],
        "evaluation: no labeller 'resnet50'; choose from oracle, resnet18",
    ),
    "weights of an oracle": (
        ["evaluation.labeller_weights=x.pth"],
        "evaluation: labeller_weights goes with labeller=resnet18",
    ),
    "an unknown protocol": (
        ["protocol=own"],
        "no protocol 'own'; choose from paper, rank1",
    ),
    "two protocols": (["protocol=[paper,paper]"], "protocol must be one choice"),
    "steps and epochs": (
        ["generator.epochs=3"],
        "generator has both steps and epochs; give generator.epochs=null or "
        "generator.steps=null",
    ),
    "no budget": (["solver.steps=null"], "solver has neither steps nor epochs; give one"),
    "no epoch": (
        ["solver.steps=null", "solver.epochs=0"],
        "solver.epochs must be 1 or more, got 0",
    ),
    "a part of an epoch": (["generator.epochs=1.5"], "generator.epochs: Value '1.5'"),
    "a decay of epochs": (
        ["generator.steps=null", "generator.epochs=3", "generator.decay_steps=1"],
        "generator.decay_steps needs generator.steps; with epochs, give 0",
    ),
    "a number for a reset": (
        ["generator.reset_optimizer=2"],
        "generator.reset_optimizer must be true or false, got 2",
    ),
    "an unknown architecture": (
        ["solver.architecture=resnet"],
        "solver: no solver architecture 'resnet'; choose from small_cnn, simple_cnn, mlp",
    ),
    "an architecture for larger images": (
        ["solver.architecture=simple_cnn"],
        "solver: simple_cnn needs images of 10x10 or more, got 8x8; choose small_cnn",
    ),
    "a terminal alpha_bar of 0": (
        ["model.terminal_alpha_bar=0"],
        "model: terminal_alpha_bar must be above 0, got 0.0",
    ),
    "a terminal alpha_bar that leaves signal": (
        ["model.terminal_alpha_bar=0.1"],
        "model: terminal_alpha_bar must be from 1e-10 to 4.04e-05, its value without",
    ),
    "an unknown process": (
        ["model.process=sde"],
        "model: no process 'sde'; choose from ddpm, flow",
    ),
    "a terminal alpha_bar of a flow": (
        ["model.process=flow", "model.terminal_alpha_bar=1e-8"],
        "model: terminal_alpha_bar is for process=ddpm; flow matching ends in pure",
    ),
    "an eta of a flow": (
        ["model.process=flow", "method.teacher_eta=1"],
        "method=generative_distillation: FlowMatchEulerDiscreteScheduler does not have eta",
    ),
    "an eta above 1": (
        ["method.teacher_eta=2"],
        "method=generative_distillation: teacher_eta must be in [0, 1], got 2.0",
    ),
    "an eta of a sampler without one": (
        ["method.teacher_eta=1", "method.teacher_sampler=unipc"],
        "method=generative_distillation: teacher_eta is for teacher_sampler=",
    ),
    "an eta of a solver's replay above 1": (
        ["solver.replay_eta=2"],
        "solver: teacher_eta must be in [0, 1], got 2.0",
    ),
    "a start beyond the last timestep": (
        ["method.replay_start_timestep=1000"],
        "replay_start_timestep must be an integer from 0 to 999, got 1000",
    ),
    "an unknown precision": (
        ["model.precision=half"],
        "no precision 'half'; choose from float32, bfloat16",
    ),
    "a preset that there is not": (
        ["model.preset=huge"],
        "model: no preset 'huge'; choose from digits, fmnist-small",
    ),
    "a negative lambda": (["method.lambd=-1"], "method.lambd must be 0 or more, got -1.0"),
    "a negative penalty of EWC": (
        ["method=ewc_distillation", "method.penalty=-1"],
        "method.penalty must be 0 or more, got -1.0",
    ),
    "teacher steps of 0": (
        ["method.teacher_steps=0"],
        "method.teacher_steps: sampling steps must be an integer from 1 to 1000, got 0",
    ),
    "teacher steps above T": (
        ["method.teacher_steps=1001"],
        "method.teacher_steps: sampling steps must be an integer from 1 to 1000, got 1001",
    ),
    "evaluation steps above T": (
        ["evaluation.steps=1001"],
        "evaluation.steps: sampling steps must be an integer from 1 to 1000, got 1001",
    ),
    "replay steps of 0, in a method that does not replay": (
        ["method=naive", "solver.replay_steps=0"],
        "solver.replay_steps: sampling steps must be an integer from 1 to 1000, got 0",
    ),
    "more images than the memory has": (
        ["method=naive", "evaluation.images=100000000000"],
        "evaluation: an evaluation of 100000000000 images needs 47683.7 GiB, more than",
    ),
    "a single image to evaluate": (
        ["evaluation.images=1"],
        "evaluation: images must be an integer of 2 or more, got 1",
    ),
    "a temperature of 0": (
        ["solver.temperature=0"],
        "solver: temperature must be above 0, got 0.0",
    ),
    "more experiences than classes": (
        ["benchmark.n_experiences=11"],
        "choose n_experiences from 1, 2, 5, 10",
    ),
    "a model of other channels": (
        ["model=paper-cifar10"],
        "do not fit a model of (3, 32, 32)",
    ),
    "a root without the data set": (
        ["benchmark=split_fmnist", "benchmark.options.root=."],
        "no Fashion-MNIST in",
    ),
    "a root without CIFAR-10": (
        ["benchmark=split_cifar10", "benchmark.options.root=."],
        "no CIFAR-10 in .: looked for cifar-10-batches-py and cifar-10-python.tar.gz",
    ),
    "no root": (
        ["benchmark=image_folder"],
        "no value for benchmark.n_classes and benchmark.options.root; "
        "give benchmark.n_classes=VALUE benchmark.options.root=VALUE",
    ),
    "a number of classes that the stream does not have": (
        ["benchmark.n_classes=5"],
        "split_digits has 10 classes, but benchmark.n_classes is 5; "
        "set benchmark.n_classes=10",
    ),
    "a word for a number": (["seed=one"], "seed: Value 'one'"),
    "an unknown setting": (["sede=1"], "sede"),
    "a device that is not there": (["device=abacus"], "choose from auto, cpu, cuda"),
    "no steps": (["generator.steps=0"], "generator.steps must be 1 or more, got 0"),
    "a decay longer than the budget": (
        ["generator.decay_steps=3"],
        "generator.decay_steps must be from 0 to generator.steps, 2, got 3; give both",
    ),
    "a learning rate of 0": (
        ["solver.learning_rate=0"],
        "solver.learning_rate must be above 0",
    ),
    "a negative seed": (["seed=-1"], "seed must be an integer from 0 to"),
    "a seed that torch cannot take": ([f"seed={2**63}"], "seed must be an integer from 0"),
    "a misspelt setting": (["generator.step=5"], "generator.step: Key 'step' is not in"),
    "a misspelt setting, with a hint": (["generator.step=5"], "did you mean steps?"),
    "a misspelt section": (["generatr.steps=5"], "did you mean generator?"),
    "a misspelt flag": (["--multrun"], "unknown flag --multrun; did you mean --multirun?"),
    "two methods in one run": (["method=[naive,joint]"], "method must be one choice"),
    "a number for a flag": (
        ["benchmark.horizontal_flips=5"],
        "benchmark.horizontal_flips must be true or false, got 5",
    ),
    "a learning rate without an end": (
        ["generator.learning_rate=inf"],
        "generator.learning_rate must be above 0, a finite number, got inf",
    ),
    "a weight that is no number": (["method.lambd=nan"], "method.lambd must be 0 or more"),
    "a ratio without an end": (
        ["method.replay_ratio=inf"],
        "method=generative_distillation: replay_ratio must be above 0, a finite number",
    ),
    "a refresh without a pool": (["method.pool_refresh=3"], "pool_refresh needs a pool"),
    "more threads than can be": (["threads=100000000"], "threads must be 1024 or less"),
    "a device that torch has not": (["device=mps"], "no device 'mps'; choose from auto"),
    "a device without values": (["device=meta"], "no device 'meta'; choose from auto"),
    "a method without a name": (["method.name=''"], "method.name must be 1 to 80 of"),
    "a benchmark that leaves its folder": (
        ["benchmark.name=../../../X"],
        "benchmark.name must be 1 to 80 of the letters a to z",
    ),
    "a folder that is a file": (["out=/etc/passwd"], "out=/etc/passwd cannot be written"),
    "a number for a text": (
        ["evaluation.weights_path=2024_05"],
        "evaluation.weights_path must be a text, in quotes for Hydra and for the shell, "
        "\"evaluation.weights_path='TEXT'\", got 202405",
    ),
    "true for a text": (
        ["method.teacher_sampler=true"],
        "method.teacher_sampler must be a text, in quotes",
    ),
    "a folder that cannot be": (["out=/proc/x/y"], "/proc/x/y"),
    "an option that a benchmark has not": (
        ["+benchmark.options.foo=1"],
        "benchmark: SplitDigits() got an unexpected keyword argument 'foo'",
    ),
    "a benchmark of nowhere": (
        ["benchmark._target_=nowhere.Benchmark"],
        "benchmark: No module named 'nowhere'",
    ),
    "a plugin without a class": (
        ["method.plugins=[{target: avalanche.training.plugins.EWCPlugin}]"],
        "a plugin is {_target_: CLASS, ARGUMENT: VALUE, ...}, got {'target':",
    ),
    "a plugin that is a name": (["method.plugins=[EWC]"], "got 'EWC'"),
    "what is no plugin": (
        ["method.plugins=[{_target_: builtins.dict}]"],
        "builtins.dict is no Avalanche plugin, but a dict",
    ),
    "a condition of a model without one": (
        ["solver.replay_labels=condition"],
        'solver: labels="condition" needs a generator that is conditioned on the class; '
        "make it with model.conditional=true",
    ),
    "unknown labels": (["solver.replay_labels=oracle"], "choose from solver, condition"),
    "a conditioned VAE": (
        ["method=vae_replay", "model.conditional=true"],
        "model.conditional=true is for diffusion models; vae_replay trains none",
    ),
    **{
        f"a VAE with {setting}": (
            ["method=vae_replay", setting],
            f"{setting.split('=')[0]} needs a diffusion model; vae_replay has none",
        )
        for setting in (
            *("model.process=flow", "model.precision=bfloat16", "model.channels_last=true"),
            "model.compile=true",
            *("generator.ema_decay=0.9", "solver.replay_labels=condition"),
            *("solver.replay_eta=0.5", "solver.increasing_replay_size=true"),
            *("solver.samples_only_from=0", "solver.regenerate_from=3"),
            "solver.guidance=missing",
        )
    },
    "guidance without dropout": (
        ["model.conditional=true", "model.guidance=2", "model.condition_dropout=0"],
        "guidance needs a model that was also trained without the class",
    ),
    "guidance without a condition": (
        ["model.guidance=2"],
        "model: condition_dropout and guidance need model.conditional=true",
    ),
    "an average that forgets nothing": (
        ["generator.ema_decay=1"],
        "generator: the decay of an EMA must be in [0, 1), got 1.0",
    ),
    "a pool of nothing": (
        ["method.pool_size=0"],
        "pool_size must be an integer of 1 or more, got 0",
    ),
    "a solver's pool of nothing": (
        ["solver.pool_size=0"],
        "solver: pool_size must be an integer of 1 or more, got 0",
    ),
    "a pool that memory cannot hold": (
        ["method.pool_size=1000000000000"],
        "method=generative_distillation: a pool of 1000000000000 samples needs",
    ),
    "a look-ahead of no step": (
        ["method.look_ahead=0"],
        "method=generative_distillation: look_ahead must be an integer of 1 or more, got 0",
    ),
    "a look-ahead of no step in the solver": (
        ["solver.look_ahead=0"],
        "solver: look_ahead must be an integer of 1 or more, got 0",
    ),
    "a look-ahead of part of a step": (
        ["method.look_ahead=1.5"],
        "method.look_ahead: Value '1.5'",
    ),
    "a look-ahead beside a pool, which needs none": (
        ["method=pooled_distillation", "method.look_ahead=2"],
        "method.look_ahead: Key 'look_ahead' is not in struct",
    ),
    "a ratio of nothing": (["method.replay_ratio=0"], "replay_ratio must be above 0"),
    "an unknown sampler": (
        ["method.teacher_sampler=euler"],
        "no sampler 'euler'; choose from own, dpmsolver++, unipc",
    ),
    "a memory of nothing": (
        ["method=experience_replay", "method.memory=0"],
        "method.memory must be 1 or more, got 0",
    ),
    "distillation of a VAE": (
        ["+method.generator=vae"],
        "method=generative_distillation: GenerativeDistillationPlugin needs a "
        "DiffusionModel; MlpVAE has no method denoise",
    ),
    "a rank-1 penalty on a VAE": (
        ["method=rank1_ewc", "+method.generator=vae"],
        "method=rank1_ewc: RankOneEWCPlugin needs a DiffusionModel; MlpVAE has no method "
        "noise_ahead",
    ),
    "a negative penalty": (["method=rank1_ewc", "method.penalty=-1"], "penalty must be 0"),
    "an unknown control": (
        ["method=rank1_replay", "method.control=all"],
        "no control 'all'; choose from diagonal, shuffled",
    ),
    "a benchmark that there is not": (
        ["benchmark._target_=nowhere.Split"],
        "benchmark: No module named 'nowhere'",
    ),
    "an unknown option of a benchmark": (
        ["benchmark.options.size=8"],
        "benchmark.options.size: Key 'size' is not in struct; to add it, give "
        "+benchmark.options.size=VALUE",
    ),
    "a plugin that there is not": (
        ["method.plugins=[{_target_: nowhere.Plugin}]"],
        "method=generative_distillation: No module named 'nowhere'",
    ),
    "a list where values by name are meant": (
        ["++model.options=[1]"],
        "model.options must be values by name, {NAME: VALUE}, got [1]",
    ),
    "values by name where a list is meant": (
        ["++model.sample_shape={a: 1}"],
        "model.sample_shape must be a list, [VALUE, ...], got {'a': 1}",
    ),
    "a dropout that is no number, of a model without a condition": (
        ["model.condition_dropout=nan"],
        "model.condition_dropout must be in [0, 1), a finite number, got nan",
    ),
    "less than one class": (
        ["benchmark.n_classes=-1"],
        "benchmark.n_classes must be 1 or more, got -1",
    ),
    "a flag of an unknown value": (
        ["--cfg", "nowhere"],
        "--cfg needs a value, got 'nowhere'; choose from job, hydra, all",
    ),
    "a flag without its value, which is no setting": (
        ["--package"],
        "--package needs a value, got ''; give --package=VALUE",
    ),
    "a value of a flag that takes none": (
        ["--multirun=yes"],
        "--multirun takes no value, got 'yes'",
    ),
    "a setting that a method has not": (["method=naive", "method.memory=5"], "memory"),
    "a setting that a method does not use": (
        ["method=naive", "+method.lambd=3"],
        "method=naive does not use method.lambd; leave it out",
    ),
    "a sampler that a method does not use": (
        ["method=rank1_distillation", "+method.teacher_sampler=unipc"],
        "method=rank1_distillation does not use method.teacher_sampler",
    ),
    **{
        f"steps of a teacher that does not sample, {name}": (
            [f"method={name}", "+method.teacher_steps=10"],
            f"method={name} does not use method.teacher_steps; leave it out",
        )
        for name in (
            "gaussian_distillation",
            "symmetric_gaussian_distillation",
            "current_distillation",
        )
    },
    "a setting that a method of a protocol does not use": (
        ["method=solver_lwf", "protocol=paper", "method.lambd=3"],
        "method=solver_lwf does not use method.lambd",
    ),
    "a setting that plugins of a user's own do not use": (
        ["method.plugins=[]", "method.pool_size=3"],
        "method=generative_distillation does not use method.pool_size",
    ),
    "a bad plugin of a user's own": (
        [
            "method.plugins=[{_target_: avalanche_gd.GenerativeDistillationPlugin, "
            "source: dreams}]"
        ],
        "no source 'dreams'; choose from",
    ),
    "both predictions of a model without classes": (
        ["method.unconditional_weight=1"],
        "method=generative_distillation: unconditional_weight needs a model that can",
    ),
    "guidance without a solver": (
        [
            "method=guide_distillation",
            "method.solver_replays=false",
            "+method.solver=false",
        ],
        "method=guide_distillation: it is guided by the solver; give method.solver=true",
    ),
    "a negative scale": (
        ["method=balanced_distillation", "method.guidance_scale=-1"],
        "the scale of guidance must be 0 or more, got -1",
    ),
    "a bad plugin of the solver": (
        [
            "method.solver_plugins=[{_target_: avalanche_gd.GenerativeReplayPlugin, "
            "labels: dreams}]"
        ],
        "method=generative_distillation: no labels 'dreams'; choose from",
    ),
    "a diffusion model's plugin of the solver": (
        ["method.solver_plugins=[{_target_: avalanche_gd.GenerativeDistillationPlugin}]"],
        "GenerativeDistillationPlugin is for a diffusion model; give it in method.plugins",
    ),
    "a denoiser beside a preset": (
        [OWN[1]],
        "model is either preset=NAME, or preset=null, _target_=CLASS and "
        "sample_shape=[C,H,W]",
    ),
    "neither a denoiser nor a preset": (["model.preset=null"], "give one of the two"),
    "a denoiser without a shape": (OWN[:2], "give one of the two"),
    "a denoiser of images with two sides": (
        [*OWN[:2], "model.sample_shape=[8,8]"],
        "give one of the two",
    ),
    "options of a preset": (["+model.options.channels=2"], "give one of the two"),
    "a denoiser that there is not": (
        [*OWN, "model._target_=nowhere.Denoiser"],
        "model: No module named 'nowhere'",
    ),
    "an unknown option of a denoiser": (
        [*OWN, "+model.options.width=8"],
        "TinyDenoiser.__init__() got an unexpected keyword argument 'width'",
    ),
    "a denoiser of other channels": (
        [*OWN, "+model.options.channels=3"],
        "model: Given groups=1, weight of size",
    ),
    "a denoiser that changes the shape": (
        [*OWN, "model._target_=tests.helpers.own_denoisers.Widening"],
        "a denoiser must return (2, 1, 8, 8), the shape of its images, but "
        "tests.helpers.own_denoisers.Widening returns (2, 3, 8, 8)",
    ),
    "a denoiser that takes no class": (
        [*OWN, "model.conditional=true"],
        "model: TinyDenoiser.forward() got an unexpected keyword argument 'class_labels'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_value_ends_with_one_line(command, tmp_path, name):
    arguments, message = BAD[name]
    status, _, errors = command(*arguments)
    (line,) = errors.splitlines()
    assert status == 2
    assert line.startswith("avalanche-gd: ") and message in line
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.parametrize(
    "sweep", ["method=naive,magic", "method.lambd=1,-1", "method=glob(nowhere*)"]
)
def test_a_wrong_value_in_a_sweep_ends_it_before_the_first_run(command, tmp_path, sweep):
    status, _, errors = command("-m", sweep)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.rglob("run.json"))


def test_flags_may_follow_settings(command):
    status, output, errors = command("method=naive", "seed=3", "--cfg", "job")
    assert status == 0, errors
    assert output.startswith("seed: 3")


def test_one_failing_run_of_a_sweep_does_not_stop_the_others(command, tmp_path):
    rates = "generator.learning_rate=1e30,1e-3"
    sweep = ("-m", "method=naive", "benchmark.n_experiences=1", "generator.steps=3", rates)
    status, output, errors = command(*sweep)
    assert status == 1
    first, _, head, listed = errors.splitlines()
    assert first.startswith("naive, seed 0: the loss of the DiffusionModel is nan at step")
    assert head == "1 failed:" and listed.endswith(first.removeprefix("naive, seed 0: "))
    (line,) = (line for line in output.splitlines() if line.startswith("naive  "))
    assert line.split()[1] == "1"  # the other run is reported


@pytest.mark.parametrize(
    ("done", "again"),
    [
        (0, "start over, as no experience was finished"),
        (2, "continue after experience 2/5"),
    ],
)
def test_an_interrupted_run_says_where_it_stands(command, monkeypatch, done, again):
    from avalanche_gd.runs.learner import Learner

    train = Learner.train

    def interrupted(self, experience):
        if experience.current_experience == done:
            raise KeyboardInterrupt
        train(self, experience)

    monkeypatch.setattr(Learner, "train", interrupted)
    status, output, errors = command("method=naive")
    assert status == 130 and not errors
    line = f"interrupted; run the same command again to {again}"
    assert output.splitlines()[-1] == f"naive, seed 0: {line}"


def test_a_run_that_diverges_keeps_its_last_checkpoint(command, tmp_path, monkeypatch):
    from avalanche_gd.runs.learner import Learner

    train = Learner.train

    def diverging(self, experience):
        if experience.current_experience == 1:
            raise NonFiniteLossError("the loss is nan at step 3 of experience 1")
        train(self, experience)

    monkeypatch.setattr(Learner, "train", diverging)
    status, _, errors = command("method=naive")
    assert status == 2 and "nan at step 3 of experience 1" in errors
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["exp_000.pt"]


def test_the_full_error_is_shown_on_request(command, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        command("seed=-1")
    status, _, errors = command("-m", "seed=-1")
    assert status == 2
    assert "Traceback" in errors and "ValueError: seed must be an integer from 0" in errors


def test_a_damaged_run_in_a_sweep_is_said_and_the_others_are_reported(command, tmp_path):
    sweep = ("-m", "method=naive", "benchmark.n_experiences=1", "seed=0,1")
    assert command(*sweep)[0] == 0
    table = next((tmp_path / "runs" / "split_digits").rglob("seed-0*/metrics.csv"))
    table.write_text("experience,metric\n0,FID\n")
    status, output, errors = command(*sweep)
    assert status == 1
    first, _, head, listed = errors.splitlines()
    assert "metrics.csv is cut short, or is damaged" in first
    assert first.endswith(listed[-40:])
    assert head == "1 failed:"
    (line,) = (line for line in output.splitlines() if line.startswith("naive  "))
    assert line.split()[1] == "1"
