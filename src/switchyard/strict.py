"""Reads plain JSON data into dataclasses and refuses everything the dataclass does not name."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from switchyard.errors import Exit, SwitchyardError
from switchyard.names import nearest

T = TypeVar("T")


def _refuse(where: str, problem: str) -> SwitchyardError:
    return SwitchyardError(f"{where}: {problem}{'' if problem.endswith('?') else '.'}", Exit.USAGE)


def require(condition: bool, where: str, rule: str) -> None:
    """Refuse a value that breaks a rule; raises `SwitchyardError` naming its path and the rule."""
    if not condition:
        raise _refuse(where, rule)


def _below(where: str, key: object) -> str:
    """The path of a key; a prefix that ends in `_` or is empty is the start of a variable's name."""
    return f"{where}{key}" if not where or where.endswith("_") else f"{where}.{key}"


def build(cls: type[T], data: object, where: str) -> T:
    """Make a `cls` (a dataclass) from a JSON object.

    `where` is the path of `data` as an operator would write it, such as `app_services.api`. Raises `SwitchyardError`
    naming that path for an unknown key (with the nearest known one), a missing key or a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise _refuse(where, f"expected a mapping, found {type(data).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass
    hints = get_type_hints(cls)
    for key in data:
        if key not in fields:
            raise _refuse(_below(where, key), f"unknown key{nearest(str(key), fields)}")
    values: dict[str, object] = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], _below(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _refuse(_below(where, name), "is required")
    return cls(**values)


def _convert(hint: Any, value: object, where: str) -> object:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(arg for arg in args if arg is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type[Any], hint), value, where)
    if origin is list:
        if not isinstance(value, list):
            raise _refuse(where, f"expected a list, found {type(value).__name__}")
        return [_convert(args[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _refuse(where, f"expected a mapping, found {type(value).__name__}")
        return {str(key): _convert(args[1], item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: object, where: str) -> object:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise _refuse(where, f"use one of {', '.join(map(str, get_args(hint)))}, not {str(value)[:40]!r}")
        return value
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a subclass of int, yet `port: true` is a mistake.
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _refuse(where, f"expected {hint.__name__}, found {type(value).__name__} ({str(value)[:40]!r})")
    return value
