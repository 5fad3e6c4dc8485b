"""Kernels of products: Clebsch-Gordan tensor products, the fused convolution, linear maps, gates and norms.

A tensor product is  o[k] = Σ_ij w·C[i,j,k]·x[i]·y[j]  along each path, with exact real couplings C; which
channels are kept, paired or summed is said by the axes alone (ir/kernel.py).
"""

from __future__ import annotations

from itertools import groupby

from irrepc.algebra.recipe import GateRecipe, Label, LinearRecipe, NormRecipe, Path, ProductRecipe
from irrepc.algebra.surd import ONE, Surd
from irrepc.frontend.clebsch_gordan import w3j
from irrepc.frontend.program import signed
from irrepc.ir.kernel import Axes, Kernel, Operand, Ref, Term, collect


def tensor_product(recipe: ProductRecipe) -> Kernel:
    """o(x, y[, w]) of a product recipe; x at the sender and o at the receiver when it is fused."""
    row = "edge" if recipe.fused else "row"
    node = "node" if recipe.fused else "row"
    x = _operand("x", recipe.left, node, "sender" if recipe.fused else None)
    y = _operand("y", recipe.right, row, None)
    outputs, places = _outputs(recipe, node)
    weighted = tuple(p for p in recipe.paths if p.weighted)
    weight = Operand(
        "w",
        tuple(_weight_axes(recipe, p) for p in weighted),
        {"row": row, "pair": "pair"}.get(recipe.weights),
        "pair" if recipe.weights == "pair" else None,
        labels=tuple(path_label(recipe, p) for p in weighted),
    )
    starts = [_starts(side) for side in (recipe.left, recipe.right)]
    pairs = []
    slot = 0
    for path in recipe.paths:
        a, b, c = recipe.left[path.left], recipe.right[path.right], recipe.out[path.out]
        scale = Surd.of(1, c.irrep.dim) if recipe.component else ONE
        factor = (Ref("w", slot),) if path.weighted else ()
        slot += path.weighted
        for (i, j, k), value in w3j(a.irrep.l, b.irrep.l, c.irrep.l).items():
            product = (
                Ref("x", starts[0][path.left] + i),
                Ref("y", starts[1][path.right] + j),
                *factor,
            )
            pairs.append((places[path.out, k], Term(value * scale, tuple(sorted(product)))))
    inputs = (x, y, weight) if weighted else (x, y)
    return Kernel(recipe.name, inputs, outputs, collect(pairs), doc=str(recipe))


def linear(recipe: LinearRecipe) -> Kernel:
    """out[w, m] = Σ_u W[u, w]·x[u, m] over all pairs of blocks with equal irreps, in (in, out) order."""
    x = _operand("x", recipe.left, "row", None)
    out = _operand("o", recipe.out, "row", None)
    left, right = _starts(recipe.left), _starts(recipe.out)
    axes: list[Axes] = []
    names: list[str] = []
    pairs = []
    for i, a in enumerate(recipe.left):
        for k, c in enumerate(recipe.out):
            if a.irrep == c.irrep:
                weight = Ref("w", len(axes))
                axes.append(a.axes + c.axes)
                names.append(f"{a.irrep} block {i} -> block {k}")
                for m in range(a.irrep.dim):
                    factors = tuple(sorted((weight, Ref("x", left[i] + m))))
                    pairs.append((Ref("o", right[k] + m), Term(ONE, factors)))
    w = Operand("w", tuple(axes), None, labels=tuple(names))
    return Kernel("linear", (x, w), (out,), collect(pairs), doc=str(recipe))


def gate(recipe: GateRecipe) -> Kernel:
    """o[u, m] = g[u]·x[u, m], one gate for each block and channel."""
    starts = _starts(recipe.left)
    if recipe.apart:
        inputs = tuple(_operand(f"x{i}", (b,), "row", None) for i, b in enumerate(recipe.left))
        places = [(Ref(f"x{i}", 0), b) for i, b in enumerate(recipe.left)]
    else:
        inputs = (_operand("x", recipe.left, "row", None),)
        places = [(Ref("x", start), b) for start, b in zip(starts, recipe.left, strict=True)]
    g = Operand("s", tuple(b.axes for b in recipe.left), labels=tuple(f"gate of {b.irrep}" for b in recipe.left))
    pairs = [
        (Ref("o", starts[i] + m), Term(ONE, (Ref("s", i), Ref(x.operand, x.component + m))))
        for i, (x, b) in enumerate(places)
        for m in range(b.irrep.dim)
    ]
    return Kernel("gate", (*inputs, g), (_operand("o", recipe.left, "row", None),), collect(pairs), doc=str(recipe))


def squared_norm(recipe: NormRecipe) -> Kernel:
    """o[u] = Σ_m x[u, m]² for each block and channel."""
    x = _operand("x", recipe.left, "row", None)
    out = Operand("o", tuple(b.axes for b in recipe.left), labels=tuple(f"|{b.irrep}|²" for b in recipe.left))
    starts = _starts(recipe.left)
    pairs = [
        (Ref("o", i), Term(ONE, (Ref("x", starts[i] + m),) * 2))
        for i, b in enumerate(recipe.left)
        for m in range(b.irrep.dim)
    ]
    return Kernel("squared_norm", (x,), (out,), collect(pairs), doc=str(recipe))


def path_label(recipe: ProductRecipe, path: Path) -> str:
    """The path in the field's notation: 1o ⊗ 1o → 2e."""
    return f"{recipe.left[path.left].irrep} ⊗ {recipe.right[path.right].irrep} → {recipe.out[path.out].irrep}"


def _operand(name: str, blocks: tuple[Label, ...], rows: str, index: str | None) -> Operand:
    return Operand(
        name,
        tuple(b.axes for b in blocks for _ in range(b.irrep.dim)),
        rows,
        index,
        labels=tuple(f"{b.irrep} m={signed(m)}" for b in blocks for m in range(-b.irrep.l, b.irrep.l + 1)),
    )


def _outputs(recipe: ProductRecipe, rows: str) -> tuple[tuple[Operand, ...], dict[tuple[int, int], Ref]]:
    """The output arrays of a product, and where (block, component) lies in them."""
    index = "receiver" if recipe.fused else None
    if not recipe.apart:
        whole = _operand("o", recipe.out, rows, index)
        starts = _starts(recipe.out)
        return (whole,), {(i, m): Ref("o", starts[i] + m) for i, b in enumerate(recipe.out) for m in range(b.irrep.dim)}
    operands: list[Operand] = []
    places: dict[tuple[int, int], Ref] = {}
    for n, (irrep, run) in enumerate(groupby(range(len(recipe.out)), lambda i: recipe.out[i].irrep)):
        blocks = tuple(run)
        inside = [(i, m) for m in range(irrep.dim) for i in blocks]
        places |= {place: Ref(f"o{n}", k) for k, place in enumerate(inside)}
        axes = tuple(recipe.out[i].axes for i, _ in inside)
        note = tuple(f"{irrep} m={signed(m - irrep.l)}" for _, m in inside)
        operands.append(Operand(f"o{n}", axes, rows, index, labels=note))
    return tuple(operands), places


def _starts(blocks: tuple[Label, ...]) -> list[int]:
    out, start = [], 0
    for b in blocks:
        out.append(start)
        start += b.irrep.dim
    return out


def _weight_axes(recipe: ProductRecipe, path: Path) -> Axes:
    a, b = recipe.left[path.left], recipe.right[path.right]
    return a.axes + tuple(x for x in b.axes if x not in a.axes)
