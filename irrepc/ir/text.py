"""text: a kernel as readable lines, and the hash of those lines, which is its identity."""

from __future__ import annotations

import hashlib

from irrepc.ir.kernel import Kernel, Operand


def text(kernel: Kernel) -> str:
    """The kernel in the notation of the IR, one equation per line."""
    lines = [f"kernel {kernel.name}"]
    for title, operands in (("in", kernel.inputs), ("out", kernel.outputs), ("local", kernel.locals)):
        lines.extend(f"  {title:5} {describe(o)}" for o in operands)
    lines.extend(f"  {e}" for e in kernel.equations)
    return "\n".join(lines) + "\n"


def describe(o: Operand) -> str:
    """One operand: name[size] with its rows, index and channel axes."""
    place = "shared" if o.rows is None else o.rows if o.index is None else f"{o.rows} at {o.index}"
    runs: list[tuple[int, tuple[str, ...]]] = []
    for axes in o.components:
        if runs and runs[-1][1] == axes:
            runs[-1] = (runs[-1][0] + 1, axes)
        else:
            runs.append((1, axes))
    shape = " + ".join("·".join([str(n), *axes]) for n, axes in runs) or "0"
    return f"{o.name}({place}, {shape})"


def kernel_hash(kernel: Kernel) -> str:
    """Sixteen hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text(kernel).encode()).hexdigest()[:16]
