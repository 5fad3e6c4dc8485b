"""Small kernels of every kind and exact arrays to feed them, shared by the tests of ir, emit and runtime."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import (
    ContractionRecipe,
    GateRecipe,
    HarmonicsRecipe,
    Label,
    LinearRecipe,
    NormRecipe,
    Path,
    ProductRecipe,
    Recipe,
    WignerRecipe,
    labels,
    read_product,
    uvu_paths,
)
from irrepc.algebra.so2_recipe import OrderGateRecipe, RotateBackRecipe, RotateRecipe
from irrepc.ir.kernel import Kernel, Operand

ROWS = 4
SIZES = {"sender": 3, "receiver": 2, "species": 3, "pair": 3}
EXTENTS = {"u": 2, "u1": 1, "v": 3, "k": 2, "k1": 3, "h": 2}


def convolution(irreps: str, lmax: int, allowed: str | None = None, weights: str = "row") -> ProductRecipe:
    """A fused convolution of features with harmonics."""
    left, _ = labels(Irreps.of(irreps), "u")
    right, _ = labels(Irreps.spherical_harmonics(lmax), "v", scalar_ones=True)
    out, paths = uvu_paths(left, right, None if allowed is None else Irreps.of(allowed))
    return ProductRecipe(left, right, out, paths, weights=weights, fused=True)


def crossed() -> ProductRecipe:
    """Two channel axes, shared weights, one block that sums the right channels and one that keeps both."""
    left, _ = labels(Irreps.of("2x0e+2x1o"), "u")
    right, _ = labels(Irreps.of("3x1o"), "v")
    out = (Label(("u",), left[1].irrep), Label(("u", "v"), left[0].irrep), Label(("v",), left[1].irrep))
    paths = (Path(0, 0, 0), Path(1, 0, 1, False), Path(0, 0, 2))
    return ProductRecipe(left, right, out, paths, weights="shared")


def apart(fused: bool) -> ProductRecipe:
    """Two blocks in one output array, of different widths, and a third in another; weighted, or fused without."""
    left, _ = labels(Irreps.of("2x0e+1x1o"), "u")
    right, _ = labels(Irreps.spherical_harmonics(1), "v", scalar_ones=True)
    out, paths = uvu_paths(left, right, Irreps.of("0e+1o"))
    order = (0, 3, 1, 2)
    moved = tuple(Path(p.left, p.right, order.index(p.out), not fused) for p in paths)
    out = tuple(out[k] for k in order)
    return ProductRecipe(left, right, out, moved, weights="none" if fused else "row", fused=fused, apart=True)


RECIPES: dict[str, Recipe] = {
    "harmonics": HarmonicsRecipe(4),
    "wigner": WignerRecipe(2),
    "product": read_product("1o x 2e -> 1o"),
    "convolution": convolution("2x0e+2x1o", 1),
    "convolution, two widths": convolution("2x0e+1x1o", 1, "0e+1o"),
    "convolution, weights by pair": convolution("2x0e+1x1o", 1, "0e+1o", "pair"),
    "crossed": crossed(),
    "linear": LinearRecipe(labels(Irreps.of("2x0e+1x1o"), "u")[0], labels(Irreps.of("2x0e+3x1o"), "k")[0]),
    "gate": GateRecipe(labels(Irreps.of("2x0e+1x1o"), "u")[0]),
    "product, apart": apart(fused=False),
    "convolution, apart": apart(fused=True),
    "gate, apart": GateRecipe(labels(Irreps.of("2x0e+1x1o"), "u")[0], apart=True),
    "norm": NormRecipe(labels(Irreps.of("2x0e+1x1o"), "u")[0]),
    "contraction": ContractionRecipe(1, (0, 1), 3),
    "wigner rows": WignerRecipe(3, 1),
    "rotate": RotateRecipe(2, 1),
    "rotate, two sides, weights by order": RotateRecipe(2, 1, 2, "order"),
    "rotate, weights by degree": RotateRecipe(1, 1, 2, "degree"),
    "rotate back": RotateBackRecipe(2, 1),
    "rotate back, heads": RotateBackRecipe(1, 1, heads=True),
    "order gate": OrderGateRecipe(2, 1),
}


def width(operand: Operand) -> int:
    """The length of a row of an operand under EXTENTS."""
    total = 0
    for axes in operand.components:
        count = 1
        for a in axes:
            count *= EXTENTS[a]
        total += count
    return total


def indices(seed: int, rows: int = ROWS) -> dict[str, list[int]]:
    """Row numbers for every index; not sorted, and one row of each is never named."""
    generator = random.Random(seed)
    return {name: [generator.randrange(size - 1) for _ in range(rows)] for name, size in SIZES.items()}


def arrays(kernel: Kernel, seed: int, rows: int = ROWS) -> dict[str, Any]:
    """Small random fractions for every input of a kernel."""
    generator = random.Random(seed)

    def row(operand: Operand) -> list[Fraction]:
        return [Fraction(generator.randrange(-5, 6), generator.randrange(1, 4)) for _ in range(width(operand))]

    out: dict[str, Any] = {}
    for o in kernel.inputs:
        if o.rows is None:
            out[o.name] = row(o)
        else:
            out[o.name] = [row(o) for _ in range(rows if o.index is None else SIZES[o.index])]
    return out


def settings(seed: int, rows: int = ROWS) -> dict[str, Any]:
    """The keyword arguments that interpret wants beside the arrays."""
    return {"extents": EXTENTS, "indices": indices(seed, rows), "rows": rows, "sizes": SIZES}
