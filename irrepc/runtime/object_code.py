"""Object code: LLVM text -> machine code for a processor, to be linked into a library or called in this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from irrepc.emit.llvm_matrix import TILES, Tile, packed_size, panels
from irrepc.emit.llvm_writer import LANES
from irrepc.errors import BackendError

WIDE = ("x86-64-v4", "skylake-avx512", "cascadelake", "cooperlake", "icelake", "tigerlake", "sapphirerapids",
        "emeraldrapids", "graniterapids", "znver4", "znver5")  # fmt: skip
"""Beginnings of the names of processors with 32 registers of 512 bits."""
NAMED = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "haswell", "broadwell", "skylake", "skylake-avx512", "cascadelake",
         "icelake-server", "sapphirerapids", "znver1", "znver2", "znver3", "znver4", "neoverse-n1",
         "neoverse-v1")  # fmt: skip
"""Processors that can be asked for by name, as LLVM and C compilers both know them: LLVM ends the process at others."""


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor as LLVM and C compilers name it ("znver4", "x86-64-v3"), and features that the name leaves open."""

    name: str
    features: str = ""

    @staticmethod
    @cache
    def native() -> Processor:
        """The one this process runs on."""
        return Processor(llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())

    @staticmethod
    def of(name: str) -> Processor:
        """The one of that name, or "native". Raises BackendError for a name not in NAMED."""
        if name == "native":
            return Processor.native()
        if name not in NAMED:
            raise BackendError(f"processor: got {name!r}; expected native, {', '.join(NAMED)}")
        return Processor(name)

    @property
    def tile(self) -> Tile:
        """The tile of matrix products that fits its registers."""
        wide = "+avx512f" in self.features or (not self.features and self.name.startswith(WIDE))
        return TILES[32 if wide else 16]


def object_code(text: str, processor: Processor) -> bytes:
    """Position-independent object code of LLVM text, for this machine's system.

    The vectors are written out in the text, so no vectoriser runs.
    """
    machine = _machine(processor)
    code: bytes = machine.emit_object(_optimised(text, machine))
    return code


def assembly(text: str, processor: Processor, triple: str | None = None) -> str:
    """The same as assembler text; triple: for another system."""
    machine = _machine(processor, triple)
    code: str = machine.emit_assembly(_optimised(text, machine))
    return code


def function(code: bytes, name: str, arguments: int) -> Callable[..., None]:
    """A function of object code for this process: first row, last row + 1 and so many addresses."""
    # an engine owns its machine
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine(Processor.native()))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    call: Any = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (2 + arguments))(engine.get_function_address(name))
    call.engine = engine  # owns the code
    return call  # type: ignore[no-any-return]


def packed(weights: NDArray[Any], tile: Tile) -> NDArray[Any]:
    """W (k, n) as `llvm_matrix` reads it: panel by panel, the columns a panel lacks are zeros; begins at 64 bytes."""
    inner, outer = weights.shape
    dtype = weights.dtype.name
    size, lanes = packed_size(inner, outer, dtype, tile), LANES[dtype][0]
    spare = np.zeros(size + 64 // weights.itemsize, weights.dtype)
    first = -spare.ctypes.data % 64 // weights.itemsize
    out = spare[first : first + size]
    for p in panels(inner, outer, dtype, tile):
        width = p.vectors * lanes
        panel = out[p.start : p.start + inner * width].reshape(inner, width)
        panel[:, : p.columns] = weights[:, p.first : p.first + p.columns]
    return out


def _machine(processor: Processor, triple: str | None = None) -> Any:
    if triple is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(triple)
    return target.create_target_machine(cpu=processor.name, features=processor.features, opt=3, reloc="pic")


def _optimised(text: str, machine: Any) -> Any:
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module
