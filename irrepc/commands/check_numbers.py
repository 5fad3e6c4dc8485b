"""The code of a package, run on small arrays: its values, its symmetry, its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

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
from irrepc.commands.emitted import (
    NODES,
    RECEIVERS,
    SENDERS,
    Array,
    Functions,
    extents_of,
    integers,
    normals,
    shape_of,
)
from irrepc.emit.module import Entry, kernels
from irrepc.frontend.rotations import Quaternion, rotation_matrix, wigner_d_exact
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Kernel

Report = tuple[int, float, tuple[str, ...]]
"""How many functions were run, the largest relative error, the failures."""

ROTATION: Quaternion = (3, -1, 2, 1)
STEP = 2.0**-10
VALUE_ERROR, SYMMETRY_ERROR, DERIVATIVE_ERROR = 1e-12, 1e-11, 1e-6


def check_values(functions: list[Functions], seed: int = 0) -> Report:
    """All orders at random integers against the kernel interpreted over exact numbers."""
    wanted: dict[str, tuple[list[Array], list[Array]]] = {}

    def error(f: Functions, kernel: Kernel, extents: dict[str, int]) -> float:
        if kernel.name not in wanted:
            rng = np.random.default_rng([seed, len(wanted)])
            arrays = [integers(o, extents, rng) for o in kernel.inputs]
            wanted[kernel.name] = arrays, _exact(kernel, arrays, extents)
        arrays, expected = wanted[kernel.name]
        got = f.call(kernel.name, arrays, kernel, extents)
        return max((relative(g, e) for g, e in zip(got, expected, strict=True)), default=0.0)

    cases = (
        (f, kernel.name, partial(error, f, kernel, extents_of(entry)))
        for f in functions
        for entry in f.part.entries
        for kernel in kernels(entry)
    )
    return _run(cases, VALUE_ERROR, "against exact arithmetic")


def check_equivariance(functions: list[Functions], seed: int = 1) -> Report:
    """Forward functions: rotated and inverted inputs give rotated and inverted outputs."""
    rotations: dict[int, Array] = {}

    def error(f: Functions, entry: Entry) -> float:
        kernel, extents = kernels(entry)[0], extents_of(entry)
        rng = np.random.default_rng(seed)
        if isinstance(entry.recipe, WignerRecipe):
            return _homomorphism(f, kernel, entry.recipe.lmax, rng)
        inputs, outputs = sides(entry.recipe)
        arrays = [normals(o, extents, rng) for o in kernel.inputs]
        turned = [_turn(a, s, extents, rotations) for a, s in zip(arrays, inputs, strict=True)]
        (plain,) = f.call(kernel.name, arrays, kernel, extents)
        (got,) = f.call(kernel.name, turned, kernel, extents)
        return relative(got, _turn(plain, outputs, extents, rotations))

    cases = ((f, entry.name, partial(error, f, entry)) for f in functions for entry in f.part.entries)
    return _run(cases, SYMMETRY_ERROR, "after rotation and inversion")


def check_derivatives(functions: list[Functions], seed: int = 2) -> Report:
    """Orders 1 and 2: ⟨g, f'(x)·v⟩ by differences of the order below equals ⟨f_vjp(x, g), v⟩."""

    def error(f: Functions, below: Kernel, above: Kernel, extents: dict[str, int]) -> float:
        rng = np.random.default_rng(seed)
        arrays, ways, cotangents = (
            [normals(o, extents, rng) for o in operands] for operands in (below.inputs, below.inputs, below.outputs)
        )

        def along(t: float) -> float:
            moved = [a + t * v for a, v in zip(arrays, ways, strict=True)]
            values = f.call(below.name, moved, below, extents)
            return sum(float((g * v).sum()) for g, v in zip(cotangents, values, strict=True))

        # Exact for polynomials of degree 4 in t, up to rounding: Fornberg, Math. Comp. 51 (1988) 699, table 1.
        slope = (8 * (along(STEP) - along(-STEP)) - (along(2 * STEP) - along(-2 * STEP))) / (12 * STEP)
        gradients = f.call(above.name, [*arrays, *cotangents], above, extents)
        terms = [d * v for d, v in zip(gradients, ways, strict=True)]
        size = sum(float(np.abs(t).sum()) for t in terms)
        return abs(slope - sum(float(t.sum()) for t in terms)) / (size or 1.0)

    cases = (
        (f, above.name, partial(error, f, below, above, extents_of(entry)))
        for f in functions
        for entry in f.part.entries
        for below, above in pairwise(kernels(entry))
    )
    return _run(cases, DERIVATIVE_ERROR, "against differences")


def _run(cases: Iterable[tuple[Functions, str, Callable[[], float]]], tolerance: float, what: str) -> Report:
    """Run every case; one that raises is a failure, for emitted code may do anything once it has been changed."""
    total, worst = 0, 0.0
    failures: list[str] = []
    for f, name, error_of in cases:
        total += 1
        try:
            error = error_of()
        except Exception as broken:
            failures.append(f"{f.backend} {name}: {type(broken).__name__}: {broken}")
            continue
        worst = max(worst, error)
        if not error <= tolerance:
            failures.append(f"{f.backend} {name}: relative error {error:.1e} {what}")
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


def _exact(kernel: Kernel, arrays: list[Array], extents: dict[str, int]) -> list[Array]:
    result = interpret(
        kernel,
        {o.name: a.astype(int).tolist() for o, a in zip(kernel.inputs, arrays, strict=True)},
        extents=extents,
        indices={"sender": SENDERS, "receiver": RECEIVERS},
        rows=len(SENDERS),
        sizes={"sender": NODES, "receiver": NODES},
    )
    return [np.array(result[o.name], dtype=object).astype(float).reshape(shape_of(o, extents)) for o in kernel.outputs]
