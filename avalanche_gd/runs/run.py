"""One run: a method on a benchmark with a seed, in its own folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from avalanche.distributed import DistributedHelper
from omegaconf import OmegaConf
from safetensors.torch import save_model

from avalanche_gd.data.digest import data_digest
from avalanche_gd.data.images import image_of
from avalanche_gd.data.model_space import on_device
from avalanche_gd.distributed.launch import is_main, on_main, say
from avalanche_gd.models import DiffusionModel
from avalanche_gd.models.pretrained import is_of_diffusers
from avalanche_gd.runs.card import model_card
from avalanche_gd.runs.checkpoint import load_checkpoint, save_checkpoint
from avalanche_gd.runs.columns import METRICS, features_in_words
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.dry_run import dry_run
from avalanche_gd.runs.errors import SaidInterrupt, naming
from avalanche_gd.runs.identity import run_digest
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.overrides import instantiated
from avalanche_gd.runs.pictures import save_curves, save_samples
from avalanche_gd.runs.record import Record, check_data
from avalanche_gd.runs.results import Row, csv_text, is_complete
from avalanche_gd.runs.seeds import seed_everything
from avalanche_gd.runs.strategies import make_labeller
from avalanche_gd.storage import expanded, held, remove_leftovers, write_text, write_whole


def run(config: RunConfig) -> Path:
    """Train and evaluate, experience by experience; continue an earlier, stopped run.

    The seed decides the random state in which a model begins an experience. So a run that
    is continued reaches the numbers of one that was never stopped. With several processes,
    each trains on its share, and the main one writes.

    :param config: checked settings.
    :return: the run's folder, in which ``check`` changes nothing.
    :raises ValueError: if the benchmark cannot be read, the folder cannot be written,
        another process makes the same run, or an earlier one was of other data.
    """
    folder = config.folder
    if not config.check and on_main(lambda: is_complete(folder)):
        if _has_given_data(config):
            check_data(config, data_digest(read_benchmark(config)))
        say(f"complete: {folder}")
        return folder
    torch.set_num_threads(config.threads)
    generates = config.method.generator != "none"
    if generates:
        config.evaluation.check_weights()
    benchmark = read_benchmark(config)
    if generates:
        tests = (len(experience.dataset) for experience in benchmark.test_stream)
        config.evaluation.check_test_images(sum(tests))
    if config.check:
        say(dry_run(config, placed(benchmark, config.torch_device)))
        return folder
    with ExitStack() as stack:
        on_main(lambda: stack.enter_context(_locked(folder)))
        say(f"{run_name(config)} on {config.benchmark.name}: {folder}")
        data = data_digest(benchmark)
        _run(config, placed(benchmark, config.torch_device), folder, data)
    return folder


def _run(config: RunConfig, benchmark: Any, folder: Path, data: str) -> None:
    with DistributedHelper.main_process_first():  # the main one may train and cache it
        labeller = make_labeller(config, benchmark)
    seed_everything(config.seed)  # here: the context steps all random states
    learner = Learner(config, labeller)
    done, rows = _from_checkpoint(learner, benchmark.train_stream)
    if done:
        check_data(config, data)
    record = Record(config, learner, done, data)
    if is_main():
        content = asdict(config)
        write_whole(folder / "config.yaml", lambda path: OmegaConf.save(content, path))
        record.write()
    try:
        for experience in benchmark.train_stream[max(done, config.first_experience) :]:
            index = experience.current_experience
            learner.train(experience)
            values = learner.evaluate(benchmark.test_stream[: index + 1])
            rows += [Row(index, name, value) for name, value in values.items()]
            if is_main():
                _write_experience(learner, folder, index, rows)
                record.write()
                say(_summary(index, learner, values))
            done = index + 1
        if is_main():
            versions = record.times[-1]["versions"]
            _write_end(learner, folder, rows, benchmark.train_stream, versions)
            record.write(completed=True)
    except KeyboardInterrupt as interrupt:
        again = f"continue after experience {done}/{config.benchmark.n_experiences}"
        if not done:
            again = "start over, as no experience was finished"
        say(f"{run_name(config)}: interrupted; run the same command again to {again}")
        raise SaidInterrupt from interrupt
    except OSError as error:
        if error.filename is not None or isinstance(error, BrokenPipeError):
            raise
        # TensorBoard's errors do not name its files.
        raise ValueError(f"cannot write {folder}: {error.strerror or error}") from error


def _from_checkpoint(learner: Learner, train_stream: Any) -> tuple[int, list[Row]]:
    """How many experiences are learned already, and their metrics."""
    config = learner.config
    checkpoint = load_checkpoint(
        config.folder / "checkpoints",
        run_digest(config),
        config.benchmark.n_experiences,
        config.torch_device,
        refused=lambda line: say(f"{run_name(config)}: {line}"),
    )
    if checkpoint is None:
        return 0, []
    if not learner.can_go_on():
        reason = "a plugin of the method has no state_dict for checkpoints"
        say(f"{run_name(config)}: starting again: {reason}")
        return 0, []
    done, state = checkpoint.experience + 1, checkpoint.state
    try:
        learner.load_state_dict(state["learner"], train_stream[:done])
    except Exception as error:  # whatever torch and plugins raise
        raise ValueError(
            f"the checkpoints in {config.folder} are of another version of this package or "
            "its dependencies; use that version, or delete the folder"
        ) from error
    place = f"{done}/{config.benchmark.n_experiences}"
    say(f"{run_name(config)}: continuing after experience {place}")
    return done, [Row(*row) for row in state["rows"]]


def _write_experience(learner: Learner, folder: Path, index: int, rows: list[Row]) -> None:
    images = learner.generated_images()
    if images is not None:
        path = folder / "samples" / f"exp_{index:03d}.png"
        write_whole(path, lambda beside: save_samples(images, beside))
    write_text(folder / "metrics.csv", csv_text(Row._fields, rows))
    state = {"learner": learner.state_dict(), "rows": [tuple(row) for row in rows]}
    save_checkpoint(folder / "checkpoints", run_digest(learner.config), index, state)


def _write_end(
    learner: Learner,
    folder: Path,
    rows: list[Row],
    train_stream: Any,
    versions: dict[str, str | None],
) -> None:
    model = learner.model
    if isinstance(model, DiffusionModel):
        if is_of_diffusers(model.denoiser):
            model.save_pretrained(folder / "model")
        else:  # the user's own denoiser, for which diffusers has no layout
            weights = folder / "model" / "denoiser.safetensors"
            write_whole(weights, lambda path: save_model(model.denoiser, str(path)))
        card = model_card(learner.config, model, train_stream, rows, versions)
        write_text(folder / "model" / "README.md", card)
    write_text(folder / "metrics.csv", csv_text(Row._fields, rows))
    features = features_in_words(asdict(learner.config.evaluation))
    write_whole(
        folder / "curves.png", lambda path: save_curves(rows, path, features=features)
    )
    learner.close()


def _has_given_data(config: RunConfig) -> bool:
    """True if the user says where the data are, and they are there."""
    root = config.benchmark.options.get("root")
    return isinstance(root, str) and expanded(root).exists()


def make_benchmark(config: RunConfig) -> Any:
    """Make the benchmark of a run, on its device.

    :raises ValueError: if it cannot be read, or differs from the settings.
    """
    return placed(read_benchmark(config), config.torch_device)


def placed(benchmark: Any, device: torch.device) -> Any:
    """The benchmark on a device."""
    return benchmark if device.type == "cpu" else on_device(benchmark, device)


def read_benchmark(config: RunConfig) -> Any:
    """Make the benchmark of a run, on the CPU.

    :raises ValueError: if it cannot be read, or differs from the settings.
    """
    settings = config.benchmark
    options: dict[str, Any] = dict(seed=config.seed, image_size=config.model.shape[1])
    if not settings.shuffle:  # a user's own function need not have this argument
        options["shuffle"] = False
    target = {"_target_": settings._target_, "_partial_": True, "_convert_": "all"}
    with naming("benchmark"):
        make = instantiated(target | options | settings.options)
    # The main process may download it.
    with naming("benchmark"), DistributedHelper.main_process_first():
        benchmark = make(settings.n_experiences)
    if not hasattr(benchmark, "train_stream") or not hasattr(benchmark, "test_stream"):
        raise ValueError(
            f"{settings.name} is a {type(benchmark).__name__}; {settings._target_} must "
            "return an Avalanche benchmark with a train_stream and a test_stream"
        )
    parts = len(benchmark.train_stream), len(benchmark.test_stream)
    if parts != (settings.n_experiences, settings.n_experiences):
        raise ValueError(
            f"{settings.name} has {parts[0]} training and {parts[1]} test experiences, but "
            f"benchmark.n_experiences is {settings.n_experiences}; they must be as many"
        )
    first = image_of(benchmark.train_stream[0].dataset[0])
    if not isinstance(first, torch.Tensor):
        raise ValueError(
            f"an image of {settings.name} is a {type(first).__name__}, not a tensor; "
            f"let {settings._target_} bring it to model space by to_model_space"
        )
    shape = tuple(first.shape)
    if shape != config.model.shape:
        raise ValueError(
            f"images of {settings.name}, {shape}, do not fit a model of "
            f"{config.model.shape}; choose a model of their shape"
        )
    classes: set[int] = set()
    for experience in benchmark.train_stream:
        classes.update(experience.classes_in_this_experience)
    n_classes = len(classes)
    if n_classes != settings.n_classes:
        raise ValueError(
            f"{settings.name} has {n_classes} classes, but benchmark.n_classes is "
            f"{settings.n_classes}; set benchmark.n_classes={n_classes}"
        )
    if sorted(classes) != list(range(n_classes)):
        raise ValueError(
            f"the classes of {settings.name} must be numbered from 0 to {n_classes - 1}, "
            f"but are {', '.join(map(str, sorted(classes)))}; number them anew"
        )
    _check_order(benchmark, settings.name)
    return benchmark


def _check_order(benchmark: Any, name: str) -> None:
    """Raise ValueError if a test experience has a class that is trained on later or never.

    A run evaluates the first i test experiences after i experiences of training.
    """
    trained: set[int] = set()
    streams = zip(benchmark.train_stream, benchmark.test_stream, strict=True)
    for number, (train, test) in enumerate(streams, 1):
        trained.update(train.classes_in_this_experience)
        if unknown := set(test.classes_in_this_experience) - trained:
            raise ValueError(
                f"test experience {number} of {name} has the class {min(unknown)}, which "
                "is in none of the training experiences so far; give both streams the same "
                "order"
            )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, and remove what a killed process left in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError as error:
        raise ValueError(f"cannot write {folder}: {error.strerror}") from error
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / ".lock", wait=False))
        except OSError:
            message = f"{folder} is in use by another process; wait for it"
            raise ValueError(message) from None
        remove_leftovers(folder)  # a folder may be one
        for below in filter(Path.is_dir, folder.iterdir()):
            remove_leftovers(below)
        yield


def run_name(config: RunConfig) -> str:
    """The name of a run in messages."""
    return f"{config.method.name}, seed {config.seed}"


def _summary(index: int, learner: Learner, values: dict[str, float]) -> str:
    config = learner.config
    several = index > config.first_experience
    shown = [m for m in METRICS if m.key in values and (several or not m.of_several)]
    metrics = [f"{metric.name} {metric.text(values[metric.key])}" for metric in shown]
    so_far = f"{sum(learner.seconds.values()):.0f} s so far"
    place = f"experience {index + 1}/{config.benchmark.n_experiences}"
    return f"{run_name(config)}, {place}: {', '.join([*metrics, so_far])}"
