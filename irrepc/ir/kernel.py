"""The five nouns of the IR: Ref, Term, Equation, Operand, Kernel.

A kernel is a list of exact polynomial equations, evaluated once for each row of its loop (an edge, a node):

1. An operand with an `index` is read at (or added to) the row that the index names: a gather (or a scatter).
   An operand without rows is shared by all rows; as an output it is summed over them.
2. Each component of an operand carries channel axes.  A term is evaluated for every combination of the channels
   its factors carry; where the target lacks one of these axes (or the rows), it is summed over it; where the
   target has one more, the value is repeated along it.
3. A target that is neither input nor output is a local: a register, defined before it is used.

Gather and scatter, repeat and sum are each other's transposes, so the derivative of a kernel is a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from irrepc.algebra.surd import Surd

Axes = tuple[str, ...]


class Ref(NamedTuple):
    """One component of an operand or local: Ref("y", 2) is y[2]."""

    operand: str
    component: int

    def __str__(self) -> str:
        return f"{self.operand}[{self.component}]"


class Term(NamedTuple):
    """coeff · Π factors, the factors sorted; a repeated factor is a power."""

    coeff: Surd
    factors: tuple[Ref, ...]

    def __str__(self) -> str:
        product = "·".join(str(f) for f in self.factors)
        return f"{self.coeff}·{product}" if product else str(self.coeff)


class Equation(NamedTuple):
    """target = Σ terms."""

    target: Ref
    terms: tuple[Term, ...]

    def __str__(self) -> str:
        right = " + ".join(str(t) for t in self.terms) if self.terms else "0"
        return f"{self.target} = {right}"


@dataclass(frozen=True, slots=True)
class Operand:
    """An array argument, an output, or a family of locals.

    name        what the emitted code calls it
    components  for each component, the channel axes it carries: ("u",) is one number per channel, () a scalar
    rows        the row axis of the array ("edge", "node", "row"), or None when all rows share it
    index       None, or the name of the index through which a row is found ("sender", "receiver", "species")
    labels      what each component is, for the reader of the emitted code ("1o m=-1"); empty: nothing to say
    """

    name: str
    components: tuple[Axes, ...]
    rows: str | None = "row"
    index: str | None = None
    labels: tuple[str, ...] = field(default=(), compare=False)

    @property
    def size(self) -> int:
        """The number of components."""
        return len(self.components)

    def label(self, component: int) -> str:
        """What a component is, or an empty text."""
        return self.labels[component] if self.labels else ""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A named program: inputs, outputs, locals and the equations that define the last two, in order."""

    name: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    equations: tuple[Equation, ...]
    locals: tuple[Operand, ...] = ()
    doc: str = field(default="", compare=False)

    @property
    def operands(self) -> dict[str, Operand]:
        """All operands by name: inputs, outputs, locals."""
        return {o.name: o for o in (*self.inputs, *self.outputs, *self.locals)}

    @property
    def channels(self) -> Axes:
        """The channel axes, in order of first appearance over inputs and outputs."""
        return tuple(dict.fromkeys(a for o in (*self.inputs, *self.outputs) for c in o.components for a in c))

    @property
    def indices(self) -> tuple[str, ...]:
        """The indices used, in order of first appearance over inputs and outputs."""
        return tuple(dict.fromkeys(o.index for o in (*self.inputs, *self.outputs) if o.index is not None))

    @property
    def size(self) -> int:
        """The number of terms, the measure of emitted length."""
        return sum(len(e.terms) for e in self.equations)


def collect(pairs: Iterable[tuple[Ref, Term]]) -> tuple[Equation, ...]:
    """Equations in order of their targets, like monomials added and zeros dropped."""
    sums: dict[Ref, dict[tuple[Ref, ...], Surd]] = {}
    for target, term in pairs:
        monomials = sums.setdefault(target, {})
        key = tuple(sorted(term.factors))
        monomials[key] = monomials[key] + term.coeff if key in monomials else term.coeff
    return tuple(
        Equation(target, tuple(Term(c, f) for f, c in sorted(monomials.items()) if c))
        for target, monomials in sorted(sums.items())
    )
