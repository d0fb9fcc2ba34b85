"""A pickle that runs what it holds is never run, wherever it is put."""

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from avalanche_gd import DiffusionModel, SplitCIFAR10, SplitFMNIST, SplitImageFolder
from avalanche_gd.metrics import features
from avalanche_gd.report.report_command import main as report
from avalanche_gd.runs.run import run
from avalanche_gd.storage import cache_folder
from tests.helpers.bits import same_bits
from tests.helpers.fake_data import write_class_folders, write_idx
from tests.helpers.fake_runs import write_run
from tests.helpers.small_runs import run_killed_after, small_config
from tests.torture.caches import CACHES

pytestmark = pytest.mark.torture

Put = Callable[[Path], None]
"""Puts a hostile file in the place of another."""


class Hostile:
    """Makes a file as soon as it is unpickled.

    :param made: the file.
    """

    def __init__(self, made: Path):
        self.made = made

    def __reduce__(self):
        return open, (str(self.made), "w")


def saved(content: object, **options: bool) -> bytes:
    written = io.BytesIO()
    torch.save({"state": content}, written, pickle_module=pickle, **options)
    return written.getvalue()


FORMS: dict[str, Callable[[Hostile], bytes]] = {
    "a pickle": pickle.dumps,
    "a pickle in text": lambda hostile: pickle.dumps(hostile, protocol=0),
    "a file of torch": saved,
    "an old file of torch": lambda hostile: saved(
        hostile, _use_new_zipfile_serialization=False
    ),
    "an object of YAML": lambda hostile: (
        f"!!python/object/apply:builtins.open ['{hostile.made}', w]\n".encode()
    ),
    "a setting of YAML": lambda hostile: (
        f"seed: !!python/object/apply:builtins.open ['{hostile.made}', w]\n".encode()
    ),
}
SAMPLE = ("a pickle", "a file of torch")


@pytest.fixture(
    params=[
        pytest.param(form, marks=[pytest.mark.sample] if form in SAMPLE else [])
        for form in FORMS
    ]
)
def put(request, tmp_path):
    """Puts a hostile file somewhere; at the end, none may have been run."""
    made = tmp_path / "made"
    content = FORMS[request.param](Hostile(made))

    def write(path: Path) -> None:
        assert path.parent.is_dir()
        path.write_bytes(content)

    yield write
    assert not made.exists()


@pytest.mark.sample
@pytest.mark.parametrize("form", ["a pickle", "a pickle in text"])
def test_what_is_hostile_would_be_run(tmp_path, form):
    pickle.loads(FORMS[form](Hostile(tmp_path / "made")))
    assert (tmp_path / "made").exists()


@pytest.mark.sample
@pytest.mark.parametrize("form", ["a file of torch", "an old file of torch"])
def test_what_is_hostile_would_be_run_by_torch(tmp_path, form):
    content = io.BytesIO(FORMS[form](Hostile(tmp_path / "made")))
    torch.load(content, weights_only=False)
    assert (tmp_path / "made").exists()


def each(paths: list[Path], put: Put, read: Callable[[], object]) -> None:
    """Read with each of some files hostile, which is refused or nothing to it."""
    for path in paths:
        content = path.read_bytes()
        put(path)
        with suppress(ValueError):
            read()
        path.write_bytes(content)


@pytest.mark.parametrize("kind", CACHES)
def test_in_a_cache(put, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(tmp_path / "cache"))
    known = {name: part.clone() for name, part in CACHES[kind](tmp_path, 0).items()}
    for path in list(cache_folder().iterdir()):
        put(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same_bits(CACHES[kind](tmp_path, 0), known)


@pytest.mark.usefixtures("sketched")
def test_in_a_run_that_goes_on(put, tmp_path):
    quick = ("method=naive", "evaluation.images=16", "benchmark.n_experiences=2")
    config = small_config(tmp_path / "runs", *quick)
    run_killed_after(1, config)
    for name in ("checkpoints/exp_000.pt", "checkpoints/exp_001.pt", "config.yaml"):
        put(config.folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avalanche_gd.runs.learner.Learner.train", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # it has begun anew
            run(config)
    put(config.folder / "run.json")
    with pytest.raises(ValueError, match=r"run\.json is cut short, or is damaged"):
        run(config)


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize(
    "name", ["config.yaml", "run.json", "metrics.csv", "samples/exp_001.png"]
)
def test_in_a_run_that_is_reported(put, call, tmp_path, name):
    put(write_run(tmp_path / "runs") / name)
    status, _, errors = call(report, tmp_path / "runs")
    assert status == 2 and len(errors.splitlines()) == 1


def test_in_a_saved_model(put, tmp_path):
    folder = tmp_path / "model"
    DiffusionModel.from_preset("digits").save_pretrained(folder)
    (weights,) = (folder / "unet").glob("*.safetensors")
    pickled = weights.with_suffix(".bin")
    pickled.touch()

    def read() -> None:
        DiffusionModel.from_pretrained(folder)

    each([path for path in folder.rglob("*") if path.is_file()], put, read)
    put(pickled)
    weights.unlink()
    with pytest.raises(ValueError, match="no complete model in"):
        read()


@pytest.mark.parametrize("is_of_the_hub", [True, False])
@pytest.mark.parametrize("is_known", [True, False])
def test_in_the_weights_of_inception(put, tmp_path, monkeypatch, is_of_the_hub, is_known):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / features._INCEPTION_FILE
    path.parent.mkdir()
    put(path)
    if is_known:  # as if somebody had made one with the same beginning
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setattr(features, "_SHA256", digest[:8])
    with pytest.raises(ValueError, match="no InceptionV3 weights"):
        features.InceptionFeatures(None if is_of_the_hub else path)


def test_among_images(put, tmp_path):
    root = write_class_folders(tmp_path / "images")
    paths = [root / "a" / f"hostile.{suffix}" for suffix in ("png", "jpg", "tif", "webp")]
    for path in paths:
        put(path)
        with pytest.raises(ValueError, match=f"cannot read the image {path}"):
            SplitImageFolder(2, root=root)
        path.unlink()


def test_among_idx_files(put, tmp_path):
    root = write_idx(tmp_path / "idx")
    paths = list(root.iterdir())
    each(paths, put, lambda: SplitFMNIST(5, root=root))
    for path in paths:
        path.unlink()
        put(path.with_name(f"{path.name}.gz"))
    with pytest.raises(ValueError, match="cannot read"):
        SplitFMNIST(5, root=root)


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_for_cifar(put, tmp_path, monkeypatch, name):
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", offline)
    if name.endswith("py"):
        (tmp_path / name).mkdir()
        for batch in (
            "batches.meta",
            "test_batch",
            *(f"data_batch_{i}" for i in range(1, 6)),
        ):
            put(tmp_path / name / batch)
    else:
        put(tmp_path / name)
    with pytest.raises(ValueError, match="CIFAR-10 could not be read or downloaded"):
        SplitCIFAR10(root=tmp_path)
