"""Weights of products: read as they are, or made in the kernel from basis functions or from splines of a table.

A weight that is made is a local of the kernel, so the array (rows, paths, channels) never exists, and its derivatives
with respect to what it is made of follow from vjp like all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from irrepc.algebra.surd import ONE, Surd
from irrepc.ir.kernel import Axes, Equation, Operand, Ref, Term, collect


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the weights w[0], w[1], ... of a product come from: operands, and equations of locals."""

    inputs: tuple[Operand, ...]
    locals: tuple[Operand, ...] = ()
    equations: tuple[Equation, ...] = ()


def weights_of(kind: str, terms: int, row: str, axes: tuple[Axes, ...], labels: tuple[str, ...]) -> Weights:
    """The weights of a product recipe (algebra/recipe.py says what the kinds are).

    axes, labels  of each weighted path
    """
    match kind:
        case "basis":
            return _of_basis(terms, row, axes, labels)
        case "spline":
            return _of_spline(terms, row, axes, labels)
        case "pair":
            return Weights((Operand("w", axes, "pair", "pair", labels=labels),))
        case _:
            return Weights((Operand("w", axes, row if kind == "row" else None, labels=labels),))


@lru_cache(maxsize=16)
def spline_pieces(degree: int) -> tuple[tuple[Fraction, ...], ...]:
    """B-splines with unit knot spacing on one interval: b_k(t) = Σ_j pieces[k][j]·t^j for 0 <= t < 1, k = 0 ... degree.

    b_k belongs to the k-th of the degree + 1 control values that matter there; Σ_k b_k = 1.
    Source: the recurrence of de Boor, J. Approx. Theory 6, 50 (1972): n·b_k = (t + n - k)·b'_(k-1) + (k + 1 - t)·b'_k.
    """
    if degree == 0:
        return ((Fraction(1),),)
    lower = spline_pieces(degree - 1)
    out = []
    for k in range(degree + 1):
        piece = [Fraction(0)] * (degree + 1)
        for below, constant, slope in ((k - 1, degree - k, 1), (k, k + 1, -1)):
            if 0 <= below < degree:
                for j, c in enumerate(lower[below]):
                    piece[j] += c * constant / degree
                    piece[j + 1] += c * slope / degree
        out.append(tuple(piece))
    return tuple(out)


def _of_basis(terms: int, row: str, axes: tuple[Axes, ...], labels: tuple[str, ...]) -> Weights:
    """w[p] = Σ_k h[k]·W[k, p]."""
    count = len(axes)
    h = Operand("h", ((),) * terms, row, labels=tuple(f"basis function {k}" for k in range(terms)))
    matrix = Operand("c", axes * terms, None, labels=tuple(f"{p}, of {k}" for k in range(terms) for p in labels))
    equations = tuple(
        Equation(Ref("w", p), tuple(Term(ONE, (Ref("c", k * count + p), Ref("h", k))) for k in range(terms)))
        for p in range(count)
    )
    return Weights((h, matrix), (Operand("w", axes, row, labels=labels),), equations)


def _of_spline(terms: int, row: str, axes: tuple[Axes, ...], labels: tuple[str, ...]) -> Weights:
    """w[p] = Σ_k b_k(t)·c_k[p]; the tables c0, c1, ... are one array, each of them from one row further on."""
    place = Operand("t", ((),), row, labels=("place between two knots, 0 to 1",))
    tables = tuple(Operand(f"c{k}", axes, "knot", "knot", labels=labels) for k in range(terms))
    # powers of t: q[j] = t^(j + 2)
    power = {j: (Ref("t", 0),) if j == 1 else (Ref("q", j - 2),) for j in range(1, terms)} | {0: ()}
    rises = [(Ref("q", j - 2), Term(ONE, tuple(sorted((*power[j - 1], Ref("t", 0)))))) for j in range(2, terms)]
    pieces = [
        (Ref("b", k), Term(Surd.of(c), power[j]))
        for k, piece in enumerate(spline_pieces(terms - 1))
        for j, c in enumerate(piece)
        if c
    ]
    sums = [(Ref("w", p), Term(ONE, (Ref("b", k), Ref(f"c{k}", p)))) for p in range(len(axes)) for k in range(terms)]
    powers = Operand("q", ((),) * (terms - 2), row, labels=tuple(f"t^{j}" for j in range(2, terms)))
    basis = Operand("b", ((),) * terms, row, labels=tuple(f"B-spline {k}" for k in range(terms)))
    local = (*((powers,) if rises else ()), basis, Operand("w", axes, row, labels=labels))
    return Weights((place, *tables), local, (*collect(rises), *collect(pieces), *collect(sums)))
