"""The report's numbers: what is averaged, and with which interval."""

import csv
import re
import shutil
from functools import partial

import numpy as np
import pytest
from scipy import stats

from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.report.collect import collect
from avalanche_gd.report.drawing import plain
from avalanche_gd.report.estimates import estimate
from avalanche_gd.report.matrix import Shade, matrices
from avalanche_gd.report.report_command import write_report
from avalanche_gd.report.tables import as_text, lines_of
from avalanche_gd.runs.column import DASH, Column
from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.results import read_run
from avalanche_gd.runs.run import run
from tests.helpers.fake_runs import write_run
from tests.helpers.small_runs import small_config

pytestmark = pytest.mark.usefixtures("sketched")


def read_csv(path):
    with open(path, newline="") as file:
        return {(row["method"], row["metric"]): row for row in csv.DictReader(file)}


def cells(section):
    return {
        line.label: {cell.column.name: cell for cell in line.cells}
        for line in lines_of(section)
    }


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).normal(50, 9, count).tolist()
    found = estimate(values)
    low, high = stats.t.interval(
        0.95, df=count - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    assert found.mean == pytest.approx(np.mean(values))
    assert found.mean - found.half_width == pytest.approx(low)
    assert found.mean + found.half_width == pytest.approx(high)


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert estimate([3.0]).half_width is None
    assert estimate([]) is None
    for value in (np.nan, np.inf, -np.inf):
        np.testing.assert_equal(tuple(estimate([3.0, value])), (np.nan, None, 2))


def test_a_method_is_averaged_over_its_seeds_and_the_best_is_marked(tmp_path):
    for seed, fid in enumerate((10.0, 20.0, 60.0)):
        write_run(tmp_path, "naive", seed, values={"FID": fid, "accuracy": 0.2})
        write_run(tmp_path, "joint", seed, values={"FID": 2.0, "accuracy": 0.9})
    write_report([tmp_path], tmp_path / "report")
    table = read_csv(tmp_path / "report" / "table.csv")
    naive = table["naive", "FID"]
    assert float(naive["mean"]) == 30
    low, high = stats.t.interval(0.95, df=2, loc=30, scale=stats.sem([10, 20, 60]))
    assert float(naive["ci95_low"]) == pytest.approx(low)
    assert float(naive["ci95_high"]) == pytest.approx(high)
    assert (naive["seeds"], naive["n"], naive["best"]) == ("0 1 2", "3", "0")
    assert table["joint", "FID"]["best"] == "1"
    assert table["joint", "accuracy"]["best"] == "1"
    assert table["naive", "accuracy"]["best"] == "0"
    tex = (tmp_path / "report" / "table.tex").read_text()
    assert r"\toprule" in tex and r"split\_digits" in tex
    half = f"{(high - low) / 2:.1f}"
    assert rf"naive & 3 & 30.0 $\pm$ {half} & " in tex
    assert r"joint & 3 & \textbf{2.0} $\pm$ 0.0 & " in tex
    assert not re.search(r"(?<!\\)_", tex.replace(r"\usepackage", ""))
    assert r"\linewidth\resizebox{\linewidth}" in tex and "Seconds" not in tex
    assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")


def test_nothing_is_best_where_one_method_is_alone(tmp_path):
    write_run(tmp_path, "naive")
    (section,) = collect([tmp_path]).sections
    assert not any(cell.is_best for line in lines_of(section) for cell in line.cells)


def test_what_is_the_same_in_print_is_best_together(tmp_path):
    write_run(tmp_path, "naive", values={"FID": 20.01})
    write_run(tmp_path, "joint", values={"FID": 20.02})
    (section,) = collect([tmp_path]).sections
    assert [cells(section)[name]["FID"].is_best for name in ("naive", "joint")] == [
        True,
        True,
    ]


def test_what_a_run_lacks_is_a_dash_and_the_rest_is_shown(tmp_path):
    write_run(tmp_path, "ewc", generates=False)
    write_run(tmp_path, "joint", cost={"F_per_step": 3.0, "F_total": 6000.0})
    write_report([tmp_path], tmp_path / "report")
    (section,) = collect([tmp_path]).sections
    found = cells(section)
    assert found["ewc"]["FID"].text == found["ewc"]["F_total"].text == DASH
    assert found["joint"]["F_total"].text == "6000"
    assert not found["joint"]["FID"].is_best  # nothing to be better than
    tex = (tmp_path / "report" / "table.tex").read_text()
    assert "ewc & 1 & -- & " in tex
    assert (tmp_path / "report/figures/split_digits-fid-by-f.pdf").is_file()


@pytest.mark.parametrize(
    "settings", [{"benchmark.n_experiences": 1}, {"method.all_at_once": True}]
)
def test_nothing_is_forgotten_or_transferred_in_one_experience(tmp_path, settings):
    values = dict.fromkeys(("F_of_FID", "backward_transfer", "forward_transfer"), np.nan)
    own = values | {"forgetting": 0.0, "accuracy": 0.5}
    one = write_run(tmp_path, "iid", values=own, settings=settings)
    path, last = one / "metrics.csv", settings.get("benchmark.n_experiences", 3) - 1
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *(x for x in lines if x.startswith(f"{last},"))]))
    if last:  # beside those of another
        write_run(tmp_path, "naive", values={"forgetting": 0.25} | dict.fromkeys(values, 3))
    write_report([tmp_path], tmp_path / "report")
    found = cells(collect([tmp_path]).sections[0])
    assert found["iid"]["accuracy"].text == "0.500"
    for name in (*values, "forgetting"):
        shown = {label: own[name].text for label, own in found.items() if name in own}
        assert shown.get("iid", DASH) == DASH and ("naive" in shown) == bool(last)
        assert not any(own[name].is_best for own in found.values() if name in own)
    with open(tmp_path / "report" / "runs.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "iid"]
    assert [(row["accuracy"], row["forgetting"]) for row in rows] == [("0.5", "")]


def test_a_metric_that_some_seeds_lack_says_over_how_many_it_is(tmp_path):
    write_run(tmp_path, "naive", 0, generates=False)
    write_run(tmp_path, "naive", 1, values={"FID": 7.0})
    (section,) = collect([tmp_path]).sections
    assert cells(section)["naive"]["FID"].text == "7.0 (n = 1)"


def test_a_count_that_is_the_same_for_every_seed_is_exact(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "naive", seed, cost={"F_per_step": 3.0, "F_total": 6000.0})
    (section,) = collect([tmp_path]).sections
    found = cells(section)["naive"]
    assert (found["F_per_step"].text, found["F_total"].text) == ("3.0", "6000")
    assert found["seconds"].text == "10 ± 0"


def test_a_value_that_is_not_finite_is_shown_as_such_and_never_best(tmp_path):
    write_run(tmp_path, "naive", values={"FID": float("nan")})
    write_run(tmp_path, "replay", values={"FID": 5.0})
    write_run(tmp_path, "joint", values={"FID": 4.0})
    write_report([tmp_path], tmp_path / "report")
    (section,) = collect([tmp_path]).sections
    assert cells(section)["naive"]["FID"].text == "not finite"
    assert [cell["FID"].is_best for cell in cells(section).values()] == [False, False, True]


def test_settings_that_differ_make_sections_that_say_so(tmp_path):
    write_run(tmp_path / "a", "naive", 0, values={"FID": 10.0})
    write_run(
        tmp_path / "b", "naive", 1, values={"FID": 90.0}, settings={"generator.steps": 9}
    )
    write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "report")
    sections = collect([tmp_path]).sections
    assert [section.difference for section in sections] == [
        "generator.steps = 2",
        "generator.steps = 9",
    ]
    assert [cells(section)["naive"]["FID"].text for section in sections] == ["10.0", "90.0"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "are not averaged together" in page
    assert "split_digits: generator.steps = 9" in page


def test_a_title_in_the_terminal_tells_its_section_from_others(tmp_path):
    for place, (a, b) in enumerate(["12", "13", "23", "22"]):
        settings = {"benchmark.options.a": "x" * 300 + a, "benchmark.options.b": b}
        write_run(tmp_path / str(place), settings=settings)
    sections = collect([tmp_path]).sections
    captions = [" ".join(text.split()) for text in as_text(sections).split("\n\n")[::2]]
    settings = (
        r"benchmark\.options\.a = x{20,}\.\.\. \((.{8})\), benchmark\.options\.b = (\d)"
    )
    pattern = rf"(split_digits(?:-\d)?): {settings}, after 3 experiences: .*"
    shown = [re.fullmatch(pattern, caption).groups() for caption in captions]
    assert [name for name, _, _ in shown] == [section.slug for section in sections]
    assert len({(a, b) for _, a, b in shown}) == 4


@pytest.mark.parametrize("ending", ["1", "\ud800"])
def test_labels_that_are_cut_stay_apart(tmp_path, ending):
    for number, own in enumerate((ending, "2")):
        settings = {"method.plugins.0.sampler": "x" * 300 + own}
        write_run(tmp_path / str(number), "ewc", settings=settings)
    (section,) = collect([tmp_path]).sections
    assert len({*re.findall("^ewc, .{195}  ", as_text([section]), re.MULTILINE)}) == 2
    assert len({plain(label) for label in section.methods}) == 2


def test_settings_of_a_method_that_vary_make_lines(tmp_path):
    for place, lambd in (("a", 1.0), ("b", 2.0)):
        settings = {"method.lambd": lambd, "method.plugins.0.lambd": lambd}
        write_run(tmp_path / place, "replay", settings=settings)
    write_run(tmp_path, "naive")
    (section,) = collect([tmp_path]).sections
    assert list(section.methods) == [
        "naive",
        "replay, method.lambd=1.0",
        "replay, method.lambd=2.0",
    ]


def test_arguments_of_plugins_that_vary_make_lines(tmp_path):
    write_run(tmp_path / "a", "replay", 0)
    write_run(tmp_path / "b", "replay", 1, settings={"method.plugins.0.lambd": 7.0})
    (section,) = collect([tmp_path]).sections
    assert len(section.methods) == 2
    assert "replay, method.plugins.0.lambd=7.0" in section.methods


def test_place_device_and_threads_do_not_tell_runs_apart(tmp_path):
    write_run(tmp_path, "naive", 0)
    write_run(tmp_path, "naive", 1, settings={"device": "cuda", "threads": 8, "out": "x"})
    (section,) = collect([tmp_path]).sections
    assert [run.seed for run in section.methods["naive"]] == [0, 1]


def test_a_setting_that_a_run_is_too_old_for_has_its_default(tmp_path):
    for seed in (0, 1):
        taken = {"method.plugins.0.teacher_steps": 2}
        folder = write_run(tmp_path, "replay", seed, settings=taken)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("\n  teacher_steps: 2", ""))
    assert "\n  teacher_steps" not in config.read_text()
    (section,) = collect([tmp_path]).sections
    assert list(section.methods) == ["replay"]


