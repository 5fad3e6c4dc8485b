"""The code of a package, run on small arrays: its values, its symmetry, its derivatives."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from irrepc.algebra.irreps import Irrep
from irrepc.algebra.recipe import (
    GateRecipe,
    HarmonicsRecipe,
    Label,
    LinearRecipe,
    NormRecipe,
    ProductRecipe,
    Recipe,
    WignerRecipe,
)
from irrepc.emit.module import Entry, kernels
from irrepc.emit.package import module_path
from irrepc.emit.plan import Part
from irrepc.frontend.rotations import Quaternion, rotation_matrix, wigner_d_exact
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Kernel, Operand

Array = np.ndarray[Any, np.dtype[Any]]
Report = tuple[int, float, tuple[str, ...]]
"""How many functions were run, the largest relative error, the failures."""

SENDERS, RECEIVERS, NODES = (0, 2, 2, 1), (1, 1, 0, 1), 3
"""A graph with an isolated row on each side, edges not sorted."""

ROTATION: Quaternion = (3, -1, 2, 1)
STEP = 2.0**-7
VALUE_ERROR, SYMMETRY_ERROR, DERIVATIVE_ERROR = 1e-12, 1e-11, 1e-6
_numbers = count()


@dataclass(frozen=True, slots=True)
class Functions:
    """The loaded functions of one part for one backend."""

    part: Part
    backend: str
    module: ModuleType

    def call(self, name: str, arrays: list[Array], kernel: Kernel, extents: dict[str, int]) -> list[Array]:
        """Run a function on float64 arrays."""
        place = self._tensor if self.backend == "torch" else np.ascontiguousarray
        rows = {"sender": SENDERS, "receiver": RECEIVERS}
        indices = [self._index(rows[index], place) for index in kernel.indices]
        result = getattr(self.module, name)(*map(place, arrays), *indices, *(extents[a] for a in kernel.channels))
        return [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]

    def _index(self, values: tuple[int, ...], place: Callable[[Array], Any]) -> Any:
        row = np.array(values, dtype=np.int64)
        start = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=NODES))))
        return self.module.Index(place(row), place(np.argsort(row, kind="stable")), place(start.astype(np.int64)))

    @staticmethod
    def _tensor(array: Array) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array))


def load_functions(package: Path, part: Part, backend: str, compiled: bool) -> Functions:
    """Import a module of the package by its path; numba's as plain Python unless `compiled`."""
    file = package / module_path(part.name, backend)
    name = f"irrepc_check_{next(_numbers)}_{backend}_{part.name}"
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


def check_values(functions: list[Functions], seed: int = 0) -> Report:
    """All orders at random integers against the kernel interpreted over exact numbers."""
    total, worst = 0, 0.0
    failures: list[str] = []
    wanted: dict[str, tuple[list[Array], list[Array]]] = {}
    for f in functions:
        for entry in f.part.entries:
            extents = extents_of(entry)
            for kernel in kernels(entry):
                if kernel.name not in wanted:
                    rng = np.random.default_rng([seed, len(wanted)])
                    arrays = [_integers(o, extents, rng) for o in kernel.inputs]
                    wanted[kernel.name] = arrays, _exact(kernel, arrays, extents)
                arrays, expected = wanted[kernel.name]
                got = f.call(kernel.name, arrays, kernel, extents)
                error = max((relative(g, e) for g, e in zip(got, expected, strict=True)), default=0.0)
                total, worst = total + 1, max(worst, error)
                if not error <= VALUE_ERROR:
                    failures.append(f"{f.backend} {kernel.name}: relative error {error:.1e} against exact arithmetic")
    return total, worst, tuple(failures)


