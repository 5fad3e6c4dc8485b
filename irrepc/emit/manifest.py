"""Manifest: what a package holds, for programs: recipes, files, hashes, costs, proofs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from irrepc import __version__
from irrepc.emit.costs import COLUMNS
from irrepc.emit.module import Module
from irrepc.emit.plan import Plan
from irrepc.emit.sources import source_digest
from irrepc.frontend.proof import Proof

NAME = "manifest.json"
COST_COLUMNS = ("function", "order", "outputs", "channel axes", *COLUMNS)


def manifest_text(
    planned: Plan, modules: Mapping[tuple[str, str], Module], proofs: tuple[Proof, ...], sums: Mapping[str, str]
) -> str:
    """The text of manifest.json; `sums` are the SHA-256 of all other files.

    lmax, irreps, backends and limit are the arguments that make the package again.
    """
    kernels = [
        {
            "recipe": str(entry.recipe),
            "function": entry.name,
            "hash": modules[part.name, planned.backends[0]].hashes[i],
            "files": {b: f"{b}/{part.name}.py" for b in planned.backends},
            "cost": {b: _costs(modules[part.name, b], entry.name) for b in planned.backends},
        }
        for part in planned.parts
        for i, entry in enumerate(part.entries)
    ]
    content = {
        "irrepc": ".".join(__version__.split(".")[:2]),
        "source": source_digest(),
        "command": planned.command,
        "lmax": planned.lmax,
        "irreps": planned.irreps,
        "backends": list(planned.backends),
        "limit": planned.limit,
        "omitted": {part.name: part.terms for part in planned.omitted},
        "proofs": [{"name": p.name, "statement": p.statement, "lmax": p.lmax, "checked": p.checked} for p in proofs],
        "cost_columns": list(COST_COLUMNS),
        "kernels": kernels,
        "sha256": dict(sums),
    }
    return _json(content) + "\n"


def _costs(module: Module, function: str) -> list[list[Any]]:
    """The lines of one entry's three orders."""
    names = (function, f"{function}_vjp", f"{function}_vjp_vjp")
    lines = (c for c in module.costs if c.function in names)
    return [[c.function, c.order, ", ".join(c.outputs), ", ".join(c.axes), *c.numbers] for c in lines]


def _json(value: Any, indent: str = "") -> str:
    """JSON with a list of plain values on one line, so that a table is read, and compared, line by line."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = ",\n".join(f"{inner}{json.dumps(k)}: {_json(v, inner)}" for k, v in value.items())
        return f"{{\n{items}\n{indent}}}"
    if isinstance(value, list) and any(isinstance(v, (list, dict)) for v in value):
        items = ",\n".join(inner + _json(v, inner) for v in value)
        return f"[\n{items}\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
