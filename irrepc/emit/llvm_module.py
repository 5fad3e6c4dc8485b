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
        names = part.arguments.split(", ")
        outputs = {o.name for o in block.kernel.outputs}
        arrays = {o.name for o in block.kernel.inputs} | outputs
        shared = block.kernel.outputs[0].rows is None
        passed = []
        for name in names[2:]:
            if name in block.kernel.channels:
                continue
            if name in arrays:
                if not (shared and name in outputs):
                    passed.append(f"_address({name})")
            else:
                index, _, which = name.rpartition("_")
                known = index in block.kernel.indices
                passed.append(f"_address({index}.{which})" if known else f"_address({name}.values)")
        extents = ", ".join(f"{a}={a}" for a in block.kernel.channels)
        count = len(names) - len(block.kernel.channels)
        kernel_text = f'_kernel("{part.name}", {part.first}.dtype, {count}{", " * bool(extents)}{extents})'
        if shared:
            call = f"_run_partial({kernel_text}, cuts, threads, ({', '.join(passed)},), ({', '.join(outputs)},))"
        else:
            call = f"_run({kernel_text}, cuts, threads, ({', '.join(passed)}))"
        parts.append(replace(part, call=call))
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
