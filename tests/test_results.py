"""The tables of experiments, which are made of the published runs."""

import pytest

import findings
import measured
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
    found = measured.finals(csv_of(tmp_path, *rows))
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


def page_of(tmp_path, monkeypatch, text, name="split_digits"):
    """An experiment of two seeds with a page, and the README beside it."""
    here, readme = tmp_path / "experiments", tmp_path / "README.md"
    monkeypatch.setattr(results, "HERE", here)
    monkeypatch.setattr(results, "README", readme)
    readme.write_text("Nothing.")
    (here / name).mkdir(parents=True)
    rows = [
        "split_digits,,a,0,1,99.5,0.8",
        "split_digits,,a,0,2,10.04,0.9125",
        "split_digits,,b,0,2,40.0,0.5",
        "split_digits,,a,1,2,12.0,0.91",
        "split_digits,,b,1,2,30.0,0.61",
    ]
    columns = "benchmark,settings,method,seed,experience,FID,accuracy"
    (here / name / "runs.csv").write_text("\n".join([columns, *rows]))
    (here / name / "README.md").write_text(text)
    return here / name


@pytest.mark.parametrize(
    "text",
    [
        "FID 99.5, then 10.0; the solver 0.912 or 0.913, `seed=77.7`, torch 2.14.1",
        "arXiv 2311.14028, lambda=1.234, [it](of/7.77), half 0.1, and 1,000 steps",
        "```\n55.5\n```",
    ],
)
def test_numbers_of_the_csvs_and_no_measures_may_be_in_the_text(
    tmp_path, monkeypatch, text
):
    page_of(tmp_path, monkeypatch, text, "mine")
    results.check_text()


@pytest.mark.parametrize("number", ["10.1", "99.49", "0.911", "1,010.0", "-10.1"])
def test_a_number_in_the_text_that_is_in_no_csv_is_found(tmp_path, monkeypatch, number):
    page_of(tmp_path, monkeypatch, f"FID is 10.0,\nand {number} else.", "mine")
    where = f"experiments/mine/README.md:2: {number.strip('-').replace(',', '')} is in no"
    with pytest.raises(SystemExit, match=where):
        results.check_text()


def test_a_page_may_quote_those_that_it_links_to(tmp_path, monkeypatch):
    folder = page_of(tmp_path, monkeypatch, "FID 77.7 ([other](../other))", "mine")
    other = folder.parent / "other"
    other.mkdir()
    (other / "a.csv").write_text("FID\n77.68\n")
    results.check_text()
    (folder / "README.md").write_text("FID 77.7 (other)")
    with pytest.raises(SystemExit, match=r"77\.7 is in no CSV"):
        results.check_text()


def test_what_a_page_concludes_is_what_follows(tmp_path, monkeypatch):
    def ratio(of):
        ratios = findings.times(of("a"), of("b"))
        yield f"{findings.span(ratios)} times that of b"
        gains = findings.above(of("a", "accuracy"), of("b", "accuracy"))
        yield findings.when(min(gains) > 0, f"better by {findings.each(gains, 3)}")

    monkeypatch.setattr(results, "FINDINGS", {"split_digits": ratio})
    text = "FID is 0.25 to 0.40 times that\nof b, better by 0.412 and 0.300."
    page = page_of(tmp_path, monkeypatch, text) / "README.md"
    results.check_text()
    page.write_text(text.replace("0.25", "0.26"))
    with pytest.raises(SystemExit, match=r"does not say: 0\.25 to 0\.40 times that of b"):
        results.check_text()
    table = page.parent / "runs.csv"
    page.write_text(text)
    table.write_text(table.read_text().replace("0.61", "0.99"))
    with pytest.raises(SystemExit, match="it is not so that better by"):
        results.check_text()


def test_the_first_experience_is_not_the_last(tmp_path, monkeypatch):
    of = findings.Numbers(page_of(tmp_path, monkeypatch, ""))
    assert of("a", after=0) == {"0": 99.5, "1": 12.0}
    assert of("a") == {"0": 10.04, "1": 12.0}
