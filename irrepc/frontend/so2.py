"""Kernels of the SO(2) path: features into the frame of an edge and back, and the gate between.

With R the rotation that turns an edge onto the polar axis ŷ, D = D(R) takes features into its frame, and Dᵀ out of it;
only the rows |m'| <= mmax of D occur (algebra/so2_recipe.py has their layout and that of the arrays by order).
"""

from __future__ import annotations

from collections.abc import Sequence

from irrepc.algebra.so2_recipe import (
    OrderGateRecipe,
    RotateBackRecipe,
    RotateRecipe,
    kept_entry,
    kept_start,
    orders,
)
from irrepc.algebra.surd import ONE
from irrepc.frontend.program import signed, times
from irrepc.ir.kernel import Axes, Equation, Kernel, Operand, Ref, Term, collect

CHANNELS: Axes = ("u",)


def rotate(recipe: RotateRecipe) -> Kernel:
    """o_m[(m', l), side] = w · Σ_m D^l[m', m] · x_side[l, m], x at the sender, z at the receiver.

    x, z  (node, (lmax+1)²·u);  D  (edge, kept rows);  w  (edge, slots·sides·u), slots by degree, or by |m| then degree
    o0, o1, ...  (edge, components·sides·u), one array for each order
    """
    lmax, mmax = recipe.lmax, recipe.mmax
    names, sides = ("x", "z")[: recipe.sides], ("sender", "receiver")[: recipe.sides]
    features = tuple(
        Operand(name, (CHANNELS,) * (lmax + 1) ** 2, "node", side, labels=_degrees(lmax))
        for name, side in zip(names, sides, strict=True)
    )
    slots = {"none": (), "degree": tuple((0, l) for l in range(lmax + 1)), "order": _slots(lmax, mmax)}[recipe.weights]
    weight = Operand(
        "w",
        (CHANNELS,) * (len(slots) * recipe.sides),
        "edge",
        labels=tuple(f"l={l} |m|={m} of the {side}" for m, l in slots for side in sides),
    )
    outputs, equations = [], []
    for m, rows in enumerate(orders(lmax, mmax)):
        labels = [f"l={l} m={signed(order)} of the {side}" for order, l in rows for side in sides]
        outputs.append(Operand(f"o{m}", (CHANNELS,) * len(labels), "edge", labels=tuple(labels)))
        for place, (order, l) in enumerate(rows):
            for side, name in enumerate(names):
                factors: tuple[Ref, ...] = ()
                if slots:
                    slot = slots.index((abs(order) if recipe.weights == "order" else 0, l))
                    factors = (Ref("w", slot * recipe.sides + side),)
                terms = [
                    times(1, Ref("D", kept_entry(l, mmax, order, k)), Ref(name, l * l + l + k), *factors)
                    for k in range(-l, l + 1)
                ]
                equations.append(Equation(Ref(f"o{m}", place * recipe.sides + side), tuple(sorted(terms, key=_key))))
    inputs = (*features, _rows(lmax, mmax), *((weight,) if slots else ()))
    return Kernel("rotate", inputs, tuple(outputs), tuple(equations), doc=str(recipe))


def rotate_back(recipe: RotateBackRecipe) -> Kernel:
    """o[l, m] += a · Σ_m' D^l[m', m] · y_m[(m', l)] at the receiver; a is one factor for each head, or absent.

    y0, y1, ...  (edge, components·[h·]u);  D  (edge, kept rows);  a  (edge, h);  o  (node, (lmax+1)²·[h·]u)
    """
    lmax, mmax = recipe.lmax, recipe.mmax
    axes: Axes = ("h", "u") if recipe.heads else CHANNELS
    factor = (Ref("a", 0),) if recipe.heads else ()
    pairs = [
        (
            Ref("o", l * l + l + k),
            times(1, Ref("D", kept_entry(l, mmax, order, k)), Ref(f"y{m}", place), *factor),
        )
        for m, rows in enumerate(orders(lmax, mmax))
        for place, (order, l) in enumerate(rows)
        for k in range(-l, l + 1)
    ]
    heads = (Operand("a", (("h",),), "edge", labels=("factor of the head",)),) if recipe.heads else ()
    inputs = (*_by_order("y", lmax, mmax, axes), _rows(lmax, mmax), *heads)
    output = Operand("o", (axes,) * (lmax + 1) ** 2, "node", "receiver", labels=_degrees(lmax))
    return Kernel("rotate_back", inputs, (output,), collect(pairs), doc=str(recipe))


def order_gate(recipe: OrderGateRecipe) -> Kernel:
    """o_m[(m', l)] = s[l] · y_m[(m', l)]; y0, y1, ... and o0, o1, ... (edge, components·u), s (edge, (lmax+1)·u)."""
    lmax, mmax = recipe.lmax, recipe.mmax
    scalars = Operand("s", (CHANNELS,) * (lmax + 1), "edge", labels=tuple(f"gate of l={l}" for l in range(lmax + 1)))
    equations = [
        Equation(Ref(f"o{m}", place), (Term(ONE, (Ref("s", l), Ref(f"y{m}", place))),))
        for m, rows in enumerate(orders(lmax, mmax))
        for place, (_, l) in enumerate(rows)
    ]
    return Kernel(
        "order_gate",
        (*_by_order("y", lmax, mmax, CHANNELS), scalars),
        _by_order("o", lmax, mmax, CHANNELS),
        tuple(equations),
        doc=str(recipe),
    )


def _key(term: Term) -> tuple[Ref, ...]:
    return term.factors


def _slots(lmax: int, mmax: int) -> tuple[tuple[int, int], ...]:
    """(|m|, l), by |m|, then l."""
    return tuple((m, l) for m in range(mmax + 1) for l in range(m, lmax + 1))


def _rows(lmax: int, mmax: int) -> Operand:
    """The kept rows of D."""
    labels: Sequence[str] = [
        f"D^{l} ({signed(i)},{signed(k)})"
        for l in range(lmax + 1)
        for i in range(-min(l, mmax), min(l, mmax) + 1)
        for k in range(-l, l + 1)
    ]
    assert len(labels) == kept_start(lmax + 1, mmax)
    return Operand("D", ((),) * len(labels), "edge", labels=tuple(labels))


def _by_order(name: str, lmax: int, mmax: int, axes: Axes) -> tuple[Operand, ...]:
    return tuple(
        Operand(f"{name}{m}", (axes,) * len(rows), "edge", labels=tuple(f"l={l} m={signed(k)}" for k, l in rows))
        for m, rows in enumerate(orders(lmax, mmax))
    )


def _degrees(lmax: int) -> tuple[str, ...]:
    return tuple(f"l={l} m={signed(m)}" for l in range(lmax + 1) for m in range(-l, l + 1))
