"""Emitted CUDA text on the processor: many kernels compiled by g++ into one library, and launched as nvrtc.py would."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from irrepc.algebra.recipe import Recipe, digest
from irrepc.emit.module import Entry, compose
from irrepc.ir.kernel import Kernel
from tests.emit.test_numbers import load

Defines = tuple[tuple[str, str], ...]
HEADER = Path(__file__).with_name("device.h")
COMPILER = shutil.which("g++")
ABSENT = "g++ is not on the PATH"
SIZES = {"sender": 5, "receiver": 4, "species": 3, "pair": 4}


class Host:
    """Stands in for the module nvrtc: the kernels of a library, by text, name and macros."""

    def __init__(self, library: ctypes.CDLL, names: dict[tuple[str, str, Defines], tuple[str, bool]]) -> None:
        self.library, self.names = library, names
        self.launches: list[str] = []

    def launcher(self, source: str, name: str, defines: Defines, device: int) -> Callable[..., None]:
        """A kernel as a function of blocks, threads and arguments; device is that of CPU tensors."""
        assert device == -1
        symbol, fibres = self.names[source, name, defines]
        function = getattr(self.library, symbol)
        function.restype = ctypes.c_char_p

        def launch(blocks: int, threads: int, *arguments: Any) -> None:
            for a in arguments:
                assert isinstance(a, int) or (a.is_contiguous() and a.dtype in (torch.int64, arguments[0].dtype))
            values = [a if isinstance(a, int) else a.data_ptr() for a in arguments]
            self.launches.append(name)
            array = (ctypes.c_longlong * len(values))(*values)
            said = function(array, ctypes.c_longlong(blocks), threads, fibres)
            if said:
                raise AssertionError(f"{name}: {said.decode()}")

        return launch


def build(wanted: Iterable[tuple[str, str, Defines]], folder: Path, *options: str) -> Host:
    """Compile kernels, each (text, name, macros), into one library."""
    cases: dict[tuple[str, Defines], list[tuple[str, Defines]]] = {}
    for source, name, defines in dict.fromkeys(wanted):
        common = tuple(d for d in defines if not d[0].startswith("WITH_"))
        cases.setdefault((source, common), []).append((name, defines))
    lines = [f'#include "{HEADER}"']
    names = {}
    for number, ((source, common), kernels) in enumerate(cases.items()):
        file = folder / f"{hashlib.sha256(source.encode()).hexdigest()[:12]}.cu"
        file.write_text(source, encoding="utf-8")
        macros = list(common)
        for name, _ in kernels:
            macros += [(f"WITH_{name}", "1"), (name, f"case{number}_{name}")]
        lines += [f"namespace case{number} {{", *(f"#define {name} {value}" for name, value in macros)]
        lines += [f'#include "{file}"', *(f"#undef {name}" for name, _ in macros)]
        for name, defines in kernels:
            symbol = f"case{number}_{name}"
            parameters = "const long long* values, long long blocks, int threads, bool fibres"
            lines.append(f'extern "C" const char* start_{symbol}({parameters})')
            lines.append(f"{{ return shim::launch({symbol}, values, blocks, threads, fibres); }}")
            names[source, name, defines] = (f"start_{symbol}", uses_lanes(source, name))
        lines.append("}")
    unit = folder / "kernels.cpp"
    unit.write_text("\n".join(lines) + "\n", encoding="utf-8")
    library = folder / "kernels.so"
    command = [str(COMPILER), "-std=c++17", "-O0", "-shared", "-fPIC", *options, "-o", str(library), str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return Host(ctypes.CDLL(str(library)), names)


def emitted(recipe: Recipe, backend: str, folder: Path, function: str = "kernel") -> ModuleType:
    """The module of a recipe, imported from the folder."""
    made = compose("A kernel.", (Entry(function, recipe),), backend, "a test")
    name = f"{backend}_{function}_{digest(recipe)}"
    for suffix, text in made.companions:
        (folder / name).with_suffix(suffix).write_text(text, encoding="utf-8")
    for file, text in made.shared:
        (folder / file).write_text(text, encoding="utf-8")
    return load(made.text, folder, name)


def operands(kernel: Kernel, extents: dict[str, int], rows: int, real: torch.dtype) -> list[torch.Tensor]:
    """Random inputs."""
    generator = torch.Generator().manual_seed(3)
    out = []
    for o in kernel.inputs:
        width = sum(int(np.prod([extents[a] for a in axes])) for axes in o.components)
        shape = (width,) if o.rows is None else (rows if o.index is None else SIZES[o.index], width)
        out.append(torch.randn(shape, generator=generator, dtype=real))
    return out


def indices(kernel: Kernel, module: ModuleType, rows: int) -> list[object]:
    """An Index for each index of a kernel: not sorted, and one row is never named."""
    out = []
    for name in kernel.indices:
        generator = torch.Generator().manual_seed(len(name))
        values = torch.randint(0, SIZES[name] - 1, (rows,), generator=generator)
        counts = torch.bincount(values, minlength=SIZES[name])
        start = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
        out.append(module.Index(values, torch.argsort(values, stable=True), start))
    return out


def run_poisoned(
    module: ModuleType, kernel: Kernel, inputs: list[torch.Tensor], extents: dict[str, int], rows: int
) -> tuple[torch.Tensor, ...]:
    """Call a kernel's function while new tensors hold NaN, so that a number nobody wrote is seen."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.ones(3).new_empty((2, 2)).isnan().all()
        result = getattr(module, kernel.name)(*inputs, *indices(kernel, module, rows), *extents.values())
    finally:
        torch.use_deterministic_algorithms(False)
    return result if isinstance(result, tuple) else (result,)


def uses_lanes(source: str, name: str) -> bool:
    """Whether the lanes of a kernel exchange numbers."""
    body = source.split(f"#ifdef WITH_{name}\n")[1].split("\n#endif")[0]
    return "warp_sum(" in body
