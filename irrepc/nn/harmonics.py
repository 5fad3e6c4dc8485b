"""SphericalHarmonics and WignerD: edge vectors -> Y, quaternions -> D, through the compiled kernels."""

from __future__ import annotations

import math

from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import HarmonicsRecipe, WignerRecipe
from irrepc.errors import RecipeError
from irrepc.runtime.load import check_choice, load

NORMALIZATIONS = ("component", "norm", "integral")


class SphericalHarmonics(nn.Module):
    """Real spherical harmonics Y_lm for l = 0 ... lmax (real basis of e3nn >= 0.5: polar axis y, l = 1 is x, y, z).

    normalization  "component": |Y_l|² = 2l + 1 on the sphere; "norm": |Y_l| = 1; "integral": ∫ Y² = 1
    normalize      True: Y of the direction r/|r|, and zero for l > 0 where r = 0; False: the solid r^l·Y

    Raises RecipeError for another normalization and IrrepsError for a degree below 0.
    """

    def __init__(
        self, lmax: int, normalization: str = "component", normalize: bool = True, backend: str = "auto"
    ) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise RecipeError(
                f"spherical_harmonics: got normalization {normalization!r}; expected one of {', '.join(NORMALIZATIONS)}"
            )
        # 1/√(4π) is no algebraic number: the kernel stays exact and the layer applies it.
        exact = "component" if normalization == "integral" else normalization
        self.lmax, self.normalization, self.normalize, self.backend = lmax, normalization, normalize, backend
        self.irreps_out = Irreps.spherical_harmonics(lmax)
        self._scale = 1 / math.sqrt(4 * math.pi) if normalization == "integral" else 1.0
        self._kernel = load(HarmonicsRecipe(lmax, exact), check_choice(backend))

    def forward(self, r: Tensor) -> Tensor:
        """(rows, 3) -> (rows, (lmax + 1)²)."""
        y: Tensor = self._kernel(_direction(r) if self.normalize else r)
        return y if self._scale == 1.0 else y * self._scale

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, {self.normalization}, normalize={self.normalize}, backend={self.backend}"


class WignerD(nn.Module):
    """Wigner-D matrices of l = 0 ... lmax: Y(R r) = D(R) Y(r), D of degree 1 is R itself.

    Polynomials in the unit quaternion (w, x, y, z), so there are no angles and no poles.
    """

    def __init__(self, lmax: int, backend: str = "auto") -> None:
        super().__init__()
        self.lmax, self.backend = lmax, backend
        self.slices = tuple(
            slice(l * (4 * l * l - 1) // 3, (l + 1) * (2 * l + 1) * (2 * l + 3) // 3) for l in range(lmax + 1)
        )
        self._kernel = load(WignerRecipe(lmax), check_choice(backend))

    def forward(self, quaternions: Tensor) -> Tensor:
        """Unit quaternions (rows, 4) -> blocks D^0 ... D^lmax, each (2l + 1)² numbers row by row, side by side."""
        d: Tensor = self._kernel(quaternions)
        return d

    def blocks(self, quaternions: Tensor) -> tuple[Tensor, ...]:
        """Unit quaternions (rows, 4) -> matrices (rows, 2l + 1, 2l + 1) for l = 0 ... lmax."""
        flat = self(quaternions)
        return tuple(flat[:, s].unflatten(1, (2 * l + 1, 2 * l + 1)) for l, s in enumerate(self.slices))

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, backend={self.backend}"


def _direction(r: Tensor) -> Tensor:
    """r/|r|, and zero with a zero gradient where r = 0: there 1/|r| is taken as that of an infinite r."""
    square = (r * r).sum(-1, keepdim=True)
    return r * nn.functional.threshold(square, 0.0, math.inf).rsqrt()
