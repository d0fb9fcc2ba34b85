"""The guides: each addition, as it stands there, is run."""

import csv
import re
import runpy
import sys
from functools import partial

import pytest
import torch

from avalanche_gd import (
    DiffusionModel,
    GenerativeDistillationPlugin,
    Sampling,
    ddim_scheduler,
)
from avalanche_gd.evaluation import evaluate_command
from avalanche_gd.evaluation.subjects import Subject
from avalanche_gd.runs import columns
from avalanche_gd.runs.run_command import main
from tests.helpers.guides import GUIDES, files_of, forget_modules, write_files
from tests.helpers.lessons import note_losses
from tests.helpers.small_runs import SMALL
from tests.helpers.small_streams import strategy_with
from tests.helpers.small_trainings import train_generator

pytestmark = pytest.mark.usefixtures("sketched")

PAGE = "\n".join(path.read_text() for path in sorted(GUIDES.glob("your_*.md")))
COMMANDS = re.findall(r"^    avalanche-gd (--config-dir .*)$", PAGE, re.MULTILINE)
(EVALUATED,) = re.findall(r"`avalanche-gd-evaluate RUN '(.*)'`", PAGE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files of the guides, in a folder that Python and the command are called from."""
    write_files(PAGE, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    appended = len(columns.METRICS)
    yield tmp_path
    del columns.METRICS[appended:]
    forget_modules()


@pytest.fixture
def command(folder, call):
    """Call the command with the settings of a small run."""

    def of_a_small_run(*arguments):
        flags = [part for part in arguments if part.startswith("-") or part == "conf"]
        rest = [part for part in arguments if part not in flags]
        return call(main, *flags, *SMALL, *rest)

    return of_a_small_run


def test_the_guides_have_a_file_of_each_addition():
    assert set(files_of(PAGE)) == {
        "my_source.py",
        "conf/method/blend_distillation.yaml",
        "my_metric.py",
        "my_column.py",
        "my_benchmark.py",
        "conf/benchmark/split_stripes.yaml",
        "my_denoiser.py",
        "conf/model/mine.yaml",
    }
    assert len(COMMANDS) == 3


def outside(folder, monkeypatch):
    """Make Python find modules as an installed script does."""
    found = [part for part in sys.path if part not in ("", str(folder))]
    monkeypatch.setattr(sys, "path", found)
    forget_modules()


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_guides_run(folder, command, line, monkeypatch):
    outside(folder, monkeypatch)
    status, _, errors = command(*line.split(), "benchmark.n_experiences=2")
    assert status == 0, errors
    (written,) = folder.rglob("metrics.csv")
    rows = list(csv.DictReader(written.read_text().splitlines()))
    assert {row["experience"] for row in rows} == {"0", "1"}
    named = re.findall(r"=(\w+)", line)[-1]
    assert named == "mine" or named in str(written)
    outside(folder, monkeypatch)
    if "model=mine" not in line:
        own = [EVALUATED] if "benchmark" in line else []
        few = ["--steps", "1", "--images", "70"]
        evaluate_command.main([str(written.parent), *own, *few])
        assert (folder / "evaluation" / "evaluation.csv").is_file()
        return
    with pytest.raises(ValueError, match=r"has a denoiser of your own, my_denoiser\.Den"):
        Subject.of(str(written.parent))


def test_a_source_teaches(folder, digits):
    from my_source import Blend

    plugin = GenerativeDistillationPlugin(source=Blend(), pool_size=20)
    losses = note_losses(plugin)
    train_generator(DiffusionModel.from_preset("digits"), digits.train_stream[:2], plugin)
    assert losses[0].item() < 1e-12 < losses[-1].item()


def test_a_metric_with_its_line_is_in_the_tables(folder, call):
    (line,) = re.findall(r"^    python my_column.py (.*)$", PAGE, re.MULTILINE)
    script = partial(runpy.run_path, "my_column.py", run_name="__main__")
    _, output, _ = call(script, *SMALL, *line.split(), "benchmark.n_experiences=1")
    assert "Contrast ↑" in output
    (table,) = folder.rglob("runs.csv")
    values = [
        float(row["contrast"]) for row in csv.DictReader(table.read_text().splitlines())
    ]
    assert len(values) == 2 and all(0 < value < 1 for value in values)
    assert list(folder.rglob("figures/*contrast*.svg"))


def test_two_metrics_of_one_name_are_refused_and_values_need_names(folder, digits):
    from my_metric import Contrast, contrast_metrics

    model, first = DiffusionModel.from_preset("digits"), digits.train_stream[0]
    twice = strategy_with(contrast_metrics(), contrast_metrics(), model=model)
    with pytest.raises(ValueError, match="two metrics would be logged as Contrast_Stream"):
        twice.train(first, eval_streams=[])
    nameless = Contrast(Sampling(images=2, steps=1))
    nameless.compute = lambda strategy, experiences: 0.5
    strategy = strategy_with(nameless, model=model)
    strategy.train(first, eval_streams=[])
    with pytest.raises(TypeError, match=r"Contrast.compute must return values by name"):
        strategy.eval(digits.test_stream)


def test_a_denoiser_denoises(folder):
    from my_denoiser import Denoiser

    model = DiffusionModel(Denoiser(16), ddim_scheduler(), sample_shape=(1, 8, 8))
    assert model(torch.zeros(2, 1, 8, 8)).prediction.shape == (2, 1, 8, 8)
