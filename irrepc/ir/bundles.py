"""Bundles: which equations share a channel loop, and the order of the loops.

A register with channels lives in one loop only, so equations that need the same sums belong together: along a path of
a convolution q[i] = Σ_k M[i, k]·g[k] serves d_w = Σ_i x[i]·q[i] and d_x[i] += w·q[i].  An output that is added to a row
(a scatter) may be added to by several loops, so its equation is cut into terms first.  Loops of the same path stand
one after the other: what they read is then still near.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from irrepc.ir.kernel import Axes, Equation, Kernel, Ref

LOOP_LIMIT = 48
"""Terms in one channel loop that holds scalars: beyond this they no longer stay near the registers and are spilled."""
PLAIN_LIMIT = 480
"""Terms in one channel loop without scalars (a contraction), which is better off when it reads and computes once.

Measured: to degree 2 all in one loop is faster, to degree 3 (a thousand terms) it spills more than it saves.
"""
SHARED_LIMIT = 200
"""Terms that may stay in one loop because they share sums: a path up to degree 6; beyond, sums are computed again."""


Registers = Mapping[Ref, Equation]
AxesOf = Mapping[Ref, Axes]


@dataclass(frozen=True, slots=True)
class Bundle:
    """The equations of one loop over channels, each register before its use."""

    axes: Axes
    equations: tuple[Equation, ...]


def bundles(
    kernel: Kernel, roots: list[Equation], registers: Registers, axes: AxesOf, limit: int
) -> tuple[Bundle, ...]:
    """Loops of at most `limit` terms (or one group that shares sums) for all `roots` and the registers they need."""
    order = kernel.channels
    out: list[Bundle] = []
    current: dict[Ref, Equation] = {}
    last: Axes = ()
    for group in _sorted_groups(kernel, _groups(kernel, roots, registers, axes), registers, axes):
        nest = loop_axes(order, _joined(group, registers, axes), axes)
        new = (*_needed(group, registers, axes, current), *group)
        if current and (nest != last or not _fits((*current.values(), *new), axes, limit)):
            out.append(Bundle(last, tuple(current.values())))
            current = {}
            new = (*_needed(group, registers, axes, current), *group)
        for e in new:
            _add(current, e)
        last = nest
    return (*out, Bundle(last, tuple(current.values()))) if current else tuple(out)


def loop_axes(order: Axes, equations: Iterable[Equation], axes: AxesOf) -> Axes:
    """The channel axes that some operand of the equations carries, in the given order."""
    found = {a for e in equations for r in (e.target, *(f for t in e.terms for f in t.factors)) for a in axes[r]}
    return tuple(a for a in order if a in found)


def _groups(kernel: Kernel, roots: list[Equation], registers: Registers, axes: AxesOf) -> list[tuple[Equation, ...]]:
    """The roots, those that share a sum together."""
    scattered = {o.name for o in kernel.outputs if o.index is not None}
    pieces = [
        piece
        for e in roots
        for piece in ([Equation(e.target, (t,)) for t in e.terms] if e.target.operand in scattered else [e])
    ]
    parts = _Parts(registers, axes)
    marks = [parts.mark(piece) for piece in pieces]
    # Terms of one target that run over different channels are pieces of their own: in a wider loop one of them would be
    # added once for each channel that it knows nothing of.
    nests = [loop_axes(kernel.channels, _joined((piece,), registers, axes), axes) for piece in pieces]
    together: dict[tuple[Ref | int, Axes], dict[Ref, Equation]] = {}
    for i, (piece, mark, nest) in enumerate(zip(pieces, marks, nests, strict=True)):
        _add(together.setdefault((i if mark is None else parts.find(mark), nest), {}), piece)
    alone: dict[Axes, dict[Ref, Equation]] = {}
    out: list[tuple[Equation, ...]] = []
    for (_, nest), group in together.items():
        if len(group) == 1:
            for e in group.values():
                _add(alone.setdefault(nest, {}), e)
        elif not _fits(_joined(group.values(), registers, axes), axes, SHARED_LIMIT):
            out.extend((e,) for e in group.values())
        else:
            out.append(tuple(group.values()))
    return [*out, *((e,) for equations in alone.values() for e in equations.values())]


class _Parts:
    """Which sums belong together because some equation needs both: a forest of sets, one mark for each set."""

    def __init__(self, registers: Registers, axes: AxesOf) -> None:
        self.registers, self.axes = registers, axes
        self.parent: dict[Ref, Ref] = {}
        self.marks: dict[Ref, Ref | None] = {}

    def find(self, r: Ref) -> Ref:
        """The mark of the set that a sum is in now."""
        while self.parent[r] != r:
            self.parent[r] = self.parent[self.parent[r]]
            r = self.parent[r]
        return r

    def mark(self, e: Equation) -> Ref | None:
        """The sums that an equation needs become one set; a product of inputs needs none."""
        if e.target in self.marks:
            return self.marks[e.target]
        known = e.target in self.registers
        joined: Ref | None = None
        if known and len(e.terms) > 1:
            joined = self.parent[e.target] = e.target
        for f in dict.fromkeys(f for t in e.terms for f in t.factors if f in self.registers and self.axes[f]):
            other = self.mark(self.registers[f])
            if other is not None and joined is not None:
                self.parent[self.find(other)] = self.find(joined)
            joined = joined or other
        if known:
            self.marks[e.target] = joined
        return joined


def _sorted_groups(
    kernel: Kernel, groups: list[tuple[Equation, ...]], registers: Registers, axes: AxesOf
) -> list[tuple[Equation, ...]]:
    """By loop axes, then by what they read: the operand of most components first, it tells the paths apart."""
    order = kernel.channels
    arrays = [o.name for o in sorted(kernel.inputs, key=lambda o: -o.size) if any(o.components)]

    def key(group: tuple[Equation, ...]) -> tuple[list[int], list[int]]:
        equations = _joined(group, registers, axes)
        smallest: dict[str, int] = {}
        for name, component in {f for e in equations for t in e.terms for f in t.factors}:
            smallest[name] = min(component, smallest.get(name, component))
        nest = loop_axes(order, equations, axes)
        return [order.index(a) for a in nest], [smallest.get(name, -1) for name in arrays]

    return sorted(groups, key=key)


def _joined(roots: Iterable[Equation], registers: Registers, axes: AxesOf) -> tuple[Equation, ...]:
    """All registers with channels that the roots need, definitions first, then the roots."""
    roots = tuple(roots)
    return (*_needed(roots, registers, axes, ()), *roots)


def _needed(
    roots: Iterable[Equation], registers: Registers, axes: AxesOf, have: Container[Ref]
) -> tuple[Equation, ...]:
    """The registers with channels that the roots need, beyond those there are, definitions first."""
    out: dict[Ref, Equation] = {}
    targets = {e.target for e in roots}

    def visit(e: Equation) -> None:
        for t in e.terms:
            for f in t.factors:
                if f in registers and axes[f] and f not in out and f not in have and f not in targets:
                    visit(registers[f])
                    out[f] = registers[f]

    for root in roots:
        visit(root)
    return tuple(out.values())


def _add(equations: dict[Ref, Equation], e: Equation) -> None:
    """Add the terms to those the target has, behind everything else."""
    before = equations.pop(e.target, None)
    equations[e.target] = e if before is None else Equation(e.target, before.terms + e.terms)


def _fits(equations: tuple[Equation, ...], axes: AxesOf, limit: int) -> bool:
    """True when a loop of these equations is not too long."""
    scalars = any(not axes[f] for e in equations for t in e.terms for f in t.factors)
    return sum(len(e.terms) for e in equations) <= (limit if scalars else PLAIN_LIMIT)
