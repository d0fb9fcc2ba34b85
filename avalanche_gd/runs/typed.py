"""Check content from YAML or JSON against the types that a dataclass declares."""

import reprlib
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "values by name",
    NoneType: "null",
}


def typed(kind: Any, content: Any, name: str = "") -> Any:
    """Return content of a declared type, with defaults for what is missing.

    Nothing is converted, except an integer where a float is declared. Fields that are not
    declared are kept, as another version may know them.

    :param kind: a dataclass, or the type of one of its fields.
    :param content: as it was read from YAML or JSON.
    :param name: the dotted name of the content, for error messages.
    :return: plain content: a dataclass becomes a dictionary.
    :raises ValueError: if a part has another type, or is missing.
    """
    if is_dataclass(kind):
        return dict(_fields(kind, _of_type(dict, content, name), name))
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # X | None
        (some,) = (part for part in parts if part is not NoneType)
        return None if content is None else typed(some, content, name)
    if kind is Any:
        return _plain(content, name)
    if origin is list:
        items = enumerate(_of_type(list, content, name))
        return [typed(parts[0], item, _below(name, i)) for i, item in items]
    if origin is dict:
        for key in _of_type(dict, content, name):
            _of_type(str, key, f"a name in {name}")
        return {
            key: typed(parts[1], part, _below(name, key)) for key, part in content.items()
        }
    if kind is float and type(content) is int:
        return _as_float(content, name)
    return _of_type(kind, content, name)


def _fields(kind: Any, content: dict[Any, Any], name: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        own = _below(name, field.name)
        if field.name in content:
            yield field.name, typed(hints[field.name], content[field.name], own)
        else:
            yield field.name, _default(field, own)
    for key in (key for key in content if key not in hints):
        # With a dot it would look like a setting of a section.
        if not (isinstance(key, str) and key.isidentifier()):
            raise ValueError(f"{reprlib.repr(key)} is not the name of a setting")
        yield key, _plain(content[key], _below(name, key))


def _default(field: "Field[Any]", name: str) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise ValueError(f"no {name}")


def _plain(content: Any, name: str) -> Any:
    """Check that content has no date, set or other special type of YAML."""
    if type(content) is dict:
        return {key: _plain(part, _below(name, key)) for key, part in content.items()}
    if type(content) is list:
        return [_plain(part, name) for part in content]
    if type(content) not in _WORDS:
        raise ValueError(f"{name} is of a type that no setting has")
    return content


def _of_type(kind: type, content: Any, name: str) -> Any:
    if type(content) is not kind:  # True is an int for isinstance
        allowed = _WORDS[kind]
        got = reprlib.repr(content)
        raise ValueError(f"{name or 'it'} must be {allowed}, got {got}")
    return content


def _as_float(content: int, name: str) -> float:
    try:
        return float(content)
    except OverflowError:
        raise ValueError(f"{name} is too large") from None


def _below(name: str, part: object) -> str:
    return f"{name}.{part}" if name else str(part)
