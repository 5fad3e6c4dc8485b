"""Surd: ring laws, normal form, rounding."""

from __future__ import annotations

import math
import random
from decimal import Decimal, getcontext
from fractions import Fraction

import pytest

from irrepc.algebra.surd import ONE, ZERO, Surd, square_free


def some(generator: random.Random) -> Surd:
    """A random sum of up to three surds."""
    total = ZERO
    for _ in range(generator.randrange(1, 4)):
        q = Fraction(generator.randrange(-9, 10), generator.randrange(1, 9))
        total = total + Surd.of(q, generator.randrange(1, 40))
    return total


def test_square_free_by_trial() -> None:
    for n in range(1, 2000):
        s, r = square_free(n)
        assert s * s * r == n
        assert all(r % (p * p) for p in range(2, 45))
    with pytest.raises(ValueError, match="expected a positive integer"):
        square_free(0)


def test_ring_laws() -> None:
    generator = random.Random(0)
    for _ in range(200):
        a, b, c = some(generator), some(generator), some(generator)
        assert a + b == b + a
        assert a * b == b * a
        assert (a + b) * c == a * c + b * c
        assert (a * b) * c == a * (b * c)
        assert a - a == ZERO
        assert a * 1 == a
        assert 0 + a == a
        assert not a * 0


def test_roots_are_normal() -> None:
    assert Surd.root(12) == Surd.of(2, 3)
    assert Surd.root(Fraction(1, 2)) == Surd.of(Fraction(1, 2), 2)
    assert Surd.of(1, 2) * Surd.of(1, 6) == Surd.of(2, 3)
    assert Surd.root(Fraction(9, 4)) == Surd.of(Fraction(3, 2))
    assert Surd.of(1, 18).squared() == Surd.of(18)
    with pytest.raises(ValueError, match="non-negative"):
        Surd.root(-1)


def test_division_by_one_part_only() -> None:
    assert Surd.of(6, 6) / Surd.of(2, 3) == Surd.of(3, 2)
    with pytest.raises(ZeroDivisionError, match="got zero"):
        ONE / ZERO
    with pytest.raises(ZeroDivisionError, match="expected a single"):
        ONE / (ONE + Surd.of(1, 2))


def test_float_is_the_nearest_double() -> None:
    getcontext().prec = 60
    generator = random.Random(1)
    for _ in range(300):
        a = some(generator)
        exact = sum((Decimal(q.numerator) / q.denominator * Decimal(n).sqrt() for n, q in a.parts), Decimal(0))
        assert float(a) == float(exact)
    # A difference that cancels 30 digits: √(n²+1) - n ≈ 1/(2n).
    n = 10**15
    assert math.isclose(float(Surd.root(n * n + 1) - n), 5e-16, rel_tol=1e-14)
    tiny = Surd.of(Fraction(1, 10**200), 2)
    assert float(tiny) == pytest.approx(math.sqrt(2) * 1e-200, rel=1e-15)


def test_signs_and_text() -> None:
    numbers = (Surd.of(-1, 2), ZERO, Surd.of(1, 3), Surd.of(1, 3) - Surd.of(1, 2), ONE - Surd.of(1, 2))
    assert [s.sign for s in numbers] == [-1, 0, 1, 1, -1]
    assert str(Surd.of(Fraction(-1, 3), 3)) == "-√3/3"
    assert str(ONE + Surd.of(2, 5)) == "1 + 2√5"
    assert str(ZERO) == "0"
