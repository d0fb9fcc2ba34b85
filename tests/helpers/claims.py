"""What the README, the pages of methods and of the command, and public docstrings claim.

A claim is a sentence with one of the words any, all, each, every and never.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from tests.helpers.repository import METHODS_PAGE, README

WORDS = re.compile(r"\b(any|all|each|every|never)\b", re.IGNORECASE)
PACKAGES = ("", ".data", ".functional", ".metrics", ".models", ".plugins", ".training")


def claims_in(text: str) -> list[str]:
    """Sentences of prose, lists, fields and tables that claim something.

    With single spaces. An item of a list begins one, as do a field and a row.
    """
    parts = re.split(r"\n\s*\n|\n(?=\s*(?::(?:param|return|raises)\b|- |\|))", text)
    prose = (" ".join(part.split()) for part in parts)
    sentences = (re.split(r"(?<=[.!?])\s+(?=[A-Z`(\[])", part) for part in prose)
    return [one for several in sentences for one in several if WORDS.search(one)]


PAGES = (README, METHODS_PAGE, README.parent / "docs/guides/experiments.md")


def sections() -> Iterator[tuple[str, str]]:
    """Those of the pages by title, without code and without results."""
    for page in PAGES:
        text = page.read_text()
        text = re.sub(r"<!-- results:.*?<!-- results end -->", "", text, flags=re.DOTALL)
        text = re.sub(r"(?m)^    .*$", "", text)
        for section in re.split(r"(?m)^#+ ", text)[1:]:
            title, _, body = section.partition("\n")
            yield f"{page.stem}, {title}", body


def public_docstrings() -> Iterator[tuple[str, str]]:
    """Those of all public names, and of the public methods and properties of classes."""
    for package in PACKAGES:
        module = importlib.import_module("avalanche_gd" + package)
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, type | FunctionType):
                yield name, inspect.getdoc(thing) or ""
            if isinstance(thing, type):
                yield from docstrings_of_members(thing)


def docstrings_of_members(owner: type) -> Iterator[tuple[str, str]]:
    """Also of those that are inherited, by the class of ours that has them."""
    for base in owner.__mro__:
        if not base.__module__.startswith("avalanche_gd"):
            continue
        for name, member in vars(base).items():
            function: Any = getattr(member, "fget", getattr(member, "__func__", member))
            if not name.startswith("_") and isinstance(function, FunctionType):
                yield f"{base.__name__}.{name}", inspect.getdoc(function) or ""


def all_claims() -> dict[str, list[str]]:
    """By place: a section of a page, or a public name."""
    found = {}
    for place, text in (*sections(), *public_docstrings()):
        claims = claims_in(text)
        if claims:
            found[place] = claims
    return found
