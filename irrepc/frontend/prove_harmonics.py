"""Proofs about harmonics: they are the harmonic polynomials, normalised, rotating as stated, with the stated signs.

Each function takes what it proves as an argument, so that a test can hand it something false.  With Y = √q·P and
integer P everything is integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import lcm
from random import Random

from irrepc.algebra.surd import Surd
from irrepc.frontend.harmonics import Harmonic, normalization_factor
from irrepc.frontend.polynomial import Polynomial, odd_factorial, sphere_inner
from irrepc.frontend.proof import Proof, fail
from irrepc.frontend.rotations import Sparse
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Kernel

Harmonics = Mapping[tuple[int, int], Harmonic]
Generators = Callable[[int], tuple[Sparse, Sparse, Sparse]]


def prove_harmonicity(harmonics: Harmonics) -> Proof:
    """∇²Y_lm = 0 and Y_lm is homogeneous of degree l, hence of parity (-1)^l."""
    name = "harmonicity"
    for (l, m), h in harmonics.items():
        rest = h.P.laplacian()
        if rest:
            fail(name, f"∇²Y({l},{m}) with the term {rest.terms[0]}", "0")
        if not h.P or not h.P.is_homogeneous(l):
            fail(name, f"Y({l},{m}) = √{h.q}·{h.P.terms}", f"a non-zero polynomial with every monomial of degree {l}")
    return Proof(name, "∇²Y_lm = 0, Y_lm(t·r) = t^l·Y_lm(r)", _degree(harmonics), 2 * len(harmonics))


def prove_orthonormality(harmonics: Harmonics) -> Proof:
    """The mean of Y_lm·Y_l'm' over the unit sphere is 1 for equal (l, m) and 0 otherwise, all pairs."""
    name = "orthonormality"
    items = list(harmonics.items())
    for number, ((l, m), h) in enumerate(items):
        for (k, n), other in items[: number + 1]:
            if (l + k) % 2:
                continue  # odd polynomials have mean zero
            inner = sphere_inner(h.P, other.P, l + k)
            if (l, m) != (k, n):
                if inner:
                    fail(name, f"<Y({l},{m}), Y({k},{n})> ≠ 0", "0")
            elif h.q * inner != odd_factorial(l + k + 1):
                fail(name, f"<Y({l},{m}), Y({l},{m})> = {h.q * Fraction(inner, odd_factorial(l + k + 1))}", "1")
    count = len(items) * (len(items) + 1) // 2
    return Proof(name, "mean of Y_lm·Y_l'm' over the sphere is δ", _degree(harmonics), count)


def prove_generators(harmonics: Harmonics, generators: Generators) -> Proof:
    """(e_a × r)·∇ Y_m' = Σ_m X_a[m', m]·Y_m for the three axes: the harmonics rotate by the stated matrices."""
    name = "generators"
    count = 0
    for l in range(_degree(harmonics) + 1):
        roots = [Surd.root(harmonics[l, m].q) for m in range(-l, l + 1)]
        for axis, matrix in enumerate(generators(l)):
            rows: list[list[tuple[Fraction, Polynomial]]] = [[] for _ in roots]
            for (i, j), value in matrix.items():
                ratio = value * roots[j] / roots[i]
                if not ratio.is_rational:
                    fail(name, f"X_{'xyz'[axis]}[{i - l},{j - l}] of degree {l} = {value}", "the surd of √(q_m/q_m')")
                rows[i].append((ratio.parts[0][1], harmonics[l, j - l].P))
            for i, row in enumerate(rows):
                scale = lcm(*(c.denominator for c, _ in row))
                difference = Polynomial.combine(
                    [(scale, harmonics[l, i - l].P.turned(axis)), *((-int(c * scale), p) for c, p in row)]
                )
                if difference:
                    what = f"(e_{'xyz'[axis]} × r)·∇ Y({l},{i - l})"
                    fail(name, f"{what} - Σ X·Y with the term {difference.terms[0]}", "0")
                count += 1
    return Proof(name, "(e_a × r)·∇Y = X_a·Y for the axes x, y, z", _degree(harmonics), count)


def prove_harmonic_signs(harmonics: Harmonics) -> Proof:
    """Y_l0 > 0 at the pole +y: what no rotation, norm or Laplacian can see."""
    name = "harmonic signs"
    lmax = _degree(harmonics)
    for l in range(lmax + 1):
        value = harmonics[l, 0].P.at(0, 1, 0)
        if value <= 0:
            fail(name, f"Y({l},0) at (0, 1, 0) = {value}·√{harmonics[l, 0].q}", "a positive number")
    return Proof(name, "Y_l0(0, 1, 0) > 0", lmax, lmax + 1)


def prove_harmonics_kernel(
    kernel: Kernel, harmonics: Harmonics, normalization: str = "component", seed: int = 0
) -> Proof:
    """The straight-line program, run exactly at a random integer point, gives the closed-form polynomials.

    Schwartz-Zippel: two different polynomials of degree l agree at a point drawn from 2^61 values per coordinate
    with probability at most l/2^61.
    """
    name = "harmonics kernel"
    draw = Random(seed)
    x, y, z = (draw.getrandbits(61) + 1 for _ in range(3))
    values = interpret(kernel, {"r": [[x, y, z]]})["Y"][0]
    for (l, m), h in harmonics.items():
        wanted = Surd.root(h.q) * normalization_factor(l, normalization) * h.P.at(x, y, z)
        got = Surd.lift(values[l * l + l + m])
        if got != wanted:
            fail(name, f"Y({l},{m}) at ({x}, {y}, {z}) = {got}", str(wanted))
    statement = f"the straight-line program is the closed form ({normalization}), at a random integer point"
    return Proof(name, statement, _degree(harmonics), len(harmonics))


def _degree(harmonics: Harmonics) -> int:
    return max(l for l, _ in harmonics)
