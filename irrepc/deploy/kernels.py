"""Kernels: a call of the IR as compiled code on addresses, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from types import ModuleType
from typing import Any, NamedTuple

from irrepc.algebra.recipe import Recipe
from irrepc.deploy.program import Call
from irrepc.runtime.store import load_module

BACKEND = "llvm"


class RowNumbers(NamedTuple):
    """An index as kernels read it: addresses of values, order and start, the CSR starts, and how many rows it has."""

    addresses: tuple[int, int, int]
    start: Any
    rows: int


class Part(NamedTuple):
    """A serial function with its arguments.

    compute    (first row, last row + 1, addresses)
    operands   which of the call's addresses it takes: names of operands, or ("sender", 0) for a field of an index
    scatter    the index whose rows it runs over; None: the rows of the loop
    moved      array elements it touches for each row of the loop
    """

    compute: Callable[..., None]
    operands: tuple[str | tuple[str, int], ...]
    scatter: str | None
    moved: int


class Bound(NamedTuple):
    """A call, ready to run: its module, its parts, and the names of its operands."""

    module: ModuleType
    parts: tuple[Part, ...]
    names: dict[str, str]
    indices: tuple[str, ...]
    rows: str


def bind(call: Call, dtype: str, rows: str) -> Bound:
    """Load and compile the parts of a call that make what is wanted of it.

    rows  of the loop: "node" or "edge"
    """
    module, function = _loaded(call.recipe)
    name = function + ("" if call.order == 0 else "_vjp")
    inputs, outputs, own_indices, axes = _signature(module, function, call.order)
    names = dict(zip((*(a[0] for a in inputs), *(a[0] for a in outputs)), (*call.inputs, *call.outputs), strict=True))
    indices = dict(zip(own_indices, call.indices, strict=True))
    extents = dict(zip(axes, call.extents, strict=True))
    widths = {a[0]: _width(a, extents) for a in (*inputs, *outputs) if a[1] is not None}
    fields = {
        f"{own}.{field}": (asked, number)
        for own, asked in indices.items()
        for number, field in enumerate(("values", "order", "start"))
    }
    parts = []
    for part, taken, scatter, made in module.PARTS[name]:
        if any(names[o] for o in made):
            operands = tuple(fields.get(a, a) for a in taken)
            moved = sum(widths.get(a, 0) for a in taken)
            compute = module.serial(part, dtype, len(taken), **extents)
            parts.append(Part(compute, operands, None if scatter is None else indices[scatter], moved))
    return Bound(module, tuple(parts), names, tuple(call.indices), rows)


def run(
    bound: Bound,
    addresses: Mapping[str, int],
    indices: Mapping[str, RowNumbers],
    count: int,
    unwanted: Callable[[int], int],
    threads: int,
) -> None:
    """Run a call over `count` rows.

    addresses  of buffers and constants
    unwanted   (number) -> the address of room for an output that a part makes and nobody wants
    """
    module = bound.module
    for part in bound.parts:
        at = [
            (addresses[bound.names[o]] if bound.names[o] else unwanted(k))
            if isinstance(o, str)
            else indices[o[0]].addresses[o[1]]
            for k, o in enumerate(part.operands)
        ]
        pieces = module.pieces_of(part.moved * count, threads)
        if part.scatter is None:
            if pieces == 1:
                part.compute(0, count, *at)
            else:
                module.run(part.compute, [(*cut, *at) for cut in module.cut_rows(count, pieces)], threads)
        else:
            index = indices[part.scatter]
            if pieces == 1:
                part.compute(0, index.rows, *at)
            else:
                module.run(part.compute, [(*cut, *at) for cut in module.cut_edges(index.start, pieces)], threads)


def _loaded(recipe: Recipe) -> tuple[ModuleType, str]:
    return load_module(recipe, BACKEND)


def _signature(module: ModuleType, function: str, order: int) -> Any:
    """(inputs, outputs, indices, channel axes) of an order, operands as SPEC writes them."""
    inputs, outputs, indices, axes = module.SPEC[function]
    if order == 0:
        return inputs, outputs, indices, axes
    cotangents = tuple((f"g_{o[0]}", *o[1:]) for o in outputs)
    gradients = tuple((f"d_{i[0]}", *i[1:]) for i in inputs)
    return tuple(chain(inputs, cotangents)), gradients, indices, axes


def _width(operand: Any, extents: Mapping[str, int]) -> int:
    total = 0
    for count, names in operand[3]:
        for name in names:
            count *= extents[name]
        total += count
    return total
