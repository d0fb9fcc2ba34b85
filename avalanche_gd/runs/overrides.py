"""Values of Hydra's overrides that are to be read as they are typed."""

import re

_FOLDERS = ("out", "benchmark.options.root")
"""Settings that are taken as they are typed, and not as Hydra's grammar reads them."""

_PATHS = ("method.teacher", "evaluation.weights_path", "evaluation.labeller_weights")
"""Settings that are so if they begin with ``~``, which that grammar does not have."""


def folder_as_typed(override: str) -> str:
    """Quote the folder of an override of ``out`` or ``benchmark.options.root``.

    Hydra would read ``2024_05`` as a number, and ``a,b`` as a sweep. What is quoted, and
    ``null``, stays as it is; so do overrides of other settings, but for paths that begin
    with ``~``.

    >>> folder_as_typed("out=2024_05"), folder_as_typed("seed=1")
    ("out='2024_05'", 'seed=1')
    >>> folder_as_typed("method.teacher=~/model")
    "method.teacher='~/model'"
    """
    name, given, value = override.partition("=")
    stays = re.fullmatch(r"""'.*'|".*"|null""", value, re.DOTALL)
    names = (*_FOLDERS, *_PATHS) if value.startswith("~") else _FOLDERS
    if name.lstrip("+") not in names or not given or stays:
        return override
    return f"{name}={quoted(value)}"


def quoted(text: str) -> str:
    r"""A value of an override that Hydra reads as this text.

    >>> print(quoted("it's"))
    'it\'s'
    """
    # Hydra keeps backslashes, but for those before a quote, of which two are one.
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", text).replace("'", r"\'")
    return f"'{escaped}'"
