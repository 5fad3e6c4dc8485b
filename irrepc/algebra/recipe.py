"""Recipes: the names of kernels, small frozen values from which everything else is derived.

Multiplicities enter a recipe only as channel-axis letters, because one emitted kernel serves any width:
"u*0e+u*1o" is 16x0e+16x1o as well as 128x0e+128x1o, and 16x0e+8x1o is "u*0e+u1*1o".
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from irrepc.algebra.irreps import Irrep, Irreps, check_degree
from irrepc.algebra.so2_recipe import OrderGateRecipe, RotateBackRecipe, RotateRecipe, check_order
from irrepc.errors import RecipeError

NORMALIZATIONS = ("component", "norm")


@dataclass(frozen=True, slots=True)
class Label:
    """One block of irreps whose multiplicity is given by channel axes; () is a single copy."""

    axes: tuple[str, ...]
    irrep: Irrep

    def __str__(self) -> str:
        return f"{'·'.join(self.axes)}*{self.irrep}" if self.axes else str(self.irrep)


@dataclass(frozen=True, slots=True)
class Path:
    """left[i] ⊗ right[j] -> out[k]; `weighted` paths are multiplied by a weight for each of their channels."""

    left: int
    right: int
    out: int
    weighted: bool = True

    def __str__(self) -> str:
        return f"{self.left}.{self.right}.{self.out}{'w' if self.weighted else ''}"


@dataclass(frozen=True, slots=True)
class HarmonicsRecipe:
    """Solid spherical harmonics r^l·Y_lm for l = 0 ... lmax."""

    lmax: int
    normalization: str = "component"

    def __post_init__(self) -> None:
        check_degree(self.lmax)
        if self.normalization not in NORMALIZATIONS:
            raise RecipeError(
                f"spherical_harmonics: got normalization {self.normalization!r}; expected one of {NORMALIZATIONS}"
            )

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "spherical_harmonics"

    def __str__(self) -> str:
        return f"spherical_harmonics(lmax={self.lmax}, normalization={self.normalization})"


@dataclass(frozen=True, slots=True)
class WignerRecipe:
    """Wigner-D blocks D^0 ... D^lmax of a unit quaternion; with mmax only their rows |m'| <= mmax."""

    lmax: int
    mmax: int | None = None

    def __post_init__(self) -> None:
        check_degree(self.lmax)
        if self.mmax is not None:
            check_order("wigner_d", self.lmax, self.mmax)

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "wigner_d"

    def __str__(self) -> str:
        return f"wigner_d(lmax={self.lmax}{'' if self.mmax is None else f', mmax={self.mmax}'})"


@dataclass(frozen=True, slots=True)
class ProductRecipe:
    """A Clebsch-Gordan tensor product of two sums of irreps along chosen paths.

    weights      "row" (a weight for each row), "pair" (for each pair: the two edges of a bond have one; fused only),
                 "shared" (one for all rows) or "none"
    fused        True for the convolution: left is read at the sender, the result added to the receiver
    component    True for coefficients √(2l+1)·w3j (unit variance per component), False for w3j itself
    apart        True for one output array for each run of blocks of the same irrep, component slow, then block, then
                 channel: what a matrix product over the channels of an irrep reads without a copy
    """

    left: tuple[Label, ...]
    right: tuple[Label, ...]
    out: tuple[Label, ...]
    paths: tuple[Path, ...]
    weights: str = "none"
    fused: bool = False
    component: bool = True
    apart: bool = False

    def __post_init__(self) -> None:
        if self.weights not in ("row", "pair", "shared", "none"):
            raise RecipeError(f"tensor_product: got weights {self.weights!r}; expected row, pair, shared or none")
        if self.weights == "pair" and not self.fused:
            raise RecipeError("tensor_product: got weights by pair without edges; expected a fused product")
        for path in self.paths:
            _check_path(self, path)

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "convolution" if self.fused else "tensor_product"

    def __str__(self) -> str:
        sums = ["+".join(str(x) for x in side) for side in (self.left, self.right, self.out)]
        paths = " ".join(str(p) for p in self.paths)
        kind = ("component" if self.component else "w3j") + (", apart" if self.apart else "")
        return f"{self.name}({sums[0]} x {sums[1]} -> {sums[2]}; {paths}; weights={self.weights}, {kind})"


@dataclass(frozen=True, slots=True)
class LinearRecipe:
    """out[w] = Σ_u W[u, w]·x[u] for every pair of blocks with the same irrep; W is shared by all rows."""

    left: tuple[Label, ...]
    out: tuple[Label, ...]

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "linear"

    def __str__(self) -> str:
        return f"linear({'+'.join(map(str, self.left))} -> {'+'.join(map(str, self.out))})"


@dataclass(frozen=True, slots=True)
class GateRecipe:
    """Each block multiplied by one scalar gate per channel; apart: every block comes in an array of its own."""

    left: tuple[Label, ...]
    apart: bool = False

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "gate"

    def __str__(self) -> str:
        return f"gate({'+'.join(map(str, self.left))}{', apart' if self.apart else ''})"


