"""Kernels without channels on the llvm backend: numbers, edges of arrays, independence of place, machine code."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch

from irrepc.algebra.irreps import Irrep
from irrepc.algebra.recipe import HarmonicsRecipe, Label, ProductRecipe, Recipe, WignerRecipe
from irrepc.algebra.recipe import Path as Coupling
from irrepc.emit.llvm_rows import is_rowwise, llvm_rows
from irrepc.emit.llvm_text import llvm_head
from irrepc.emit.module import Entry, compose, kernels, scheduled
from irrepc.emit.views import used_inputs
from tests.emit.test_numbers import BOUNDS, load
from tests.kernels import RECIPES


def product(weights: str) -> ProductRecipe:
    """1o ⊗ 2e -> 1o + 2o + 3o of single copies, with weights that belong to a row or to all of them."""
    left, right = Label((), Irrep(1, -1)), Label((), Irrep(2, 1))
    out = tuple(Label((), Irrep(l, -1)) for l in (1, 2, 3))
    return ProductRecipe((left,), (right,), out, tuple(Coupling(0, 0, k) for k in range(3)), weights=weights)


# Widths of rows: 1, 3, 4, 5, 9, 15, 16, 25, 36, 49 and 84; lmax 0 leaves derivatives that nothing is assigned to.
CASES: dict[str, Recipe] = {
    **{f"harmonics {lmax}": HarmonicsRecipe(lmax) for lmax in (0, 1, 2, 3, 4, 5, 6)},
    **{f"wigner {lmax}": WignerRecipe(lmax) for lmax in (1, 3)},
    **{f"product, {weights}": product(weights) for weights in ("row", "shared")},
}
ROWS = (0, 1, 7, 8, 9, 15, 16, 17, 33)
TARGETS = (
    ("x86_64-unknown-linux-gnu", "x86-64-v2"),
    ("x86_64-unknown-linux-gnu", "haswell"),
    ("x86_64-unknown-linux-gnu", "znver4"),
    ("aarch64-unknown-linux-gnu", "neoverse-n1"),
)


@dataclass(frozen=True)
class Compiled:
    """A kernel's name, its operands (inputs that are read, outputs), and the emitted text."""

    name: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    text: str


@cache
def parts(name: str, dtype: str) -> tuple[Compiled, ...]:
    """The rowwise parts of all orders of a case, each a module of its own."""
    out = []
    for blocks in scheduled(Entry("kernel", CASES[name])):
        for i, block in enumerate(blocks):
            if is_rowwise(block.kernel):
                label = f"{block.kernel.name}_{i}"
                text = llvm_head(dtype) + llvm_rows(label, block, dtype)
                out.append(Compiled(label, used_inputs(block.kernel), block.kernel.outputs, text))
    return tuple(out)


def optimised(text: str, machine: Any) -> Any:
    """The module as the runtime optimises it: no vectoriser."""
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], ModuleType]]:
    """Emitted modules by case and backend."""
    folder: Path = tmp_path_factory.mktemp("rows")
    known = {}
    for number, (name, recipe) in enumerate(CASES.items()):
        for backend in ("llvm", "torch"):
            made = compose("A kernel.", (Entry("kernel", recipe),), backend, "a test")
            file = f"rows_{number}_{backend}"
            for suffix, text in made.companions:
                (folder / file).with_suffix(suffix).write_text(text, encoding="utf-8")
            known[name, backend] = load(made.text, folder, file)
    yield known
    for module in known.values():
        del sys.modules[module.__name__]


def arrays(kernel: Any, rows: int) -> list[np.ndarray]:
    """Random inputs of a kernel."""
    generator = np.random.default_rng(1)
    return [generator.normal(size=(o.size,) if o.rows is None else (rows, o.size)) for o in kernel.inputs]


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", CASES)
def test_every_order_type_and_number_of_rows_agrees_with_the_torch_text(
    name: str, modules: dict[tuple[str, str], ModuleType]
) -> None:
    ours, meaning = modules[name, "llvm"], modules[name, "torch"]
    for kernel in kernels(Entry("kernel", CASES[name])):
        for rows in ROWS:
            exact = arrays(kernel, rows)
            wanted = as_tuple(getattr(meaning, kernel.name)(*map(torch.from_numpy, exact)))
            for dtype, bound in BOUNDS.items():
                given = [a.astype(dtype) for a in exact]
                strided = [np.repeat(a, 2, axis=-1)[..., ::2] for a in given]
                got, again = (as_tuple(getattr(ours, kernel.name)(*a)) for a in (given, strided))
                for o, a, b, right in zip(kernel.outputs, got, again, wanted, strict=True):
                    scale = max(1.0, float(right.abs().max()) if right.numel() else 0.0)
                    assert a.dtype == dtype and a.shape == right.shape
                    assert np.abs(a - right.numpy()).max(initial=0.0) <= bound * scale, (kernel.name, o.name, rows)
                    assert np.array_equal(a, b)