def test_the_terminal_shows_the_reports_table(tmp_path, capsys):
    for seed, fid in enumerate((10.0, 20.0, 60.0)):
        write_run(tmp_path, "naive", seed, values={"FID": fid})
    write_run(tmp_path, "joint", 0, values={"FID": 2.0})
    write_report([tmp_path], tmp_path / "report")
    caption, table, page = capsys.readouterr().out.strip().split("\n\n")
    assert caption.replace("\n", " ") == (
        "split_digits, after 3 experiences: mean over seeds ± 95% confidence interval "
        "(Student's t). Methods differ in their seeds. FID is in the features of an oracle "
        "classifier."
    )
    half = stats.t.ppf(0.975, 2) * stats.sem([10, 20, 60])
    cells = [re.split(r"  +", line.strip()) for line in table.splitlines()]
    assert cells[0] == [
        *("Method", "Seeds", "FID ↓", "KLD ↓", "ARD ↓", "Accuracy ↑", "Forgetting ↓"),
        "Seconds ↓",
    ]
    assert cells[1][:3] == ["naive", "3", f"30.0 ± {half:.1f}"]
    assert cells[2][:3] == ["joint", "1", "2.0"]
    assert len({len(line) for line in table.splitlines()}) == 1
    assert page == str(tmp_path / "report" / "report.html")


