"""Every metric through each of Avalanche's loggers."""

import numpy as np
import pytest
import torch
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import (
    CSVLogger,
    InteractiveLogger,
    TensorboardLogger,
    TextLogger,
)
from avalanche.training.plugins import EvaluationPlugin
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avalanche_gd import DiffusionTraining
from avalanche_gd.metrics import (
    Sampling,
    class_balance_metrics,
    denoising_loss_metrics,
    fid_metrics,
    generated_image_metrics,
)
from avalanche_gd.metrics.loggers import WandBLogger
from avalanche_gd.metrics.plugin import GenerationMetric
from tests.helpers.small_models import tiny
from tests.helpers.small_trainings import train_generator

SAMPLING = Sampling(images=60, steps=2)
NAMES = [
    "FID_Stream/eval_phase/test_stream",
    "FID_Mean/eval_phase/test_stream",
    "KLD_Stream/eval_phase/test_stream",
    "ARD_Stream/eval_phase/test_stream",
    "ClassRatio_Stream/eval_phase/test_stream/Class003",
    "DenoisingLoss_Exp/eval_phase/test_stream/Exp000/T000-249",
]
IMAGES = "GeneratedImages/eval_phase/test_stream"


def evaluate(model, digits, logger):
    metrics = [
        loss_metrics(epoch=True, experience=True, stream=True),
        fid_metrics(experience=True, summary=True, sampling=SAMPLING),
        class_balance_metrics(histogram=True, sampling=SAMPLING),
        denoising_loss_metrics(),
        generated_image_metrics(sampling=SAMPLING, shown=16),
    ]
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        train_steps=2,
        evaluator=EvaluationPlugin(*metrics, loggers=[logger]),
    )
    strategy.train(digits.train_stream[0], eval_streams=[])
    return strategy.eval(digits.test_stream[:1])


def test_text(tiny_model, digits, tmp_path):
    with open(tmp_path / "log.txt", "w") as file:
        values = evaluate(tiny_model, digits, TextLogger(file))
    text = (tmp_path / "log.txt").read_text()
    for name in NAMES:
        assert f"{name} = {values[name]:.4f}" in text


def test_interactive(tiny_model, digits, capsys):
    values = evaluate(tiny_model, digits, InteractiveLogger())
    output = capsys.readouterr().out
    for name in NAMES:
        assert f"{name} = {values[name]:.4f}" in output


def test_tensorboard(tiny_model, digits, tmp_path):
    logger = TensorboardLogger(tmp_path)
    values = evaluate(tiny_model, digits, logger)
    logger.writer.flush()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    for name in NAMES:
        assert events.Scalars(name)[-1].value == pytest.approx(values[name], rel=1e-5)
    assert IMAGES in events.Tags()["images"]


def test_csv_which_keeps_losses_only(tiny_model, digits, tmp_path):
    values = evaluate(tiny_model, digits, CSVLogger(tmp_path))
    assert values[NAMES[0]] > 0
    lines = (tmp_path / "eval_results.csv").read_text().splitlines()
    assert lines[0].startswith("eval_exp,training_exp,eval_accuracy,eval_loss")
    assert float(lines[1].split(",")[3]) > 0


def test_wandb_offline(tiny_model, digits, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandBLogger(project_name="test", dir=str(tmp_path))
    logged, log = {}, wandb.log
    monkeypatch.setattr(wandb, "log", lambda v, **k: (logged.update(v), log(v, **k)))
    try:
        values = evaluate(tiny_model, digits, logger)
        for name in NAMES:
            assert logged[name] == values[name]
        assert isinstance(logged[IMAGES], wandb.Image)
    finally:
        wandb.finish()
    assert list(tmp_path.rglob("run-*.wandb"))


class Lightest(GenerationMetric):
    """Values of other types than float."""

    def compute(self, strategy, experiences):
        image = torch.ones(1, 2, 2)
        return {"T": torch.tensor(1.5), "I": 3, "N": np.float32(0.5), "picture": image}


def test_a_number_of_whatever_type_is_a_float_for_loggers_and_files(digits):
    evaluator = EvaluationPlugin(Lightest(Sampling(2, 1)), loggers=[])
    strategy = train_generator(tiny(), digits.train_stream[:1], evaluator=evaluator)
    found = strategy.eval(digits.test_stream[:1])
    values = {name.partition("/")[0]: value for name, value in found.items()}
    numbers = {name: values[name] for name in "TIN"}
    assert numbers == {"T": 1.5, "I": 3.0, "N": 0.5}
    assert {type(value) for value in numbers.values()} == {float}
    assert torch.equal(values["picture"], torch.ones(1, 2, 2))
