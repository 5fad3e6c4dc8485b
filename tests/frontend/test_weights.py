"""Weights made in the kernel: B-splines are exact, and recipes refuse what is no kind of weight."""

from dataclasses import replace
from fractions import Fraction
from math import factorial

import pytest

from irrepc.errors import RecipeError
from irrepc.frontend.weights import spline_pieces
from tests.kernels import convolution


def derivative(piece: tuple[Fraction, ...], order: int, t: int) -> Fraction:
    """The derivative of a polynomial at 0 or 1."""
    terms = ((j, c) for j, c in enumerate(piece) if j >= order)
    return sum((c * factorial(j) / factorial(j - order) * t ** (j - order) for j, c in terms), Fraction())


@pytest.mark.parametrize("degree", range(1, 8))
def test_pieces_add_up_to_one_and_join_smoothly(degree: int) -> None:
    """What a control value gives to one interval goes on in the next, with degree - 1 derivatives."""
    pieces = spline_pieces(degree)
    assert tuple(map(sum, zip(*pieces, strict=True))) == (1, *(0,) * degree)
    for order in range(degree):
        for k in range(1, degree + 1):
            assert derivative(pieces[k], order, 1) == derivative(pieces[k - 1], order, 0)
        assert derivative(pieces[0], order, 1) == derivative(pieces[degree], order, 0) == 0
    assert any(derivative(p, degree, 1) != derivative(q, degree, 0) for p, q in zip(pieces[1:], pieces, strict=False))


@pytest.mark.parametrize(("weights", "terms"), [("spline", 1), ("spline", 9), ("basis", 0), ("row", 2)])
def test_a_number_of_terms_that_makes_no_sense_is_refused(weights: str, terms: int) -> None:
    with pytest.raises(RecipeError, match=f"got {terms} terms in each weight; expected"):
        replace(convolution("2x0e", 1), weights=weights, terms=terms)


def test_an_unknown_kind_of_weights_is_refused() -> None:
    with pytest.raises(RecipeError, match="got weights 'edge'; expected one of row, pair, shared, none, basis, spline"):
        replace(convolution("2x0e", 1), weights="edge")
