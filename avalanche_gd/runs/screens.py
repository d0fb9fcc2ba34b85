"""What ``avalanche-gd`` prints instead of a run: lists, ``--help`` and ``--help-all``."""

import io
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from importlib.resources import files
from pathlib import Path
from textwrap import fill

from hydra.core.hydra_config import HydraConfig

from avalanche_gd.runs.choices import LISTS, Choice, choices, named_lines
from avalanche_gd.runs.provenance import package_version

_WIDTH = 100  # columns
_NOT_SET = re.compile(r"\.(name|_target_)$|plugins\.")
"""Settings of a choice that users do not change."""

_HELP = """\
Trains a diffusion model, and a classifier with it, on a stream of experiences, by a method
of continual learning. Evaluates both after each experience. The result is a folder. The
same command again continues an interrupted run.

  avalanche-gd [KEY=VALUE ...] [--check] [-m]
  avalanche-gd methods | benchmarks | presets     list what you can choose

  method=NAME       the method of continual learning (default: generative_distillation)
  benchmark=NAME    the images and their experiences (default: split_digits)
  model=NAME        the preset of the denoiser (default: depends on the benchmark)
  seed=N            decides class order, initial weights and all randomness (default: 0)
  KEY=VALUE         another setting, such as generator.steps=400 or out=FOLDER
  --check           only take a few steps, evaluate, and estimate the time
  -m                a sweep: one run for each combination of VALUE,VALUE,...; then a report
  --cfg job         print the settings, and run nothing

Examples:

  avalanche-gd method=naive seed=1
  avalanche-gd benchmark=split_fmnist method=generative_replay --check
  avalanche-gd -m method=generative_replay,generative_distillation seed=0,1,2

More help:

  avalanche-gd method=NAME --help       explains a method and its settings
  avalanche-gd KEY=VALUE --help-all     all settings with their values, and all choices
  avalanche-gd --hydra-help             flags of Hydra, such as --shell-completion
  avalanche-gd-report FOLDER            tables, figures and a page on all runs in a folder
  avalanche-gd-evaluate FOLDER          compares samplers and steps for a saved model"""


def screen(arguments: Sequence[str], run_hydra: Callable[[], object]) -> str | None:
    """The text to print instead of a run; None if the arguments ask for a run.

    :param arguments: flags, each with its value, before settings.
    :param run_hydra: runs Hydra with the arguments in ``sys.argv``.
    :raises ValueError: for a list with other arguments, or an unknown choice.
    """
    if wanted := next((name for name in LISTS if name in arguments), None):
        if len(arguments) > 1:
            raise ValueError(f"{wanted} prints a list; remove all other arguments")
        return LISTS[wanted]()
    if "--version" in arguments:
        packages = ("avalanche-gd", "avalanche-lib", "diffusers", "hydra-core", "torch")
        return ", ".join(f"{p} {package_version(p) or 'not installed'}" for p in packages)
    flags = ("--config-dir=", "-cd=")
    more = [Path(a.partition("=")[2]) for a in arguments if a.startswith(flags)]
    if "--help-all" in arguments:
        return _all_settings(arguments, more, run_hydra)
    if not {"--help", "-h"} & set(arguments):
        return None
    given = dict(
        a.split("=", 1) for a in arguments if a.startswith(("method=", "benchmark="))
    )
    return "\n\n".join(_of_choice(*one, more) for one in given.items()) or _HELP


def _of_choice(group: str, name: str, more: Sequence[Path]) -> str:
    """A choice and its settings, each with what it means."""
    known = choices(group, more)
    if name not in known:
        raise ValueError(f"no {group} {name!r}; choose from {', '.join(sorted(known))}")
    choice = known[name]
    comments = choice.comments()
    rows = []
    for line, setting in named_lines(choice.text, choice.section):
        value = line.partition("#")[0].partition(":")[2].strip()
        if value and setting.startswith(f"{group}.") and not _NOT_SET.search(setting):
            rows.append((f"  {setting}={value}", comments.get(setting, "")))
    width = max((len(setting) for setting, _ in rows), default=0) + 2
    indent = " " * width
    lines = [
        fill(setting.ljust(width) + comment, _WIDTH, subsequent_indent=indent)
        for setting, comment in rows
    ]
    own = ["Its own settings, with their default values:", "", *lines, ""] if lines else []
    everything = f"All settings: avalanche-gd {group}={name} --help-all"
    return "\n".join(
        [fill(f"{group}={name}: {choice.about}", _WIDTH), "", *own, everything]
    )


def _all_settings(
    arguments: Sequence[str], more: Sequence[Path], run_hydra: Callable[[], object]
) -> str:
    """Hydra's own help, with the comments of ``conf/`` after the settings."""
    given = [argument for argument in arguments if argument != "--help-all"]
    sys.argv = [sys.argv[0], "--help", *given]
    with redirect_stdout(io.StringIO()) as said, suppress(SystemExit):
        run_hydra()
    comments = Choice(files("avalanche_gd.conf") / "config.yaml", "").comments()
    for key, name in HydraConfig.get().runtime.choices.items():
        chosen = choices(key.partition("@")[0], more).get(str(name))
        comments |= chosen.comments() if chosen else {}
    head, _, config = said.getvalue().rstrip().partition("== Config ==")
    lines = [
        f"{line}  # {comments[name]}" if comments.get(name) else line
        for line, name in named_lines(config)
    ]
    return "\n".join([f"{head}== Config ==", *lines[1:]])
