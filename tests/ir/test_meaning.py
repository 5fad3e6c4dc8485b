"""Exact tests of the IR, tolerance zero: derivatives against dual numbers, passes against the interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from irrepc.algebra.surd import ZERO, Surd
from irrepc.frontend.derive import derive
from irrepc.ir.block import schedule, split
from irrepc.ir.check import check
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Kernel, Ref
from irrepc.ir.passes import PASSES, merge, optimise
from irrepc.ir.vjp import vjp
from tests.kernels import RECIPES, arrays, convolution, settings


@dataclass(frozen=True)
class Dual:
    """a + b·ε with ε² = 0: arithmetic that carries an exact directional derivative."""

    value: Any
    slope: Any = ZERO

    def __add__(self, other: Dual) -> Dual:
        return Dual(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other: Dual) -> Dual:
        return Dual(self.value * other.value, self.value * other.slope + self.slope * other.value)


def flatten(values: list[Any]) -> list[Any]:
    """Rows or one shared row as one list."""
    return [v for row in values for v in (row if isinstance(row, list) else [row])]


def combine(values: list[Any], slopes: list[Any]) -> list[Any]:
    """Dual numbers in the shape of the arrays."""
    return [
        combine(v, s) if isinstance(v, list) else Dual(Surd.lift(v), Surd.lift(s))
        for v, s in zip(values, slopes, strict=True)
    ]


def orders(name: str, count: int) -> list[Kernel]:
    """A kernel and its derivatives."""
    out = [derive(RECIPES[name])]
    while len(out) < count:
        out.append(vjp(out[-1]))
    return out


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("order", [0, 1])
def test_vjp_is_the_exact_transposed_derivative(name: str, order: int) -> None:
    """g · (∂f/∂x v) = (VJP of f with g) · v, both sides exact; at order 1 f is itself a VJP."""
    kernel = orders(name, order + 1)[-1]
    backward = check(vjp(kernel))
    rows = 2 if name == "harmonics" else 3
    options = settings(7, rows)
    x, v = arrays(kernel, 1, rows), arrays(kernel, 2, rows)
    cotangents = {k: g for k, g in arrays(backward, 3, rows).items() if k not in x}
    duals = {k: combine(x[k], v[k]) for k in x}
    forward = interpret(kernel, duals, number=lambda c: Dual(c), **options)
    reverse = interpret(backward, {**x, **cotangents}, **options)
    left = Surd()
    for o in kernel.outputs:
        for value, g in zip(flatten(forward[o.name]), flatten(cotangents[f"g_{o.name}"]), strict=True):
            left = left + value.slope * g
    right = Surd()
    for o in backward.outputs:
        for d, direction in zip(flatten(reverse[o.name]), flatten(v[o.name.removeprefix("d_")]), strict=True):
            right = right + Surd.lift(d) * direction
    assert left == right
    assert left, "the directions were chosen so that the derivative is not zero"


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_every_pass_keeps_the_meaning(name: str, order: int) -> None:
    kernel = orders(name, order + 1)[-1]
    rows = 1 if name == "harmonics" or (name == "wigner" and order) else 2
    inputs, options = arrays(kernel, 5, rows), settings(9, rows)
    expected = {k: [Surd.lift(a) for a in flatten(r)] for k, r in interpret(kernel, inputs, **options).items()}
    for rewrite in PASSES:
        kernel = check(rewrite(kernel))
        got = {k: [Surd.lift(a) for a in flatten(r)] for k, r in interpret(kernel, inputs, **options).items()}
        assert got == expected, rewrite.__name__


@pytest.mark.parametrize("name", ["convolution", "convolution, two widths", "crossed"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_split_parts_together_are_the_whole(name: str, order: int) -> None:
    kernel = orders(name, order + 1)[-1]
    inputs, options = arrays(kernel, 5), settings(9)
    whole = interpret(kernel, inputs, **options)
    parts: dict[str, Any] = {}
    for part in split(kernel):
        assert len({o.index for o in part.outputs} - {None}) <= 1
        assert part.outputs[0].index is not None or all(o.index is None for o in part.outputs)
        parts |= interpret(optimise(part), inputs, **options)
    assert parts.keys() == whole.keys()
    assert all(flatten(parts[k]) == flatten(whole[k]) for k in whole)


def scalar_products(kernel: Kernel) -> int:
    """Terms in channel loops that hold a scalar of the row: the multiply-adds that the coupling costs."""
    axes = {Ref(o.name, i): a for o in kernel.operands.values() for i, a in enumerate(o.components)}
    inside = [t for e in kernel.equations for t in e.terms if any(axes[f] for f in t.factors)]
    return sum(any(not axes[f] for f in t.factors) for t in inside)


def test_hoist_leaves_one_multiply_add_for_each_pair_of_components() -> None:
    """Of Σ_ijk w·C·x·y with 83 couplings the pairs (i, k) stay in the channel loop, free of constants.

    There are Σ (2l1+1)(2l3+1) couplable pairs, 79; y[0]·w is shared by the 3 + 5 components of 1 ⊗ 0 and 2 ⊗ 0.
    """
    kernel = merge(derive(convolution("2x0e+2x1o+2x2e", 2, "0e+1o+2e")))
    optimised = optimise(kernel)
    assert scalar_products(kernel) == 83
    assert scalar_products(optimised) == 79 - 2 - 4
    axes = {Ref(o.name, i): a for o in optimised.operands.values() for i, a in enumerate(o.components)}
    inside = [t for e in optimised.equations for t in e.terms if any(axes[f] for f in t.factors)]
    assert all(abs(t.coeff.parts[0][1]) == 1 and t.coeff.is_rational for t in inside)
    loop = {a: c for a, c in schedule(optimised).cost.items()}["u",]
    before = {a: c for a, c in schedule(kernel).cost.items()}["u",]
    assert loop.mul < 0.6 * before.mul


def test_a_channel_sum_is_done_once_for_each_pair() -> None:
    """d_y of a path with l1 = l3 = 1 sums at most (2l1+1)(2l3+1) products over the channels."""
    kernel = optimise(vjp(derive(RECIPES["convolution"]), ["y"]))
    sums = [s for stage in schedule(kernel).stages for s in stage.statements if s.verb == "sum"]
    assert 0 < len(sums) <= 1 + 3 + 3 + 9


def test_passes_do_not_depend_on_hash_order() -> None:
    first = optimise(vjp(derive(RECIPES["convolution"])))
    derive.cache_clear()
    assert optimise(vjp(derive(RECIPES["convolution"]))) == first


def test_a_wrong_derivative_is_seen() -> None:
    """The dual-number test has teeth: drop one term of the VJP and it fails."""
    kernel = derive(RECIPES["product"])
    backward = vjp(kernel)
    broken = Kernel(
        backward.name, backward.inputs, backward.outputs, backward.equations[1:], backward.locals, backward.doc
    )
    x = arrays(backward, 1)
    options = settings(7)
    assert interpret(broken, x, **options) != interpret(backward, x, **options)
    assert all(isinstance(a, Fraction) for row in x["x"] for a in row)