@pytest.mark.parametrize("name", ["harmonics 4", "wigner 3", "product, row"])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_row_is_the_same_bits_wherever_it_lies(
    name: str, dtype: str, modules: dict[tuple[str, str], ModuleType]
) -> None:
    """In every lane of a tile, in a tile on the stack, and for every number of threads."""
    module = modules[name, "llvm"]
    for kernel in kernels(Entry("kernel", CASES[name])):
        given = [a.astype(dtype) for a in arrays(kernel, 53)]
        function = getattr(module, kernel.name)
        whole = as_tuple(function(*given))
        for threads in (2, 3):
            pairs = zip(whole, as_tuple(function(*given, threads=threads)), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)
        for first in range(1, 18):
            pairs = zip(whole, as_tuple(function(*(a[first:40] for a in given))), strict=True)
            assert all(np.array_equal(a[first:40], b) for a, b in pairs)


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="needs memory protection as POSIX has it")
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", ["harmonics 2", "harmonics 6", "wigner 1", "wigner 3", "product, row"])
def test_nothing_outside_an_array_is_read_or_written(name: str, dtype: str) -> None:
    """Arrays that begin, or end, where a page does that cannot be read: touching it ends the process."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for part in parts(name, dtype):
        machine = llvm.Target.from_default_triple().create_target_machine(opt=3)
        engine = llvm.create_mcjit_compiler(optimised(part.text, machine), machine)
        engine.finalize_object()
        operands = (*part.inputs, *part.outputs)
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * (2 + len(operands)))
        function = kind(engine.get_function_address(part.name))
        for rows in (1, 13, 16, 45):
            for at_end in (False, True):
                held = [fenced(rows * o.size, dtype, at_end) for o in operands]
                for array, _ in held:
                    array[:] = 1
                function(0, rows, *(array.ctypes.data for array, _ in held))
                assert all(np.isfinite(array).all() for array, _ in held)


def fenced(count: int, dtype: str, at_end: bool) -> tuple[np.ndarray, mmap.mmap]:
    """Numbers between two pages that cannot be touched, directly after the first or before the second."""
    size = count * np.dtype(dtype).itemsize
    inside = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, inside + 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for page in (start, start + mmap.PAGESIZE + inside):
        assert protect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    offset = mmap.PAGESIZE + (inside - size if at_end else 0)
    return np.frombuffer(memory, dtype, count, offset), memory


@pytest.mark.parametrize(("triple", "processor"), TARGETS)
@pytest.mark.parametrize("dtype", BOUNDS)
def test_machine_code_is_vector_code(triple: str, processor: str, dtype: str) -> None:
    """No scalar arithmetic, no calls but of memcpy and memset, and no double in float32, on every target."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError as error:
        pytest.skip(f"this LLVM does not know {triple}: {error}")
    machine = target.create_target_machine(cpu=processor, opt=3, codemodel="default")
    for name in ("harmonics 3", "wigner 1", "product, row"):
        for part in parts(name, dtype):
            assert dtype == "float64" or "double" not in part.text
            module = optimised(part.text, machine)
            assert len(machine.emit_object(module)) > 1000
            code = machine.emit_assembly(module)
            vector, scalar, other = arithmetic(code, triple, dtype)
            assert vector > 20, (name, part.name)
            assert scalar == other == 0, (name, part.name, scalar, other)
            called = set(re.findall(r"^\s*(?:callq?|bl)\s+(\w+)", code, re.MULTILINE))
            assert called <= {"memcpy", "memset"}, called


def arithmetic(code: str, triple: str, dtype: str) -> tuple[int, int, int]:
    """How many vector and scalar additions and multiplications an assembly text holds, and those of the other type."""
    own, other = ("s", "d") if dtype == "float32" else ("d", "s")
    if triple.startswith("x86"):
        operation = r"^\s*v?(?:add|sub|mul|div|fn?m(?:add|sub)(?:132|213|231))"
        wrong = rf"{operation}[ps]{other}\b|^\s*v?cvts[sd]2s[sd]\b"
        patterns = (rf"{operation}p{own}\b", rf"{operation}s{own}\b", wrong)
    else:
        operation = r"^\s*f(?:add|sub|mul|div|mla|mls|madd|msub|nmadd|nmsub|nmul)\s+"
        wrong = rf"{operation}(?:v\d+\.\d)?{other}|^\s*fcvt\s"
        patterns = (rf"{operation}v\d+\.\d{own}", rf"{operation}{own}\d", wrong)
    a, b, c = (len(re.findall(p, code, re.MULTILINE)) for p in patterns)
    return a, b, c


def test_only_kernels_without_channels_and_indices_are_taken_by_rows() -> None:
    """Sums over rows, channels and indices are the other writer's."""
    shared = [is_rowwise(b.kernel) for blocks in scheduled(Entry("kernel", product("shared"))) for b in blocks]
    assert shared.count(False) == 2, "the two derivatives with respect to shared weights are sums over rows"
    for name in ("convolution", "linear", "gate", "contraction"):
        assert not any(is_rowwise(b.kernel) for bs in scheduled(Entry("kernel", RECIPES[name])) for b in bs)
