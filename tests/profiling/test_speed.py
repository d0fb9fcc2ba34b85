import csv
import dataclasses
import json
import sys
from functools import partial

import pytest
import torch
from PIL import Image

from avalanche_gd import DiffusionModel
from avalanche_gd.profiling import app
from avalanche_gd.profiling.bare_passes import BarePasses, Pass, PassLog
from avalanche_gd.profiling.measure import measure_experiences, measure_step
from avalanche_gd.profiling.speed_command import main
from avalanche_gd.profiling.timing_table import Measurement, as_csv, as_table, measured
from avalanche_gd.runs.composition import compose_config


def config(*overrides):
    few = ["evaluation.images=20", "evaluation.batch_size=20", "threads=1"]
    return compose_config([*few, *overrides])


@pytest.fixture
def model():
    return DiffusionModel.from_preset("digits")


def test_passes_are_noted_with_their_size_and_the_backward_passes_that_follow(model):
    log = PassLog(model)
    loss = model(torch.zeros(5, 1, 8, 8)).prediction.square().mean()
    model.generate(3, steps=2)
    torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    loss.backward()
    model(torch.zeros(4, 1, 8, 8))
    passes = log.take()
    assert passes == [Pass(5, backward=2), Pass(3), Pass(3), Pass(4)]
    assert [a_pass.cost for a_pass in passes] == [5 * (1 + 2 + 2), 3, 3, 4]
    assert log.take() == []


def test_bare_passes_run_the_denoiser_as_often_and_leave_the_model_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bare = BarePasses(model, 1e-3)
    calls, backward = [], []

    def note(module, args, output):
        calls.append(len(args[0]))
        if torch.is_grad_enabled():
            output.sample.register_hook(lambda _: backward.append(len(args[0])))

    bare._student.register_forward_hook(note)
    bare._teacher.register_forward_hook(note)
    assert bare.seconds([Pass(4, 1), Pass(2), Pass(5, 2)]) > 0
    assert calls == [4, 2, 5]
    assert sorted(backward) == [4, 5, 5]
    assert all(parameter.grad is not None for parameter in bare._student.parameters())
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    trained = bare._student.state_dict()
    assert any(
        not torch.equal(trained[n], v) for n, v in model.denoiser.state_dict().items()
    )


@pytest.mark.parametrize(
    ("method", "cost"),
    [
        ("naive", 3),
        ("generative_replay", 8),
        ("generative_distillation", 9),
        ("rwalk", 6),  # which needs more steps than are measured
        ("mir", 5 + 2 * 200 / 8 + 3),  # a second backward pass, the memory twice, replay
    ],
)
def test_a_step_is_measured_beside_its_own_passes(method, cost):
    row = measure_step(config(f"method={method}", "generator.batch_size=8"), 2)
    assert (row.name, row.at, row.cost) == (method, 8, cost)
    assert row.ms >= row.ms_low > 0 and row.passes_high >= row.passes_ms > 0
    assert row.images_per_second == pytest.approx(8000 / row.ms)


def test_memory_does_not_grow_with_the_number_of_experiences():
    few = config("method=generative_distillation", "generator.batch_size=8")
    fifth, last = measure_experiences(few, 1, (5, 50))
    assert (fifth.at, last.at) == (5, 50)
    assert last.memory_mb < 1.05 * fifth.memory_mb


def test_a_row_has_medians_quartiles_and_their_ratio():
    row = measured("step", "naive", 8, [0.001, 0.003, 0.002], [0.001, 0.001, 0.001])
    assert (row.ms_low, row.ms, row.ms_high) == pytest.approx((1.5, 2.0, 2.5))
    assert row.ratio == pytest.approx(2.0)
    assert measured("evaluation", "FID", 8, [0.5]).ratio is None


def test_the_csv_holds_every_field_and_the_ratio():
    row = Measurement("step", "naive", 8, 2.0, 1.5, 2.5, passes_ms=1.0, cost=3)
    (read,) = csv.DictReader(as_csv([row]).splitlines())
    assert set(read) == {f.name for f in dataclasses.fields(row)} | {"ratio"}
    assert (read["name"], read["ratio"], read["memory_mb"]) == ("naive", "2", "")
    assert "naive" in as_table([row]) and "2.000" in as_table([row])


def test_the_command_measures_and_writes(tmp_path, capsys):
    out = tmp_path / "speed"
    main(
        "A test.",
        ["--preset=digits", "--methods=naive", "--batch-size=8", "--repeats=1",
         "--threads=1", "--no-growth", f"--out={out}"],
    )  # fmt: skip
    rows = list(csv.DictReader((out / "speed.csv").read_text().splitlines()))
    parts = [row["part"] for row in rows]
    assert parts == ["step"] + ["sampling"] * 4 + ["evaluation"] * 4
    machine = json.loads((out / "speed.json").read_text())
    assert machine["matrix_product_GFLOPs"] > 0 and machine["denoiser_GFLOPs"] > 0
    assert machine["machine"]["threads"] == 1 and machine["preset"] == "digits"
    assert (out / "speed.png").stat().st_size > 10_000
    assert "images/s" in capsys.readouterr().out


def test_growth_is_measured_by_batch_by_preset_and_by_experience(tmp_path, monkeypatch):
    def step(config, repeats, *, part="step", at=None):
        at = config.generator.batch_size if at is None else at
        return measured(part, config.method.name, at, [0.2], [0.1])

    few = partial(measured, seconds=[0.2], passes=[0.1])
    experiences = [few("step by experience", "generative_distillation", n) for n in (1, 2)]
    monkeypatch.setattr(app, "measure_step", step)
    monkeypatch.setattr(app, "measure_sampling", lambda *_: [])
    monkeypatch.setattr(app, "measure_evaluation", lambda *_: [])
    monkeypatch.setattr(app, "measure_experiences", lambda *_: experiences)
    main("A test.", ["--methods=naive", "--threads=1", f"--out={tmp_path}"])
    rows = list(csv.DictReader((tmp_path / "speed.csv").read_text().splitlines()))
    found = [(row["part"], row["name"], float(row["at"])) for row in rows]
    by_model = [(name, at) for part, name, at in found if part == "step by model"]
    assert by_model == [
        ("digits", 160), ("fmnist-small", 687), ("fmnist-fast", 620), ("cifar-small", 687)
    ]  # fmt: skip
    assert [at for part, _, at in found if part == "step by batch"] == [16, 64, 256]
    width, _ = Image.open(tmp_path / "speed.png").size
    assert width == 120 * (3 + 3 * 4)  # a plot of each part


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats=0"], "--repeats must be 1 or more, got 0"),
        (["--methods=vae_replay"], "vae_replay trains no diffusion model to measure"),
        (["--methods=magic"], "no method 'magic'"),
        (["--batch-size=0"], "generator.batch_size must be 1 or more, got 0"),
        (["--device=cuda:99"], "cuda"),
    ],
)
def test_a_wrong_argument_ends_with_one_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main("A test.", [*arguments, f"--out={tmp_path / 'out'}"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, (error, sys.argv)
    assert not (tmp_path / "out").exists()
