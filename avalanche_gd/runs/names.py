"""Names of benchmarks and methods, which are parts of paths."""

import re

_LENGTH = 80
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{_LENGTH - 1}}}")


def check_name(what: str, name: object) -> str:
    """Return a name if it can be a part of a path, of a URL and of a LaTeX label.

    :param what: what it names, for the error message.
    :param name: the name of a benchmark or a method.
    :raises ValueError: unless it is such a text.

    >>> check_name("method.name", "naive")
    'naive'
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    shown = ascii(name)
    if len(shown) > _LENGTH:
        shown = f"{shown[:_LENGTH]}..."
    raise ValueError(
        f"{what} must be 1 to {_LENGTH} of the letters a to z, digits, _, - and ., and "
        f"begin with a letter, a digit or _, got {shown}"
    )
