"""The counts of docs/scale.md beside what small runs do, hold and write."""

import weakref
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel

import scale
from avalanche_gd.data.model_space import kept_tensors
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.models import SmallCNN
from avalanche_gd.runs.checkpoint import save_checkpoint
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import make_benchmark
from tests.helpers.fake_data import write_idx
from tests.helpers.small_runs import small_config

EPOCH = "generator.steps=null generator.epochs=1"
CONDITIONAL = "model.conditional=true"
CASES = (
    *sorted({*scale.methods_of("paper_fmnist"), *scale.methods_of("rank1_fmnist")}),
    *(f"iid {EPOCH}", f"joint {EPOCH}", f"current_distillation {CONDITIONAL}"),
    f"generative_distillation {CONDITIONAL} method.pool_per_class=6 method.teacher_steps=5",
    *("experience_replay method.memory=20", "pooled_distillation method.pool_size=24"),
    "generative_replay ++method.solver=false method.solver_replays=false",
)


class Watch:
    """What is held in the last experience, and passed outside of training."""

    def __init__(self, learner, monkeypatch):
        self.learner, self.copies = learner, weakref.WeakSet()
        self.denoisers = self.pool = self.evaluated = 0
        setstate = torch.nn.Module.__setstate__

        def noting(module, state):
            setstate(module, state)
            if isinstance(module, UNet2DModel):
                self.copies.add(module)

        monkeypatch.setattr(UNet2DModel, "__setstate__", noting, raising=False)
        learner.model.pass_hooks.append(self.passes)

    def passes(self, count):
        if self.learner.counter.training is None:
            self.evaluated += count
        self.denoisers = max(self.denoisers, 1 + len(self.copies))
        for plugin in self.learner.method_plugins["generator"]:
            samples = getattr(getattr(plugin, "lesson", None), "samples", None)
            images = getattr(samples, "_images", None)
            self.pool = max(self.pool, 0 if images is None else images.nbytes)
        return lambda: None


def tensors(content):
    """All tensors in nested containers and ParamData of Avalanche's."""
    if isinstance(content, torch.Tensor):
        yield content
    elif hasattr(content, "_data"):
        yield content.data
    elif isinstance(content, Iterable) and not isinstance(content, str):
        for part in content.values() if isinstance(content, dict) else content:
            yield from tensors(part)


def kept(plugin):
    """Bytes of what a penalty on the weights keeps."""
    names = ("mu", "theta", "saved_params", "importances")
    return sum(one.nbytes for one in tensors([getattr(plugin, n, 0) for n in names]))


@pytest.mark.parametrize("case", CASES)
def test_a_run_passes_holds_and_writes_what_is_counted(case, tmp_path, monkeypatch):
    method, *settings = case.split()
    root = write_idx(tmp_path / "idx")
    config = small_config(
        tmp_path / "runs",
        *("benchmark=split_fmnist", f"benchmark.options.root={root}", "model=digits"),
        *("generator.batch_size=4", "solver.batch_size=4", f"method={method}", *settings),
    )
    benchmark, learner = make_benchmark(config), Learner(config)
    judge = SmallCNN(config.model.shape, 10).eval()
    SharedImages.of(learner.strategies["generator"]).oracle = lambda *_: judge
    watch = Watch(learner, monkeypatch)
    is_judged = method in ("naive", "iid")  # the passes are those of all methods
    for experience in benchmark.train_stream[config.first_experience :]:
        index = experience.current_experience
        learner.train(experience)
        if is_judged:
            learner.evaluate(benchmark.test_stream[: index + 1])
    file = tmp_path / f"exp_{index:03d}.pt"
    save_checkpoint(tmp_path, "", index, learner.state_dict())
    learner.model.save_pretrained(tmp_path / "model")

    parameters, _ = scale.size_of(config)
    streams = benchmark.train_stream, benchmark.test_stream
    sizes = [[len(experience.dataset) for experience in stream] for stream in streams]
    own = scale.cost(config, parameters, *sizes)
    passes = {"F_per_step": own.step, "F_total": own.training, "F_total_solver": own.solver}
    assert learner.cost() == pytest.approx(passes)
    assert watch.evaluated == own.evaluation * 4 * is_judged

    plugins, vector = learner.method_plugins["generator"], 4 * parameters
    assert own.models == (watch.denoisers + 3) * vector  # and a gradient, and Adam's two
    assert (own.penalty, own.pool) == (sum(map(kept, plugins)), watch.pool)
    datasets = [experience.dataset for stream in streams for experience in stream]
    images = sum(kept_tensors(dataset)[0].nbytes for dataset in datasets)
    chunk = sum(getattr(plugin, "chunk_size", 0) for plugin in plugins) * vector
    assert own.memory == own.models + own.penalty + own.pool + images + chunk

    written = list(tensors(torch.load(file, weights_only=True)))
    memory = sum(one.nbytes for one in written if one.dtype == torch.uint8)
    assert own.checkpoint == 3 * vector + own.penalty + memory
    solver = learner.strategies.get("solver")
    solvers = 12 * sum(p.numel() for p in solver.model.parameters()) if solver else 0
    assert 0 < file.stat().st_size - own.checkpoint - solvers < 600 * len(written)
    files = filter(Path.is_file, (tmp_path / "model").rglob("*"))
    model = sum(path.stat().st_size for path in files)
    assert own.disk == pytest.approx(2 * own.checkpoint + model, abs=50_000)


def test_the_page_has_what_is_counted():
    assert f"{scale.BEGIN}\n{scale.section()}\n{scale.END}" in scale.PAGE.read_text()
