"""docs/: what the pages show is run, and the site is built and has no broken link."""

import importlib.util
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin

import avalanche_gd
from avalanche_gd.metrics import Sampling
from avalanche_gd.runs.choices import choices
from avalanche_gd.runs.run_command import main
from tests.helpers.guides import GUIDES, code_of, forget_modules, write_files
from tests.helpers.repository import ROOT

DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", DOCS / "faq.md", *sorted(GUIDES.glob("*.md"))]
BLOCKS = {path: code for path in PAGES if (code := code_of(path.read_text()))}
COMMANDS = sorted(
    {
        line
        for path in PAGES
        for line in re.findall(
            r"^ {4}(?:torchrun.* -m )?avalanche.gd (?!--config)(.*)$",
            path.read_text(),
            re.M,
        )
    }
)
FEW = {
    "train_steps=300": "train_steps=1",
    "train_epochs=25": "train_epochs=1",
    "fid_metrics()": "fid_metrics(sampling=small)",
    "STEPS = 150": "STEPS = 1",
    "IMAGES = 500": "IMAGES = 20",
}


def run(code, folder, monkeypatch):
    """Run code of a page, in steps that are few."""
    monkeypatch.chdir(folder)
    for much, little in FEW.items():
        code = code.replace(much, little)
    scope = {"small": Sampling(images=20, steps=1)}
    exec(compile(code, "docs", "exec"), scope)
    return scope


