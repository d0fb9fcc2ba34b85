"""The command that evaluates saved models: its numbers, its files, and what it refuses."""

import csv
import json
import math
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from avalanche_gd import DiffusionModel, oracle_classifier
from avalanche_gd.data import stream_tensors
from avalanche_gd.evaluation import evaluate_command
from avalanche_gd.evaluation.evaluate_command import main
from avalanche_gd.evaluation.subjects import (
    _USED,
    _USED_OF_MODEL,
    Subject,
    compose_settings,
)
from avalanche_gd.models.sampler import SAMPLERS
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.evaluation_config import measure_names
from avalanche_gd.runs.model_config import ModelConfig
from avalanche_gd.runs.run import run
from tests.helpers.fake_data import folder_of_images
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import seeded
from tests.helpers.small_runs import metrics, small_config

QUICK = ("threads=1", "--steps", "2", "--images", "70")
OF_DIGITS = (*QUICK, "benchmark=split_digits")
BARE = ("plain", "conditioned", "new")
"""Models that do not say what they were trained on."""


def with_benchmark(*words):
    """The words, and a benchmark for a model that has none."""
    is_known = any(str(word).startswith("benchmark=") for word in words)
    is_bare = any(str(word).rpartition("/")[2] in BARE for word in words)
    return words if is_known or not is_bare else (*words, "benchmark=split_digits")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of saved models, and of a run."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    DiffusionModel.from_preset("digits").save_pretrained(folder / "plain")
    conditioned = DiffusionModel.from_preset(
        "digits", num_classes=10, condition_dropout=0.1
    )
    conditioned.classes_seen.fill_(True)
    conditioned.save_pretrained(folder / "conditioned")
    DiffusionModel.from_preset("digits", num_classes=10).save_pretrained(folder / "new")
    settings = ("method=naive", "seed=1", "benchmark.n_experiences=2")
    measured = "evaluation.measures=[afid,transfer]"
    run(small_config(folder, *settings, measured)).rename(folder / "run")
    unshuffled = small_config(folder, *settings, "benchmark.shuffle=false")
    run(unshuffled).rename(folder / "unshuffled")
    coarse = small_config(folder, *settings, "model.precision=bfloat16")
    run(coarse).rename(folder / "bfloat16")
    return folder


@pytest.fixture
def evaluated(call, models, tmp_path):
    """Evaluate quickly; gives the lines of the CSV."""

    def lines(name, *arguments, out="evaluation"):
        words = (*with_benchmark(models / name, *QUICK, *arguments), "--out", out)
        status, output, errors = call(main, *words)
        assert (status, errors) == (0, ""), errors
        assert str(models / name)[:20] in output and f"{out}/evaluation.csv" in output
        with open(tmp_path / out / "evaluation.csv", newline="") as file:
            return list(csv.DictReader(file))

    return lines


