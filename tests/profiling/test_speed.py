import csv
import dataclasses
import json
from collections import Counter
from functools import partial

import pytest
import torch
from avalanche.core import SupervisedPlugin
from PIL import Image

from avalanche_gd import DiffusionModel
from avalanche_gd.profiling import measure, speed_command
from avalanche_gd.profiling.bare_passes import BarePasses
from avalanche_gd.profiling.measure import measure_steps
from avalanche_gd.profiling.speed_command import main
from avalanche_gd.profiling.timing_table import Measurement, as_csv, as_table, measured
from avalanche_gd.runs.composition import compose_config, method_names
from avalanche_gd.runs.passes import images_passed
from tests.helpers.bits import same_bits, weights
from tests.helpers.own_denoisers import OWN
from tests.helpers.small_models import images


def config(*overrides):
    few = ["evaluation.images=20", "evaluation.batch_size=20", "threads=1"]
    return compose_config([*few, *overrides])


@pytest.fixture
def model():
    return DiffusionModel.from_preset("digits")


def test_bare_passes_run_the_denoiser_as_often_and_leave_the_model_alone(model):
    before = weights(model.denoiser)
    calls, backward, trained = [], [], []

    def note(module, args, output):
        calls.append(len(args[0]))
        if torch.is_grad_enabled():
            output.sample.register_hook(lambda _: backward.append(len(args[0])))
            trained.append(module)

    model.denoiser.register_forward_hook(note)  # and so on its copies
    bare = BarePasses(model, 1e-3)
    assert bare.seconds(Counter({(4, 1): 1, (2, 0): 2, (5, 2): 1})) > 0
    assert calls == [4, 2, 2, 5]
    assert sorted(backward) == [4, 5, 5]
    assert all(parameter.grad is not None for parameter in trained[0].parameters())
    assert same_bits(weights(model.denoiser), before)
    assert not same_bits(weights(trained[0]), before)


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
    (row,) = measure_steps(config(f"method={method}", "generator.batch_size=8"), 2)
    assert (row.part, row.name, row.at, row.cost) == ("step", method, 8, cost)
    assert row.ms >= row.ms_low > 0 and row.passes_high >= row.passes_ms > 0
    assert row.separate_high >= row.separate_ms > 0
    assert row.images_per_second == pytest.approx(8000 / row.ms)


class Teaching(SupervisedPlugin):
    """Of a teacher that samples for several steps at once, and a student that is taught.

    Asked for passes apart, it has the student pass the samples alone.
    """

    look_ahead = 4

    def before_backward(self, strategy, **kwargs):
        batch, x_t = len(strategy.mb_x), images(len(strategy.mb_x) * self.look_ahead)
        with torch.no_grad():
            if strategy.clock.train_exp_iterations % self.look_ahead == 0:
                strategy.model.denoise(x_t, torch.zeros(len(x_t)).long())
        if not getattr(strategy.model, "one_pass", True):
            prediction = strategy.model.denoise(x_t[:batch], torch.zeros(batch).long())
            strategy.loss = strategy.loss + prediction.square().mean()


@pytest.mark.parametrize("repeats", [1, 6])
def test_a_step_of_a_teacher_that_looks_ahead_is_a_mean_of_all_that_it_does(
    monkeypatch, repeats
):
    passed = [0]  # images through the denoiser, for which the clock takes a second each
    denoise = DiffusionModel.denoise

    def counted(self, x_t, *args):
        passed[0] += len(x_t)
        return denoise(self, x_t, *args)

    monkeypatch.setattr(DiffusionModel, "denoise", counted)
    monkeypatch.setattr(measure, "clock", lambda device: passed[0])
    monkeypatch.setattr(BarePasses, "seconds", lambda self, passes: images_passed(passes))
    plugin = f"method.plugins=[{{_target_: {__name__}.Teaching}}]"
    (row,) = measure_steps(
        config("method=naive", plugin, "generator.batch_size=8"), repeats
    )
    assert row.cost == 3 + 1
    assert row.ms_low == row.ms == row.ms_high == 8 * (1 + 1) * 1000
    assert row.passes_ms == 8 * (3 + 1) * 1000
    assert row.separate_ms == 8 * (3 + 1 + 3) * 1000
    assert row.gain == pytest.approx(2 / 7)


def test_a_row_for_each_experience_and_memory_that_does_not_grow_with_them():
    few = config("method=generative_distillation", "generator.batch_size=8", *OWN)
    first, fifth, last = measure_steps(few, 1, part="growth", experiences=(1, 5, 50))
    assert [(row.part, row.at) for row in (first, fifth, last)] == [
        ("growth", 1), ("growth", 5), ("growth", 50)
    ]  # fmt: skip
    assert (first.cost, fifth.cost, last.cost) == (3, 9, 9)
    assert last.memory_mb < 1.05 * fifth.memory_mb


