"""Real couplings of three irreps, exact: every entry is ±√(rational), from one Racah sum in Python integers.

The real harmonics are Y_±m = combinations of the complex Y_m and Y_-m, so each real entry comes from one complex
coupling and its mirror image.  It is non-zero only if signed m1 + m2 = m3 can hold for the |m| of the entry and
the number of negative (sine) indices has the parity of l1 + l2 + l3.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd
from types import MappingProxyType

from irrepc.algebra.conventions import SIGNS, check_convention
from irrepc.algebra.irreps import check_degree
from irrepc.algebra.surd import Surd, square_free
from irrepc.errors import ConventionError, IrrepsError

Coupling = Mapping[tuple[int, int, int], Surd]

# The multisets of degrees whose coupling has the opposite sign in e3nn 0.4 (compared table by table with 0.4.4).
# All have an odd sum.  Nothing is known beyond degree 8.
E3NN_04_FLIPPED = frozenset(
    {
        *((1, l, l) for l in range(2, 9)),
        *((3, l, l + 2) for l in (4, 5, 6)),
        *((4, l, l + 1) for l in (4, 5, 6, 7)),
        *((5, l, l) for l in (5, 6, 7, 8)),
    }
)
E3NN_04_LMAX = 8


def w3j(l1: int, l2: int, l3: int, convention: str = "e3nn-0.5") -> Coupling:
    """The real coupling C[i, j, k] of unit norm, Σ C² = 1, as {(i, j, k): value} over its non-zero entries.

    Indices are l + m, sorted.  Sign: with J = l1+l2+l3 even the entry m = (0, 0, 0) is positive; with J odd the
    entry m = (0, -1, +1) is negative, so that C(1, 1, 1) = +ε/√6.  An exchange of two degrees multiplies by (-1)^J.
    convention: "e3nn-0.5" (that sign) or "e3nn-0.4" (the sign of its tables, E3NN_04_FLIPPED).
    Raises IrrepsError outside the triangle, ConventionError where the sign of e3nn 0.4 is not known (l > 8).
    """
    check_convention("w3j convention", convention, SIGNS)
    check_triangle(l1, l2, l3)
    coupling = _coupling(l1, l2, l3)
    if convention == "e3nn-0.5":
        return coupling
    if max(l1, l2, l3) > E3NN_04_LMAX:
        raise ConventionError(
            f"w3j: got degrees ({l1}, {l2}, {l3}) in the convention e3nn-0.4; expected degrees up to {E3NN_04_LMAX}, "
            "beyond which the signs of e3nn 0.4 are not known; do: use e3nn-0.5"
        )
    if tuple(sorted((l1, l2, l3))) not in E3NN_04_FLIPPED:
        return coupling
    return MappingProxyType({key: -value for key, value in coupling.items()})


def clebsch_gordan(l1: int, l2: int, l3: int, convention: str = "e3nn-0.5") -> Coupling:
    """√(2l3+1)·w3j: the real Clebsch-Gordan coefficients, orthonormal rows for each k."""
    root = Surd.root(2 * l3 + 1)
    return MappingProxyType({key: root * value for key, value in w3j(l1, l2, l3, convention).items()})


def check_triangle(l1: int, l2: int, l3: int) -> None:
    """Raise IrrepsError unless l3 is one of |l1-l2| ... l1+l2."""
    for l in (l1, l2, l3):
        check_degree(l)
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise IrrepsError(
            f"w3j: got degrees ({l1}, {l2}, {l3}); expected {abs(l1 - l2)} <= l3 <= {l1 + l2}; "
            f"the product of {l1} and {l2} holds no {l3}"
        )


def triangles(lmax: int) -> tuple[tuple[int, int, int], ...]:
    """All (l1, l2, l3) up to lmax that couple, in lexicographic order."""
    check_degree(lmax)
    degrees = range(lmax + 1)
    return tuple((a, b, c) for a in degrees for b in degrees for c in degrees if abs(a - b) <= c <= a + b)


@lru_cache(maxsize=16384)
def _coupling(l1: int, l2: int, l3: int) -> Coupling:
    degrees = (l1, l2, l3)
    order = sorted(range(3), key=lambda leg: degrees[leg])
    if order == [0, 1, 2]:
        return MappingProxyType(racah(l1, l2, l3))
    # Only rising degrees are computed; an odd permutation of the legs brings the sign (-1)^J.
    source = _coupling(*(degrees[leg] for leg in order))
    odd = order in ([1, 0, 2], [0, 2, 1], [2, 1, 0])
    flip = odd and sum(degrees) % 2 == 1
    entries = {}
    for key, value in source.items():
        place = [0, 0, 0]
        for index, leg in zip(key, order, strict=True):
            place[leg] = index
        entries[place[0], place[1], place[2]] = -value if flip else value
    return MappingProxyType(dict(sorted(entries.items())))


def racah(l1: int, l2: int, l3: int) -> dict[tuple[int, int, int], Surd]:
    """The coupling for degrees in any order, without using its permutation symmetry.

    With n1 = l1+l2-l3, n2 = l1-l2+l3, n3 = l2+l3-l1, J = l1+l2+l3, signed m1 + m2 = m3 and z the number of non-zero m:
    S = Σ_k (-1)^k C(n1, k)·C(n2, l1-m1-k)·C(n3, l2+m2-k),
    |C| = |S|·√( (4 if z else 1)·Π_i (l_i-m_i)!(l_i+m_i)! / (2^z·(J+1)!·n1!·n2!·n3!) ).
    Source: Racah's sum for the complex coupling, times the unitary change to the real basis (one term for each
    member of the mirror pair, both equal, hence the 4).
    """
    n1, n2, n3 = l1 + l2 - l3, l1 - l2 + l3, l2 + l3 - l1
    total = l1 + l2 + l3
    size = factorial(total + 1) * factorial(n1) * factorial(n2) * factorial(n3)
    outer = {0: Surd.root(Fraction(1, size)), 2: Surd.root(Fraction(1, size)), 3: Surd.root(Fraction(1, 2 * size))}
    legs = [[square_free(factorial(l - m) * factorial(l + m)) for m in range(l + 1)] for l in (l1, l2, l3)]
    entries: dict[tuple[int, int, int], Surd] = {}
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -m1), min(l2, l3 - m1) + 1):
            m3 = m1 + m2
            if m3 == 0 and m1 < 0:
                continue  # the mirror image of (-m1, -m2, 0)
            racah_sum = _racah_sum(n1, n2, n3, l1 - m1, l2 + m2)
            if not racah_sum:
                continue
            ms = (m1, m2, m3)
            value = _with_roots(racah_sum, outer[sum(map(bool, ms))], [legs[i][abs(m)] for i, m in enumerate(ms)])
            for sines in _sines(ms, total % 2):
                sign = _phase(ms, sines, n1)
                i, j, k = (l + (-abs(m) if s else abs(m)) for l, m, s in zip((l1, l2, l3), ms, sines, strict=True))
                entries[i, j, k] = value if sign > 0 else -value
    return dict(sorted(entries.items()))


def _racah_sum(n1: int, n2: int, n3: int, p: int, q: int) -> int:
    terms = range(max(0, p - n2, q - n3), min(n1, p, q) + 1)
    return sum((-1) ** k * comb(n1, k) * comb(n2, p - k) * comb(n3, q - k) for k in terms)


def _with_roots(factor: int, outer: Surd, roots: list[tuple[int, int]]) -> Surd:
    """factor · outer · Π s·√r, without building the surds in between."""
    ((n, q),) = outer.parts
    for s, r in roots:
        common = gcd(n, r)
        n = n * r // (common * common)
        factor *= s * common
    return Surd(((n, factor * q),))


def _sines(ms: tuple[int, int, int], odd: int) -> list[tuple[int, int, int]]:
    """Which legs are sines (1) or cosines (0): a leg with m = 0 is a cosine, the number of sines is even or odd."""
    choices = [(0, 1) if m else (0,) for m in ms]
    return [(a, b, c) for a in choices[0] for b in choices[1] for c in choices[2] if (a + b + c) % 2 == odd]


def _phase(ms: tuple[int, int, int], sines: tuple[int, int, int], n1: int) -> int:
    """The sign of (-i)^n1 · u1·u2·ū3, where u = 1 (cosine) or ±i (sine) times (-1)^m for positive m.

    These u are √2 times the components of Y_m = (-1)^m (Y_+|m| + i·Y_-|m|)/√2, Y_-m = (Y_+|m| - i·Y_-|m|)/√2.
    """
    quarter_turns = -n1
    for m, sine, conjugate in zip(ms, sines, (1, 1, -1), strict=True):
        quarter_turns += conjugate * sine * (1 if m > 0 else -1)
        quarter_turns += 2 * m if m > 0 else 0
    return 1 if quarter_turns % 4 == 0 else -1
