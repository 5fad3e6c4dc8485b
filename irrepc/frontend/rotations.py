"""Rotations, exact: matrices of rational quaternions, generators and Wigner-D in the real basis.

Cayley-Klein form of D: the quaternion (w, x, y, z) is the pair a = w - iy, b = x - iz, and with A = |a|², B = |b|² each
complex entry is  D_m'm = ± a^(m+m')·b^(m-m')·d(A, B)  (powers below zero are conjugates), where for M >= |n| the larger
and the smaller of the two indices, up to their common sign,
d_l,M,n = Σ_k (-1)^k √((l+M)!(l-M)!(l+n)!(l-n)!) / ((l-M-k)! k! (M-n+k)! (l+n-k)!) · A^(l-M-k)·B^k.
No angle occurs, so no rotation is singular; D of a quaternion of any length is homogeneous of degree 2l in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import factorial
from types import MappingProxyType

from irrepc.algebra.irreps import check_degree
from irrepc.algebra.surd import Rational, Surd
from irrepc.errors import IrrepsError

Quaternion = tuple[Rational, Rational, Rational, Rational]
Matrix = tuple[tuple[Surd, ...], ...]
Sparse = Mapping[tuple[int, int], Surd]


def rotation_matrix(q: Quaternion) -> tuple[tuple[Fraction, ...], ...]:
    """The rotation of a non-zero rational quaternion (w, x, y, z), of any length: q v q̄ / |q|², exactly."""
    w, x, y, z = q
    size = _check_quaternion(q)
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return tuple(tuple(Fraction(entry) / size for entry in row) for row in rows)


@lru_cache(maxsize=256)
def generators(l: int) -> tuple[Sparse, Sparse, Sparse]:
    """The real antisymmetric matrices X_x, X_y, X_z of degree l as {(row, column): value}, indices l + m.

    D(rotation by t about axis) = exp(t·X_axis), and for harmonics Σ_m X[m', m]·Y_m = (e_axis × r)·∇ Y_m'.
    """
    check_degree(l)
    entries: tuple[dict[tuple[int, int], Surd], ...] = ({}, {}, {})

    def set_pair(axis: int, row: int, column: int, value: Surd) -> None:
        entries[axis][l + row, l + column] = value
        entries[axis][l + column, l + row] = -value

    for m in range(1, l + 1):
        set_pair(1, m, -m, Surd.of(-m))
    for m in range(l):
        # Raising from m to m+1; the axis pairs (z, x) play the roles of (X, Y) about the polar axis y.
        half = Surd.root(Fraction((l - m) * (l + m + 1), 4 if m else 2))
        set_pair(0, m, m + 1, -half)
        set_pair(2, m, -(m + 1), half)
        if m:
            set_pair(0, -m, -(m + 1), -half)
            set_pair(2, -m, m + 1, -half)
    x, y, z = (MappingProxyType(dict(sorted(e.items()))) for e in entries)
    return x, y, z


@lru_cache(maxsize=65536)
def cayley_klein(l: int, M: int, n: int) -> tuple[Surd, ...]:
    """The coefficients of d_l,M,n (module docstring) for k = 0 ... l-M, M >= |n|."""
    root = Surd.root(factorial(l + M) * factorial(l - M) * factorial(l + n) * factorial(l - n))
    return tuple(
        root * Fraction((-1) ** k, factorial(l - M - k) * factorial(k) * factorial(M - n + k) * factorial(l + n - k))
        for k in range(l - M + 1)
    )


def wigner_d_exact(l: int, q: Quaternion) -> Matrix:
    """D^l of the rotation of a non-zero rational quaternion (w, x, y, z) of any length, rows m', columns m.

    Summed term by term from the closed form: independent of the recurrence and of the sharing in the kernel.
    """
    check_degree(l)
    size = _check_quaternion(q)
    w, x, y, z = q

    def entry(row: int, column: int) -> tuple[Surd, Surd]:
        """(-1)^(m+m')·D_m'm of the complex basis, real and imaginary part."""
        M, n = ordered_pair(row, column)
        value = Surd.of(0)
        for k, c in enumerate(cayley_klein(l, M, n)):
            value += c * ((w * w + y * y) ** (l - M - k) * (x * x + z * z) ** k)
        re: Rational = 1
        im: Rational = 0
        power, other = row + column, column - row
        # a = w - iy for positive powers; b = x - iz for positive powers and -(x + iz) for negative ones.
        steps = [(w, -y if power > 0 else y)] * abs(power) + [(x, -z) if other > 0 else (-x, -z)] * abs(other)
        for u, v in steps:
            re, im = re * u - im * v, re * v + im * u
        sign = (-1) ** (row + column)
        return value * (sign * re), value * (sign * im)

    rows = [[Surd()] * (2 * l + 1) for _ in range(2 * l + 1)]
    for i in range(l + 1):
        for j in range(l + 1):
            plus, minus = entry(i, j), entry(i, -j)
            # entry(i, -j) carries (-1)^(i+j); the real combinations need (-1)^i.
            minus = (minus[0] * (-1) ** j, minus[1] * (-1) ** j)
            scale = Surd.root(Fraction(1, (1 if i else 2) * (1 if j else 2)))
            rows[l + i][l + j] = (plus[0] + minus[0]) * scale
            if i:
                rows[l - i][l + j] = -(plus[1] + minus[1]) * scale
            if j:
                rows[l + i][l - j] = (plus[1] - minus[1]) * scale
            if i and j:
                rows[l - i][l - j] = plus[0] - minus[0]
    return tuple(tuple(v / Surd.of(size**l) for v in row) for row in rows)


def ordered_pair(row: int, column: int) -> tuple[int, int]:
    """(M, n) of an entry (m', m): M >= |n|, M·n = m'·m; d is the same for all entries with the same pair."""
    larger, smaller = (row, column) if abs(row) >= abs(column) else (column, row)
    return (larger, smaller) if larger >= 0 else (-larger, -smaller)


def _check_quaternion(q: Quaternion) -> Rational:
    size = sum((v * v for v in q), start=0)
    if len(q) != 4 or not size:
        raise IrrepsError(f"quaternion: got {q}; expected four rational numbers (w, x, y, z), not all zero")
    return size
