"""Build: machine code for the CUDA kernels of a package, made ahead for computers without NVRTC."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from irrepc.errors import BackendError
from irrepc.runtime.nvrtc import Compiled, CudaError, Defines, compile_source, find_nvrtc, write_cubin

FOLDER = "cubin"
MANIFEST = "manifest.json"
REALS = ("float32", "float64")
ALL = "*"
"""The axis that stands for every channel axis that is not named."""
Channels = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A kernel that a module launches, and what its machine code is made from.

    nvrtc  the copy of runtime/nvrtc.py beside the module: it names the file that it will look for
    """

    module: Path
    kernel: str
    source: str
    defines: Defines
    nvrtc: ModuleType = field(compare=False)


@dataclass(frozen=True, slots=True)
class Job:
    """A kernel to compile for an architecture, and where the machine code goes."""

    wanted: Wanted
    arch: str
    file: Path

    def run(self) -> Compiled:
        """Compile, or take it from the cache."""
        return compile_source(self.wanted.source, self.wanted.defines, self.arch)


def build(
    folder: Path, architectures: Sequence[str], channels: Sequence[Channels], reals: Sequence[str], console: Console
) -> int:
    """Compile every kernel that the package's CUDA modules launch; returns how many pieces of machine code there are.

    folder         a package, or any folder with CUDA modules in it
    architectures  "90" or "sm_90"
    channels       for which widths: each time the extents of the channel axes, "*" for all that are not named
    reals          "float32", "float64"
    They go into the folder `cubin` beside the modules, with a manifest.  Raises BackendError when there is no CUDA
    module, for an axis without an extent, without NVRTC, and when a kernel does not compile.
    """
    ways = [(real, each) for real in reals for each in channels]
    wanted = dict.fromkeys(w for module in cuda_modules(folder) for way in ways for w in launched(module, *way))
    jobs = [_job(w, f"sm_{arch.removeprefix('sm_')}") for w in wanted for arch in dict.fromkeys(architectures)]
    try:
        version = find_nvrtc().version
        made = _run(jobs, folder.name, console)
    except CudaError as error:
        raise BackendError(str(error)) from error
    manifests: dict[Path, list[dict[str, Any]]] = {}
    for job, compiled in zip(jobs, made, strict=True):
        write_cubin(job.file, compiled)
        manifests.setdefault(job.file.parent, []).append(_entry(job, compiled))
    for place, entries in manifests.items():
        text = json.dumps({"nvrtc": version, "kernels": entries}, indent=1)
        (place / MANIFEST).write_text(text + "\n", encoding="utf-8")
    _show(jobs, made, folder, console)
    return len(jobs)


def cuda_modules(folder: Path) -> tuple[Path, ...]:
    """The Python modules in the folder with CUDA text beside them; raises BackendError when there are none."""
    found = tuple(sorted(p.with_suffix(".py") for p in folder.rglob("*.cu") if p.with_suffix(".py").is_file()))
    if not found:
        raise BackendError(
            f"build: got {folder}, which holds no CUDA module; expected a package with some; "
            "do: irrepc generate --lmax 2 --backend torch cuda"
        )
    return found


def launched(file: Path, real: str, channels: Channels) -> Iterator[Wanted]:
    """Every kernel of a module for a dtype and widths, as the module itself compiles it, in order and with atomics."""
    module = _load(file)
    for name, threads in module.KERNELS.items():
        extents = {axis: _extent(file, name, axis, channels) for axis in threads.axes}
        for atomic in (False, True) if threads.adds else (False,):
            defines = module.defines(name, getattr(torch, real), atomic, **extents)
            yield Wanted(file, name, module.source(), defines, module.nvrtc)


def _extent(file: Path, name: str, axis: str, channels: Channels) -> int:
    found = channels.get(axis, channels.get(ALL))
    if found is None:
        raise BackendError(
            f"build: got no number of channels {axis} for {name} in {file}; expected one for each axis; "
            f"do: --channels {axis}=64, or --channels 64 for all"
        )
    return found


def _load(file: Path) -> ModuleType:
    name = f"irrepc_build_{sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise BackendError(f"build: got no loader for {file}; expected a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def _job(wanted: Wanted, arch: str) -> Job:
    key = wanted.nvrtc.digest(wanted.source, wanted.defines, arch)
    return Job(wanted, arch, wanted.module.parent / FOLDER / f"{key}.cubin")


def _run(jobs: Sequence[Job], name: str, console: Console) -> list[Compiled]:
    """Compile on every core, with a bar on a terminal."""
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # NVRTC runs without Python's lock.
        return list(bar.track(pool.map(Job.run, jobs), total=len(jobs)))


def _entry(job: Job, compiled: Compiled) -> dict[str, Any]:
    """What the manifest says of one piece."""
    taken = compiled.resources[job.wanted.kernel]
    return {
        "module": job.wanted.module.name,
        "kernel": job.wanted.kernel,
        "defines": dict(job.wanted.defines),
        "arch": job.arch,
        "file": job.file.name,
        "registers": taken.registers,
        "spills": taken.spill_stores + taken.spill_loads,
        "sha256": sha256(compiled.cubin).hexdigest(),
    }


def _show(jobs: Sequence[Job], made: Sequence[Compiled], folder: Path, console: Console) -> None:
    """A line for each module and architecture."""
    headings = ("module", "architecture", "kernels", "kB", "registers", "spilled bytes")
    table = Table(*headings, box=box.SIMPLE, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    groups: dict[tuple[str, str], list[tuple[Job, Compiled]]] = {}
    for job, compiled in zip(jobs, made, strict=True):
        groups.setdefault((job.wanted.module.stem, job.arch), []).append((job, compiled))
    for (module, arch), pieces in groups.items():
        taken = [c.resources[j.wanted.kernel] for j, c in pieces]
        size = sum(len(c.cubin) for _, c in pieces) / 1e3
        spilled = sum(t.spill_stores + t.spill_loads for t in taken)
        most = max(t.registers for t in taken)
        table.add_row(module, arch, str(len(pieces)), f"{size:.0f}", f"up to {most}", f"{spilled:,}")
    console.print(table)
    console.out(f"{len(jobs)} pieces of machine code in {folder}", highlight=False)