def check_equivariance(functions: list[Functions], seed: int = 1) -> Report:
    """Forward functions: rotated and inverted inputs give rotated and inverted outputs."""
    total, worst = 0, 0.0
    failures: list[str] = []
    rotations: dict[int, Array] = {}
    for f in functions:
        for entry in f.part.entries:
            kernel, extents = kernels(entry)[0], extents_of(entry)
            rng = np.random.default_rng([seed, total])
            if isinstance(entry.recipe, WignerRecipe):
                error = _homomorphism(f, kernel, entry.recipe.lmax, rng)
            else:
                inputs, outputs = sides(entry.recipe)
                arrays = [_normals(o, extents, rng) for o in kernel.inputs]
                turned = [_turn(a, s, extents, rotations) for a, s in zip(arrays, inputs, strict=True)]
                (plain,) = f.call(kernel.name, arrays, kernel, extents)
                (got,) = f.call(kernel.name, turned, kernel, extents)
                error = relative(got, _turn(plain, outputs, extents, rotations))
            total, worst = total + 1, max(worst, error)
            if not error <= SYMMETRY_ERROR:
                failures.append(f"{f.backend} {kernel.name}: relative error {error:.1e} after rotation and inversion")
    return total, worst, tuple(failures)


def check_derivatives(functions: list[Functions], seed: int = 2) -> Report:
    """Orders 1 and 2: ⟨g, f'(x)·v⟩ by differences of the order below equals ⟨f_vjp(x, g), v⟩."""
    total, worst = 0, 0.0
    failures: list[str] = []
    for f in functions:
        for entry in f.part.entries:
            extents, orders = extents_of(entry), kernels(entry)
            for below, above in pairwise(orders):
                rng = np.random.default_rng([seed, total])
                arrays = [_normals(o, extents, rng) for o in below.inputs]
                ways = [_normals(o, extents, rng) for o in below.inputs]
                cotangents = [_normals(o, extents, rng) for o in below.outputs]

                def along(
                    t: float,
                    f: Functions = f,
                    below: Kernel = below,
                    arrays: list[Array] = arrays,
                    ways: list[Array] = ways,
                    cotangents: list[Array] = cotangents,
                    extents: dict[str, int] = extents,
                ) -> float:
                    moved = [a + t * v for a, v in zip(arrays, ways, strict=True)]
                    values = f.call(below.name, moved, below, extents)
                    return sum(float((g * v).sum()) for g, v in zip(cotangents, values, strict=True))

                # Exact for polynomials of degree 4 in t, up to rounding: Fornberg, Math. Comp. 51 (1988) 699, table 1.
                slope = (8 * (along(STEP) - along(-STEP)) - (along(2 * STEP) - along(-2 * STEP))) / (12 * STEP)
                gradients = f.call(above.name, [*arrays, *cotangents], above, extents)
                terms = [float((d * v).sum()) for d, v in zip(gradients, ways, strict=True)]
                size = sum(float(np.abs(d * v).sum()) for d, v in zip(gradients, ways, strict=True))
                error = abs(slope - sum(terms)) / max(size, 1e-300)
                total, worst = total + 1, max(worst, error)
                if not error <= DERIVATIVE_ERROR:
                    failures.append(f"{f.backend} {above.name}: relative error {error:.1e} against differences")
    return total, worst, tuple(failures)


def sides(recipe: Recipe) -> tuple[tuple[tuple[Label, ...], ...], tuple[Label, ...]]:
    """The irreps of each input and of the output; () for an invariant."""
    match recipe:
        case HarmonicsRecipe():
            harmonics = tuple(Label((), Irrep(l, (-1) ** l)) for l in range(recipe.lmax + 1))
            return ((Label((), Irrep(1, -1)),),), harmonics
        case ProductRecipe():
            weights: tuple[tuple[Label, ...], ...] = ((),) if any(p.weighted for p in recipe.paths) else ()
            return (recipe.left, recipe.right, *weights), recipe.out
        case LinearRecipe():
            return (recipe.left, ()), recipe.out
        case GateRecipe():
            return (recipe.left, ()), recipe.left
        case NormRecipe():
            return (recipe.left,), ()
    raise TypeError(f"sides: got {recipe}; expected a map between irreps")


