"""Views: what the templates are given, frozen values made of text and tuples of text only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from irrepc.ir.kernel import Axes, Kernel, Operand


@dataclass(frozen=True, slots=True)
class Part:
    """One serial function of a compiled backend: it computes the outputs that share a scatter index.

    takes  its arguments after the first and the last row, as code of whoever calls it
    line   what PARTS says of it
    """

    name: str
    arguments: str
    takes: tuple[str, ...]
    line: str
    first: str
    fastmath: str
    constants: tuple[str, ...]
    body: tuple[str, ...]
    allocate: tuple[str, ...]
    call: tuple[str, ...]
    finish: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """One emitted function: a kernel at one order of differentiation."""

    name: str
    signature: str
    arguments: tuple[str, ...]
    returns: str
    summary: str
    shapes: tuple[str, ...]
    body: tuple[str, ...]
    parts: tuple[Part, ...]
    result: str


def product_text(parts: tuple[str, ...]) -> str:
    """u·v as code: "u * v"; "1" for nothing."""
    return " * ".join(parts) if parts else "1"


def count(operand: Operand) -> dict[Axes, int]:
    """How many components carry each set of channel axes, in order of first appearance."""
    total: dict[Axes, int] = {}
    for axes in operand.components:
        total[axes] = total.get(axes, 0) + 1
    return total


def counts_before(operand: Operand) -> list[dict[Axes, int]]:
    """For each component, how many of those before it carry each set of channel axes."""
    total: dict[Axes, int] = {}
    before = []
    for axes in operand.components:
        before.append(dict(total))
        total[axes] = total.get(axes, 0) + 1
    return before


def width(operand: Operand) -> str:
    """The width of a row as code: "9 * u + 4"."""
    return width_of((operand,))


def width_of(operands: Iterable[Operand]) -> str:
    """The widths of rows of several operands together, as code."""
    total: dict[Axes, int] = {}
    for operand in operands:
        for axes, n in count(operand).items():
            total[axes] = total.get(axes, 0) + n
    terms = (product_text((*(() if n == 1 and axes else (str(n),)), *axes)) for axes, n in total.items())
    return " + ".join(terms) or "0"


def offsets(operand: Operand) -> tuple[str, ...]:
    """Where each component begins in a row, as code; an empty text for 0."""
    total: dict[Axes, int] = {}
    starts = []
    for axes in operand.components:
        terms = (" * ".join(([str(n)] if n > 1 or not before else []) + list(before)) for before, n in total.items())
        starts.append(" + ".join(terms))
        total[axes] = total.get(axes, 0) + 1
    return tuple(starts)


def shape(operand: Operand) -> str:
    """The shape of an operand for the reader: "x (node, 9 * u), read at sender"."""
    if operand.rows is None:
        return f"{operand.name} ({width(operand)},), shared by all rows"
    where = f", at {operand.index}" if operand.index else ""
    return f"{operand.name} ({operand.rows}, {width(operand)}){where}"


def signature(kernel: Kernel) -> tuple[str, ...]:
    """The arguments of an emitted function: operands, indices, channel extents."""
    return (*(o.name for o in kernel.inputs), *kernel.indices, *kernel.channels)


def used_inputs(kernel: Kernel) -> tuple[Operand, ...]:
    """The inputs that some equation reads (the first one when none does)."""
    used = {f.operand for e in kernel.equations for t in e.terms for f in t.factors}
    return tuple(o for o in kernel.inputs if o.name in used) or kernel.inputs[:1]


def gathered(inputs: tuple[Operand, ...], scatter: str | None) -> tuple[str, ...]:
    """The indices through which inputs are read, other than the one of the scatter."""
    return tuple(dict.fromkeys(o.index for o in inputs if o.index is not None and o.index != scatter))


def spec(kernel: Kernel) -> str:
    """A kernel's operands as a Python literal: ((inputs...), (outputs...), indices, channel axes)."""
    sides = []
    for side in (kernel.inputs, kernel.outputs):
        rows = ((o.name, o.rows, o.index, tuple((n, axes) for axes, n in count(o).items())) for o in side)
        sides.append(tuple(rows))
    return repr((*sides, kernel.indices, kernel.channels))
