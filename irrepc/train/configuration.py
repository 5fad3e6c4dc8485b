"""Configuration files: YAML read into settings with errors that name the key, and settings written back as YAML."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from irrepc.errors import InputError, require
from irrepc.train.settings import Settings

T = TypeVar("T")

_WORDS = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}


def read_settings(path: Path) -> Settings:
    """The settings of a YAML file. Raises InputError naming the key, what was got and what is allowed."""
    yaml = require("yaml", "train")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"settings: got {path}, which cannot be read ({error}); expected a YAML file") from error
    except yaml.YAMLError as error:
        raise InputError(f"settings: got {path}, which is no YAML: {error}; correct the file") from error
    return read(Settings, content, "")


def write_settings(settings: Settings, path: Path) -> None:
    """All settings, defaults included, as YAML."""
    text: str = require("yaml", "train").safe_dump(_plain(asdict(settings)), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def read(kind: type[T], content: Any, where: str) -> T:
    """A dataclass from a mapping, checked field by field; `where` is the key under which it stands, "" at the top."""
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        raise InputError(f"settings: got {where or 'the file'} = {content!r}; expected keys and values")
    hints = get_type_hints(kind)
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    if unknown := [key for key in content if key not in known]:
        near = difflib.get_close_matches(str(unknown[0]), known, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"settings: got the key {_joined(where, unknown[0])}; expected one of {', '.join(known)}{meant}"
        )
    values = {key: convert(hints[key], value, _joined(where, key)) for key, value in content.items()}
    for name, entry in known.items():
        required = entry.default is MISSING and entry.default_factory is MISSING
        if required and name not in values:
            if not is_dataclass(hints[name]):
                raise InputError(f"settings: got no {_joined(where, name)}; expected {_words(hints[name])}; add it")
            values[name] = read(hints[name], {}, _joined(where, name))
    return kind(**values)


def convert(hint: Any, value: Any, where: str) -> Any:
    """The value as the annotated type has it; YAML's lists become tuples, whole numbers may stand for others."""
    if is_dataclass(hint) and isinstance(hint, type):
        return read(hint, value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return convert(option, value, where)
            except InputError:
                continue
    elif origin is tuple and isinstance(value, list | tuple | str):
        # one text stands for a list of one
        items = [value] if isinstance(value, str) else list(value)
        return tuple(convert(arguments[0], item, f"{where}[{k}]") for k, item in enumerate(items))
    elif origin is dict and isinstance(value, Mapping):
        return {
            convert(arguments[0], key, f"{where}, key"): convert(arguments[1], item, _joined(where, key))
            for key, item in value.items()
        }
    elif hint is Any:
        return value
    elif hint is float and (number := _number(value)) is not None:
        return number
    elif hint is type(None) and value is None:
        return None
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise InputError(f"settings: got {where} = {value!r}; expected {_words(hint)}")


def _number(value: Any) -> float | None:
    """A float; YAML reads 1e-3, without a point, as a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(option) for option in arguments)
    if origin is tuple:
        return f"a list, each {_words(arguments[0])}"
    if origin is dict:
        return f"a mapping of {_words(arguments[0])} to {_words(arguments[1])}"
    return _WORDS.get(hint, "keys and values" if is_dataclass(hint) else "anything")


def _joined(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down: what YAML knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
