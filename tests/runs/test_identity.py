"""The name of a run's folder: the settings that decide its result, and no others."""

from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from avalanche_gd.report.settings import deciding
from avalanche_gd.runs import identity
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.evaluation_config import EvaluationConfig
from avalanche_gd.runs.identity import only_deciding
from avalanche_gd.runs.results import RunResult
from tests.helpers.small_runs import small_config

SAME = {
    "another folder": ["out=elsewhere"],
    "another device": ["device=cpu"],
    "another number of threads": ["threads=2"],
    "another place of the data": ["+benchmark.options.root=/data"],
    "another batch of the evaluation": ["evaluation.batch_size=100"],
    "a guidance of a model without a condition": ["model.condition_dropout=0.3"],
    "a pool that no solver draws from": ["method=naive", "solver.pool_size=70"],
    "a generator that the method has not": ["method=solver_naive", "generator.steps=9"],
    "an eta of 0": ["method.teacher_eta=0"],
    "replay from timestep 0": ["method.replay_start_timestep=0"],
    "the weights of the experiences": ["method.weighting=experiences"],
    "no pool of each class": ["method.pool_per_class=null"],
    "classes in an order of the seed": ["benchmark.shuffle=true"],
    "images that are resized": ["+benchmark.options.fit=resize"],
    "replay of one size": ["method.increasing_replay_size=false"],
    "an eta of a replay that there is not": ["method=naive", "solver.replay_eta=0.5"],
    "guidance of a replay that there is not": ["method=naive", "solver.guidance=missing"],
    "a schedule as it is": ["model.terminal_alpha_bar=null"],
    "a process as it is": ["model.process=ddpm"],
    "an optimizer that is kept": ["generator.reset_optimizer=false"],
    "one prediction at a sample": ["method.unconditional_weight=null"],
    "images that nobody makes": ["method=solver_naive", "evaluation.images=90"],
}

LABELLED = ("model.conditional=true", "solver.replay_labels=condition")
USELESS = {
    "a temperature of labels that are not soft": (LABELLED, "solver.temperature=3"),
    "steps ahead of a pool": (("solver.pool_size=70",), "solver.look_ahead=2"),
}
"""A setting that does nothing beside others, and these."""

OTHER = {
    "a seed": ["seed=1"],
    "a labeller": ["evaluation.labeller=resnet18"],
    "an eta": ["method.teacher_eta=0.5"],
    "constant weights": ["method.weighting=constant"],
    "both predictions": ["model.conditional=true", "method.unconditional_weight=0"],
    "guidance": ["method=guide_distillation", "method.guidance_scale=2"],
    "a pool of each class": ["model.conditional=true", "method.pool_per_class=9"],
    "classes in their own order": ["benchmark.shuffle=false"],
    "images that are padded": ["+benchmark.options.fit=pad"],
    "a lowest timestep": ["method.replay_start_timestep=5"],
    "a solver taught on samples only": ["solver.samples_only_from=0"],
    "a solver that guides its replay": ["solver.guidance=missing"],
    "increasing replay": ["method.increasing_replay_size=true"],
    "an eta of the solver's replay": ["solver.replay_eta=0.5"],
    "increasing replay of the solver": ["solver.increasing_replay_size=true"],
    "a terminal alpha_bar": ["model.terminal_alpha_bar=1e-8"],
    "a process": ["model.process=flow"],
    "a new optimizer state": ["generator.reset_optimizer=true"],
    "a new optimizer state of the solver": ["solver.reset_optimizer=true"],
    "an architecture": ["solver.architecture=mlp"],
    "epochs": ["generator.steps=null", "generator.epochs=2"],
    "epochs of the solver": ["solver.steps=null", "solver.epochs=2"],
    "steps": ["generator.steps=3"],
    "a weight": ["method.lambd=2"],
    "a look-ahead": ["method.look_ahead=2"],
    "a look-ahead of the solver": ["solver.look_ahead=2"],
    "sampling steps": ["evaluation.steps=3"],
    "other features": ["evaluation.features=resnet18"],
    "a measure": ["evaluation.measures=[kid]", "evaluation.images=100"],
    "a number of images": ["evaluation.images=71"],
    "an option of the benchmark": ["+benchmark.options.other=1"],
    "an empty list": ["+benchmark.options.other=[]"],
    "an empty dictionary": ["+benchmark.options.other={}"],
    "a condition": ["model.conditional=true"],
    "a pool": ["solver.pool_size=70"],
    "a precision": ["model.precision=bfloat16"],
    "a decay": ["generator.decay_steps=1"],
    "a method without its solver": ["method=naive", "+method.solver=false"],
    "an average": ["generator.ema_decay=0.9"],
    "a temperature": ["solver.temperature=3"],
}


