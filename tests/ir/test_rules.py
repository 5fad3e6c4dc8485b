"""The legality rules of kernels, each broken once, and the text of a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from irrepc.algebra.surd import ONE, Surd
from irrepc.errors import KernelError
from irrepc.frontend.derive import derive
from irrepc.ir.block import restrict, schedule, split, split_by_index
from irrepc.ir.check import check
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Equation, Kernel, Operand, Ref, Term
from irrepc.ir.passes import optimise
from irrepc.ir.text import kernel_hash, text
from irrepc.ir.vjp import vjp
from tests.kernels import RECIPES

X = Operand("x", ((), ("u",)))
O = Operand("o", (("u",),))
GOOD = Kernel("good", (X,), (O,), (Equation(Ref("o", 0), (Term(ONE, (Ref("x", 0), Ref("x", 1))),)),))


def with_equation(target: Ref, *factors: Ref) -> Kernel:
    """The good kernel with one more equation."""
    return replace(GOOD, equations=(*GOOD.equations, Equation(target, (Term(ONE, factors),))))


BROKEN = {
    "declared 2 times": replace(GOOD, outputs=(replace(O, name="x"),)),
    "no name for emitted code": replace(GOOD, inputs=(replace(X, name="x_"),)),
    "expected one loop": replace(GOOD, outputs=(replace(O, rows="edge"),)),
    "is not declared": with_equation(Ref("p", 0), Ref("x", 0)),
    "is an input and cannot be a target": with_equation(Ref("x", 0), Ref("x", 1)),
    "is out of range": with_equation(Ref("o", 3), Ref("x", 0)),
    "is defined twice": with_equation(Ref("o", 0), Ref("x", 0)),
    "are not sorted": replace(GOOD, equations=(Equation(Ref("o", 0), (Term(ONE, (Ref("x", 1), Ref("x", 0))),)),)),
    "is an output and cannot be a factor": replace(
        with_equation(Ref("t", 0), Ref("o", 0)), locals=(Operand("t", ((),)),)
    ),
    "before it is defined": replace(
        GOOD, equations=(Equation(Ref("o", 0), (Term(ONE, (Ref("t", 0),)),)),), locals=(Operand("t", ((),)),)
    ),
    "does not depend on the row": replace(
        GOOD,
        inputs=(X, Operand("w", ((),), None)),
        outputs=(Operand("s", ((),), None),),
        equations=(Equation(Ref("s", 0), (Term(ONE, (Ref("w", 0),)),)),),
    ),
    "must belong to the loop's own row": replace(GOOD, locals=(Operand("t", ((),), "node", "sender"),)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_each_rule_has_its_own_message(message: str) -> None:
    assert check(GOOD) is GOOD
    with pytest.raises(KernelError, match=message):
        check(BROKEN[message])


def test_a_third_derivative_that_would_clash_is_refused() -> None:
    with pytest.raises(KernelError, match="declared 2 times"):
        check(vjp(vjp(vjp(derive(RECIPES["product"])))))


def test_vjp_refuses_a_name_that_is_no_input() -> None:
    with pytest.raises(KernelError, match="got input 'o'; expected one of x"):
        vjp(GOOD, ["o"])


def test_interpret_wants_one_row_count() -> None:
    with pytest.raises(KernelError, match="expected exactly one"):
        interpret(GOOD, {"x": [[1, 2]]}, extents={"u": 1}, rows=2)


def test_text_and_hash_identify_a_kernel() -> None:
    assert text(GOOD) == (
        "kernel good\n  in    x(row, 1 + 1·u)\n  out   o(row, 1·u)\n  o[0] = 1·x[0]·x[1]\n"
    )
    other = replace(GOOD, equations=(Equation(Ref("o", 0), (Term(Surd.of(2), (Ref("x", 0), Ref("x", 1))),)),))
    assert kernel_hash(other) != kernel_hash(GOOD)


def test_schedule_computes_scalars_before_the_loop_that_needs_them_and_sums_after() -> None:
    stages = schedule(derive(RECIPES["convolution"])).stages
    assert [s.axes for s in stages] == [("u",)]
    backward = schedule(vjp(derive(RECIPES["convolution"]), ["y"]))
    assert all(s.verb in ("add", "store", "let", "sum") for stage in backward.stages for s in stage.statements)
    assert text(derive(RECIPES["gate"])).startswith("kernel gate\n  in    x(row, 1·u + 3·u1)")


def sums_of_different_widths() -> Kernel:
    """o[0] = Σ_uv √3·x[0]·y[0] + Σ_u x[0]·x[1]: d_x[0] has a term of u alone beside one of u and v."""
    x, y = Operand("x", (("u",), ("u",)), "edge"), Operand("y", (("v",),), "edge")
    o = Operand("o", ((), ("u",)), "edge")
    x0, x1, y0 = Ref("x", 0), Ref("x", 1), Ref("y", 0)
    terms = (Term(ONE, (x0, x1)), Term(Surd.root(3), (x0, y0)))
    return Kernel("k", (x, y), (o,), (Equation(Ref("o", 0), terms), Equation(Ref("o", 1), (Term(ONE, (x0, y0)),))))


@pytest.mark.parametrize("name", [*RECIPES, "sums of different widths"])
@pytest.mark.parametrize("cut", [split, split_by_index])
@pytest.mark.parametrize("limit", [48, 10**9])
def test_no_term_is_added_in_a_loop_it_knows_nothing_of(
    name: str, cut: Callable[[Kernel], tuple[Kernel, ...]], limit: int
) -> None:
    """It would be added once for each channel."""
    kernel = derive(RECIPES[name]) if name in RECIPES else sums_of_different_widths()
    for order in (kernel, vjp(kernel), vjp(vjp(kernel))):
        parts = [p for part in cut(order) for p in (part, *(restrict(part, [o.name]) for o in part.outputs))]
        for block in (schedule(optimise(part), limit) for part in parts):
            known = {Ref(o.name, i): set(a) for o in block.kernel.operands.values() for i, a in enumerate(o.components)}
            for stage in block.stages:
                for s in stage.statements:
                    loops = [set().union(known[s.target], *(known[f] for f in t.factors)) for t in s.terms]
                    assert s.verb == "let" or all(loop == set(stage.axes) for loop in loops), (order.name, s)
