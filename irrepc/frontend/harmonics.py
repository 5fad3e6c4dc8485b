"""Real solid harmonics: their exact polynomials, and the straight-line kernel that evaluates them.

Basis: polar axis y, component l²+l+m with m = -l ... l, no Condon-Shortley phase, so that l = 1 is (x, y, z).
With (z + ix)^m = A_m + i·B_m every harmonic is  Y_lm = q_lm(y, x²+z²)·A_m  and  Y_l-m = q_lm·B_m.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd, lcm
from types import MappingProxyType
from typing import NamedTuple

from irrepc.algebra.irreps import check_degree
from irrepc.algebra.surd import Surd
from irrepc.errors import ConventionError, IrrepsError
from irrepc.frontend.polynomial import Exponents, Polynomial
from irrepc.frontend.program import Program, scalars, signed, times
from irrepc.ir.kernel import Kernel, Ref, Term


class Harmonic(NamedTuple):
    """The solid harmonic √q·P: q a positive rational, P an integer polynomial without a common factor."""

    q: Fraction
    P: Polynomial


@lru_cache(maxsize=4096)
def harmonic(l: int, m: int) -> Harmonic:
    """r^l·Y_lm in component normalization (its square has mean 1 on the unit sphere), exactly.

    Source: Legendre's closed form, expanded in powers of x²+z².  Raises IrrepsError unless |m| <= l.
    """
    check_degree(l)
    if not -l <= m <= l:
        raise IrrepsError(f"harmonic: got l={l}, m={m}; expected -l <= m <= l")
    n = abs(m)
    profile = [_bare_profile(l, n, k) for k in range((l - n) // 2 + 1)]
    scale = lcm(*(c.denominator for c in profile))
    total: dict[Exponents, int] = {}
    for k, c in enumerate(profile):
        for j in range(k + 1):
            for (x, z), azimuthal in _azimuthal(n)[m < 0].items():
                e = (x + 2 * j, l - n - 2 * k, z + 2 * (k - j))
                total[e] = total.get(e, 0) + int(c * scale) * comb(k, j) * azimuthal
    common = gcd(*total.values())
    polynomial = Polynomial.of({e: c // common for e, c in total.items()})
    return Harmonic(_norm_squared(l, n) * Fraction(common, scale) ** 2, polynomial)


def harmonics(lmax: int) -> Mapping[tuple[int, int], Harmonic]:
    """All harmonics up to lmax by (l, m), in order of l²+l+m."""
    check_degree(lmax)
    return MappingProxyType({(l, m): harmonic(l, m) for l in range(lmax + 1) for m in range(-l, l + 1)})


def normalization_factor(l: int, normalization: str) -> Surd:
    """What turns component harmonics of degree l into another exact normalization: 1, or 1/√(2l+1) for norm.

    Raises ConventionError for "integral": its factor 1/√(4π) is no sum of square roots.  It commutes with
    everything, so a layer multiplies by it once (Conventions.post_factor) and kernels and proofs stay exact.
    """
    match normalization:
        case "component":
            return Surd.of(1)
        case "norm":
            return Surd.root(Fraction(1, 2 * l + 1))
        case "integral":
            raise ConventionError(
                "normalization: got 'integral', whose factor 1/√(4π) is not in the exact ring; expected component or "
                "norm; do: take the component kernel and multiply by Conventions(normalization='integral').post_factor"
            )
        case _:
            raise ConventionError(f"normalization: got {normalization!r}; expected component or norm")


def spherical_harmonics(lmax: int, normalization: str = "component") -> Kernel:
    """The kernel Y(r): r (row, 3) -> Y (row, (lmax+1)²), solid harmonics r^l·Y_lm at l²+l+m, any degree.

    For each degree q_lm goes down in m, from the closed form for l-m <= 3 and then by
    λ_{m+1}·q_m = 2(m+1)·y·q_{m+1} - μ_{m+1}·(x²+z²)·q_{m+2},  λ_m² = (l+m)(l-m+1),  μ_m² = (l-m)(l+m+1).
    Source: Holmes and Featherstone, J. Geodesy 76 (2002) 279: going down in m loses no digits near the poles,
    where the recurrence in l does (measured at l = 8 in float32: 2e-6 against 8e-6, for the same operations).
    """
    check_degree(lmax)
    factors = [normalization_factor(l, normalization) for l in range(lmax + 1)]
    x, y, z = (Ref("r", i) for i in range(3))
    x2, z2, y2, rho2 = (Ref("s", i) for i in range(4))
    program = Program()
    azimuthal = {1: (z, x)}
    if lmax > 1:
        program.define("s", "x²", times(1, x, x))
        program.define("s", "z²", times(1, z, z))
        program.define("s", "y²", times(1, y, y))
        program.define("s", "x²+z²", times(1, x2), times(1, z2))
        azimuthal[2] = (
            program.define("a2", "Re (z+ix)²", times(1, z2), times(-1, x2)),
            program.define("a2", "Im (z+ix)²", times(2, x, z)),
        )
    for m in range(3, lmax + 1):
        re, im = azimuthal[m - 1]
        azimuthal[m] = (
            program.define(f"a{m}", f"Re (z+ix)^{m}", times(1, z, re), times(-1, x, im)),
            program.define(f"a{m}", f"Im (z+ix)^{m}", times(1, z, im), times(1, x, re)),
        )
    program.put(Ref("Y", 0), times(factors[0]))
    for l in range(1, lmax + 1):
        above: list[Ref] = []
        for m in range(l, -1, -1):
            plus, minus = Ref("Y", l * l + l + m), Ref("Y", l * l + l - m)
            if m == l:
                coeff = factors[l] * profile(l, l)[0]
                program.put(plus, times(coeff, azimuthal[l][0]))
                program.put(minus, times(coeff, azimuthal[l][1]))
                continue
            q = _radial_profile(program, factors[l], l, m, (y, y2, rho2), above)
            above.append(q)
            if m == 0:
                program.put(plus, times(1, q))
            else:
                program.put(plus, times(1, q, azimuthal[m][0]))
                program.put(minus, times(1, q, azimuthal[m][1]))
    names = [f"l={l} m={signed(m)}" for l in range(lmax + 1) for m in range(-l, l + 1)]
    doc = f"solid harmonics r^l·Y_lm, l = 0 ... {lmax}, {normalization} normalization; Y_±m = q_lm·(Re, Im)(z+ix)^m"
    return program.kernel("spherical_harmonics", scalars("r", "xyz"), scalars("Y", names), doc)


def profile(l: int, m: int) -> tuple[Surd, ...]:
    """The coefficients c_k of q_lm = Σ_k c_k·(x²+z²)^k·y^(l-m-2k), m >= 0, in component normalization."""
    root = Surd.root(_norm_squared(l, m))
    return tuple(root * _bare_profile(l, m, k) for k in range((l - m) // 2 + 1))


def _radial_profile(
    program: Program, factor: Surd, l: int, m: int, variables: tuple[Ref, Ref, Ref], above: list[Ref]
) -> Ref:
    """Add q_lm times the factor, m < l, from y, y², x²+z²; `above` holds it for l-1, l-2, ... m+1."""
    y, y2, rho2 = variables
    name = f"q_{l},{m}(y, x²+z²)"
    if l - m == 1:
        return program.define(f"q{l}", name, times(factor * profile(l, m)[0], y))
    if l - m <= 3:
        c0, c1 = profile(l, m)
        terms: tuple[Term, ...] = (times(factor * c0, y2), times(factor * c1, rho2))
        if l - m == 2:
            return program.define(f"q{l}", name, *terms)
        return program.define(f"q{l}", name, times(1, y, program.define(f"c{l}", f"{name}/y", *terms)))
    # √2 of Y_lm belongs to m > 0 only, hence the 2 in λ² at m = 0.
    lam2 = (l + m + 1) * (l - m) * (1 if m else 2)
    scaled_y = program.define(f"c{l}", "", times(Surd.root(Fraction(4 * (m + 1) ** 2, lam2)), y))
    scaled_rho2 = program.define(f"c{l}", "", times(-Surd.root(Fraction((l - m - 1) * (l + m + 2), lam2)), rho2))
    return program.define(f"q{l}", name, times(1, scaled_y, above[-1]), times(1, scaled_rho2, above[-2]))


def _norm_squared(l: int, m: int) -> Fraction:
    return Fraction((2 * l + 1) * (2 if m else 1) * factorial(l - m) * factorial(l + m), 4**m)


def _bare_profile(l: int, m: int, k: int) -> Fraction:
    return Fraction((-1) ** k, 4**k * factorial(k) * factorial(m + k) * factorial(l - m - 2 * k))


@lru_cache(maxsize=256)
def _azimuthal(m: int) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """A_m and B_m of (z + ix)^m as {(power of x, power of z): coefficient}."""
    parts: tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]] = ({}, {})
    for k in range(m + 1):
        parts[k % 2][k, m - k] = comb(m, k) * (-1) ** (k // 2)
    return parts
