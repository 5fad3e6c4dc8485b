"""Bundles: which equations share a channel loop, and the order of the loops.

A register with channels lives in one loop only, so equations that need the same sums belong together: along a path of
a convolution q[i] = Σ_k M[i, k]·g[k] serves d_w = Σ_i x[i]·q[i] and d_x[i] += w·q[i].  An output that is added to a row
(a scatter) may be added to by several loops, so its equation is cut into terms first.  Loops of the same path stand
one after the other: what they read is then still near.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from irrepc.ir.kernel import Axes, Equation, Kernel, Ref

LOOP_LIMIT = 48
"""Terms in one channel loop: beyond this the scalars no longer stay near the registers and are spilled."""
SHARED_LIMIT = 200
"""Terms that may stay in one loop because they share sums: a path up to degree 6; beyond, sums are computed again."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The equations of one loop over channels, each register before its use."""

    axes: Axes
    equations: tuple[Equation, ...]


def bundles(
    kernel: Kernel, roots: list[Equation], registers: Mapping[Ref, Equation], axes: Mapping[Ref, Axes], limit: int
) -> tuple[Bundle, ...]:
    """Loops of at most `limit` terms (or one group that shares sums) for all `roots` and the registers they need."""
    out: list[Bundle] = []
    for group in _sorted_groups(kernel, _groups(kernel, roots, registers, axes), registers, axes):
        new = _joined(group, registers, axes)
        nest = loop_axes(kernel, new, axes)
        if out and out[-1].axes == nest:
            merged = _joined((*out[-1].equations, *group), registers, axes)
            if _size(merged) <= limit:
                out[-1] = Bundle(nest, merged)
                continue
        out.append(Bundle(nest, new))
    return tuple(out)


def loop_axes(kernel: Kernel, equations: Iterable[Equation], axes: Mapping[Ref, Axes]) -> Axes:
    """The channel axes that some operand of the equations carries, in the kernel's order."""
    found = {a for e in equations for r in (e.target, *(f for t in e.terms for f in t.factors)) for a in axes[r]}
    return tuple(a for a in kernel.channels if a in found)


def _groups(
    kernel: Kernel, roots: list[Equation], registers: Mapping[Ref, Equation], axes: Mapping[Ref, Axes]
) -> list[tuple[Equation, ...]]:
    """The roots, those that share a sum together."""
    scattered = {o.name for o in kernel.outputs if o.index is not None}
    pieces = [
        piece
        for e in roots
        for piece in ([Equation(e.target, (t,)) for t in e.terms] if e.target.operand in scattered else [e])
    ]
    parent = list(range(len(pieces)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Ref, int] = {}
    for i, piece in enumerate(pieces):
        for e in _closure(piece, registers, axes)[:-1]:
            if len(e.terms) > 1:
                j = find(first.setdefault(e.target, i))
                parent[max(j, find(i))] = min(j, find(i))
    together: dict[int, dict[Ref, Equation]] = {}
    for i, piece in enumerate(pieces):
        _add(together.setdefault(find(i), {}), piece)
    alone: dict[Ref, Equation] = {}
    out: list[tuple[Equation, ...]] = []
    for group in together.values():
        if len(group) == 1:
            for e in group.values():
                _add(alone, e)
        elif _size(_joined(group.values(), registers, axes)) > SHARED_LIMIT:
            out.extend((e,) for e in group.values())
        else:
            out.append(tuple(group.values()))
    return [*out, *((e,) for e in alone.values())]


def _sorted_groups(
    kernel: Kernel, groups: list[tuple[Equation, ...]], registers: Mapping[Ref, Equation], axes: Mapping[Ref, Axes]
) -> list[tuple[Equation, ...]]:
    """By loop axes, then by what they read: the operand of most components first, it tells the paths apart."""
    arrays = sorted(kernel.inputs, key=lambda o: -o.size)
    places = {e.target: i for group in groups for i, e in enumerate(group)}

    def key(group: tuple[Equation, ...]) -> tuple[object, ...]:
        equations = _joined(group, registers, axes)
        nest = loop_axes(kernel, equations, axes)
        smallest: dict[str, int] = {}
        for e in equations:
            for t in e.terms:
                for name, component in t.factors:
                    smallest[name] = min(component, smallest.get(name, component))
        read = tuple(smallest.get(o.name, -1) for o in arrays if any(o.components))
        return ([kernel.channels.index(a) for a in nest], read, places[group[0].target])

    return sorted(groups, key=key)


def _joined(
    roots: Iterable[Equation], registers: Mapping[Ref, Equation], axes: Mapping[Ref, Axes]
) -> tuple[Equation, ...]:
    """The roots and all registers with channels that they need, definitions first; equal targets added up."""
    out: dict[Ref, Equation] = {}
    for root in roots:
        for e in _closure(root, registers, axes)[:-1]:
            out.setdefault(e.target, e)
        if root.target in registers:
            out.setdefault(root.target, root)
        else:
            _add(out, root)
    return tuple(out.values())


def _add(equations: dict[Ref, Equation], e: Equation) -> None:
    """Add the terms to those the target has, behind everything else."""
    before = equations.pop(e.target, None)
    equations[e.target] = e if before is None else Equation(e.target, before.terms + e.terms)


def _closure(root: Equation, registers: Mapping[Ref, Equation], axes: Mapping[Ref, Axes]) -> tuple[Equation, ...]:
    """Every register with channels that the root needs, definitions first, then the root."""
    out: dict[Ref, Equation] = {}

    def visit(e: Equation) -> None:
        for t in e.terms:
            for f in t.factors:
                if f in registers and axes[f] and f not in out:
                    visit(registers[f])
        out[e.target] = e

    visit(root)
    return tuple(out.values())


def _size(equations: Iterable[Equation]) -> int:
    return sum(len(e.terms) for e in equations)
