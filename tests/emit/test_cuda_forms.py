"""CUDA text of forms that no recipe has, and the shim's own promise: it sees what a device would trip over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from irrepc.algebra.surd import ONE, Surd
from irrepc.emit import module
from irrepc.emit.cuda_plan import launches
from irrepc.emit.module import Entry, kernels
from irrepc.errors import KernelError
from irrepc.ir.check import check
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Equation, Kernel, Operand, Ref, Term
from tests.emit.shim.host import (
    ABSENT,
    COMPILER,
    SIZES,
    build,
    emitted,
    every_launch,
    indices,
    operands,
    run_poisoned,
)
from tests.kernels import RECIPES

ROWS = 9
needs_compiler = pytest.mark.skipif(COMPILER is None, reason=ABSENT)


def handmade(form: str) -> Kernel:
    """Kernels of forms that no recipe has: sums over channels that are scattered, shared, or needed before the end."""
    u, v = ("u",), ("v",)
    x, w, s = Operand("x", (u, u), "edge"), Operand("w", (u,), "node", "sender"), Operand("s", ((),), "edge")
    m = Operand("m", ((),), "edge")
    x0, x1, w0, s0, m0 = Ref("x", 0), Ref("x", 1), Ref("w", 0), Ref("s", 0), Ref("m", 0)
    two, three = Surd.of(2), Surd.root(3)
    dot = Equation(m0, (Term(ONE, (x0, x0)), Term(three, (x0, x1))))
    match form:
        case "scattered":
            o = Operand("o", ((), ()), "node", "receiver")
            terms = (Term(three, (w0, x0)), Term(two, (s0,)))
            more = Equation(Ref("o", 1), (Term(ONE, (s0, s0)),))
            return Kernel("k", (x, w, s), (o,), (Equation(Ref("o", 0), terms), more))
        case "square":
            o = Operand("o", ((),), "node", "receiver")
            return Kernel("k", (x, w), (o,), (dot, Equation(Ref("o", 0), (Term(ONE, (m0, m0)),))), (m,))
        case "scaled":
            o, q = Operand("o", (u, u, ()), "edge"), Operand("q", ((),), "edge")
            terms = (Equation(Ref("o", 0), (Term(ONE, (m0, x1)),)), Equation(Ref("o", 2), (Term(three, (m0, s0)),)))
            more = Equation(Ref("q", 0), (Term(two, (m0, m0)), Term(ONE, (s0,))))
            return Kernel("k", (x, s), (o, q), (dot, *terms, more), (m,))
        case "shared":
            o = Operand("o", ((), ()), None)
            return Kernel("k", (x, s), (o,), (Equation(Ref("o", 1), (Term(two, (s0, x0, x1)), Term(ONE, (s0,)))),))
        case _:
            y, o = Operand("y", (v,), "edge"), Operand("o", ((), u), "edge")
            one = Equation(Ref("o", 0), (Term(three, (x0, Ref("y", 0))), Term(ONE, (x0, x1))))
            return Kernel("k", (x, y), (o,), (one, Equation(Ref("o", 1), (Term(two, (x0, Ref("y", 0))),))))


@needs_compiler
@pytest.mark.parametrize("form", ["scattered", "square", "scaled", "shared", "crossed"])
def test_sums_in_every_place(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = check(handmade(form))
    monkeypatch.setattr(module, "derive", lambda recipe: kernel)
    recipe = RECIPES["harmonics"]
    ours = emitted(recipe, "cuda", tmp_path, form)
    extents = {a: 5 + 34 * i for i, a in enumerate(kernel.channels)}
    ours.nvrtc = build(every_launch(ours, torch.float64, extents), tmp_path)
    for order in kernels(Entry(form, recipe)):
        own = {a: extents[a] for a in order.channels}
        inputs = operands(order, own, ROWS, torch.float64)
        got = run_poisoned(ours, order, inputs, own, ROWS)
        named = zip(order.indices, indices(order, ours, ROWS), strict=True)
        right = interpret(
            order,
            {o.name: t.tolist() for o, t in zip(order.inputs, inputs, strict=True)},
            extents=own,
            indices={name: index.values.tolist() for name, index in named},
            rows=ROWS,
            sizes=SIZES,
            number=float,
        )
        for o, a in zip(order.outputs, got, strict=True):
            b = torch.tensor(right[o.name], dtype=a.dtype)
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-12), (order.name, o.name)


def test_a_sum_of_sums_over_channels_is_refused() -> None:
    kernel = handmade("scaled")
    scattered = Operand("o", (("u",),), "node", "receiver")
    equations = (kernel.equations[0], Equation(Ref("o", 0), (Term(ONE, (Ref("m", 0), Ref("x", 1))),)))
    with pytest.raises(KernelError, match="expected one of these sums in a CUDA kernel"):
        launches(Kernel("k", kernel.inputs, (scattered,), equations, kernel.locals), "k")


SUM = """
#define THREADS 64
#ifdef WITH_total
extern "C" __global__ void total(const REAL* x, REAL* o, const long long turns)
{
    const int lane = threadIdx.x;
    REAL a = x[lane];
    for (int i = 0; i < (lane < BORDER ? 1 : turns); ++i) {
        for (int distance = 16; distance > 0; distance /= 2) a += __shfl_xor_sync(0xffffffffu, a, distance);
    }
    o[lane] = a;  // after warp_sum(
}
#endif
"""


@needs_compiler
def test_lanes_that_do_not_meet_are_found(tmp_path: Path) -> None:
    """A border at 32 gives each warp its own number of turns, one at 40 cuts a warp in two."""
    whole, cut = ((("REAL", "double"), ("BORDER", border), ("WITH_total", "1")) for border in ("32", "40"))
    host = build([(SUM, "total", whole), (SUM, "total", cut)], tmp_path)
    x, o = torch.arange(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    host.launcher(SUM, "total", whole, -1)(1, 64, x, o, 2)
    assert (o[:32] == 496).all()
    assert (o[32:] == 32 * (496 + 32 * 32)).all()
    host.launcher(SUM, "total", cut, -1)(1, 64, x, o, 1)
    with pytest.raises(AssertionError, match=r"block 0: lane \d+ of warp 1 waits at a shuffle"):
        host.launcher(SUM, "total", cut, -1)(1, 64, x, o, 2)