def test_the_section_nearest_to_the_defaults_is_first_then_that_of_the_most_runs(tmp_path):
    folders = []
    for name in ("flow", "ddpm", "far"):
        settings = {"model.process": name if name == "ddpm" else "flow"}
        settings |= {"model.conditional": True} if name == "far" else {}
        folders.append(tmp_path / name)
        write_run(tmp_path / name, settings=settings)
    for order in (folders, folders[::-1]):
        sections = collect(order).sections
        assert [run.folder.parts[-4] for s in sections for run in s.runs] == [
            *("ddpm", "flow", "far")
        ]
    write_run(tmp_path / "far", seed=1, settings={"model.process": "flow"} | settings)
    assert not collect([tmp_path]).sections[0].settings["model.conditional"]
    for seed in range(2):
        write_run(tmp_path / "near", seed=seed, settings={"model.channels_last": True})
    other, flow = collect([tmp_path]).sections[1:3]
    assert (len(other.runs), len(flow.runs)) == (2, 1)
    assert flow.settings["model.process"] == "flow"


@pytest.mark.parametrize("kind", ["oracles", "labellers"])
def test_the_report_tells_where_runs_were_measured_by_different(tmp_path, capsys, kind):
    measured_by = {0: ["a" * 64], 1: ["a" * 64], 2: ["a" * 64, "b" * 64]}
    told = f"The runs were measured by 2 different {kind}."
    for seed, own in measured_by.items():
        write_run(tmp_path / "runs", "naive", seed, measured_by={kind: own})
        write_run(tmp_path / "runs", "solver_naive", seed, generates=False)
        report = tmp_path / f"after-{seed}"
        write_report([tmp_path / "runs"], report)
        shown = capsys.readouterr().out.replace("\n", " ")
        page, paper = ((report / f).read_text() for f in ("report.html", "table.tex"))
        several = len(own) > 1
        assert all((told in text) == several for text in (shown, page, paper))
        assert (">Measured by</th>" in page) == several
    assert page.count(f"<code>{'a' * 12}</code>") == 2
    assert page.count(f"<code>{'a' * 12}, {'b' * 12}</code>") == 1
    assert page.count("<td><code>\N{EN DASH}</code></td>") == 3  # of solvers alone


