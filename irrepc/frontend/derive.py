"""derive: from a recipe to its kernel, the door between names and mathematics."""

from __future__ import annotations

from functools import lru_cache

from irrepc.algebra.recipe import (
    ContractionRecipe,
    GateRecipe,
    HarmonicsRecipe,
    LinearRecipe,
    NormRecipe,
    ProductRecipe,
    Recipe,
    WignerRecipe,
)
from irrepc.algebra.so2_recipe import OrderGateRecipe, RotateBackRecipe, RotateRecipe, kept_start, orders
from irrepc.errors import RecipeError
from irrepc.frontend.contraction import coefficients, symmetric_contraction
from irrepc.frontend.harmonics import spherical_harmonics
from irrepc.frontend.products import gate, linear, squared_norm, tensor_product
from irrepc.frontend.so2 import order_gate, rotate, rotate_back
from irrepc.frontend.wigner import wigner_d, wigner_d_rows
from irrepc.ir.check import check
from irrepc.ir.kernel import Kernel


@lru_cache(maxsize=512)
def derive(recipe: Recipe) -> Kernel:
    """The kernel a recipe names, checked.

    Raises RecipeError for a value that is not a recipe.
    """
    match recipe:
        case HarmonicsRecipe():
            kernel = spherical_harmonics(recipe.lmax, recipe.normalization)
        case WignerRecipe():
            kernel = wigner_d(recipe.lmax) if recipe.mmax is None else wigner_d_rows(recipe.lmax, recipe.mmax)
        case ProductRecipe():
            kernel = tensor_product(recipe)
        case LinearRecipe():
            kernel = linear(recipe)
        case GateRecipe():
            kernel = gate(recipe)
        case NormRecipe():
            kernel = squared_norm(recipe)
        case ContractionRecipe():
            kernel = symmetric_contraction(recipe)
        case RotateRecipe():
            kernel = rotate(recipe)
        case RotateBackRecipe():
            kernel = rotate_back(recipe)
        case OrderGateRecipe():
            kernel = order_gate(recipe)
        case _:
            raise RecipeError(f"derive: got {recipe!r}; expected a recipe of irrepc.algebra.recipe")
    return check(kernel)


def estimate(recipe: Recipe) -> int:
    """The number of terms that all three orders of a recipe's kernel would have, without deriving it.

    A product of three factors has three times its terms in the first derivative and nine in the second; the figures
    for harmonics and rotations are measured, and a little high for small degrees.
    """
    match recipe:
        case ProductRecipe():
            degree = 3 if recipe.weights != "none" else 2
            terms = sum(
                coupling_terms(recipe.left[p.left].irrep.l, recipe.right[p.right].irrep.l, recipe.out[p.out].irrep.l)
                for p in recipe.paths
            )
            made = recipe.terms * sum(p.weighted for p in recipe.paths)
            return (terms + made) * (1 + degree + degree * degree)
        case HarmonicsRecipe():
            return 26 * (recipe.lmax + 1) ** 2
        case WignerRecipe():
            return 13 * 3 * sum((2 * l + 1) ** 2 for l in range(recipe.lmax + 1))
        case ContractionRecipe():
            degrees = [1 + len(slot.monomial) for slot in coefficients(recipe)]
            return sum(1 + n + n * n for n in degrees)
        case RotateRecipe():
            return 13 * recipe.sides * kept_start(recipe.lmax + 1, recipe.mmax)
        case RotateBackRecipe():
            return 13 * kept_start(recipe.lmax + 1, recipe.mmax)
        case OrderGateRecipe():
            return 13 * sum(map(len, orders(recipe.lmax, recipe.mmax)))
        case _:
            return 13 * sum(b.irrep.dim for b in recipe.left)


def coupling_terms(l1: int, l2: int, l3: int) -> int:
    """The number of non-zero real couplings of a path, but for accidental zeros.

    With a = |m1| and b = |m2|, |m3| is a + b or |a - b|, and the number of sines (negative m) among the three has the
    parity of l1 + l2 + l3; so each choice of signs for non-zero a and b gives one entry, and half of them for m3 = 0.
    """
    count = 1 - (l1 + l2 + l3) % 2 + 2 * min(l2, l3)  # a = 0
    for a in range(1, l1 + 1):
        count += 2 * (a <= l3)  # b = 0
        count += 4 * max(0, min(l3 - a, l2))  # a + b
        count += 4 * max(0, min(l2, a + l3) - max(1, a - l3) + 1) - 2 * (a <= l2)  # |a - b|
    return count
