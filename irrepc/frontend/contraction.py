"""The symmetric contraction of MACE: all equivariant polynomials of one set of features, up to a degree.

A coupling tree ((x ⊗ x)_l ⊗ x)_L is a polynomial in the components of x; as the factors commute, trees collapse to few
monomials (lmax 3, L 0: 16 + 77 of degree 2 and 3, where the dense arrays hold 256·4 + 4096·23 numbers).  The kernel
therefore evaluates  o[m] = Σ_α c[z, m, α]·x^α  and the layer folds weights and trees into c once for each species z.

Batatia et al., MACE, NeurIPS 2022, eq. 10 and 11; trees are numbered as the authors' package does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from irrepc.algebra.irreps import Irrep
from irrepc.algebra.recipe import ContractionRecipe
from irrepc.algebra.surd import ONE, Surd
from irrepc.frontend.clebsch_gordan import w3j
from irrepc.frontend.program import signed
from irrepc.ir.kernel import Kernel, Operand, Ref, Term, collect

Monomial = tuple[int, ...]
Form = dict[Monomial, Surd]
"""A homogeneous polynomial in x: sorted components, repeated for powers -> coefficient."""

ALL_PARITIES = 3
"""Up to this correlation intermediate irreps have either parity, beyond it natural parity only, as in MACE."""


class Tree(NamedTuple):
    """A coupling tree: its irrep, its polynomial for each component, and the degree of the factor coupled last."""

    irrep: Irrep
    forms: tuple[Form, ...]
    last: int


class Slot(NamedTuple):
    """One coefficient of the kernel: it multiplies x^monomial in component m (0 ... 2l) of the output of degree l."""

    degree: int
    component: int
    monomial: Monomial


@lru_cache(maxsize=64)
def trees(lmax: int, degree: int, correlation: int, convention: str = "e3nn-0.5") -> tuple[tuple[Form, ...], ...]:
    """Each coupling tree of `correlation` factors x (0e+1o+...+lmax) to the natural irrep of `degree`, as polynomials.

    Order and factors are those of MACE's U matrices: left factors outermost, then the block of x, √(2l+1)·w3j for each
    coupling, sorted by irrep. The trees are not independent. convention: of the signs of w3j.
    """
    target = Irrep(degree, (-1) ** degree)
    natural = correlation > ALL_PARITIES
    return tuple(t.forms for t in _grown(lmax, correlation, convention, natural, False, target))


@lru_cache(maxsize=64)
def slots(lmax: int, degree: int, correlation: int) -> tuple[Slot, ...]:
    """The monomials of exactly `correlation` factors that occur in any equivariant polynomial of that degree.

    Trees whose factors rise in degree, through intermediate irreps of both parities, span them all: another order of
    the factors is a recoupling, and the polynomial does not know the order.
    """
    target = Irrep(degree, (-1) ** degree)
    found: list[set[Monomial]] = [set() for _ in range(target.dim)]
    for tree in _grown(lmax, correlation, "e3nn-0.5", False, True, target):
        for seen, form in zip(found, tree.forms, strict=True):
            seen.update(form)
    return tuple(Slot(degree, m, monomial) for m, seen in enumerate(found) for monomial in sorted(seen))


def coefficients(recipe: ContractionRecipe) -> tuple[Slot, ...]:
    """The components of the kernel's operand c: by output, by number of factors, by component, by monomial."""
    return tuple(
        slot
        for degree in recipe.outputs
        for correlation in range(1, recipe.correlation + 1)
        for slot in slots(recipe.lmax, degree, correlation)
    )