def test_the_report_tells_where_each_seed_has_other_data(tmp_path, capsys):
    for seed, data in enumerate(("", "a" * 64, "", "b" * 64)):
        write_run(tmp_path / "runs", "naive", seed, data=data)
        write_report([tmp_path / "runs"], tmp_path / "report")
        shown = capsys.readouterr().out.replace("\n", " ")
        page = (tmp_path / "report" / "report.html").read_text()
        for text in (shown, page):
            assert ("The runs are of 2 different data" in text) == (seed == 3)


def test_the_report_tells_how_many_runs_do_not_say_what_measured_them(tmp_path, capsys):
    for seed, own in enumerate(([], [], ["a" * 64])):
        write_run(tmp_path / "runs", "naive", seed, measured_by={"oracles": own})
        write_run(tmp_path / "runs", "solver_naive", seed, generates=False)
        write_report([tmp_path / "runs"], tmp_path / f"after-{seed}")
        shown = capsys.readouterr().out.replace("\n", " ")
        page = (tmp_path / f"after-{seed}" / "report.html").read_text()
        is_told = "What measured 2 of the runs is not recorded." in shown
        assert is_told == (">Measured by</th>" in page) == bool(own)
        assert "different oracles" not in shown


def test_columns_that_no_run_has_are_in_no_table(tmp_path, capsys):
    write_run(tmp_path, "solver_naive", generates=False)
    write_report([tmp_path], tmp_path / "report")
    shown = capsys.readouterr().out
    assert "Accuracy" in shown and "FID" not in shown and "F a step" not in shown
    for name in ("report.html", "table.tex"):
        text = (tmp_path / "report" / name).read_text()
        assert "Accuracy" in text and "FID" not in text and "KLD" not in text


