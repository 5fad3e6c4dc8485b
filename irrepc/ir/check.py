"""check: the rules a legal kernel keeps, each with its own message."""

from __future__ import annotations

from irrepc.errors import KernelError
from irrepc.ir.kernel import Kernel, Ref


def check(kernel: Kernel) -> Kernel:
    """Return the kernel if it is legal; raise KernelError naming the first rule it breaks otherwise."""
    names = [o.name for o in (*kernel.inputs, *kernel.outputs, *kernel.locals)]
    for name in names:
        times = names.count(name)
        _require(kernel, times == 1, f"operand {name!r} is declared {times} times; expected once")
        fit = name.isidentifier() and not name.endswith("_")
        _require(kernel, fit, f"operand {name!r} is no name for emitted code; expected an identifier not ending in '_'")
    loops = {o.rows for o in (*kernel.inputs, *kernel.outputs) if o.rows is not None and o.index is None}
    _require(kernel, len(loops) <= 1, f"row axes {sorted(loops)} without an index; expected one loop")
    operands = kernel.operands
    inputs = {o.name for o in kernel.inputs}
    outputs = {o.name for o in kernel.outputs}
    defined: set[Ref] = set()
    for equation in kernel.equations:
        target = equation.target
        _require(kernel, target.operand in operands, f"{target} is not declared")
        _require(kernel, target.operand not in inputs, f"{target} is an input and cannot be a target")
        _require(kernel, 0 <= target.component < operands[target.operand].size, f"{target} is out of range")
        _require(kernel, target not in defined, f"{target} is defined twice")
        for term in equation.terms:
            _require(kernel, list(term.factors) == sorted(term.factors), f"factors of {term} are not sorted")
            for factor in term.factors:
                _require(kernel, factor.operand in operands, f"{factor} in {target} is not declared")
                _require(kernel, 0 <= factor.component < operands[factor.operand].size, f"{factor} is out of range")
                _require(kernel, factor.operand not in outputs, f"{factor} is an output and cannot be a factor")
                known = factor.operand in inputs or factor in defined
                _require(kernel, known, f"{factor} is used in {target} before it is defined")
            _require(
                kernel,
                operands[target.operand].rows is not None
                or any(operands[f.operand].rows is not None for f in term.factors),
                f"{target} is shared by all rows but its term {term} does not depend on the row",
            )
        defined.add(target)
    for o in kernel.locals:
        _require(kernel, o.rows is not None and o.index is None, f"local {o.name!r} must belong to the loop's own row")
    return kernel


def _require(kernel: Kernel, holds: bool, message: str) -> None:
    if not holds:
        raise KernelError(f"kernel {kernel.name}: {message}")