composed = cache(small_config)


def digest(*overrides):
    return composed("runs", *overrides).folder.name


def reported(*overrides):
    """What a report tells the run from others by."""
    run = RunResult(Path(), asdict(composed("runs", *overrides)), {}, [])
    return {"seed": run.seed} | deciding(run)


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_decide_the_result_is_not_in_the_name(name):
    method = [word for word in SAME[name] if word.startswith("method=")]
    assert digest(*SAME[name]) == digest(*method)
    assert reported(*SAME[name]) == reported(*method)


@pytest.mark.parametrize("name", USELESS)
def test_what_does_nothing_beside_other_settings_is_not_in_the_name(name):
    beside, useless = USELESS[name]
    assert digest(*beside, useless) == digest(*beside)
    assert reported(*beside, useless) == reported(*beside)


def test_the_order_in_which_measures_are_given_changes_nothing():
    orders = ("afid,transfer", "transfer,afid")
    configs = [small_config("runs", f"evaluation.measures=[{order}]") for order in orders]
    assert configs[0] == configs[1] and configs[0].folder.name != digest()


@pytest.mark.parametrize("name", OTHER)
def test_what_decides_the_result_is_in_the_name(name):
    assert digest(*OTHER[name]) != digest()
    assert reported(*OTHER[name]) != reported()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("naive", "seed-0-8e33387c"),
        ("generative_replay", "seed-0-a6043528"),
        ("generative_distillation", "seed-0-4da3d38b"),
        ("gaussian_distillation", "seed-0-c4d4bd38"),
        ("solver_naive", "seed-0-129c91d6"),
        (f"generative_distillation {' '.join(LABELLED)}", "seed-0-6144ab8c"),
    ],
)
def test_runs_of_earlier_versions_are_found(settings, name):
    assert compose_config(f"method={settings}".split()).folder.name == name


def test_a_setting_of_a_later_version_changes_no_name(monkeypatch):
    config = small_config("runs")
    before = identity.run_digest(config)

    @dataclass
    class Later(EvaluationConfig):
        shuffled: bool = False

    def later(shuffled):
        old = config.evaluation
        return replace(
            config,
            evaluation=Later(old.images, old.steps, old.batch_size, shuffled=shuffled),
        )

    assert identity.run_digest(later(False)) == before != identity.run_digest(later(True))


def test_the_place_of_a_labellers_weights_is_not_in_the_name():
    labeller = "evaluation.labeller=resnet18"
    assert digest(labeller, "evaluation.labeller_weights=x.pth") == digest(labeller)


def test_the_home_folder_is_found():
    folder = replace(small_config("runs"), out="~/runs").folder
    assert folder.is_absolute() and "~" not in str(folder)


def test_a_class_of_the_users_may_have_an_option_that_is_off_in_ours():
    section = "method.plugins.0"
    for owner, own in (("benchmark", "benchmark.options"), (section, section)):
        for option, off in identity._OFF.items():
            given = {f"{own}.{option}": off}
            ours = {f"{owner}._target_": "avalanche_gd.Thing"}
            theirs = {f"{owner}._target_": "my_module.Thing"}
            assert only_deciding({**ours, **given}) == ours
            assert only_deciding({**theirs, **given}) == {**theirs, **given}


@pytest.mark.parametrize(
    ("owner", "section"),
    [
        ("model", "model.options"),
        ("model", "model.options.config"),
        ("method.plugins.0", "method.plugins.0.config"),
        ("benchmark", "benchmark.options.data"),
    ],
)
def test_an_option_within_what_a_class_of_the_users_takes_is_in_the_name(owner, section):
    for option, off in identity._OFF.items():
        given = {f"{owner}._target_": "my_module.Thing", f"{section}.{option}": off}
        assert only_deciding(given) == given
