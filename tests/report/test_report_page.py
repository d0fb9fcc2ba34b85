"""The report's page: by its source, and as Chromium shows it."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from avalanche_gd.report.report_command import write_report
from tests.helpers.fake_runs import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDTH = 375  # of a phone

# Shows the page in a frame as wide as a phone, and writes what it finds to its own body.
LOOK = """<!DOCTYPE html><meta charset="utf-8">
<iframe style="border:0;width:{width}px;height:800px" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const shown = document.querySelector("iframe").contentDocument;
  const size = (node) => node.getBoundingClientRect();
  const visible = (node) => size(node).width > 20 && size(node).height > 20;
  const count = (nodes, test) => [...nodes].filter(test).length;
  document.body.textContent = "FOUND" + JSON.stringify({{
    pictures: shown.images.length,
    picturesShown: count(shown.images, (i) => i.complete && i.naturalWidth && visible(i)),
    tables: shown.querySelectorAll("table").length,
    tablesShown: count(shown.querySelectorAll("table"), visible),
    width: shown.documentElement.clientWidth,
    scrollWidth: shown.documentElement.scrollWidth,
  }}) + "END";
}});
</script>"""


class Elements(HTMLParser):
    """All elements with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with all it can have."""
    folder = tmp_path_factory.mktemp("report")
    runs = folder / "runs"
    cost = {"F_per_step": 3.0, "F_total": 6000.0}
    for seed in (0, 1):
        values = {"FID": 250.0 + seed, "accuracy": 0.2}
        write_run(runs, "naive", seed, values=values, cost=cost)
        write_run(runs, "generative_distillation", seed, cost=cost)
    for seed, text in enumerate(("<b>ewc</b> & $co$", "own")):
        settings = {"method.plugins.0.sampler": text}
        write_run(runs, "ewc", seed, generates=False, settings=settings)
    write_run(runs, "joint", 0, experiences=1)
    write_run(runs / "more", "joint", 0, settings={"generator.steps": 9})
    write_report([runs], folder)
    return (folder / "report.html").read_text()


def look(page, folder, width=WIDTH):
    """What Chromium finds, and the errors in its console."""
    path = folder / "look.html"
    path.write_text(LOOK.format(width=width, page=html.escape(page)))
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}"),
        *("--virtual-time-budget=10000", "--dump-dom", path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search("FOUND(.*)END", done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(found[1]), console


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@needs_chromium
def test_chromium_shows_every_table_and_picture_on_a_phone(page, tmp_path):
    found, console = look(page, tmp_path)
    assert console == []
    elements = Elements(page)
    assert found["pictures"] == found["picturesShown"] == len(elements.named("img")) >= 20
    assert found["tables"] == found["tablesShown"] == len(elements.named("table")) > 10
    assert found["width"] == found["scrollWidth"]  # the body does not scroll sideways


@needs_chromium
def test_the_look_finds_a_broken_picture_a_wide_body_and_an_error(page, tmp_path):
    worse = page.replace(";base64,", ";base64,AAAA", 1)
    worse = worse.replace("</main>", "<div style='width:900px'>-</div></main>")
    worse += "<img src='http://127.0.0.1:9/' alt=''>"  # which its policy forbids
    found, console = look(worse, tmp_path)
    assert found["pictures"] - found["picturesShown"] == 2
    assert found["scrollWidth"] > found["width"]
    assert console


def test_every_picture_has_an_alternative_text_with_its_finding(page):
    pictures = Elements(page).named("img")
    texts = [picture["alt"] for picture in pictures]
    assert all(len(text) > 30 for text in texts)
    assert len(set(texts)) >= 20
    assert (
        "FID (lower is better) over 3 experiences of split_digits. After the last: "
        "generative_distillation 0.5 (2 seeds), naive 250.5 (2 seeds)." in texts
    )
    assert any(
        text.startswith("Solver accuracy (higher is better) over 3 experiences")
        and text.endswith(", naive 0.200 (2 seeds).")  # the best first
        for text in texts
    )
    assert any("naive 250.5 at 6000 F" in text for text in texts)
    assert "16 images generated by naive, seed 0, after experience 3, FID 250.0" in texts


def test_the_page_is_one_file_that_asks_for_nothing(page):
    elements = Elements(page)
    assert all(
        picture["src"].startswith("data:image/") for picture in elements.named("img")
    )
    assert not any(elements.named(tag) for tag in ("script", "link", "iframe"))
    assert not any(":" in link["href"] for link in elements.named("a"))
    assert "url(" not in page and "@import" not in page
    (policy,) = (meta for meta in elements.named("meta") if "http-equiv" in meta)
    assert policy["content"].startswith("default-src 'none'")


def test_each_run_and_its_card_are_linked_where_they_lie_beside_the_page(tmp_path):
    folders = [
        write_run(tmp_path / "my runs #1", "naive", seed, generates=False)
        for seed in (0, 1)
    ]
    (folders[1] / "model").mkdir()
    (folders[1] / "model" / "README.md").write_text("A card.")
    write_report([tmp_path / "my runs #1"], tmp_path / "report")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("report", "my runs #1"):
        (tmp_path / name).rename(moved / name)
    page = (moved / "report" / "report.html").read_text()
    links = [link["href"] for link in Elements(page).named("a")]
    found = [(moved / "report" / unquote(link)).resolve() for link in links]
    own = [moved / folder.relative_to(tmp_path) for folder in folders]
    assert found == [*own, own[1] / "model" / "README.md"]
    assert all(path.exists() for path in found) and all("://" not in link for link in links)
    write_report([moved / "my runs #1"], tmp_path / "far" / "away" / "report")
    page = (tmp_path / "far" / "away" / "report" / "report.html").read_text()
    assert not Elements(page).named("a") and "naive/seed-1" in page


def test_the_page_says_its_language_title_and_width(page):
    elements = Elements(page)
    assert elements.named("html") == [{"lang": "en"}]
    assert len(elements.named("title")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in (
        elements.named("meta")
    )
    assert page.lstrip().startswith("<!DOCTYPE html>")


def test_a_setting_in_a_label_is_text(page):
    assert "&lt;b&gt;ewc&lt;/b&gt; &amp; $co$" in page
    assert not Elements(page).named("b")


def test_the_page_has_configuration_versions_and_runs(page):
    for text in (
        "generator.learning_rate",
        "plugins.0._target_",
        "2.4.0",
        "0123456789ab",
        "cpu (abacus)",
        "1 of 3",
    ):
        assert text in page


def test_versions_that_differ_are_noted_with_their_runs(tmp_path):
    for seed, version in enumerate(("2.4.0", "2.5.0")):
        path = write_run(tmp_path / "runs", "naive", seed) / "run.json"
        path.write_text(path.read_text().replace("2.4.0", version))
    write_report([tmp_path / "runs"], tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "2.4.0 (naive seed 0)" in page and "2.5.0 (naive seed 1)" in page