def test_a_row_has_medians_quartiles_and_their_ratio():
    times = [0.001, 0.003, 0.002], [0.001, 0.001, 0.001], [0.004, 0.004, 0.005]
    row = measured("step", "naive", 8, *times, images=8)
    assert (row.ms_low, row.ms, row.ms_high) == pytest.approx((1.5, 2.0, 2.5))
    assert (row.ratio, row.gain) == pytest.approx((2.0, 0.5))
    assert (row.separate_low, row.separate_high) == pytest.approx((4, 4.5))
    assert row.images_per_second == pytest.approx(4000)
    assert measured("evaluation", "FID", 8, [0.5]).ratio is None


def test_the_csv_holds_every_field_the_ratio_and_the_gain():
    row = Measurement(
        "step", "naive", 8, 2.0, 1.5, 2.5, passes_ms=1.0, separate_ms=4.0, cost=3
    )
    (read,) = csv.DictReader(as_csv([row]).splitlines())
    assert set(read) == {f.name for f in dataclasses.fields(row)} | {"ratio", "gain"}
    assert (read["name"], read["ratio"], read["gain"]) == ("naive", "2", "0.5")
    assert read["memory_mb"] == ""
    assert {"naive", "2.000", "0.500"} <= set(as_table([row]).split())


@pytest.fixture
def command(call):
    """Call the command on one thread."""

    def on_one_thread(*arguments):
        return call(partial(main, "A test."), "--threads=1", *arguments)

    return on_one_thread


def test_the_command_measures_and_writes(command, tmp_path):
    out = tmp_path / "speed"
    small = "--preset=digits", "--methods=naive", "--batch-size=8", "--repeats=1"
    status, output, errors = command(*small, "--no-growth", f"--out={out}")
    assert status == 0, errors
    rows = list(csv.DictReader((out / "speed.csv").read_text().splitlines()))
    parts = [row["part"] for row in rows]
    assert parts == ["step"] + ["sampling"] * 4 + ["evaluation"] * 4
    machine = json.loads((out / "speed.json").read_text())
    assert machine["matrix_product_GFLOPs"] > 0 and machine["denoiser_GFLOPs"] > 0
    assert machine["machine"]["threads"] == 1 and machine["preset"] == "digits"
    assert (out / "speed.png").stat().st_size > 10_000
    assert "images_per_second" in output


def test_a_step_of_each_method_of_a_diffusion_model_is_measured(
    command, tmp_path, monkeypatch
):
    found = []
    monkeypatch.setattr(
        speed_command,
        "measure_steps",
        lambda config, *_: (
            found.append(config.method.name)
            or [measured("step", config.method.name, 64, [0.2], [0.1], [0.3])]
        ),
    )
    monkeypatch.setattr(speed_command, "measure_sampling", lambda *_: [])
    monkeypatch.setattr(speed_command, "measure_evaluation", lambda *_: [])
    status, _, errors = command("--preset=digits", "--no-growth", f"--out={tmp_path}")
    assert status == 0, errors
    others = {"vae_replay", *(name for name in method_names() if name[:7] == "solver_")}
    assert set(found) == set(method_names()) - others


def test_growth_is_measured_by_batch_by_preset_and_by_experience(
    command, tmp_path, monkeypatch
):
    def steps(config, repeats, *, part="step", experiences=()):
        shown = experiences or (config.generator.batch_size,)
        return [measured(part, "naive", n, [0.2], [0.1], [0.3]) for n in shown]

    monkeypatch.setattr(speed_command, "measure_steps", steps)
    monkeypatch.setattr(speed_command, "measure_sampling", lambda *_: [])
    monkeypatch.setattr(speed_command, "measure_evaluation", lambda *_: [])
    command("--methods=naive", f"--out={tmp_path}")
    rows = list(csv.DictReader((tmp_path / "speed.csv").read_text().splitlines()))
    found = [(row["part"], row["name"], float(row["at"])) for row in rows]
    by_model = [(name, at) for part, name, at in found if part == "step by model"]
    assert by_model == [
        ("digits", 160), ("fmnist-small", 687), ("fmnist-fast", 620), ("cifar-small", 687)
    ]  # fmt: skip
    assert [at for part, _, at in found if part == "step by batch"] == [16, 64, 256]
    experiences = [at for part, _, at in found if part == "step by experience"]
    assert experiences == [1, 2, 5, 10, 20, 50]
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
def test_a_wrong_argument_ends_with_one_line(command, tmp_path, arguments, message):
    status, _, errors = command(*arguments, f"--out={tmp_path / 'out'}")
    assert status == 2 and message in errors
    assert errors.count("\n") == 1, errors
    assert not (tmp_path / "out").exists()


def test_a_measurement_is_not_written_over_another(command, tmp_path):
    (tmp_path / "speed.json").write_text("{}")
    status, _, errors = command("--preset=digits", f"--out={tmp_path}")
    assert status != 0
    assert errors.count("\n") == 1 and "has another measurement; choose a folder" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