def extents_of(entry: Entry) -> dict[str, int]:
    """Small channel extents, different ones where there are several axes."""
    return {axis: 2 + i % 2 for i, axis in enumerate(kernels(entry)[0].channels)}


def relative(got: Array, expected: Array) -> float:
    """The largest difference over the largest value; infinite for another shape or a NaN."""
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    size = float(np.abs(expected).max(initial=0.0))
    return float(np.abs(got - expected).max(initial=0.0)) / (size or 1.0)


def _homomorphism(f: Functions, kernel: Kernel, lmax: int, rng: np.random.Generator) -> float:
    """D(p)·D(q) = D(p·q), and D of the fixed rotation is the exact one."""
    p, q = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 4)))
    fixed = np.array(ROTATION, dtype=float)
    rows = np.stack([p, q, _hamilton(p, q), fixed / np.linalg.norm(fixed)])
    (flat,) = f.call(kernel.name, [rows], kernel, {})
    worst, start = 0.0, 0
    for l in range(lmax + 1):
        size = (2 * l + 1) ** 2
        dp, dq, dpq, de = flat[:, start : start + size].reshape(4, 2 * l + 1, 2 * l + 1)
        worst = max(worst, relative(dp @ dq, dpq), relative(de, _block(l)))
        start += size
    return worst


def _hamilton(p: Array, q: Array) -> Array:
    (a, *u), (b, *v) = p, q
    return np.concatenate(([a * b - np.dot(u, v)], a * np.array(v) + b * np.array(u) + np.cross(u, v)))


def _turn(array: Array, blocks: tuple[Label, ...], extents: dict[str, int], rotations: dict[int, Array]) -> Array:
    """The rows after the rotation and the inversion, p·D^l on each block."""
    out, start = array.copy(), 0
    for block in blocks:
        channels = int(np.prod([extents[a] for a in block.axes]))
        l, stop = block.irrep.l, start + block.irrep.dim * channels
        if l not in rotations:
            rotations[l] = _block(l)
        rows = array[:, start:stop].reshape(len(array), block.irrep.dim, channels)
        out[:, start:stop] = block.irrep.p * np.einsum("ij,rju->riu", rotations[l], rows).reshape(len(array), -1)
        start = stop
    return out


def _block(l: int) -> Array:
    """D^l of ROTATION, rounded from exact numbers."""
    if l == 1:
        return np.array([[float(v) for v in row] for row in rotation_matrix(ROTATION)])
    return np.array([[float(v) for v in row] for row in wigner_d_exact(l, ROTATION)])


def _width(o: Operand, extents: dict[str, int]) -> int:
    return sum(int(np.prod([extents[a] for a in axes])) for axes in o.components)


def _shape(o: Operand, extents: dict[str, int]) -> tuple[int, ...]:
    if o.rows is None:
        return (_width(o, extents),)
    return (len(SENDERS) if o.index is None else NODES, _width(o, extents))


def _integers(o: Operand, extents: dict[str, int], rng: np.random.Generator) -> Array:
    return rng.integers(-3, 4, _shape(o, extents)).astype(float)


def _normals(o: Operand, extents: dict[str, int], rng: np.random.Generator) -> Array:
    return rng.normal(size=_shape(o, extents))


def _exact(kernel: Kernel, arrays: list[Array], extents: dict[str, int]) -> list[Array]:
    result = interpret(
        kernel,
        {o.name: a.astype(int).tolist() for o, a in zip(kernel.inputs, arrays, strict=True)},
        extents=extents,
        indices={"sender": SENDERS, "receiver": RECEIVERS},
        rows=len(SENDERS),
        sizes={"sender": NODES, "receiver": NODES},
    )
    return [np.array(result[o.name], dtype=object).astype(float).reshape(_shape(o, extents)) for o in kernel.outputs]
