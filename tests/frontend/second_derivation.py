"""Real couplings derived another way: highest weights and lowering operators, then an explicit change of basis.

Nothing is taken from irrepc.frontend: no Racah sum, no phase rule, no generators.  In the integer basis
e_m = J_-^(l-m)|l,l>/(l-m)! with |e_m|² = C(2l, l-m) the ladder operators are J_- e_m = (l-m+1)·e_(m-1) and
J_+ e_m = (l+m+1)·e_(m+1).
"""

from fractions import Fraction
from math import comb

from irrepc.algebra.surd import Surd

Complex = tuple[Surd, Surd]


def real_coupling(l1: int, l2: int, l3: int) -> dict[tuple[int, int, int], Surd]:
    """Re of (-i)^(l1+l2-l3)·Q1·Q2·conj(Q3)·CG/√(2l3+1), non-zero entries, indices l + m."""
    total: dict[tuple[int, int, int], Complex] = {}
    scale = Surd.root(Fraction(1, 2 * l3 + 1))
    turns = -(l1 + l2 - l3)
    for (m1, m2, m3), value in complex_coupling(l1, l2, l3).items():
        for a, (s1, t1) in _row(m1).items():
            for b, (s2, t2) in _row(m2).items():
                for c, (s3, t3) in _row(m3).items():
                    size = value * scale * s1 * s2 * s3
                    re, im = _quarter_turns(size, turns + t1 + t2 - t3)
                    key = (l1 + a, l2 + b, l3 + c)
                    old = total.get(key, (Surd(), Surd()))
                    total[key] = (old[0] + re, old[1] + im)
    assert not any(im for _, im in total.values())
    return {key: re for key, (re, _) in sorted(total.items()) if re}


def complex_coupling(l1: int, l2: int, l3: int) -> dict[tuple[int, int, int], Surd]:
    """<l1 m1, l2 m2 | l3 m3> with the phase of Condon and Shortley: <l1 l1, l2 l3-l1 | l3 l3> > 0."""
    # J_+ v = 0 for v = Σ c_m1·e_m1 ⊗ e_(l3-m1) relates neighbours; m1 runs down from its top.
    top = min(l1, l3 + l2)
    vector = {top: Fraction(1)}
    for m1 in range(top, max(-l1, l3 - l2), -1):
        # The coefficient of e_m1 ⊗ e_(l3-m1+1) in J_+ v.
        vector[m1 - 1] = -vector[m1] * (l2 + l3 - m1 + 1) / (l1 + m1)
    out = {}
    for m3 in range(l3, -l3 - 1, -1):
        norm = sum(c * c * comb(2 * l1, l1 - m1) * comb(2 * l2, l2 - m3 + m1) for m1, c in vector.items())
        for m1, c in vector.items():
            weight = Fraction(comb(2 * l1, l1 - m1) * comb(2 * l2, l2 - m3 + m1))
            if c:
                out[m1, m3 - m1, m3] = Surd.root(weight / norm) * c
        lowered: dict[int, Fraction] = {}
        for m1, c in vector.items():
            m2 = m3 - m1
            if m1 > -l1:
                lowered[m1 - 1] = lowered.get(m1 - 1, Fraction(0)) + c * (l1 - m1 + 1)
            if m2 > -l2:
                lowered[m1] = lowered.get(m1, Fraction(0)) + c * (l2 - m2 + 1)
        vector = lowered
    return out


def _row(m: int) -> dict[int, tuple[Surd, int]]:
    """Y_m of the complex basis in the real one: {real m: (size, quarter turns)}."""
    half = Surd.root(Fraction(1, 2))
    if m == 0:
        return {0: (Surd.of(1), 0)}
    if m < 0:
        return {-m: (half, 0), m: (half, 3)}
    sign = 2 * (m % 2)
    return {m: (half, sign), -m: (half, sign + 1)}


def _quarter_turns(size: Surd, turns: int) -> Complex:
    match turns % 4:
        case 0:
            return size, Surd()
        case 1:
            return Surd(), size
        case 2:
            return -size, Surd()
        case _:
            return Surd(), -size