@pytest.fixture
def pages(monkeypatch):
    """The module that writes pages."""
    for folder in ("docs", "experiments"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import pages

    yield pages
    for name in ("pages", "picture", "results"):
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, in which Python finds modules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget_modules()


@pytest.mark.parametrize("path", BLOCKS, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs(path, folder, monkeypatch):
    write_files(path.read_text(), folder)
    assert run("\n".join(BLOCKS[path]), folder, monkeypatch)


def test_a_source_a_denoiser_and_features_of_ones_own_train_and_judge(
    digits, folder, monkeypatch
):
    guides = [GUIDES / f"your_{name}.md" for name in ("source", "denoiser", "metric")]
    for guide in guides:
        write_files(guide.read_text(), folder)
    blocks = [BLOCKS[guide][0] for guide in guides]
    assert all(len(block.splitlines()) < 18 for block in blocks)
    scope = run("\n".join(blocks), folder, monkeypatch)
    scope["metrics"][0].sampling = Sampling(images=40, steps=2)
    strategy = avalanche_gd.DiffusionTraining(
        model=scope["model"],
        optimizer=torch.optim.Adam(scope["model"].parameters()),
        plugins=[scope["plugin"]],
        train_steps=2,
        evaluator=EvaluationPlugin(scope["metrics"]),
    )
    strategy.train(digits.train_stream[:2], eval_streams=[])
    values = strategy.eval(digits.test_stream[:2])
    assert values["FID_Stream/eval_phase/test_stream"] > 0


def test_the_conditioned_model_samples_the_classes_asked_for(tmp_path, monkeypatch):
    blocks = BLOCKS[GUIDES / "avalanche_plugins.md"]
    scope = run(
        "\n".join([blocks[0].partition("benchmark =")[0], *blocks[1:]]),
        tmp_path,
        monkeypatch,
    )
    assert scope["images"].shape == (2, 1, 8, 8)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_settings_of_a_command_compose(line, call):
    parts = line.replace("root=IMAGES", "root=.").split()
    parts = [part.partition(",")[0] for part in parts if part not in ("-m", "--check")]
    status, output, errors = call(main, *parts, "--cfg", "job")
    assert status == 0, errors
    assert output.startswith("seed: ")


def test_the_tutorial_ends_with_a_figure_and_a_model(tmp_path, monkeypatch):
    notebook = json.loads((DOCS / "tutorial.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    monkeypatch.setenv("MPLBACKEND", "agg")
    scope = run(code, tmp_path, monkeypatch)
    scope["plt"].close("all")
    assert len(scope["results"]) == 3
    assert all(len(fid) == 5 for _, fid, _, _ in scope["results"].values())
    assert (tmp_path / "my_figure.pdf").exists() and (tmp_path / "my_model").is_dir()
    assert scope["images"].shape == (16, 1, 8, 8)


def test_each_method_has_a_page_with_its_settings_and_results(pages):
    found = pages.methods()
    assert set(found) == {f"methods/{n}.md" for n in (*choices("method"), "index")}
    for choice in choices("method").values():
        assert all(
            f"`{name}` = " in found[f"methods/{choice.name}.md"]
            for name in choice.comments()
        )
        assert f"[`{choice.name}`]({choice.name}.md)" in found["methods/index.md"]
    page = found["methods/generative_distillation.md"]
    assert "|| eps_theta'(x_t, t) - eps_theta(x_t, t) ||^2" in page
    assert "(../results/split_fmnist_small.md)" in page
    assert "https://arxiv.org/abs/2311.14028" in page
    assert "generative_distillation, method" not in found["methods/naive.md"]


def test_each_public_name_is_in_the_reference_once(pages):
    text = "\n".join(pages.reference().values())
    documented = re.findall(r"^\.\. auto\w+:: (\S+)$", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    public = {f"avalanche_gd.{name}" for name in avalanche_gd.__all__}
    assert public - set(documented) == {"avalanche_gd.functional"}


def test_each_experiment_has_a_page_with_its_means_if_it_has_runs(pages):
    found = pages.measured()
    for readme in (ROOT / "experiments").glob("*/README.md"):
        folder = readme.parent
        means = found[f"results/{folder.name}.md"].count("| Method | Seeds |")
        assert means == (folder / "runs.csv").is_file(), folder.name


def test_the_picture_is_an_image_without_a_colour_of_text_of_its_own(pages):
    picture = ElementTree.fromstring(pages.picture.svg())
    boxes = [
        [float(box.get(k)) for k in ("x", "width")]
        for box in picture.iter()
        if box.get("rx")
    ]
    width = float(picture.get("viewBox").split()[2])
    assert len(boxes) == 8 and all(x > 0 and x + wide < width for x, wide in boxes)


def test_reports_have_each_column(pages):
    rows = pages.columns().splitlines()
    assert len(rows) == 2 + len(pages.METRICS) + len(pages.COSTS)
    assert "| FID | lower | 0 or more | - |" in rows


class Links(HTMLParser):
    """The links of a page, and what can be linked in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors = [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and tag != "base":
                self.links.append(value)
            if name in ("id", "name"):
                self.anchors.add(value)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("sphinx", "myst_parser", "furo"))),
    reason="needs the extra docs",
)
@pytest.mark.torture
def test_the_site_builds_without_a_warning_a_broken_link_or_the_network(tmp_path):
    command = (sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going")
    built = subprocess.run(
        [*command, "-d", tmp_path / "trees", DOCS, tmp_path / "site"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    read = {p.resolve(): Links(p) for p in (tmp_path / "site").rglob("*.html")}
    assert len(read) > len(choices("method"))
    page = tmp_path / "site/generated/methods/generative_distillation.html"
    for start in ("<h1>", '<span class="pre">', 'href="#">'):  # the last: in the sidebar
        assert f"{start}generative_<wbr>distillation<" in page.read_text()
    broken = []
    for path, page in read.items():
        for link in page.links:
            where, _, anchor = unquote(link).partition("#")
            where = where.partition("?")[0]
            if re.match(r"[a-z]+:|//", where):
                continue
            target = (path.parent / where).resolve() if where else path
            if not target.exists() or (
                target in read and anchor not in read[target].anchors
            ):
                broken.append(f"{path.name}: {link}")
    assert not broken
    loaded = re.findall(
        r'(?:<script[^>]* src|<link[^>]* href|<img[^>]* src)="(http[^"]*)"',
        "".join(path.read_text() for path in read),
    )
    assert not loaded
