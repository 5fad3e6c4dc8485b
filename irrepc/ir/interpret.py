"""interpret: the meaning of a kernel, evaluated slowly and obviously over any ring.

Numbers may be Surd, Fraction, int or float; arrays are nested lists.  Everything that is emitted is compared with this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from irrepc.algebra.surd import Surd
from irrepc.errors import KernelError
from irrepc.ir.kernel import Axes, Kernel, Operand, Ref

Row = list[Any]
Cell = tuple[Ref, tuple[int, ...]]


def interpret(
    kernel: Kernel,
    arrays: Mapping[str, Sequence[Any]],
    *,
    extents: Mapping[str, int] | None = None,
    indices: Mapping[str, Sequence[int]] | None = None,
    rows: int | None = None,
    sizes: Mapping[str, int] | None = None,
    number: Callable[[Surd], Any] = lambda c: c,
) -> dict[str, list[Any]]:
    """Evaluate a kernel.

    arrays   name -> rows of flat numbers (components in order, channels fast); one flat row for a shared operand
    extents  channel axis -> how many channels
    indices  index name -> the row numbers, one per loop row
    rows     the number of loop rows (needed only when no input tells)
    sizes    index name -> how many rows an output scattered through that index has
    number   how a coefficient enters the ring: float for floats, the identity for Surd
    Returns name -> rows of flat numbers, as the inputs.
    """
    extents, indices, sizes = extents or {}, indices or {}, sizes or {}
    count = _row_count(kernel, arrays, indices, rows)
    offsets = {o.name: _offsets(o, extents) for o in kernel.operands.values()}
    width = {o.name: sum(_volume(c, extents) for c in o.components) for o in kernel.operands.values()}
    zero = number(Surd())
    out: dict[str, list[Any]] = {}
    for o in kernel.outputs:
        n = count if o.index is None else sizes[o.index]
        out[o.name] = [zero] * width[o.name] if o.rows is None else [[zero] * width[o.name] for _ in range(n)]
    inputs = {o.name: o for o in kernel.inputs}
    outputs = {o.name: o for o in kernel.outputs}
    operands = kernel.operands
    for row in range(count):
        registers: dict[Cell, Any] = {}

        def position(o: Operand, row: int = row) -> int:
            return row if o.index is None else indices[o.index][row]

        def place(ref: Ref, at: Mapping[str, int]) -> int:
            axes = operands[ref.operand].components[ref.component]
            flat = 0
            for a in axes:
                flat = flat * extents[a] + at[a]
            return offsets[ref.operand][ref.component] + flat

        def value(
            ref: Ref,
            at: Mapping[str, int],
            registers: dict[Cell, Any] = registers,
            position: Callable[[Operand], int] = position,
        ) -> Any:
            if ref.operand in inputs:
                o = inputs[ref.operand]
                line = arrays[o.name] if o.rows is None else arrays[o.name][position(o)]
                return line[place(ref, at)]
            axes = operands[ref.operand].components[ref.component]
            return registers.get((ref, tuple(at[a] for a in axes)), zero)

        for equation in kernel.equations:
            target = equation.target
            own = operands[target.operand].components[target.component]
            local: dict[tuple[int, ...], Any] = {at: zero for at in _grid(own, extents)}
            for term in equation.terms:
                carried = (a for f in term.factors for a in operands[f.operand].components[f.component])
                loops = tuple(dict.fromkeys((*own, *carried)))
                coefficient = number(term.coeff)
                for point in _grid(loops, extents):
                    at = dict(zip(loops, point, strict=True))
                    result = coefficient
                    for factor in term.factors:
                        result = result * value(factor, at)
                    key = point[: len(own)]
                    local[key] = local[key] + result
            if target.operand not in outputs:
                registers.update({(target, key): v for key, v in local.items()})
                continue
            o = outputs[target.operand]
            line = out[o.name] if o.rows is None else out[o.name][position(o)]
            for key, v in local.items():
                spot = place(target, dict(zip(own, key, strict=True)))
                line[spot] = line[spot] + v
    return out


def _row_count(
    kernel: Kernel, arrays: Mapping[str, Sequence[Any]], indices: Mapping[str, Sequence[int]], rows: int | None
) -> int:
    told = {len(indices[name]) for name in kernel.indices if name in indices}
    told |= {len(arrays[o.name]) for o in kernel.inputs if o.rows is not None and o.index is None}
    if rows is not None:
        told.add(rows)
    if len(told) != 1:
        raise KernelError(f"interpret {kernel.name}: got row counts {sorted(told)}; expected exactly one")
    return told.pop()


def _volume(axes: Axes, extents: Mapping[str, int]) -> int:
    n = 1
    for a in axes:
        n *= extents[a]
    return n


def _offsets(o: Operand, extents: Mapping[str, int]) -> tuple[int, ...]:
    out, start = [], 0
    for axes in o.components:
        out.append(start)
        start += _volume(axes, extents)
    return tuple(out)


def _grid(axes: Axes, extents: Mapping[str, int]) -> list[tuple[int, ...]]:
    return list(product(*(range(extents[a]) for a in axes)))
