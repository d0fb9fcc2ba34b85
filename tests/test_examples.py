"""examples/: each script, as it stands there, is run in few steps."""

import ast
import re
import runpy
import sys

import pytest
from PIL import Image

from tests.helpers.fake_data import write_class_folders
from tests.helpers.repository import ROOT

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
FEW = {
    "conditioned_with_guidance": "--steps 2",
    "distillation_beside_ewc": "--epochs 1 --images 40",
    "generative_replay_generator": "--steps 2 --images 40",
    "generative_replay_solver": "--steps 2 --epochs 1",
    "image_folder": "--steps 2",
    "online_stream": "--steps 1",
    "solver_soft_replay": "--steps 2",
}
IMAGES = {
    "conditioned_with_guidance": ["guidance_1.png", "guidance_2.png", "guidance_4.png"],
    "generative_replay_generator": [
        "GenerativeDistillationPlugin.png",
        "GenerativeReplayPlugin.png",
    ],
    "image_folder": ["image_folder.png"],
}


def run(script, arguments, folder, monkeypatch):
    """Run a script as a user does, in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_prints_its_result(script, tmp_path, monkeypatch, capsys):
    run(script, FEW[script.stem].split(), tmp_path, monkeypatch)
    assert re.search(r"\b\d+$", capsys.readouterr().out, re.MULTILINE)
    written = sorted(path.name for path in tmp_path.glob("*.png"))
    assert written == IMAGES.get(script.stem, [])
    for name in written:  # an even grid of more than one colour
        assert len(set(Image.open(tmp_path / name).convert("L").tobytes())) > 2


def test_the_example_of_a_folder_takes_ones_own(tmp_path, monkeypatch, capsys):
    folder = write_class_folders(tmp_path / "own")
    script = ROOT / "examples" / "image_folder.py"
    run(script, [folder, "--steps", 2], tmp_path, monkeypatch)
    shares = capsys.readouterr().out.splitlines()[-1].removeprefix("share of each class ")
    assert len(shares.split()) == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_one_should_see(script):
    text = script.read_text()
    assert len(text.splitlines()) < 60
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert "\nYou should see that " in docstring
    assert f"    python examples/{script.name}" in docstring
    assert f"]({script.name})" in (ROOT / "examples/README.md").read_text()
