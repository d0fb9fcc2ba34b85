"""The site: ``sphinx-build -W docs docs/_build`` builds it, without a network."""

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "experiments")]

import avalanche_gd  # noqa: E402
import pages  # noqa: E402

project = "avalanche-gd"
copyright = "the avalanche-gd developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "methods.md", "**.ipynb_checkpoints"]
highlight_language = "none"
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # those of Avalanche and torch are theirs
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
python_maximum_signature_line_length = 60

html_theme = "furo"
html_title = "avalanche-gd"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {  # the font and the colours of the report
    "light_css_variables": {
        "font-stack": "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
        "color-background-border": "#d3d8de",
        "color-table-border": "#d3d8de",
        "color-table-header-background": "#f3f5f7",
        "color-brand-primary": "#0b57a4",
        "color-brand-content": "#0b57a4",
        "color-brand-visited": "#0b57a4",
        "color-foreground-primary": "#1b1f24",
        "color-background-primary": "#ffffff",
        "color-background-secondary": "#f3f5f7",
    },
    "dark_css_variables": {
        "color-background-border": "#3a4149",
        "color-table-border": "#3a4149",
        "color-table-header-background": "#1f242a",
        "color-brand-primary": "#8cc4ff",
        "color-brand-content": "#8cc4ff",
        "color-brand-visited": "#8cc4ff",
        "color-foreground-primary": "#e7e9ec",
        "color-background-primary": "#15181c",
        "color-background-secondary": "#1f242a",
    },
}


def link_names(app: Any, name: str, source: list[str]) -> None:
    """Link the names in the table of public names to what their docstrings say."""
    if name == "api":
        source[0] = re.sub(
            r"^\| `(\w+)` \|",
            lambda found: f"| {{py:obj}}`~{avalanche_gd.__name__}.{found[1]}` |",
            source[0],
            flags=re.MULTILINE,
        )


def break_names(app: Any, name: str, template: str, context: Any, doctree: Any) -> None:
    """Let long names break after an underscore, in titles, code and the list of pages."""
    start = r'(<h1>|<span class="pre">|<li class="toctree[^>]*><a [^>]*>)([^<]*)'

    def broken(found: re.Match[str]) -> str:
        return found[1] + re.sub(r"(?<=\w{3})_(?=\w{3})", "_<wbr>", found[2])

    for part in {"body", "furo_navigation_tree"} & context.keys():
        context[part] = re.sub(start, broken, context[part])


def setup(app: Any) -> None:
    """Write what is generated, before Sphinx looks for pages."""
    pages.write(HERE / "generated")
    app.connect("source-read", link_names)
    app.connect("html-page-context", break_names, priority=900)  # after the theme
