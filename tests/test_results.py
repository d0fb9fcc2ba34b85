"""The tables of experiments, which are made of the published runs."""

import pytest

import results
from tests.helpers.fake_runs import write_run

RUNS = "benchmark,settings,method,seed,experience,FID\n"


def csv_of(tmp_path, *rows):
    path = tmp_path / "runs.csv"
    path.write_text(RUNS + "".join(f"b,{row}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (["model.process = ddpm", "model.process = flow"], ["naive", "naive, flow"]),
        (
            ["model.conditional = False, n = 1", "model.conditional = True, n = 2"],
            ["naive", "naive, conditional"],
        ),
        (  # not one method, though the first that differs is the same
            ["c = False, n = 1", "c = True, n = 1", "c = True, n = 2"],
            ["naive", "naive, c=True", "naive, c=True, n=2"],
        ),
    ],
)
def test_sections_of_a_report_are_methods_of_their_own(tmp_path, settings, names):
    rows = [
        f'"{text}",naive,0,{experience},{10 * number + experience}'
        for number, text in enumerate(settings)
        for experience in (1, 2)
    ]
    found = results.finals(csv_of(tmp_path, *rows))
    fids = {name: by_seed["0"]["FID"] for name, by_seed in found.items()}
    assert fids == {name: str(10 * i + 2) for i, name in enumerate(names)}


def test_a_csv_or_a_table_that_does_not_say_what_the_runs_do_is_found(
    tmp_path, monkeypatch
):
    here, readme = tmp_path / "experiments", tmp_path / "README.md"
    monkeypatch.setattr(results, "HERE", here)
    monkeypatch.setattr(results, "README", readme)
    monkeypatch.setattr(results, "EXPERIMENTS", {"mine": "of a test"})
    monkeypatch.setattr(results, "IN_README", ("mine",))
    monkeypatch.setattr(results, "README_METHODS", ("naive",))
    write_run(here / "mine/runs", values={"FID": 3.0})
    readme.write_text(f"# Mine\n\n{results.BEGIN}{results.END}")
    monkeypatch.setattr("sys.argv", ["results.py", "--check"])
    with pytest.raises(SystemExit, match=r"runs\.csv does not say what was measured"):
        results.main()
    monkeypatch.setattr("sys.argv", ["results.py"])
    results.main()
    assert "| `naive` | 1 | 3.0 |" in readme.read_text()
    monkeypatch.setattr("sys.argv", ["results.py", "--check"])
    results.main()
    for path in (readme, here / "mine/runs.csv"):
        text = path.read_text()
        path.write_text(text.replace("3.0", "2.0"))
        with pytest.raises(SystemExit, match=path.name):
            results.main()
        path.write_text(text)
