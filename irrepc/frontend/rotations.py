"""Rotations, exact: matrices of rational quaternions, generators and Wigner-D in the real basis.

Cayley-Klein form of D: the quaternion (w, x, y, z) is the pair a = w - iy, b = x - iz, and with A = |a|², B = |b|² each
complex entry is  D_m'm = ± a^(m+m')·b^(m-m')·d(A, B)  (powers below zero are conjugates), where for M >= |n| the larger
and the smaller of the two indices, up to their common sign,
d_l,M,n = √( (l+M)!(l-M)! / ((l+n)!(l-n)!) ) · Σ_k (-1)^k·C(l-n, l-M-k)·C(l+n, k)·A^(l-M-k)·B^k.
No angle occurs, so no rotation is singular; D of a quaternion of any length is homogeneous of degree 2l in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from types import MappingProxyType
from typing import Any

from irrepc.algebra.irreps import check_degree
from irrepc.algebra.surd import Rational, Surd
from irrepc.errors import IrrepsError

Quaternion = tuple[Rational, Rational, Rational, Rational]
Matrix = tuple[tuple[Surd, ...], ...]
Sparse = Mapping[tuple[int, int], Surd]


def rotation_matrix(q: Quaternion) -> tuple[tuple[Fraction, ...], ...]:
    """The rotation of a non-zero rational quaternion (w, x, y, z), of any length: q v q̄ / |q|², exactly."""
    size = _check_quaternion(q)
    w, x, y, z = q
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
def cayley_klein(l: int, M: int, n: int) -> tuple[Surd, tuple[int, ...]]:
    """The root in front of d_l,M,n and its integer coefficients for k = 0 ... l-M, M >= |n| (module docstring)."""
    root = Surd.root(Fraction(factorial(l + M) * factorial(l - M), factorial(l + n) * factorial(l - n)))
    return root, tuple((-1) ** k * comb(l - n, l - M - k) * comb(l + n, k) for k in range(l - M + 1))


def wigner_d_exact(l: int, q: Quaternion) -> Matrix:
    """D^l of the rotation of a non-zero rational quaternion (w, x, y, z) of any length, rows m', columns m.

    Summed term by term from the closed form: independent of the recurrence and of the sharing in the kernel.
    """
    size = _check_quaternion(q)
    return tuple(tuple(root * Fraction(v) / size**l for root, v in row) for row in wigner_d_parts(l, q))


def wigner_d_parts(l: int, q: tuple[Any, Any, Any, Any]) -> tuple[tuple[tuple[Surd, Any], ...], ...]:
    """|q|^2l·D^l as (root, number), each entry their product; q may be of any commutative ring."""
    check_degree(l)
    rows: list[list[tuple[Surd, Any]]] = [[(Surd(), 0)] * (2 * l + 1) for _ in range(2 * l + 1)]
    for i in range(l + 1):
        for j in range(l + 1):
            root, (re, im) = _complex_entry(l, i, j, q)
            _, (mirrored_re, mirrored_im) = _complex_entry(l, i, -j, q)
            # The real basis takes (-1)^(m+m')·D_m'm and (-1)^m'·D_m'-m.
            sign, mirrored = (-1) ** (i + j), (-1) ** i
            plus_re, minus_re = sign * re + mirrored * mirrored_re, sign * re - mirrored * mirrored_re
            plus_im, minus_im = sign * im + mirrored * mirrored_im, sign * im - mirrored * mirrored_im
            scale = root * Surd.root(Fraction(1, (1 if i else 2) * (1 if j else 2)))
            rows[l + i][l + j] = (scale, plus_re)
            if i:
                rows[l - i][l + j] = (scale, -plus_im)
            if j:
                rows[l + i][l - j] = (scale, minus_im)
            if i and j:
                rows[l - i][l - j] = (scale, minus_re)
    return tuple(map(tuple, rows))


def _complex_entry(l: int, row: int, column: int, q: tuple[Any, Any, Any, Any]) -> tuple[Surd, tuple[Any, Any]]:
    """D_m'm of the complex basis as (root, (real part, imaginary part))."""
    w, x, y, z = q
    M, n = _ordered_pair(row, column)
    root, coeffs = cayley_klein(l, M, n)
    total = sum(c * (w * w + y * y) ** (l - M - k) * (x * x + z * z) ** k for k, c in enumerate(coeffs))
    re, im = total, 0 * total
    # a = w - iy for positive powers and its conjugate for negative ones; b = x - iz and -(x + iz).
    a = (w, -y) if row + column > 0 else (w, y)
    b = (x, -z) if column > row else (-x, -z)
    for u, v in [a] * abs(row + column) + [b] * abs(column - row):
        re, im = re * u - im * v, re * v + im * u
    return root, (re, im)


def _ordered_pair(row: int, column: int) -> tuple[int, int]:
    """(M, n) of an entry (m', m): M >= |n|, M·n = m'·m; d is the same for all entries with the same pair."""
    larger, smaller = (row, column) if abs(row) >= abs(column) else (column, row)
    return (larger, smaller) if larger >= 0 else (-larger, -smaller)


def _check_quaternion(q: Quaternion) -> Rational:
    size: Rational = sum((v * v for v in q), start=0)
    if len(q) != 4 or not all(isinstance(v, int | Fraction) for v in q) or not size:
        raise IrrepsError(f"quaternion: got {q}; expected four rational numbers (w, x, y, z), not all zero")
    return size
