"""Polynomial: integer polynomials in (x, y, z), as much of their algebra as proofs about harmonics need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from irrepc.algebra.surd import Rational

Exponents = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Σ c·x^i·y^j·z^k as sorted terms ((i, j, k), c) with non-zero integers c: a normal form."""

    terms: tuple[tuple[Exponents, int], ...] = ()

    @staticmethod
    def of(terms: Mapping[Exponents, int]) -> Polynomial:
        """The polynomial with these coefficients; zeros are dropped."""
        return Polynomial(tuple(sorted((e, c) for e, c in terms.items() if c)))

    @staticmethod
    def combine(parts: Iterable[tuple[int, Polynomial]]) -> Polynomial:
        """Σ c·P."""
        total: dict[Exponents, int] = {}
        for factor, polynomial in parts:
            for e, c in polynomial.terms:
                total[e] = total.get(e, 0) + factor * c
        return Polynomial.of(total)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def at(self, x: Rational, y: Rational, z: Rational) -> Rational:
        """The value at a point."""
        return sum((c * x**i * y**j * z**k for (i, j, k), c in self.terms), start=0)

    def is_homogeneous(self, degree: int) -> bool:
        """True when every monomial has this degree."""
        return all(sum(e) == degree for e, _ in self.terms)

    def laplacian(self) -> Polynomial:
        """∂²/∂x² + ∂²/∂y² + ∂²/∂z²."""
        total: dict[Exponents, int] = {}
        for e, c in self.terms:
            for axis in range(3):
                n = e[axis]
                if n > 1:
                    lowered = _shift(e, axis, -2)
                    total[lowered] = total.get(lowered, 0) + n * (n - 1) * c
        return Polynomial.of(total)

    def turned(self, axis: int) -> Polynomial:
        """(e_axis × r)·∇, the rate of change of P(R(t) r) at t = 0 where R(t) turns by t about a coordinate axis."""
        u, v = (axis + 1) % 3, (axis + 2) % 3
        total: dict[Exponents, int] = {}
        for e, c in self.terms:
            # e_axis × r has the components -r_v along u and r_u along v.
            for up, down, sign in ((v, u, -1), (u, v, 1)):
                if e[down]:
                    moved = _shift(_shift(e, down, -1), up, 1)
                    total[moved] = total.get(moved, 0) + sign * e[down] * c
        return Polynomial.of(total)


def sphere_inner(p: Polynomial, q: Polynomial, degree: int) -> int:
    """(degree+1)!! times the mean of P·Q over the unit sphere, P·Q homogeneous of this (even) degree.

    Source: the mean of x^i·y^j·z^k is (i-1)!!·(j-1)!!·(k-1)!! / (i+j+k+1)!! for even i, j, k and 0 otherwise.
    """
    total = 0
    for (i, j, k), a in p.terms:
        for (u, v, w), b in q.terms:
            if not ((i + u) % 2 or (j + v) % 2 or (k + w) % 2):
                total += a * b * odd_factorial(i + u - 1) * odd_factorial(j + v - 1) * odd_factorial(k + w - 1)
    return total


@lru_cache(maxsize=1024)
def odd_factorial(n: int) -> int:
    """n!! = n·(n-2)·(n-4)···1 for odd n >= -1."""
    return prod(range(n, 0, -2))


def _shift(e: Exponents, axis: int, by: int) -> Exponents:
    moved = list(e)
    moved[axis] += by
    return (moved[0], moved[1], moved[2])
