"""Proofs about couplings: they are invariant, of unit norm, symmetric as stated, with the stated signs.

Each function takes the couplings as a function (l1, l2, l3) -> {(i, j, k): value}, so that a test can hand it
false ones.  Proofs of rising degrees l1 <= l2 <= l3 hold for all orders by the proof of permutation symmetry.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import permutations
from math import isqrt, lcm

from irrepc.algebra.surd import Surd, square_free
from irrepc.frontend.clebsch_gordan import Coupling, triangles
from irrepc.frontend.harmonics import harmonic
from irrepc.frontend.proof import Proof, fail
from irrepc.frontend.rotations import generators

Couplings = Callable[[int, int, int], Coupling]
Degrees = tuple[int, int, int]
Moves = tuple[tuple[tuple[int, int], ...], ...]


def prove_invariance(couplings: Couplings, lmax: int) -> Proof:
    """Σ_ijk C[i,j,k]·Y_i(a)·Y_j(b)·Y_k(c) does not change when a, b, c turn together.

    Checked for the generators X_y and X_x, from the final surds: their commutator is X_z.  In the basis P = Y/√q all
    numbers of one coupling are integers times one common root.
    """
    name = "coupling invariance"
    count = 0
    for degrees in _rising(lmax):
        entries = _integers(name, degrees, couplings(*degrees))
        d1, d2, d3 = (2 * l + 1 for l in degrees)
        for axis in (0, 1):
            scale = lcm(*(_moves(l, axis)[0] for l in degrees))
            legs = []
            for l, stride in zip(degrees, (d2 * d3, d3, 1), strict=True):
                denominator, moves = _moves(l, axis)
                factor = scale // denominator
                legs.append([[(step * stride, factor * value) for step, value in row] for row in moves])
            first, second, third = legs
            rest = [0] * (d1 * d2 * d3)
            for (i, j, k), t in entries:
                place = (i * d2 + j) * d3 + k
                for step, value in first[i]:
                    rest[place + step] += value * t
                for step, value in second[j]:
                    rest[place + step] += value * t
                for step, value in third[k]:
                    rest[place + step] += value * t
            if any(rest):
                at = next(p for p, v in enumerate(rest) if v)
                ms = (at // (d2 * d3) - degrees[0], at // d3 % d2 - degrees[1], at % d3 - degrees[2])
                fail(name, f"a change of C{degrees} under a turn about {'xyz'[axis]} at m = {ms}", "none")
            count += len(rest)
    return Proof(name, "C(l1,l2,l3) is invariant under rotations, l1 <= l2 <= l3", lmax, count)


def prove_unit_norm(couplings: Couplings, lmax: int) -> Proof:
    """Σ C² = 1."""
    name = "coupling norm"
    chosen = _rising(lmax)
    for degrees in chosen:
        squares = [(q.numerator**2 * n, q.denominator**2) for n, q in _single_roots(name, degrees, couplings(*degrees))]
        scale = lcm(*(d for _, d in squares))
        total = sum(n * (scale // d) for n, d in squares)
        if total != scale:
            fail(name, f"Σ C{degrees}² = {Fraction(total, scale)}", "1")
    return Proof(name, "Σ C(l1,l2,l3)² = 1, l1 <= l2 <= l3", lmax, len(chosen))


def prove_permutations(couplings: Couplings, lmax: int) -> Proof:
    """A permutation of the legs transposes C, with the factor (-1)^(l1+l2+l3) when it is odd."""
    name = "coupling permutations"
    count = 0
    for degrees in _rising(lmax):
        source = couplings(*degrees)
        for order, sign in zip(permutations(range(3)), (1, -1, -1, 1, 1, -1), strict=True):
            a, b, c = order
            target = couplings(degrees[a], degrees[b], degrees[c])
            negate = sign < 0 and sum(degrees) % 2 == 1
            if len(source) != len(target):
                fail(name, f"{len(target)} entries of C{tuple(degrees[i] for i in order)}", f"{len(source)}")
            for key, value in source.items():
                got = target.get((key[a], key[b], key[c]))
                if got != (-value if negate else value):
                    ms = tuple(key[i] - degrees[i] for i in order)
                    fail(name, f"C{tuple(degrees[i] for i in order)} at m = {ms} = {got}", f"that of C{degrees}")
            count += len(source)
    return Proof(name, "C of permuted legs is ± its transpose", lmax, count)


def prove_coupling_signs(couplings: Couplings, lmax: int) -> Proof:
    """For even J = l1+l2+l3 the entry m = (0, 0, 0) is positive, for odd J the entry m = (0, -1, +1) is negative."""
    name = "coupling signs"
    chosen = triangles(lmax)
    for l1, l2, l3 in chosen:
        odd = (l1 + l2 + l3) % 2
        ms = (0, -1, 1) if odd else (0, 0, 0)
        value = couplings(l1, l2, l3).get((l1 + ms[0], l2 + ms[1], l3 + ms[2]), Surd())
        if value.sign != (-1 if odd else 1):
            fail(name, f"C{(l1, l2, l3)} at m = {ms} = {value}", "a negative number" if odd else "a positive number")
    return Proof(name, "C[0,0,0] > 0 (even sum of degrees), C[0,-1,+1] < 0 (odd)", lmax, len(chosen))


def _rising(lmax: int) -> list[Degrees]:
    return [(a, b, c) for a, b, c in triangles(lmax) if a <= b <= c]


def _single_roots(name: str, degrees: Degrees, coupling: Coupling) -> list[tuple[int, Fraction]]:
    """The entries as (n, q) for q·√n."""
    for key, value in coupling.items():
        if len(value.parts) != 1:
            fail(name, f"C{degrees} at {key} = {value}", "a single root ±√(p/q)")
    return [value.parts[0] for value in coupling.values()]


def _integers(name: str, degrees: Degrees, coupling: Coupling) -> list[tuple[Degrees, int]]:
    """C[i,j,k]·√(q_i·q_j·q_k) up to one common factor, as integers."""
    (r1, r2, r3) = (_roots(l) for l in degrees)
    common = 0
    fractions = []
    for (i, j, k), (n, q) in zip(coupling, _single_roots(name, degrees, coupling), strict=True):
        (s1, n1), (s2, n2), (s3, n3) = r1[i], r2[j], r3[k]
        radicand = n * n1 * n2 * n3
        common = common or square_free(radicand)[1]
        root = isqrt(radicand // common)
        if root * root * common != radicand:
            fail(name, f"C{degrees} at {(i, j, k)} = {q}·√{n}", "the same irrational part as its other entries")
        fractions.append(((i, j, k), q.numerator * root, q.denominator * s1 * s2 * s3))
    scale = lcm(*(d for _, _, d in fractions))
    return [(key, top * (scale // bottom)) for key, top, bottom in fractions]


@lru_cache(maxsize=256)
def _roots(l: int) -> tuple[tuple[int, int], ...]:
    """√q_lm as (s, n) for √n/s, n square-free; a common rational factor is left out."""
    parts = [Surd.root(harmonic(l, m).q).parts[0] for m in range(-l, l + 1)]
    top = lcm(*(q.numerator for _, q in parts))
    return tuple((int(top / q), n) for n, q in parts)


@lru_cache(maxsize=256)
def _moves(l: int, axis: int) -> tuple[int, Moves]:
    """X_axis in the basis P: (denominator, for each row the (column - row, numerator))."""
    roots = [Surd.root(harmonic(l, m).q) for m in range(-l, l + 1)]
    rows: list[list[tuple[int, Fraction]]] = [[] for _ in roots]
    for (i, j), value in generators(l)[axis].items():
        rows[i].append((j - i, (value * roots[j] / roots[i]).parts[0][1]))
    denominator = lcm(*(v.denominator for row in rows for _, v in row))
    return denominator, tuple(tuple((step, int(v * denominator)) for step, v in row) for row in rows)