@pytest.mark.usefixtures("sketched")
def test_a_figure_that_fails_does_not_take_the_table_with_it(models, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no figure")

    monkeypatch.setattr(evaluate_command, "drawings", fail)
    with pytest.raises(RuntimeError, match="no figure"):
        main([str(models / "plain"), *OF_DIGITS, "--out", str(tmp_path / "out")])
    with open(tmp_path / "out" / "evaluation.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 1


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("name", ["run", "unshuffled", "bfloat16"])
def test_a_model_of_a_run_is_judged_as_in_the_run(evaluated, models, name):
    (line,) = evaluated(name)
    rows = csv.DictReader(metrics(models / name).splitlines())
    last = {row["metric"]: row["value"] for row in rows if row["experience"] == "1"}
    for metric in ("FID", "KLD", "ARD"):
        assert line[metric] == last[f"generator/{metric}_Stream/eval_phase/test_stream"]


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("name", ["plain", "bfloat16"])
def test_a_precision_that_is_given_is_used(evaluated, name):
    found = {
        given: evaluated(name, f"model.precision={given}", out=given)[0]["FID"]
        for given in ("float32", "bfloat16")
    }
    assert found["float32"] != found["bfloat16"]
    (line,) = evaluated(name)
    assert line["FID"] == found["float32" if name == "plain" else name]


@pytest.mark.parametrize(
    "setting",
    [
        *("generator.steps=5", "solver.steps=5", "method=joint", "model.conditional=true"),
        *("out=mine", "check=true", "evaluation.steps=5", "model.guidance=2"),
        *("model.process=flow", "model.terminal_alpha_bar=null", "+generator.steps=5"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(call, models, setting):
    status, output, errors = call(main, models / "plain", *OF_DIGITS, setting)
    assert (status, output) == (2, "") and errors.count("\n") == 1
    name = setting.partition("=")[0].lstrip("+")
    assert f"{name} changes no evaluation; " in errors


def test_every_setting_that_an_evaluation_uses_is_one():
    """What the message names can be set."""
    sections = {field.name for field in fields(RunConfig)}
    assert {*_USED} - {"experiment", "protocol"} <= sections
    assert {*_USED_OF_MODEL} <= {field.name for field in fields(ModelConfig)}


@pytest.mark.usefixtures("sketched")
def test_fid_is_that_of_the_first_images_of_each_sampler(evaluated, models, digits):
    asked = ("--samplers", ",".join(SAMPLERS), "--steps", "2,3", "--images", "96,64,96")
    lines = evaluated("plain", *asked)
    ways = [(line["sampler"], line["steps"], line["images"]) for line in lines]
    assert ways == [(s, k, n) for s in SAMPLERS for k in "23" for n in ("64", "96")]
    images, labels = stream_tensors(digits.train_stream)
    oracle = oracle_classifier(images, labels)
    real = oracle.get_features(stream_tensors(digits.test_stream)[0])
    model = DiffusionModel.from_pretrained(models / "plain")
    for line in lines:
        noise = model.draw_noise(96, seeded())
        made = model.reverse(noise, steps=int(line["steps"]), sampler=line["sampler"])
        features = oracle.get_features(made[: int(line["images"])])
        expected = plain_fid(real.numpy(), features.detach().numpy())
        assert float(line["FID"]) == pytest.approx(expected, rel=1e-3)
        assert float(line["F_per_image"]) == int(line["steps"])
        assert float(line["seconds"]) > 0


@pytest.mark.usefixtures("sketched")
def test_guidance_is_swept_and_costs_twice(evaluated):
    lines = evaluated("conditioned", "--guidance", "1,2.5")
    assert [(line["guidance"], line["F_per_image"]) for line in lines] == [
        ("1.0", "2.0"),
        ("2.5", "4.0"),
    ]
    assert lines[0]["FID"] != lines[1]["FID"]


def test_the_same_seed_gives_the_same_bits(evaluated, tmp_path):
    outs = {"a": "0", "b": "0", "c": "1"}
    found = {out: evaluated("plain", "--noise-seed", outs[out], out=out) for out in outs}
    for (line,) in found.values():
        line.pop("seconds")
    assert found["a"] == found["b"] != found["c"]
    a, b, c = ((tmp_path / out / "figures/fid-by-passes.svg").read_bytes() for out in outs)
    assert a == b != c


@pytest.mark.usefixtures("sketched")
def test_measures_that_are_asked_for_are_columns(evaluated):
    (line,) = evaluated("plain", "--images", "100", "evaluation.measures=[kid]")
    assert float(line["KID"]) > 0 and "precision" not in line


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("measure", sorted({*measure_names()} - {"transfer"}))
def test_every_measure_of_a_saved_model_is_a_number(evaluated, measure):
    measures = f"evaluation.measures=[{measure}]"
    (plain,) = evaluated("plain", out="plain")
    (line,) = evaluated("plain", "--images", "100", measures)
    more = line.keys() - plain.keys()
    assert more and all(math.isfinite(float(line[name])) for name in more)


@pytest.mark.usefixtures("sketched")
def test_what_only_a_training_shows_is_left_out_of_a_run_and_refused(
    call, models, evaluated
):
    (line,) = evaluated("run")
    assert float(line["AFID"]) > 0
    assert not {"F_of_FID", "backward_transfer", "forward_transfer"} & line.keys()
    transfer = "evaluation.measures=[kid,transfer]"
    status, _, errors = call(main, models / "plain", *OF_DIGITS, transfer)
    assert status == 2 and errors.count("\n") == 1
    assert "transfer compares a model with what it was earlier" in errors


@pytest.mark.usefixtures("sketched")
def test_only_the_same_evaluation_is_written_anew(call, models, tmp_path, evaluated):
    evaluated("plain")
    table = tmp_path / "evaluation" / "evaluation.csv"
    table.write_text("damaged")
    evaluated("plain")
    before = table.read_text()
    assert before != "damaged"
    for other in (("plain", "--steps", "3"), ("conditioned",), ("plain", "seed=2")):
        status, _, errors = call(main, models / other[0], *OF_DIGITS, *other[1:])
        assert status == 2 and "evaluation has another evaluation; choose" in errors
    assert table.read_text() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    status, _, errors = call(main, models / "plain", *OF_DIGITS, "--out", "mine")
    assert status == 2 and "mine has something else in it; choose a folder" in errors
    (tmp_path / "evaluation" / "evaluation.json").write_text("{")
    status, _, errors = call(main, models / "plain", *OF_DIGITS)
    assert status == 2 and "evaluation.json is cut short, or is damaged" in errors
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_an_evaluation_on_other_data_is_not_written_over(models, tmp_path, evaluated, call):
    roots = [folder_of_images(tmp_path / name, n) for n, name in ((10, "a"), (200, "b"))]
    data = ["benchmark=image_folder", "model=digits", "benchmark.options.channels=1"]
    data += ["benchmark.n_classes=2", "benchmark.n_experiences=2"]
    evaluated("plain", *data, f"+benchmark.options.root={roots[0]}")
    before = (tmp_path / "evaluation" / "evaluation.csv").read_bytes()
    words = (models / "plain", *QUICK, *data, f"+benchmark.options.root={roots[1]}")
    status, _, errors = call(main, *words)
    assert status == 2 and "evaluation has another evaluation; choose" in errors
    assert (tmp_path / "evaluation" / "evaluation.csv").read_bytes() == before


REFUSED = {
    "a part of a flag": (["model", "--step", "2"], "unrecognized arguments: --step"),
    "no model": ([], "no MODEL is given; see avalanche-gd-evaluate --help"),
    "no folder": (["nowhere"], "no folder nowhere; give one of a saved model or of a run"),
    "a folder that is no model": (
        [".", "benchmark=split_digits"],
        "no complete model in .: ",
    ),
    "steps above T": (["plain", "--steps", "2,1001"], "from 1 to 1000, got 1001"),
    "no steps": (["plain", "--steps", "0"], "sampling steps must be an integer from 1 to"),
    "steps that are no number": (["plain", "--steps", "a"], "argument --steps: "),
    "an unknown sampler": (
        ["plain", "--samplers", "own,euler"],
        "no sampler 'euler'; choose from own, dpmsolver++, unipc",
    ),
    "images of another size": (
        ["plain", "model=fmnist-small"],
        "plain makes images of (1, 8, 8), but those of split_digits are (1, 16, 16)",
    ),
    "other classes": (
        ["conditioned", "benchmark=split_cifar100", "model=digits"],
        "conditioned knows 10 classes, but split_cifar100 has 100",
    ),
    "a model that was not trained, behind another": (
        ["plain", "new"],
        "new has seen no class yet; train it",
    ),
    "images given twice": (
        ["plain", "--images", "70", "evaluation.images=90"],
        "give --images or evaluation.images=90, not both",
    ),
    "one image": (["plain", "--images", "1"], "--images must be an integer of 2 or more"),
    "too few images for a measure": (
        ["plain", "evaluation.measures=[kid]", "--images", "70,200"],
        "evaluation: KID needs 100 images, but 70 are generated",
    ),
    "guidance of a model without a condition": (
        ["plain", "--guidance", "2"],
        "guidance need model.conditional=true",
    ),
    "negative guidance": (["conditioned", "--guidance=-1"], "--guidance must be 0 or more"),
    "a negative seed": (
        ["plain", "--noise-seed=-1"],
        "--noise-seed must be an integer from 0",
    ),
    "an unknown setting": (["plain", "evaluation.feature=x"], "did you mean features?"),
    "unknown features": (
        ["plain", "evaluation.features=x"],
        "no features 'x'; choose from",
    ),
    "an unknown benchmark": (["plain", "benchmark=mnist"], "no benchmark 'mnist'; choose"),
    "an unknown flag": (["plain", "--methods", "naive"], "--methods"),
    "a file as a folder": (["plain", "--out", "/etc/passwd"], "/etc/passwd"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_values_are_one_line_before_any_work(
    call, models, tmp_path, monkeypatch, words, message
):
    monkeypatch.setattr("avalanche_gd.evaluation.measure.generate_samples", None)
    names = (*BARE, "run")
    given = [models / word if word in names else word for word in words]
    defaults = (
        QUICK if "--steps" not in words and "--images" not in words else ("threads=1",)
    )
    status, _, errors = call(main, *with_benchmark(*given, *defaults))
    (line,) = errors.splitlines()
    assert status == 2 and line.startswith("avalanche-gd-evaluate: ") and message in line
    assert not (tmp_path / "evaluation").exists()


def test_a_model_that_does_not_say_its_data_needs_a_benchmark(call, models, tmp_path):
    status, _, errors = call(main, models / "plain", *QUICK)
    (line,) = errors.splitlines()
    assert status == 2 and line.endswith(
        f"{models / 'plain'} does not say what it was trained on; give benchmark=NAME"
    )
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.usefixtures("sketched")
def test_the_model_in_a_runs_folder_is_judged_as_the_run(evaluated, models):
    (of_run,) = evaluated("run", out="run")
    (of_model,) = evaluated("run/model", out="model")
    assert {k: v for k, v in of_run.items() if k not in ("model", "seconds")} == {
        k: v for k, v in of_model.items() if k not in ("model", "seconds")
    }


@pytest.mark.parametrize("names", [["run.json"], ["run.json", "config.yaml"]])
def test_a_model_beside_files_of_another_program_is_no_runs(models, tmp_path, names):
    shutil.copytree(models / "plain", tmp_path / "mine" / "model")
    for name in names:
        (tmp_path / "mine" / name).write_text('{"mine": 1}')
    subject = Subject.of(str(tmp_path / "mine" / "model"))
    assert subject.run == {} and subject.folder == tmp_path / "mine" / "model"


@pytest.mark.usefixtures("sketched")
def test_a_model_that_is_given_twice_is_judged_once(evaluated, models):
    again = f"{models / 'run'}/"
    assert len(evaluated("run", again, models / "run" / "model")) == 1
    assert len(evaluated("run")) == 1  # which writes the same evaluation again


@pytest.mark.usefixtures("sketched")
def test_an_evaluation_that_fails_leaves_its_folder_as_it_was(
    models, tmp_path, monkeypatch, evaluated
):
    evaluated("plain")
    written = list(filter(Path.is_file, (tmp_path / "evaluation").rglob("*")))
    files = {path: path.read_bytes() for path in written}

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("avalanche_gd.evaluation.evaluate_command.Judge.outcomes", fails)
    for out in ("evaluation", "another"):
        with pytest.raises(SystemExit):
            main([str(models / "plain"), *OF_DIGITS, "--out", str(tmp_path / out)])
    assert {path: path.read_bytes() for path in files} == files
    assert not (tmp_path / "another").exists()


def test_more_images_than_the_memory_has_are_refused_before_any_work(call, models):
    words = (models / "plain", "benchmark=split_digits", "--steps", "2")
    status, _, errors = call(main, *words, "--images", "100000000000")
    assert status == 2 and "an evaluation of 100000000000 images needs" in errors
    status, _, errors = call(main, *words, "--noise-seed", str(2**64))
    assert status == 2 and "--noise-seed must be an integer from 0 to" in errors


def test_a_run_that_is_not_complete_or_has_no_model_is_refused(call, models):
    info = json.loads((models / "run" / "run.json").read_text())
    (models / "run" / "model").rename(models / "hidden")
    try:
        status, _, errors = call(main, models / "run", *QUICK)
    finally:
        (models / "hidden").rename(models / "run" / "model")
    assert info["completed"] and status == 2 and "has no model; it trains no" in errors


def settings_of_a_run(**other):
    benchmark = {"name": "split_digits", "_target_": "avalanche_gd.SplitDigits"}
    benchmark |= {"n_experiences": 5, "n_classes": 10, "shuffle": True, "options": {}}
    evaluation = {"features": "oracle", "images": 70, "measures": [], "labeller": "oracle"}
    evaluation |= dict.fromkeys(("weights_path", "labeller_weights"))
    model = {"preset": "digits"}
    run = dict(benchmark=benchmark, evaluation=evaluation, model=model, seed=1, threads=1)
    for name, value in other.items():
        section, _, setting = name.partition("__")
        run[section] = run[section] | {setting: value} if setting else value
    return run


def composed(tmp_path, *runs, given=()):
    subjects = [Subject(f"run {n}", tmp_path, one) for n, one in enumerate(runs, 1)]
    return compose_settings(subjects, given, tmp_path)


@pytest.mark.parametrize("measures", [None, "kid", 3, [["kid"]], ["fid"]])
def test_measures_of_a_run_that_are_no_names_are_refused(tmp_path, measures):
    with pytest.raises(ValueError, match="measure"):
        composed(tmp_path, settings_of_a_run(evaluation__measures=measures))


def test_nothing_that_a_run_names_is_called(tmp_path):
    hostile = settings_of_a_run(benchmark___target_="os.system")
    with pytest.raises(
        ValueError, match=r"run 1 was trained on another split_digits, os\."
    ):
        composed(tmp_path, hostile)
    given = ["benchmark=split_digits", "evaluation.images=80"]
    config = composed(tmp_path, hostile, given=given)
    assert config.benchmark._target_ == "avalanche_gd.SplitDigits"
    assert (config.seed, config.evaluation.images) == (1, 80)
    options = {"root": "${oc.env:HOME}"}
    config = composed(tmp_path, settings_of_a_run(benchmark__options=options))
    assert config.benchmark.options == options


ODD = "it's a\\b $5 ${seed} \\${seed}\\"


def test_options_of_a_run_are_taken_as_they_are(tmp_path):
    options = {"root": ODD, "sizes": [8, [ODD]], "crop": {"kind": ODD, "by": None}}
    config = composed(tmp_path, settings_of_a_run(benchmark__options=options))
    assert config.benchmark.options == options


@pytest.mark.parametrize("name", ["a b", "true", "Null", "nan", "aé"])
def test_an_option_that_cannot_be_given_to_hydra_can_be_replaced(tmp_path, name):
    run = settings_of_a_run(benchmark__options={"crop": {name: 1}})
    message = rf"run 1: benchmark\.options\.crop: '{name}' cannot be given to Hydra"
    with pytest.raises(ValueError, match=message):
        composed(tmp_path, run)
    given = ["++benchmark.options.crop=null"]
    assert composed(tmp_path, run, given=given).benchmark.options == {"crop": None}


def test_runs_that_differ_are_told_apart_unless_a_setting_is_given(tmp_path):
    runs = settings_of_a_run(), settings_of_a_run(seed=0)
    with pytest.raises(
        ValueError, match="the runs differ in seed, 1 and 0; give seed=VALUE"
    ):
        composed(tmp_path, *runs)
    assert composed(tmp_path, *runs, given=["seed=3"]).seed == 3


def test_help_is_in_plain_words(call):
    status, output, _ = call(main, "--help")
    assert status == 0
    words = ("MODEL is a folder", "how many steps are enough", "--samplers", "is written")
    assert [word for word in words if word not in output] == []
