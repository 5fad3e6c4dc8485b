"""The symmetric contraction, exactly: its trees are equivariant, its monomials are all there are."""

from itertools import combinations_with_replacement

import pytest

from irrepc.algebra.recipe import ContractionRecipe
from irrepc.algebra.surd import ZERO, Surd
from irrepc.emit.module import Entry, kernels
from irrepc.errors import IrrepsError, RecipeError
from irrepc.frontend.contraction import Form, Monomial, coefficients, slots, trees
from irrepc.frontend.derive import derive, estimate
from irrepc.frontend.rotations import generators

CASES = [(1, 0, 4), (1, 1, 4), (2, 0, 3), (2, 1, 3), (2, 2, 2), (3, 0, 3), (3, 1, 3), (3, 2, 2), (3, 3, 2), (2, 0, 4)]


def degree_of(component: int) -> int:
    """The degree l of component l² ... l² + 2l."""
    return int(component**0.5)


def turned(form: Form, axis: int) -> Form:
    """Σ_i (X x)_i ∂/∂x_i of a polynomial: its change under an infinitesimal rotation of x."""
    out: Form = {}
    for monomial, coeff in form.items():
        for place, i in enumerate(monomial):
            l = degree_of(i)
            for (row, column), value in generators(l)[axis].items():
                if row == i - l * l:
                    key = tuple(sorted((*monomial[:place], l * l + column, *monomial[place + 1 :])))
                    out[key] = out.get(key, ZERO) + coeff * value
    return {key: value for key, value in out.items() if value}


def mixed(forms: tuple[Form, ...], degree: int, row: int, axis: int) -> Form:
    """Σ_m' X[m, m'] B_m': the same change, of the output."""
    out: Form = {}
    for (m, column), value in generators(degree)[axis].items():
        if m == row:
            for key, coeff in forms[column].items():
                out[key] = out.get(key, ZERO) + coeff * value
    return {key: value for key, value in out.items() if value}


def is_equivariant(forms: tuple[Form, ...], degree: int) -> bool:
    """About x and y, whose commutator is z; and under inversion."""
    rotates = all(turned(f, axis) == mixed(forms, degree, m, axis) for m, f in enumerate(forms) for axis in (0, 1))
    inverts = all((sum(degree_of(i) for i in key) - degree) % 2 == 0 for f in forms for key in f)
    return rotates and inverts


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_tree_is_equivariant(case: tuple[int, int, int]) -> None:
    lmax, degree, correlation = case
    found = trees(lmax, degree, correlation)
    assert found
    assert all(is_equivariant(forms, degree) for forms in found)


def test_a_false_tree_is_found_out() -> None:
    forms = next(t for t in trees(2, 1, 3) if all(t))
    key = next(iter(forms[0]))
    assert not is_equivariant(({**forms[0], key: forms[0][key] * 2}, *forms[1:]), 1)
    assert not is_equivariant((forms[1], forms[0], forms[2]), 1)


def span(vectors: list[dict[object, Surd]]) -> int:
    """The dimension of what they span, by elimination over rationals of numbers a + b√n + ..., made exact by surds.

    Pivots must be single roots to be divided by; a sum is left for later, and none may be left at the end.
    """
    rows = [dict(v) for v in vectors if v]
    rank = 0
    while rows:
        pivot = next((r for r in rows if any(len(c.parts) == 1 for c in r.values())), None)
        assert pivot is not None, "no coefficient is a single root"
        rows.remove(pivot)
        rank += 1
        key = next(k for k, c in pivot.items() if len(c.parts) == 1)
        reduced = []
        for row in rows:
            if key in row:
                ratio = row[key] / pivot[key]
                row = {k: row.get(k, ZERO) - ratio * pivot.get(k, ZERO) for k in {**row, **pivot}}
                row = {k: c for k, c in row.items() if c}
            if row:
                reduced.append(row)
        rows = reduced
    return rank


def characters(lmax: int, correlation: int) -> dict[int, int]:
    """How often each natural-parity degree occurs in the symmetric power of 0e+1o+...+lmax, by counting weights.

    Source: the multiplicity of degree L is the number of multisets of weights m with sum L, less that with sum L + 1.
    """
    weights = [(l, m) for l in range(lmax + 1) for m in range(-l, l + 1)]
    counts: dict[tuple[int, int], int] = {}
    for chosen in combinations_with_replacement(weights, correlation):
        key = (sum(m for _, m in chosen), sum(l for l, _ in chosen) % 2)
        counts[key] = counts.get(key, 0) + 1
    return {
        degree: counts.get((degree, degree % 2), 0) - counts.get((degree + 1, degree % 2), 0)
        for degree in range(lmax + 1)
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_trees_span_all_equivariant_polynomials(case: tuple[int, int, int]) -> None:
    """So a U of any basis, one with fewer couplings too, has its monomials among those of the kernel."""
    lmax, degree, correlation = case
    vectors = [
        {(m, key): c for m, form in enumerate(forms) for key, c in form.items()}
        for forms in trees(lmax, degree, correlation)
    ]
    assert span([dict(v) for v in vectors]) == characters(lmax, correlation)[degree]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_monomials_are_those_of_the_trees(case: tuple[int, int, int]) -> None:
    """Slots are made from fewer trees, with intermediate irreps of both parities; the monomials must be the same."""
    lmax, degree, correlation = case
    found: set[tuple[int, Monomial]] = set()
    for forms in trees(lmax, degree, correlation):
        found |= {(m, key) for m, form in enumerate(forms) for key in form}
    assert {(s.component, s.monomial) for s in slots(lmax, degree, correlation)} == found


def test_sizes() -> None:
    assert [len(slots(3, 0, nu)) for nu in (1, 2, 3)] == [1, 16, 77]
    assert [len(trees(3, 0, nu)) for nu in (1, 2, 3)] == [1, 4, 23]
    assert [len(trees(3, 1, nu)) for nu in (1, 2, 3)] == [1, 6, 51]
    recipe = ContractionRecipe(2, (0, 1), 3)
    kernel = derive(recipe)
    assert len(coefficients(recipe)) == kernel.inputs[1].size
    actual = sum(k.size for k in kernels(Entry(recipe.name, recipe)))
    assert actual <= estimate(recipe) <= 1.2 * actual


def test_horner_reads_each_coefficient_once() -> None:
    """Every coefficient stands in one term, with at most the factors of its monomial."""
    kernel = derive(ContractionRecipe(3, (0, 1), 3))
    terms = [t for e in kernel.equations for t in e.terms]
    read = [f for t in terms for f in t.factors if f.operand == "c"]
    assert len(read) == len(set(read)) == kernel.inputs[1].size
    assert max(len(t.factors) for t in terms) <= 4
    assert kernel.size < 1.5 * len(read)


def test_squares_of_a_vector() -> None:
    """x·x in 0e, by hand: √1·w3j(0,1,1) = 1/√3."""
    third = Surd.root(3) / 3
    assert trees(1, 0, 2)[1] == ({(1, 1): third, (2, 2): third, (3, 3): third},)


def test_what_is_no_contraction_is_refused() -> None:
    with pytest.raises(RecipeError, match="got correlation 5; expected 1, 2, 3 or 4"):
        ContractionRecipe(2, (0,), 5)
    for outputs in ((), (1, 0), (0, 0)):
        with pytest.raises(RecipeError, match="expected rising degrees"):
            ContractionRecipe(2, outputs, 2)
    with pytest.raises(IrrepsError):
        ContractionRecipe(-1, (0,), 2)