def symmetric_contraction(recipe: ContractionRecipe) -> Kernel:
    """o(x, c): x (row, 0e+1o+...) with channels u, c read at the species of the row, o the outputs with channels u."""
    names = [f"{Irrep(l, (-1) ** l)} m={signed(m)}" for l in range(recipe.lmax + 1) for m in range(-l, l + 1)]
    targets = [(l, m) for l in recipe.outputs for m in range(2 * l + 1)]
    places = {target: place for place, target in enumerate(targets)}
    found = coefficients(recipe)
    x = Operand("x", (("u",),) * len(names), labels=tuple(names))
    c = Operand("c", (("u",),) * len(found), "species", "species", labels=tuple(_story(slot, names) for slot in found))
    o = Operand(
        "o",
        (("u",),) * len(targets),
        labels=tuple(f"{Irrep(l, (-1) ** l)} m={signed(m - l)}" for l, m in targets),
    )
    sums: list[list[Term]] = []
    equations: list[tuple[Ref, Term]] = []
    for target, place in places.items():
        held = {slot.monomial: Ref("c", k) for k, slot in enumerate(found) if slot[:2] == target}
        equations += ((Ref("o", place), term) for term in _nested((), held, sums))
    equations += ((Ref("h", k), term) for k, terms in enumerate(sums) for term in terms)
    h = (Operand("h", (("u",),) * len(sums)),) if sums else ()
    return Kernel(recipe.name, (x, c), (o,), collect(equations), h, doc=str(recipe))


def _nested(prefix: Monomial, held: dict[Monomial, Ref], sums: list[list[Term]]) -> list[Term]:
    """c[prefix] + Σ_k x[k]·(c[prefix, k] + Σ_l x[l]·(...)): Horner's rule; inner sums are put into `sums`, as h[...].

    One multiply-add for each coefficient; the derivative, which reverses it, costs twice as much.
    """
    terms = [Term(ONE, (held[prefix],))] if prefix in held else []
    n = len(prefix)
    for k in sorted({m[n] for m in held if len(m) > n and m[:n] == prefix}):
        inner = _nested((*prefix, k), held, sums)
        if len(inner) > 1:
            sums.append(inner)
            inner = [Term(ONE, (Ref("h", len(sums) - 1),))]
        terms.append(Term(ONE, tuple(sorted((*inner[0].factors, Ref("x", k))))))
    return terms


def _story(slot: Slot, names: list[str]) -> str:
    product = " · ".join(names[i] for i in slot.monomial)
    return f"{product} → {Irrep(slot.degree, (-1) ** slot.degree)} m={signed(slot.component - slot.degree)}"


def _grown(
    lmax: int, correlation: int, convention: str, natural: bool, rising: bool, target: Irrep
) -> tuple[Tree, ...]:
    """The trees that end in one irrep."""
    if correlation == 1:
        return tuple(t for t in _trees(lmax, 1, convention, natural, rising) if t.irrep == target)
    left = _trees(lmax, correlation - 1, convention, natural, rising)
    return tuple(t for branch in left for t in _branches(branch, lmax, convention, natural, rising, target))


@lru_cache(maxsize=64)
def _trees(lmax: int, correlation: int, convention: str, natural: bool, rising: bool) -> tuple[Tree, ...]:
    """All trees, sorted by degree, then parity (odd first), stably."""
    if correlation == 1:
        return tuple(
            Tree(Irrep(l, (-1) ** l), tuple({(l * l + m,): ONE} for m in range(2 * l + 1)), l) for l in range(lmax + 1)
        )
    left = _trees(lmax, correlation - 1, convention, natural, rising)
    grown = [t for branch in left for t in _branches(branch, lmax, convention, natural, rising, None)]
    return tuple(sorted(grown, key=lambda t: (t.irrep.l, t.irrep.p)))


def _branches(left: Tree, lmax: int, convention: str, natural: bool, rising: bool, target: Irrep | None) -> list[Tree]:
    """A tree coupled with one more factor x, in every way that is asked for."""
    out = []
    for l in range(left.last if rising else 0, lmax + 1):
        for irrep in left.irrep * Irrep(l, (-1) ** l):
            if (target is None or irrep == target) and not (natural and irrep.p != (-1) ** irrep.l):
                out.append(Tree(irrep, _coupled(left, l, irrep, convention), l))
    return out


def _coupled(left: Tree, l: int, irrep: Irrep, convention: str) -> tuple[Form, ...]:
    root = Surd.root(irrep.dim)
    forms: list[Form] = [{} for _ in range(irrep.dim)]
    for (i, j, k), value in w3j(irrep.l, left.irrep.l, l, convention).items():
        form, scale = forms[i], value * root
        for monomial, coeff in left.forms[j].items():
            key = tuple(sorted((*monomial, l * l + k)))
            form[key] = form[key] + coeff * scale if key in form else coeff * scale
    return tuple({key: coeff for key, coeff in form.items() if coeff} for form in forms)
