"""The NumPy side of the llvm backend: functions that allocate, cut rows into pieces and call compiled kernels."""

from __future__ import annotations

from dataclasses import replace

from irrepc.emit.llvm_text import llvm_function, llvm_head
from irrepc.emit.llvm_writer import LANES
from irrepc.emit.numba_text import numba_function
from irrepc.emit.views import Function
from irrepc.ir.block import Block
from irrepc.ir.kernel import Kernel


def llvm_functions(kernel: Kernel, scheduled: tuple[Block, ...]) -> Function:
    """The functions of the numba backend with every kernel replaced by a compiled one called by address."""
    function = numba_function(kernel, scheduled)
    parts = []
    for part, block in zip(function.parts, scheduled, strict=True):
        # channel extents are constants of the compiled kernel
        takes = tuple(name for name in part.takes if name not in kernel.channels)
        outputs = tuple(o.name for o in block.kernel.outputs)
        extents = "".join(f", {a}={a}" for a in block.kernel.channels)
        compute = f'compute = serial("{part.name}", {part.first}.dtype.name, {len(takes)}{extents})'
        if block.kernel.outputs[0].rows is None:
            given = ", ".join((*takes[: -len(outputs)], *(f"{o}[i]" for o in outputs)))
            run = f"run(compute, [(*cut, *addresses({given})) for i, cut in enumerate(cuts)], threads)"
            call: tuple[str, ...] = (compute, run)
        else:
            at = f"at = addresses({', '.join(takes)})"
            call = (compute, at, "run(compute, [(*cut, *at) for cut in cuts], threads)")
        line = repr((part.name, takes, block.kernel.outputs[0].index, outputs))
        parts.append(replace(part, takes=takes, line=line, call=call))
    return replace(function, parts=tuple(parts))


def llvm_texts(functions: tuple[tuple[Function, tuple[Block, ...]], ...], banner: list[str]) -> dict[str, str]:
    """The IR of all kernels, one text for each dtype: {".float32.ll": text, ".float64.ll": text}."""
    out = {}
    for dtype in LANES:
        lines = [f";{line.removeprefix('#')}" for line in banner]
        lines.append(llvm_head(dtype))
        for function, scheduled in functions:
            for part, block in zip(function.parts, scheduled, strict=True):
                lines.append(f"; kernel {part.name}")
                lines.append(llvm_function(part.name, block, dtype))
        out[f".{dtype}.ll"] = "\n".join(lines)
    return out
