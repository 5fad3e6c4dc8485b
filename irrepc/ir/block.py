"""Block: a kernel in the order in which a row is computed, ready to be printed.

A block is a list of stages.  A stage without axes is straight-line scalar code; a stage with axes is a loop over
channels.  Scalars cross freely from stage to stage; a register with channels lives in one loop only and is
computed again in each loop that needs it, so no stage needs a buffer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from irrepc.errors import KernelError
from irrepc.ir.bundles import LOOP_LIMIT, bundles, loop_axes
from irrepc.ir.kernel import Axes, Equation, Kernel, Operand, Ref, Term

PAIR = "pair"
"""The index of the pairs of atoms, each of which has an edge, or two of opposite directions."""


@dataclass(frozen=True, slots=True)
class Statement:
    """verb "let" (a register), "sum" (add to a scalar over the channels), "store" or "add" (to an output)."""

    verb: str
    target: Ref
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """Statements inside the same loop nest; `axes` () is once per row."""

    axes: Axes
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations for one row and one channel of each loop; a term with n factors is n - 1 or n multiplications."""

    mul: int
    add: int
    load: int
    store: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.mul + other.mul, self.add + other.add, self.load + other.load, self.store + other.store)


@dataclass(frozen=True, slots=True)
class Block:
    """The stages of one kernel."""

    kernel: Kernel
    stages: tuple[Stage, ...]

    @property
    def cost(self) -> dict[Axes, Cost]:
        """Cost per loop nest: () once per row, ("u",) for every channel u."""
        out: dict[Axes, Cost] = {}
        for stage in self.stages:
            out[stage.axes] = out.get(stage.axes, Cost(0, 0, 0, 0)) + stage_cost(self.kernel, stage)
        return out


def schedule(kernel: Kernel, limit: int = LOOP_LIMIT) -> Block:
    """Arrange the equations of an optimised kernel in stages of at most `limit` multiply-adds (or one equation)."""
    operands = kernel.operands
    axes = {Ref(o.name, i): a for o in operands.values() for i, a in enumerate(o.components)}
    outputs = {o.name: o for o in kernel.outputs}
    registers = {e.target: e for e in kernel.equations if e.target.operand not in outputs}
    order = kernel.channels
    loops = {target: loop_axes(order, (e,), axes) for target, e in registers.items()}
    phases: dict[Ref, int] = {}
    by_phase: dict[int, list[Equation]] = {}
    partial: set[Ref] = set()
    for e in kernel.equations:
        pieces = _pieces(order, e, axes)
        if len(pieces) > 1:
            partial.add(e.target)
        for piece in pieces:
            if e.target in registers and piece is not e:
                raise KernelError(
                    f"schedule {kernel.name}: got {e.target}, a sum over different channel axes; expected one loop nest"
                )
            phase = _phase(loop_axes(order, (piece,), axes), piece, loops, axes, phases)
            by_phase.setdefault(phase, []).append(piece)
            if e.target in registers:
                phases[e.target] = phase
                if axes[e.target] and set(loops[e.target]) - set(axes[e.target]):
                    raise KernelError(
                        f"schedule {kernel.name}: got {e.target}, which keeps some channels and sums others; "
                        "expected all or none"
                    )
    stages: list[Stage] = []
    for phase, here in sorted(by_phase.items()):
        if phase % 2 == 0:
            stages.append(_stage(outputs, axes, partial, (), here))
            continue
        roots = [e for e in here if e.target.operand in outputs or not axes[e.target]]
        loops_ = bundles(kernel, roots, registers, axes, limit)
        pieces_of = Counter(e.target for bundle in loops_ for e in bundle.equations)
        partial.update(target for target, n in pieces_of.items() if n > 1 and target.operand in outputs)
        stages.extend(_stage(outputs, axes, partial, b.axes, b.equations) for b in loops_)
    return Block(kernel, tuple(stages))


def split(kernel: Kernel) -> tuple[Kernel, ...]:
    """Cut a kernel so that each part scatters through one index only (or none); scattered outputs come first.

    Rows of two indices or more are edges: their own outputs join a scatter, whose loop meets every edge once and shares
    what it reads and computes: that of pairs, else the first.  (Where gradients to nodes are not wanted, as of species,
    the loop over pairs then does it all; where they are, measured, it makes no difference.)  With one index (a species)
    the scatter may have very few rows to share out among threads, so outputs of the loop's own rows stay by themselves.
    """
    scatters = [o.index for o in kernel.outputs if o.index is not None]
    host = PAIR if PAIR in scatters else scatters[0] if scatters else None
    return _cut(kernel, host if len(kernel.indices) > 1 else None)


