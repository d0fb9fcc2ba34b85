"""What the command shows in place of a run: help, lists, and completion."""

import os
import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from avalanche_gd.models import DiffusionModel
from avalanche_gd.models.unet import PRESETS
from avalanche_gd.runs.choices import Choice, choices, named_lines
from avalanche_gd.runs.composition import compose_config, method_names
from avalanche_gd.runs.run_command import main
from tests.helpers.repository import METHODS_PAGE, ROOT

GROUPS = {"methods": "method", "benchmarks": "benchmark", "presets": "model"}


@pytest.fixture
def shown(call):
    """What the command says to arguments that ask for no run."""

    def output(*arguments):
        status, output, errors = call(main, *arguments)
        assert (status, errors) == (0, "")
        return output

    return output


def fits_a_screen(text):
    lines = text.splitlines()
    return len(lines) <= 40 and all(len(line) <= 100 for line in lines)


def files_of(group):
    return sorted(p.stem for p in (ROOT / "avalanche_gd/conf" / group).glob("*.yaml"))


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_fits_a_screen_and_says_where_to_go_on(shown, flag):
    text = shown(flag)
    assert fits_a_screen(text)
    for said in ("method=NAME", "benchmark=NAME", "model=NAME", "seed=N", "--check", "-m "):
        assert said in text
    for further in ("--cfg job", "--help-all", "methods | benchmarks | presets"):
        assert further in text


def test_the_examples_of_the_help_compose_and_its_defaults_are_those(shown):
    text = shown("--help")
    examples = text.split("Examples:")[1].split("More help:")[0].split("avalanche-gd ")[1:]
    assert len(examples) == 3
    for example in examples:
        own = [part.partition(",")[0] for part in example.split() if "=" in part]
        assert compose_config(own)
    composed = OmegaConf.create(shown("--cfg", "job"))
    defaults = dict(re.findall(r"^  (\w+)=N\w* .*\(default: (\w+)\)$", text, re.MULTILINE))
    assert defaults == {
        "method": composed.method.name,
        "benchmark": composed.benchmark.name,
        "seed": str(composed.seed),
    }


def test_the_version_is_that_of_the_package_and_what_it_stands_on(shown):
    text = shown("--version")
    assert re.match(r"avalanche-gd (\d+\.\d+|not installed)", text)
    assert re.search(r", torch \d+\.\d+", text) and "hydra-core 1." in text


@pytest.mark.parametrize("name", files_of("method"))
def test_help_on_a_method_has_each_of_its_settings_with_a_comment(shown, name):
    text = shown(f"method={name}", "--help")
    assert fits_a_screen(text)
    plain = " ".join(text.split())
    choice = choices("method")[name]
    assert plain.startswith(f"method={name}: {choice.about} ")
    settings = set(choice.content) - {"name", "plugins", "solver_plugins"}
    assert set(re.findall(r"^  method\.(\w+)=", text, re.MULTILINE)) == settings
    for setting in settings:
        comment = choice.comments()[f"method.{setting}"]
        assert re.search(rf"method\.{setting}=\S+ {re.escape(comment)}", plain)


def test_help_on_a_benchmark_and_on_both(shown):
    text = shown("--help", "benchmark=image_folder", "method=naive")
    assert "benchmark.options.root=???" in text and "method=naive: Finetuning" in text


def test_help_knows_choices_of_ones_own(shown, tmp_path):
    (tmp_path / "own" / "method").mkdir(parents=True)
    text = "# Mine.\nname: mine\nlambd: 2.0   # its weight\n"
    (tmp_path / "own" / "method" / "mine.yaml").write_text(text)
    for flag in ("--help", "--help-all"):
        text = shown("--config-dir", "own", "method=mine", flag)
        assert re.search(r"lambd[=:] ?2.0  (# )?its weight", text)


def test_all_help_is_hydras_with_the_comments(shown):
    text = shown("method=ewc", "--help-all", "generator.steps=7")
    for group in ("benchmark", "experiment", "method", "model", "protocol"):
        names = ", ".join(files_of(group))
        assert f"\n{group}: {names}\n" in text
    config = text.split("(foo.bar=value)")[1].split("Powered")[0]
    assert OmegaConf.create(config) == OmegaConf.create(
        shown("method=ewc", "--cfg", "job", "generator.steps=7")
    )
    said = dict(named_lines(config))
    assert "  steps: 7  # or null, and epochs" in said
    assert "  lambd: 10000.0  # lambda, the weight of the penalty" in said
    comments = Choice(ROOT / "avalanche_gd/conf/config.yaml", "").comments()
    for line, name in said.items():
        if name in comments and name != "method.plugins":
            assert line.endswith(f"  # {comments[name]}")