@dataclass(frozen=True, slots=True)
class NormRecipe:
    """The squared norm Σ_m x_m² of every block and channel."""

    left: tuple[Label, ...]

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "squared_norm"

    def __str__(self) -> str:
        return f"squared_norm({'+'.join(map(str, self.left))})"


@dataclass(frozen=True, slots=True)
class ContractionRecipe:
    """Equivariant polynomials of u*0e+u*1o+... up to lmax, for each output degree, with up to `correlation` factors.

    The features of a row are multiplied with themselves; the coefficients of the monomials are read at its species.
    """

    lmax: int
    outputs: tuple[int, ...]
    correlation: int

    def __post_init__(self) -> None:
        check_degree(self.lmax)
        for degree in self.outputs:
            check_degree(degree)
        if not self.outputs or list(self.outputs) != sorted(set(self.outputs)):
            raise RecipeError(
                f"symmetric_contraction: got output degrees {self.outputs}; expected rising degrees, at least one"
            )
        if not 1 <= self.correlation <= 4:
            raise RecipeError(f"symmetric_contraction: got correlation {self.correlation}; expected 1, 2, 3 or 4")

    @property
    def name(self) -> str:
        """What the emitted function is called."""
        return "symmetric_contraction"

    def __str__(self) -> str:
        outputs = "+".join(str(Irrep(l, (-1) ** l)) for l in self.outputs)
        return f"symmetric_contraction(lmax={self.lmax} -> {outputs}; correlation={self.correlation})"


Recipe = (
    HarmonicsRecipe
    | WignerRecipe
    | ProductRecipe
    | LinearRecipe
    | GateRecipe
    | NormRecipe
    | ContractionRecipe
    | RotateRecipe
    | RotateBackRecipe
    | OrderGateRecipe
)


def digest(recipe: Recipe) -> str:
    """Twelve hexadecimal digits that identify a recipe."""
    return hashlib.sha256(str(recipe).encode()).hexdigest()[:12]


def labels(irreps: Irreps, letter: str, *, scalar_ones: bool = False) -> tuple[tuple[Label, ...], dict[str, int]]:
    """Name one channel axis for each distinct multiplicity: u, u1, u2, ...

    Returns the labels and the extent of each axis.  With scalar_ones a multiplicity of 1 carries no axis.
    """
    axes: dict[int, str] = {}
    out = []
    for block in irreps:
        if scalar_ones and block.mul == 1:
            out.append(Label((), block.irrep))
            continue
        name = axes.setdefault(block.mul, letter if not axes else f"{letter}{len(axes)}")
        out.append(Label((name,), block.irrep))
    return tuple(out), {name: mul for mul, name in axes.items()}


def uvu_paths(
    left: tuple[Label, ...], right: tuple[Label, ...], allowed: Irreps | None = None
) -> tuple[tuple[Label, ...], tuple[Path, ...]]:
    """All paths in which the channels of the left side are kept, one output block for each.

    Enumerated by left block, then right block, then rising output degree (as NequIP and e3nn count them).
    allowed: the irreps that may appear as outputs; None for all.
    """
    out: list[Label] = []
    paths: list[Path] = []
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            for irrep in a.irrep * b.irrep:
                if allowed is None or irrep in allowed:
                    paths.append(Path(i, j, len(out)))
                    out.append(Label(a.axes, irrep))
    return tuple(out), tuple(paths)


_PRODUCT = re.compile(r"\s*(\d+\s*[eo])\s*[x⊗]\s*(\d+\s*[eo])\s*->\s*(\d+\s*[eo])\s*")


def read_product(text: str) -> ProductRecipe:
    """Read "1o x 1o -> 1e", the product of single irreps with channels on the left.

    Raises RecipeError when the text is malformed or the output is not in the product.
    """
    match = _PRODUCT.fullmatch(text)
    if match is None:
        raise RecipeError(f"recipe: got {text!r}; expected two irreps and one in their product, as in '1o x 1o -> 1e'")
    a, b, c = (Irrep.of(part) for part in match.groups())
    left, right, out = Label(("u",), a), Label((), b), Label(("u",), c)
    return ProductRecipe((left,), (right,), (out,), (Path(0, 0, 0, False),), component=False)


def _check_path(recipe: ProductRecipe, path: Path) -> None:
    sides = (("left", recipe.left, path.left), ("right", recipe.right, path.right), ("out", recipe.out, path.out))
    for side, blocks, i in sides:
        if not 0 <= i < len(blocks):
            raise RecipeError(f"tensor_product: path {path} names {side} block {i}; expected 0 to {len(blocks) - 1}")
    a, b, c = recipe.left[path.left], recipe.right[path.right], recipe.out[path.out]
    product = a.irrep * b.irrep
    if c.irrep not in product:
        inside = "+".join(str(x) for x in product)
        raise RecipeError(
            f"tensor_product: output {c.irrep} is not in {a.irrep} ⊗ {b.irrep} = {inside}; "
            f"drop {c.irrep} or change the inputs"
        )
    if not set(c.axes) <= set(a.axes) | set(b.axes):
        raise RecipeError(f"tensor_product: path {path} gives channels {c.axes}; its inputs have {a.axes} and {b.axes}")
    if path.weighted and recipe.weights == "none":
        raise RecipeError(f"tensor_product: path {path} is weighted, the recipe has no weights; give it some")