def test_runs_are_listed_by_experience_with_their_costs_at_the_end(tmp_path):
    for seed, fid in enumerate((10.0, 20.0)):
        cost = {"F_per_step": 3.0, "F_total": 6000.0}
        own = {"oracles": ["ab" * 32] if seed else []}
        write_run(tmp_path, "naive", seed, values={"FID": fid}, cost=cost, measured_by=own)
    write_run(tmp_path / "b", "ewc", settings={"generator.steps": 9}, generates=False)
    write_report([tmp_path], tmp_path / "report")
    with open(tmp_path / "report" / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("benchmark", "settings", "method", "seed", "experience"),
        *("FID", "KLD", "ARD", "accuracy", "forgetting"),
        *("seconds", "F_per_step", "F_total"),
        *("device", "threads", "commit", "measured_by"),
    ]
    found = [(row["method"], row["seed"], row["experience"], row["FID"]) for row in rows]
    assert found == [
        *(("naive", "0", n, "10.0") for n in "123"),
        *(("naive", "1", n, "20.0") for n in "123"),
        *(("ewc", "0", n, "") for n in "123"),
    ]
    assert [row["settings"] for row in rows[::3]] == [
        *("generator.steps = 2", "generator.steps = 2", "generator.steps = 9")
    ]
    costs = [(row["seconds"], row["F_per_step"], row["F_total"]) for row in rows]
    nothing = ("", "", "")
    assert costs[:6] == [nothing, nothing, ("10.0", "3.0", "6000.0")] * 2
    assert costs[6:] == [nothing, nothing, ("10.0", "", "")]
    made = [list(row.values())[-4:] for row in rows]
    assert all(part == "" for row in made[::3] + made[1::3] for part in row)
    always = ["cpu (abacus)", "1", "0123456789abcdef"]
    assert made[2::3] == [[*always, ""], [*always, "ab" * 32], [*always, ""]]


@pytest.mark.parametrize("killed", [False, True])
def test_an_unfinished_run_is_listed_and_in_no_average(tmp_path, capsys, killed):
    write_run(tmp_path, "naive", 0, values={"FID": 10.0})
    folder = write_run(tmp_path, "naive", 1, values={"FID": 99.0}, experiences=2)
    if killed:
        (folder / "run.json").unlink()
    write_report([tmp_path], tmp_path / "report")
    table = read_csv(tmp_path / "report" / "table.csv")
    assert table["naive", "FID"]["n"] == "1"
    assert float(table["naive", "FID"]["mean"]) == 10
    assert "1 run is not finished, and in no mean." in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Unfinished runs" in page and "2 of 3" in page
    assert "split_digits/naive/seed-1" in page