def split_by_index(kernel: Kernel) -> tuple[Kernel, ...]:
    """Cut a kernel by the index that outputs are scattered through, those of the loop's own rows by themselves.

    For processors of very many threads, which take edges one by one and rows of a scatter one by one.
    """
    return _cut(kernel, None)


def _cut(kernel: Kernel, host: str | None) -> tuple[Kernel, ...]:
    """One part for each index; outputs of the loop's own rows with those of `host`."""
    groups: dict[tuple[str | None, str | None], list[str]] = {}
    for o in kernel.outputs:
        index = host if o.index is None and o.rows is not None else o.index
        groups.setdefault((o.rows if index is None else index, index), []).append(o.name)
    return tuple(restrict(kernel, names) for names in groups.values())


def restrict(kernel: Kernel, outputs: Iterable[str]) -> Kernel:
    """The same kernel with some of its outputs only; the inputs stay, dead locals are left to `merge`."""
    names = set(outputs)
    dropped = {o.name for o in kernel.outputs} - names
    return replace(
        kernel,
        outputs=tuple(sorted((o for o in kernel.outputs if o.name in names), key=lambda o: o.index is None)),
        equations=tuple(e for e in kernel.equations if e.target.operand not in dropped),
    )


def stage_cost(kernel: Kernel, stage: Stage) -> Cost:
    """The multiplications, additions, loads of array elements and stores of one pass through a stage."""
    inputs = {o.name for o in kernel.inputs}
    mul = add = store = 0
    loaded: set[Ref] = set()
    for s in stage.statements:
        for t in s.terms:
            mul += max(0, len(t.factors) - 1 + (0 if t.coeff.is_unit else bool(t.factors)))
            loaded.update(f for f in t.factors if f.operand in inputs)
        add += len(s.terms) - (0 if s.verb in ("sum", "add") else 1)
        store += s.verb in ("store", "add")
    return Cost(mul, add, len(loaded), store)


def _pieces(order: Axes, e: Equation, axes: dict[Ref, Axes]) -> list[Equation]:
    """An equation that sums over channels, cut so that the terms of each piece run over the same loops.

    A term would otherwise be added once for each channel of a loop that it knows nothing of.
    """
    groups: dict[Axes, list[Term]] = {}
    for t in e.terms:
        groups.setdefault(loop_axes(order, (Equation(e.target, (t,)),), axes), []).append(t)
    if len(groups) == 1 or all(set(nest) == set(axes[e.target]) for nest in groups):
        return [e]
    return [Equation(e.target, tuple(terms)) for terms in groups.values()]


def _phase(
    nest: Axes, e: Equation, loops: dict[Ref, Axes], axes: dict[Ref, Axes], phases: dict[Ref, int]
) -> int:
    """Even phases are scalar code, odd phases loops; a value is used no earlier than it is complete."""
    looped = bool(nest)
    phase = 1 if looped else 0
    for f in {f for t in e.terms for f in t.factors if f in phases}:
        before = phases[f]
        if not loops[f]:
            phase = max(phase, before + 1 if looped else before)
        elif axes[f]:
            phase = max(phase, before)
        else:
            phase = max(phase, before + 2 if looped else before + 1)
    return phase


def _stage(
    outputs: dict[str, Operand], axes: dict[Ref, Axes], partial: set[Ref], nest: Axes, equations: Iterable[Equation]
) -> Stage:
    return Stage(nest, tuple(_statement(outputs, axes, partial, e, nest) for e in equations))


def _statement(
    outputs: dict[str, Operand], axes: dict[Ref, Axes], partial: set[Ref], e: Equation, nest: Axes
) -> Statement:
    own = axes[e.target]
    operand = outputs.get(e.target.operand)
    if operand is not None:
        whole = operand.rows is not None and operand.index is None and set(nest) == set(own) and e.target not in partial
        return Statement("store" if whole else "add", e.target, e.terms)
    return Statement("sum" if nest and not own else "let", e.target, e.terms)
