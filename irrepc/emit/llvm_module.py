"""The NumPy side of the llvm backend: functions that allocate, cut rows into pieces and call compiled kernels."""

from __future__ import annotations

from dataclasses import replace

from irrepc.emit.llvm_text import llvm_function, llvm_head
from irrepc.emit.llvm_writer import LANES
from irrepc.emit.numba_text import numba_function
from irrepc.emit.views import Function, gathered, used_inputs
from irrepc.ir.block import Block
from irrepc.ir.kernel import Kernel


def llvm_functions(kernel: Kernel, scheduled: tuple[Block, ...]) -> Function:
    """The functions of the numba backend with every kernel replaced by a compiled one called by address."""
    function = numba_function(kernel, scheduled)
    parts = []
    for part, block in zip(function.parts, scheduled, strict=True):
        inputs, outputs = used_inputs(block.kernel), [o.name for o in block.kernel.outputs]
        scatter, shared = block.kernel.outputs[0].index, block.kernel.outputs[0].rows is None
        arrays = [o.name for o in inputs] + [f"{g}.values" for g in gathered(inputs, scatter)]
        if scatter is not None:
            arrays += [f"{scatter}.order", f"{scatter}.start"]
        extents = "".join(f", {a}={a}" for a in block.kernel.channels)
        # n0 and n1, then addresses, as llvm_function declares them.
        kernel_text = f'_kernel("{part.name}", {part.first}.dtype, {2 + len(arrays) + len(outputs)}{extents})'
        if shared:
            passed = "".join(f"_address({a}), " for a in arrays).rstrip()
            call = f"_run_partial({kernel_text}, cuts, threads, ({passed}), ({', '.join(outputs)},))"
        else:
            passed = ", ".join(f"_address({a})" for a in [*arrays, *outputs])
            call = f"_run({kernel_text}, cuts, threads, ({passed}))"
        parts.append(replace(part, call=call))
    return replace(function, parts=tuple(parts))


def llvm_texts(functions: tuple[tuple[Function, tuple[Block, ...]], ...], banner: list[str]) -> dict[str, str]:
    """The IR of all kernels, one text for each dtype: {".float32.ll": text, ".float64.ll": text}."""
    out = {}
    for dtype in LANES:
        # Two semicolons: a line of the banner must not look like the beginning of a kernel.
        lines = [f";;{line.removeprefix('#')}" for line in banner]
        lines.append(llvm_head(dtype))
        for function, scheduled in functions:
            for part, block in zip(function.parts, scheduled, strict=True):
                lines.append(f"; kernel {part.name}")
                lines.append(llvm_function(part.name, block, dtype))
        out[f".{dtype}.ll"] = "\n".join(lines)
    return out
