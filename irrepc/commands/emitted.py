"""Emitted modules of a package, loaded from their files and run on small NumPy arrays."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from irrepc.emit.module import Entry, kernels
from irrepc.emit.package import module_path
from irrepc.emit.plan import Part
from irrepc.ir.kernel import Kernel, Operand

Array = np.ndarray[Any, np.dtype[Any]]

SENDERS, RECEIVERS, NODES = (0, 2, 2, 1), (1, 1, 0, 1), 3
"""A graph with an isolated row on each side, edges not sorted."""


@dataclass(frozen=True, slots=True)
class Functions:
    """The loaded functions of one part for one backend."""

    part: Part
    backend: str
    module: ModuleType

    def call(self, name: str, arrays: list[Array], kernel: Kernel, extents: dict[str, int]) -> list[Array]:
        """Run a function on float64 arrays."""
        place = {"torch": self._tensor, "cuda": self._on_device}.get(self.backend, np.ascontiguousarray)
        rows = {"sender": SENDERS, "receiver": RECEIVERS}
        indices = [self._index(rows[index], place) for index in kernel.indices]
        result = getattr(self.module, name)(*map(place, arrays), *indices, *(extents[a] for a in kernel.channels))
        results = result if isinstance(result, tuple) else (result,)
        return [np.asarray(r.cpu() if self.backend == "cuda" else r) for r in results]

    def _index(self, values: tuple[int, ...], place: Callable[[Array], Any]) -> Any:
        row = np.array(values, dtype=np.int64)
        start = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=NODES))))
        return self.module.Index(place(row), place(np.argsort(row, kind="stable")), place(start.astype(np.int64)))

    @staticmethod
    def _tensor(array: Array) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array))

    @classmethod
    def _on_device(cls, array: Array) -> Any:
        return cls._tensor(array).cuda()


def has_device() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def load_functions(package: Path, part: Part, backend: str, compiled: bool) -> Functions:
    """Import a module of the package by its path; numba's as plain Python unless `compiled`."""
    file = package / module_path(part.name, backend)
    name = f"irrepc_check_{sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise ImportError(f"{file}: no Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    with _interpreted(backend == "numba" and not compiled):
        specification.loader.exec_module(module)
    return Functions(part, backend, module)


@contextmanager
def _interpreted(wanted: bool) -> Iterator[None]:
    """Let numba's decorators return the function they are given; no trace of it is left on disk."""
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    if not wanted:
        try:
            yield
        finally:
            sys.dont_write_bytecode = written
        return
    config: Any = importlib.import_module("numba.core.config")
    before, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        yield
    finally:
        config.DISABLE_JIT, sys.dont_write_bytecode = before, written


def extents_of(entry: Entry) -> dict[str, int]:
    """Small channel extents, different ones where there are several axes."""
    return {axis: 2 + i % 2 for i, axis in enumerate(kernels(entry)[0].channels)}


def _width(o: Operand, extents: dict[str, int]) -> int:
    return sum(int(np.prod([extents[a] for a in axes])) for axes in o.components)


def shape_of(o: Operand, extents: dict[str, int]) -> tuple[int, ...]:
    if o.rows is None:
        return (_width(o, extents),)
    return (len(SENDERS) if o.index is None else NODES, _width(o, extents))


def integers(o: Operand, extents: dict[str, int], rng: np.random.Generator) -> Array:
    return rng.integers(-3, 4, shape_of(o, extents)).astype(float)


def normals(o: Operand, extents: dict[str, int], rng: np.random.Generator) -> Array:
    return rng.normal(size=shape_of(o, extents))
