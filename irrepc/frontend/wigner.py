"""The Wigner-D kernel: all blocks D^0 ... D^lmax of a unit quaternion as one straight-line program.

Cayley-Klein form (rotations.py) on a = w + iy and b = x + iz, the conjugates of the pair there.  Shared by all degrees
are the monomials a^(M+n)·b^(M-n) and a^(M+n)·b̄^(M-n); each degree multiplies them by its profiles d_l,M,n(A, B).
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from irrepc.algebra.irreps import check_degree
from irrepc.algebra.surd import ONE, Surd
from irrepc.frontend.program import Program, scalars, times
from irrepc.frontend.rotations import cayley_klein
from irrepc.ir.kernel import Kernel, Ref, Term

# Up to this degree in (A, B) a profile is cheaper as a polynomial in them than by the recurrence in l.
_CLOSED_DEGREE = 3


class _Complex(NamedTuple):
    """(re_sign·re) + i·(im_sign·im)."""

    re: Ref
    im: Ref
    re_sign: int = 1
    im_sign: int = 1

    def signed(self, power: int) -> _Complex:
        """(-1)^power times it."""
        sign = (-1) ** power
        return _Complex(self.re, self.im, self.re_sign * sign, self.im_sign * sign)

    def conjugate(self) -> _Complex:
        return _Complex(self.re, self.im, self.re_sign, -self.im_sign)


class _Monomial(NamedTuple):
    """a^i·b^j and a^i·b̄^j."""

    direct: _Complex
    conjugated: _Complex


def wigner_d(lmax: int) -> Kernel:
    """The kernel D(q): unit quaternion q (row, 4) as (w, x, y, z) -> D (row, Σ_l (2l+1)²), any degree.

    Blocks l = 0 ... lmax one after the other, each row-major in (m', m), so that Y(R r) = D(R)·Y(r) and D^1 = R.
    A quaternion of another length gives |q|^2l·D^l: the kernel is a homogeneous polynomial and divides by nothing.
    """
    check_degree(lmax)
    program = Program()
    program.put(Ref("D", 0), times(1))
    if lmax:
        a, b = _define_powers(program, lmax)
        monomials = {
            (M, n): _define_monomial(program, a, b, M, n) for M in range(1, lmax + 1) for n in range(1 - M, M)
        }
        profiles: dict[tuple[int, int, int], Ref] = {}
        for l in range(1, lmax + 1):
            for M in range(l):
                for n in range(-M, M + 1):
                    profiles[l, M, n] = _define_profile(program, profiles, l, M, n)
            _put_block(program, l, profiles, monomials, (a, b))
    names = [
        f"l={l} ({i:+d},{j:+d})" for l in range(lmax + 1) for i in range(-l, l + 1) for j in range(-l, l + 1)
    ]
    doc = f"Wigner-D blocks l = 0 ... {lmax} of a unit quaternion (w, x, y, z), row-major in (m', m)"
    return program.kernel("wigner_d", scalars("q", "wxyz"), scalars("D", names), doc)


def block_start(l: int) -> int:
    """Where D^l begins in the output: Σ_(k<l) (2k+1)²."""
    return l * (4 * l * l - 1) // 3


def _define_powers(program: Program, lmax: int) -> tuple[dict[int, _Complex], dict[int, _Complex]]:
    """Define A, B and their products in family s, then a^k and b^k for k = 1 ... 2·lmax."""
    w, x, y, z = (Ref("q", i) for i in range(4))
    w2, x2, y2, z2 = (program.define("s", f"{name}²", times(1, v, v)) for name, v in zip("wxyz", (w, x, y, z), strict=True))
    program.define("s", "A = w²+y²", times(1, w2), times(1, y2))
    program.define("s", "B = x²+z²", times(1, x2), times(1, z2))
    for degree in range(2, min(_CLOSED_DEGREE, lmax) + 1):
        for k in range(degree + 1):
            lower = _norms(degree - 1, k) if k < degree else _norms(degree - 1, k - 1)
            name = "".join(f"{letter}^{power}" for letter, power in (("A", degree - k), ("B", k)) if power)
            program.define("s", name, times(1, lower, _norms(1, 0 if k < degree else 1)))
    if lmax > _CLOSED_DEGREE:
        total = program.define("n", "A+B", times(1, _norms(1, 0)), times(1, _norms(1, 1)))
        program.define("n", "(A+B)²", times(1, total, total))
    a, b = {1: _Complex(w, y)}, {1: _Complex(x, z)}
    for family, powers, (re2, im2) in (("a", a, (w2, y2)), ("b", b, (x2, z2))):
        base = "(w+iy)" if family == "a" else "(x+iz)"
        for k in range(2, 2 * lmax + 1):
            re, im = powers[k // 2].re, powers[k // 2].im
            if k == 2:
                new = (times(1, re2), times(-1, im2)), (times(2, re, im),)
            elif k % 2 == 0:
                new = (times(1, re, re), times(-1, im, im)), (times(2, re, im),)
            else:
                re, im = powers[k - 1].re, powers[k - 1].im
                u, v = powers[1].re, powers[1].im
                new = (times(1, u, re), times(-1, v, im)), (times(1, u, im), times(1, v, re))
            powers[k] = _Complex(
                program.define(f"{family}{k}", f"Re {base}^{k}", *new[0]),
                program.define(f"{family}{k}", f"Im {base}^{k}", *new[1]),
            )
    return a, b


def _norms(degree: int, k: int) -> Ref:
    """A^(degree-k)·B^k, degree 1 ... 3."""
    return Ref("s", 4 + (degree - 1) * (degree + 2) // 2 + k)


def _define_monomial(program: Program, a: dict[int, _Complex], b: dict[int, _Complex], M: int, n: int) -> _Monomial:
    i, j = M + n, M - n
    u, v = a[i], b[j]
    names = [f"{p} a^{i}·{q} b^{j}" for p, q in (("Re", "Re"), ("Im", "Im"), ("Re", "Im"), ("Im", "Re"))]
    pairs = ((u.re, v.re), (u.im, v.im), (u.re, v.im), (u.im, v.re))
    rr, ii, ri, ir = (program.define(f"e{M}", name, times(1, *pair)) for name, pair in zip(names, pairs, strict=True))
    return _Monomial(
        _Complex(
            program.define(f"f{M}", f"Re a^{i}·b^{j}", times(1, rr), times(-1, ii)),
            program.define(f"f{M}", f"Im a^{i}·b^{j}", times(1, ri), times(1, ir)),
        ),
        _Complex(
            program.define(f"f{M}", f"Re a^{i}·b̄^{j}", times(1, rr), times(1, ii)),
            program.define(f"f{M}", f"Im a^{i}·b̄^{j}", times(1, ir), times(-1, ri)),
        ),
    )


def _define_profile(program: Program, profiles: dict[tuple[int, int, int], Ref], l: int, M: int, n: int) -> Ref:
    """d_l,M,n for M < l; times √2 for n = 0 < M, as _corner.

    Source of the recurrence: Biedenharn and Louck, Angular Momentum in Quantum Physics (1981), made homogeneous:
    l·R_(l+1)·d_(l+1) = (2l+1)·[(l(l+1) - M·n)·A - (l(l+1) + M·n)·B]·d_l - (l+1)·R_l·(A+B)²·d_(l-1),
    R_l² = (l²-M²)(l²-n²).
    """
    name, degree = f"d_{l},{M},{n}(A, B)", l - M
    if degree <= _CLOSED_DEGREE:
        root, coeffs = cayley_klein(l, M, n)
        scale = _double(M, n) * root
        terms = (times(scale * c, _norms(degree, k)) for k, c in enumerate(coeffs))
        return program.define(f"d{l}", name, *terms)
    k = l - 1
    r_last, r_next = ((i * i - M * M) * (i * i - n * n) for i in (k, l))
    lead = Surd.root(Fraction((2 * k + 1) ** 2, k * k * r_next))
    u = program.define(
        f"c{l}", "", times(lead * (k * l - M * n), _norms(1, 0)), times(-lead * (k * l + M * n), _norms(1, 1))
    )
    v = program.define(f"c{l}", "", times(-Surd.root(Fraction(l * l * r_last, k * k * r_next)), Ref("n", 1)))
    return program.define(f"d{l}", name, times(1, u, profiles[l - 1, M, n]), times(1, v, profiles[l - 2, M, n]))


def _corner(M: int, n: int) -> Surd:
    """d_M,M,n, a number; times √2 for n = 0 < M, whose real entries have one index zero."""
    root, (coeff,) = cayley_klein(M, M, n)
    return _double(M, n) * root * coeff


def _double(M: int, n: int) -> Surd:
    return Surd.root(2) if M and not n else ONE


def _put_block(
    program: Program,
    l: int,
    profiles: dict[tuple[int, int, int], Ref],
    monomials: dict[tuple[int, int], _Monomial],
    powers: tuple[dict[int, _Complex], dict[int, _Complex]],
) -> None:
    """Set all entries of D^l.  Signs: module docstring of rotations.py, with a and b conjugated."""

    def scaled(M: int, n: int, value: _Complex) -> _Complex:
        corner = _corner(M, n)
        if l == M and corner == ONE:
            return value
        parts = []
        for part, ref in (("Re", value.re), ("Im", value.im)):
            term = times(corner, ref) if l == M else times(1, profiles[l, M, n], ref)
            parts.append(program.define(f"h{l}", f"{part} of ({M:+d},{n:+d})", term))
        return value._replace(re=parts[0], im=parts[1])

    def put(row: int, column: int, value: _Complex, mirrored: _Complex) -> None:
        """The four entries (±row, ±column), row, column > 0, from (-1)^(m+m')·D_m'm and (-1)^m'·D_m'-m."""
        re = times(value.re_sign, value.re), times(mirrored.re_sign, mirrored.re)
        im = times(value.im_sign, value.im), times(mirrored.im_sign, mirrored.im)
        program.put(_place(l, row, column), re[0], re[1])
        program.put(_place(l, -row, -column), re[0], _negative(re[1]))
        program.put(_place(l, -row, column), _negative(im[0]), _negative(im[1]))
        program.put(_place(l, row, -column), im[0], _negative(im[1]))

    program.put(_place(l, 0, 0), times(1, profiles[l, 0, 0]))
    for M in range(1, l + 1):
        polar = monomials[M, 0]
        column, row = scaled(M, 0, polar.conjugated.conjugate()), scaled(M, 0, polar.direct.conjugate().signed(M))
        program.put(_place(l, M, 0), times(column.re_sign, column.re))
        program.put(_place(l, -M, 0), times(-column.im_sign, column.im))
        program.put(_place(l, 0, M), times(row.re_sign, row.re))
        program.put(_place(l, 0, -M), times(row.im_sign, row.im))
        for n in range(1, M):
            plus, minus = monomials[M, n], monomials[M, -n]
            put(
                M,
                n,
                scaled(M, n, plus.conjugated.conjugate()),
                scaled(M, -n, minus.conjugated.conjugate().signed(n)),
            )
            put(n, M, scaled(M, n, plus.direct.conjugate().signed(M + n)), scaled(M, -n, minus.direct.signed(M)))
        a, b = powers
        put(M, M, scaled(M, M, a[2 * M].conjugate()), scaled(M, -M, b[2 * M].signed(M)))


def _place(l: int, row: int, column: int) -> Ref:
    return Ref("D", block_start(l) + (l + row) * (2 * l + 1) + l + column)


def _negative(term: Term) -> Term:
    return Term(-term.coeff, term.factors)
