"""Values of Hydra's overrides that are to be read as they are typed."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import instantiate

_FOLDERS = ("out", "benchmark.options.root")
"""Settings that are taken as they are typed, and not as Hydra's grammar reads them."""

_PATHS = ("method.teacher", "evaluation.weights_path", "evaluation.labeller_weights")
"""Settings that are so if they begin with ``~``, which that grammar does not have."""

_NAME = re.compile(r"(?!(true|false|null|nan|inf)\Z)[a-z_]\w*", re.ASCII | re.IGNORECASE)
"""A name in a dictionary that Hydra reads as it is."""


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


def literal(value: Any) -> str:
    r"""A value of an override that Hydra reads as this one, and OmegaConf as no reference.

    :param value: None, or a truth value, a number, a text, or a list or a dictionary of
        such.
    :raises ValueError: for a name in a dictionary that Hydra's grammar does not have.

    >>> print(literal(["it's", "${seed}", None, {"a": 1e-5}]))
    ['it\'s','\${seed}',null,{a:1e-05}]
    """
    if isinstance(value, str):
        return quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", value))
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, dict):
        if wrong := [name for name in value if not _NAME.fullmatch(str(name))]:
            raise ValueError(f"{wrong[0]!r:.80} cannot be given to Hydra as a name")
        return f"{{{','.join(f'{name}:{literal(own)}' for name, own in value.items())}}}"
    return "null" if value is None else str(value)


def instantiated(settings: Mapping[str, Any]) -> Any:
    """What Hydra makes of a class and its arguments, all resolved before.

    :param settings: the class is their ``_target_``.
    :raises ValueError: for a text that Hydra would take for a reference, and resolve again.
    """
    if text := next(_references(settings), None):
        raise ValueError(f"{text!r:.80} cannot be given to {settings['_target_']}")
    return instantiate(settings)


def _references(value: Any) -> Iterator[str]:
    """The texts in nested settings that have the form of a reference."""
    if isinstance(value, str) and "${" in value:
        yield value
    elif isinstance(value, list | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _references(part)
