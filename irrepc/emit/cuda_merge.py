"""CUDA merge: sums that are cheaper made from one written row for each edge than by reading all of the edges again.

A part that scatters through one index reads, for each edge, everything that the outputs of the edge itself need too:
for the gradient of the features of a convolution to lmax 2 that is 46 numbers a channel, weights and gradients of
messages, to add up 9.  The launch for the edge's own outputs has these 46 at hand; so it writes the 9 as well, one row
for each edge, and a second launch adds the rows up: 18 numbers move instead of 46, and nothing is computed twice.  With
the macro ATOMIC the first launch adds to the sums itself, 9 numbers move, and the order of additions, with it the last
digits, differs from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from irrepc.algebra.surd import ONE
from irrepc.emit.views import used_inputs
from irrepc.ir.block import Block, restrict, schedule, split_by_index
from irrepc.ir.kernel import Equation, Kernel, Operand, Ref, Term
from irrepc.ir.passes import optimise

SUFFIX = "_rows"
"""Behind the name of an output: the rows that are added up to it."""
LARGEST = 5000
"""Terms in one launch: at lmax 4 the VJP has 4,200; its VJP has 6,400, and registers would be spilled."""
ADDED, WRITTEN_AND_READ = 2, 3
"""Numbers that must be saved for each that is added at once, or written and read again: of what would be read once more
some lies in the second-level cache, and an addition there takes more than a read."""


@dataclass(frozen=True, slots=True)
class Together:
    """Outputs of the loop's own rows and, row by row, what is added up to others.

    block   computes them
    sums    for each scattered output the kernel that adds up its rows
    parts   the outputs of each part of the kernel that these stand in for, the own rows' last
    always  whether that pays even where rows are written and read again; else with ATOMIC alone
    """

    block: Block
    sums: tuple[Kernel, ...]
    parts: tuple[tuple[Operand, ...], ...]
    always: bool

    @property
    def adds(self) -> tuple[tuple[str, str], ...]:
        """(rows, index) of each output that is added up."""
        return tuple((k.inputs[0].name, k.outputs[0].index or "") for k in self.sums)


def together(kernel: Kernel) -> Together | None:
    """The outputs of a kernel before any pass that are better computed together; None where there are none."""
    parts = split_by_index(kernel)
    own = next((p for p in parts if p.outputs[0].index is None and p.outputs[0].rows is not None), None)
    if own is None or not own.outputs:
        return None
    joining = [p for p in parts if p.outputs[0].index is not None and _excess(p) > ADDED]
    if not joining:
        return None
    always = all(_excess(p) > WRITTEN_AND_READ for p in joining)
    row = own.outputs[0].rows
    scattered = tuple(o for p in joining for o in p.outputs)
    rows = {o.name: replace(o, name=o.name + SUFFIX, rows=row, index=None) for o in scattered}
    whole = restrict(kernel, [o.name for p in (*joining, own) for o in p.outputs])
    equations = tuple(
        Equation(Ref(rows[e.target.operand].name, e.target.component), e.terms) if e.target.operand in rows else e
        for e in whole.equations
    )
    made = optimise(replace(whole, outputs=(*rows.values(), *own.outputs), equations=equations))
    if sum(len(e.terms) for e in made.equations) > LARGEST:
        return None
    written = {e.target for e in equations}
    sums = tuple(_sum(kernel.name, o, rows[o.name], written) for o in scattered)
    return Together(schedule(made), sums, tuple(p.outputs for p in (*joining, own)), always)


def _excess(part: Kernel) -> float:
    """How many numbers an edge brings to a part for each that it adds, channel by channel."""
    kernel = optimise(part)
    index, added = kernel.outputs[0].index, sum(map(len, (o.components for o in kernel.outputs)))
    if not all(axes for o in kernel.outputs for axes in o.components):
        return 0.0
    named = {f for e in kernel.equations for t in e.terms for f in t.factors}
    read = sum(
        bool(axes) and Ref(o.name, i) in named
        for o in used_inputs(kernel)
        if o.rows is not None and o.index != index
        for i, axes in enumerate(o.components)
    )
    return read / added


def _sum(name: str, output: Operand, rows: Operand, written: set[Ref]) -> Kernel:
    equations = tuple(
        Equation(Ref(output.name, i), (Term(ONE, (Ref(rows.name, i),)),))
        for i in range(output.size)
        if Ref(rows.name, i) in written
    )
    return Kernel(f"{name}_sum", (rows,), (output,), equations)