@pytest.mark.parametrize("listed", GROUPS)
def test_each_choice_is_listed_once_with_a_sentence(shown, listed):
    lines = [line.split() for line in shown(listed).splitlines() if line.startswith("  ")]
    names = [line[0] for line in lines if "=NAME" not in line[0]]
    assert sorted(names) == files_of(GROUPS[listed])
    for choice in choices(GROUPS[listed]).values():
        assert re.fullmatch(r"[A-Za-z].{10,}\.", choice.sentence)
        (line,) = (line for line in lines if line[0] == choice.name)
        assert " ".join(line).endswith(choice.sentence)


def test_methods_say_their_cost_and_those_of_a_solver_alone_stand_apart(shown):
    generating, vae, alone = re.split("For a (?:VAE|solver) .*:\n", shown("methods"))
    costs = {line.split()[0]: line.split()[1] for line in generating.splitlines()[4:-1]}
    assert all(re.fullmatch(r"[\d.]+F", cost) for cost in costs.values())
    table = METHODS_PAGE.read_text().split("| cost of a step |")[1].split("\n\n")[0]
    known = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d.]+F)", table, re.MULTILINE))
    assert known == {name: cost for name, cost in costs.items() if name in known}
    assert len(known) > 25
    for text, generator in ((vae, "vae"), (alone, "none")):
        for line in text.split("\n\n")[0].strip().splitlines():
            assert choices("method")[line.split()[0]].content["generator"] == generator
    assert set(costs) | {"vae_replay"} >= {n for n in method_names() if "solver_" not in n}


def test_benchmarks_say_their_images_classes_and_experiences(shown):
    text = shown("benchmarks")
    assert re.search(r"^  split_digits +1x8x8 +10 +5 ", text, re.MULTILINE)
    assert re.search(r"^  image_folder +3x16x16 +yours +5 ", text, re.MULTILINE)


def test_presets_say_their_images_parameters_and_benchmarks(shown):
    text = shown("presets")
    assert sorted(PRESETS) == files_of("model")
    weights = DiffusionModel.from_preset("digits").denoiser.parameters()
    count = sum(weight.numel() for weight in weights)
    assert re.search(rf"^  digits +1x8x8 +{count:,} +split_digits +The", text, re.MULTILINE)
    assert re.search(
        r"^  paper-fmnist +1x32x32 +42,855,873 +paper_fmnist +As", text, re.MULTILINE
    )
    assert re.search(r"^  cifar-small .* image_folder, split_cifar10, ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["methods", "seed=1"], "methods prints a list; remove all other arguments"),
        (["method=magic", "--help"], "no method 'magic'; choose from agem, "),
        (["method=magic", "--help-all"], "no method 'magic'; choose from agem, "),
        (["--help-al"], "unknown flag --help-al; did you mean --help-all?"),
    ],
)
def test_a_wrong_question_is_answered_in_one_line(call, arguments, message):
    status, _, errors = call(main, *arguments)
    (line,) = errors.splitlines()
    assert status == 2 and message in line


COMPLETED = {
    "method=gen": ["method=generative_distillation", "method=generative_replay"],
    "benchmark=split_cifar1": ["benchmark=split_cifar10", "benchmark=split_cifar100"],
    "seed=1 evaluation.im": ["evaluation.images="],
}


@pytest.mark.parametrize("typed", COMPLETED)
def test_the_shell_completes(shown, monkeypatch, typed):
    monkeypatch.setenv("COMP_LINE", f"avalanche-gd {typed}")
    assert shown("-sc", "query=bash").split() == COMPLETED[typed]


def test_what_bash_is_given_completes(shown, tmp_path):
    script = shown("--shell-completion", "install=bash")
    command = tmp_path / "avalanche-gd"
    command.write_text(
        f"#!{sys.executable}\nfrom avalanche_gd.runs.run_command import main\nmain()\n"
    )
    command.chmod(0o755)
    line = "avalanche-gd method=gen"
    typed = f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_CWORD=1 hydra_bash_completion'
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f'{script}\n{typed}; echo "${{COMPREPLY[@]}}"'],
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == COMPLETED["method=gen"], done.stderr
