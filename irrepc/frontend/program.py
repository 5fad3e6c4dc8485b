"""Program: a straight-line kernel of one row while it is being written, one equation after the other."""

from __future__ import annotations

from collections.abc import Sequence

from irrepc.algebra.surd import Rational, Surd
from irrepc.ir.kernel import Equation, Kernel, Operand, Ref, Term


def times(coeff: Surd | Rational, *factors: Ref) -> Term:
    """The term coeff · Π factors."""
    return Term(Surd.lift(coeff), tuple(sorted(factors)))


class Program:
    """Equations in the order of their evaluation and the families of locals they define."""

    def __init__(self) -> None:
        self._equations: list[Equation] = []
        self._labels: dict[str, list[str]] = {}

    def define(self, family: str, label: str, *terms: Term) -> Ref:
        """Add the next local of a family, equal to the sum of the terms, and return it."""
        labels = self._labels.setdefault(family, [])
        target = Ref(family, len(labels))
        labels.append(label)
        self._equations.append(Equation(target, terms))
        return target

    def put(self, target: Ref, *terms: Term) -> None:
        """Set a component of the output to the sum of the terms."""
        self._equations.append(Equation(target, terms))

    def kernel(self, name: str, source: Operand, output: Operand, doc: str) -> Kernel:
        """The finished kernel from one input to one output; outputs are written last, in order of components."""
        return Kernel(
            name,
            (source,),
            (output,),
            tuple(sorted(self._equations, key=lambda e: e.target.component if e.target.operand == output.name else -1)),
            tuple(scalars(family, labels) for family, labels in self._labels.items()),
            doc,
        )


def scalars(name: str, labels: Sequence[str]) -> Operand:
    """An operand of one row with a scalar for each label."""
    return Operand(name, ((),) * len(labels), labels=tuple(labels))


def signed(m: int) -> str:
    """The order m as labels write it: -1, 0, +1."""
    return f"{m:+d}" if m else "0"