def test_runs_killed_before_their_first_file_and_alone_are_listed(tmp_path):
    folder = tmp_path / "split_digits" / "naive" / "seed-0"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    write_report([tmp_path], tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "split_digits/naive/seed-0" in page and "0 of ?" in page
    assert "Report of 0 complete runs" in page


@pytest.mark.parametrize("other", [0, 1])
def test_tables_say_that_methods_differ_in_their_seeds(tmp_path, capsys, other):
    write_run(tmp_path, "naive", 0)
    write_run(tmp_path, "joint", other)
    write_report([tmp_path], tmp_path / "report")
    files = [tmp_path / "report" / name for name in ("report.html", "table.tex")]
    tables = [file.read_text() for file in files]
    for table in (*tables, capsys.readouterr().out):
        found = "Methods differ in their seeds." in " ".join(table.split())
        assert found == (other == 1)


def test_the_same_run_twice_counts_once(tmp_path):
    write_run(tmp_path / "a", "naive", 0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = collect([tmp_path, tmp_path / "a"])
    assert len(found.sections[0].runs) == 1
    assert len(found.duplicates) == 1
    write_report([tmp_path], tmp_path / "report")
    assert "counts once" in (tmp_path / "report" / "report.html").read_text()


def test_the_matrix_is_after_each_experience_on_each(tmp_path):
    write_run(tmp_path, "naive", 0)
    write_run(tmp_path, "naive", 1)
    (matrix,) = matrices(collect([tmp_path]).sections[0])
    shown = [[shade and round(shade.value, 3) for shade in row] for row in matrix.rows]
    assert shown == [[0.1, None, None], [0.1, 0.2, None], [0.1, 0.2, 0.3]]
    assert matrix.seeds == 2


def luminance(colour):
    """Relative, of ``#rrggbb``, as WCAG 2 defines it."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_the_matrix_can_be_read_in_every_shade():
    for value in [*np.linspace(-0.1, 1.1, 2000), float("nan")]:
        shade = Shade(float(value))
        low, high = sorted((luminance(shade.background), luminance(shade.colour)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


class Brightness(GenerationMetric):
    """The mean of the generated images."""

    def compute(self, strategy, experiences):
        images = SharedImages.of(strategy).images(strategy.model, self.sampling)
        return {"Brightness": images.mean().item()}


class BrightnessOnce(Brightness):
    """The same after one experience only."""

    def __init__(self, sampling, after):
        super().__init__(sampling)
        self.after = after

    def compute(self, strategy, experiences):
        is_then = len(experiences) == self.after + 1
        return super().compute(strategy, experiences) if is_then else {}


@pytest.fixture
def brightness(request):
    """A metric of one's own: its class above, and its line in the registry."""
    METRICS.append(
        Column(
            *("brightness", "Brightness", 2, "higher"),
            "generator/Brightness/eval_phase/test_stream",
            title="Brightness of samples",
            measure=getattr(request, "param", Brightness),
        )
    )
    yield "brightness"
    METRICS.pop()


def test_a_metric_of_ones_own_is_measured_and_in_every_table_and_figure(
    tmp_path, brightness, capsys
):
    for method in ("naive", "joint"):
        config = small_config(
            tmp_path / "runs", f"method={method}", "benchmark.n_experiences=2"
        )
        folder = run(config)
    write_report([tmp_path / "runs"], tmp_path)
    with open(folder / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if "Brightness" in row["metric"]]
    value = float(rows[-1]["value"])
    table = read_csv(tmp_path / "table.csv")
    assert float(table["joint", brightness]["mean"]) == value
    assert {table[name, brightness]["best"] for name in ("naive", "joint")} == {"0", "1"}
    output = capsys.readouterr().out
    assert "brightness" in output.splitlines()[1]  # what a run says after an experience
    assert re.search(rf"Brightness ↑ (.*\n)+joint .* {value:.2f} ", output)
    assert r"Brightness $\uparrow$ & F a step" in (tmp_path / "table.tex").read_text()
    assert f",{value}," in (tmp_path / "runs.csv").read_text()
    assert (tmp_path / "figures" / "split_digits-brightness.svg").is_file()
    page = (tmp_path / "report.html").read_text()
    assert "Brightness ↑" in page
    assert "Brightness of samples (higher is better) over 2 experiences" in page


@pytest.mark.parametrize(
    ("brightness", "after"),
    [(partial(BrightnessOnce, after=i), i) for i in range(2)],
    indirect=["brightness"],
)
def test_a_metric_of_ones_own_may_have_no_value_after_an_experience(
    tmp_path, brightness, after
):
    config = small_config(tmp_path / "runs", "benchmark.n_experiences=2")
    run(config)
    folder = run(config)  # not again: it is complete
    done = read_run(folder)
    assert list(done.curve(METRICS[-1])) == [after]
    assert (done.final(METRICS[-1]) is None) == (after == 0)
    write_report([tmp_path / "runs"], tmp_path)
    assert (
        ("generative_distillation", brightness) in read_csv(tmp_path / "table.csv")
    ) == (after == 1)
    page = (tmp_path / "report.html").read_text()
    assert "Brightness of samples (higher is better) over 2 experiences" in page
    assert ("After the last: not measured." in page) == (after == 0)


def test_settings_of_a_method_are_in_the_order_of_their_numbers(tmp_path):
    for steps in (10, 2, 1):
        write_run(
            tmp_path / str(steps),
            "generative_replay",
            settings={
                "method.teacher_steps": steps,
                "method.plugins.0.teacher_steps": steps,
            },
        )
    (section,) = collect([tmp_path]).sections
    labels = [f"generative_replay, method.teacher_steps={steps}" for steps in (1, 2, 10)]
    assert list(section.methods) == labels
