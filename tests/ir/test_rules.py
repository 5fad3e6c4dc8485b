"""The legality rules of kernels, each broken once, and the text of a kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from irrepc.algebra.surd import ONE, Surd
from irrepc.errors import KernelError
from irrepc.frontend.derive import derive
from irrepc.ir.block import schedule
from irrepc.ir.check import check
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Equation, Kernel, Operand, Ref, Term
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
