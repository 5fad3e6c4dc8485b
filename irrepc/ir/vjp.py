"""vjp: the derivative of a kernel as a kernel, by one reverse sweep over its equations.

For outputs o(x) the result maps (x, g_o) to d_x = Σ_o (∂o/∂x)ᵀ g_o.  Gather becomes scatter and repeat becomes
sum because an adjoint carries the rows, index and channels of what it is the adjoint of (ir/kernel.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from irrepc.errors import KernelError
from irrepc.ir.kernel import Equation, Kernel, Ref, Term, collect


def vjp(kernel: Kernel, wrt: Sequence[str] | None = None) -> Kernel:
    """The kernel (inputs, g_<output>...) -> (d_<input>...) for the inputs named in `wrt` (default: all).

    Raises KernelError for a name that is not an input.
    """
    names = tuple(o.name for o in kernel.inputs)
    wanted = names if wrt is None else tuple(wrt)
    for name in wanted:
        if name not in names:
            raise KernelError(f"vjp of {kernel.name}: got input {name!r}; expected one of {', '.join(names)}")
    operands = kernel.operands
    outputs = {o.name for o in kernel.outputs}
    cotangents = tuple(replace(o, name=f"g_{o.name}") for o in kernel.outputs)
    # The locals of the forward sweep keep their names; a second derivative meets both, so adjoints of locals take a
    # prefix that no local of this kernel has yet (a clash is right at l = 2 and wrong by 1e2 at l = 4).
    prefix = "a"
    while any(o.name.startswith(f"{prefix}_") for o in kernel.locals):
        prefix += "a"
    adjoint = {o.name: f"{prefix}_{o.name}" for o in kernel.locals}
    active = _active(kernel, set(wanted))

    adjoints: dict[Ref, list[Term]] = {}
    reverse: list[Equation] = []
    for equation in reversed(kernel.equations):
        target = equation.target
        if target.operand in outputs:
            seed = Ref(f"g_{target.operand}", target.component)
        else:
            sums = collect((Ref(adjoint[target.operand], target.component), t) for t in adjoints.pop(target, ()))
            if not sums or not sums[0].terms:
                continue
            reverse.append(sums[0])
            seed = sums[0].target
        for term in equation.terms:
            for i, factor in enumerate(term.factors):
                if factor in active:
                    rest = (*term.factors[:i], *term.factors[i + 1 :], seed)
                    adjoints.setdefault(factor, []).append(Term(term.coeff, tuple(sorted(rest))))
    final = collect(
        (Ref(f"d_{ref.operand}", ref.component), t)
        for ref, terms in adjoints.items()
        if ref.operand in wanted
        for t in terms
    )
    forward = tuple(e for e in kernel.equations if e.target.operand not in outputs)
    used = {e.target.operand for e in reverse}
    locals_ = kernel.locals + tuple(
        replace(operands[name], name=new) for name, new in adjoint.items() if new in used
    )
    return Kernel(
        name=f"{kernel.name}_vjp",
        inputs=kernel.inputs + cotangents,
        outputs=tuple(replace(operands[n], name=f"d_{n}") for n in wanted),
        equations=(*forward, *reverse, *(e for e in final if e.terms)),
        locals=locals_,
        doc=f"derivative of {kernel.name}: {', '.join('d_' + n for n in wanted)} = Σ g·∂/∂({', '.join(wanted)})",
    )


def _active(kernel: Kernel, wanted: set[str]) -> set[Ref]:
    """The inputs asked for and every local that depends on one of them."""
    active = {Ref(o.name, i) for o in kernel.inputs if o.name in wanted for i in range(o.size)}
    outputs = {o.name for o in kernel.outputs}
    for equation in kernel.equations:
        if equation.target.operand not in outputs and any(f in active for t in equation.terms for f in t.factors):
            active.add(equation.target)
    return active
