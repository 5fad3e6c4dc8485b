"""Text of programs: steps, buffers and recipes as JSON values, and back."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from irrepc.algebra import recipe as recipes
from irrepc.algebra.irreps import Irrep
from irrepc.deploy.program import STEPS, Buffer, Place, Segment
from irrepc.errors import InputError

_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (*STEPS, Buffer, Place, Segment, *recipes.Recipe.__args__, recipes.Label, recipes.Path)
}


def written(value: Any) -> Any:
    """A step, a buffer, a recipe, or tuples of them, as JSON values: a dataclass becomes [name, fields]."""
    if isinstance(value, Irrep):
        return {"kind": "Irrep", "of": str(value)}
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        if kind not in _KINDS:
            raise InputError(f"program: got a {kind}; expected one of {', '.join(_KINDS)}")
        return {"kind": kind, **{f.name: written(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple | list):
        return [written(v) for v in value]
    return value


def read(value: Any) -> Any:
    """The inverse of `written`. Raises InputError for a kind this version does not know, or fields that do not fit."""
    if isinstance(value, list):
        return tuple(read(v) for v in value)
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    if kind == "Irrep":
        return Irrep.of(value["of"])
    if kind not in _KINDS:
        raise InputError(f"program: got a step {kind!r}; expected one of {', '.join(_KINDS)}; take a newer irrepc")
    try:
        return _KINDS[kind](**{name: read(v) for name, v in value.items() if name != "kind"})
    except TypeError as error:
        raise InputError(
            f"program: got {kind} with other fields ({error}); take the irrepc that wrote the file"
        ) from None
