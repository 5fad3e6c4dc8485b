"""Formulas: harmonics, couplings and rotations as sympy expressions, and as lines of text or LaTeX to read.

The only user of sympy, imported inside the functions: expressions are made at the end, from exact integer results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from irrepc.algebra.conventions import NORMALIZATIONS, check_convention
from irrepc.algebra.irreps import check_degree
from irrepc.algebra.surd import Surd
from irrepc.errors import RecipeError
from irrepc.frontend.clebsch_gordan import Coupling, clebsch_gordan, w3j
from irrepc.frontend.harmonics import harmonic, normalization_factor
from irrepc.frontend.program import signed
from irrepc.frontend.rotations import wigner_d_parts

# What sympy returns; named here because sympy is imported only where a formula is shown.
Expression = Any

_EXPECTED = "'Y l', 'Y l m', 'w3j l1 l2 l3', 'CG l1 l2 l3' or 'D l'"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Formula:
    """One line: what it defines, in plain text and in LaTeX, and the expression."""

    plain: str
    latex: str
    expression: Expression


def surd_expression(value: Surd) -> Expression:
    """Σ q·√n."""
    import sympy

    return sympy.Add(*(sympy.Rational(q.numerator, q.denominator) * sympy.sqrt(n) for n, q in value.parts))


def symbols(names: str) -> tuple[Expression, ...]:
    """The symbols of all formulas here: real ones, which sympy holds for different from complex ones of that name."""
    import sympy

    return tuple(sympy.Symbol(name, real=True) for name in names.split())


def harmonic_expression(l: int, m: int, normalization: str = "component") -> Expression:
    """r^l·Y_lm in the real symbols x, y, z; the polynomial part is factored.

    normalization: component, norm, or integral (here exact, with √π).  Raises IrrepsError unless |m| <= l,
    ConventionError for another normalization.
    """
    import sympy

    check_convention("normalization", normalization, NORMALIZATIONS)
    h = harmonic(l, m)
    polynomial = sympy.Poly.from_dict(dict(h.P.terms), *symbols("x y z")).as_expr()
    if normalization == "integral":
        factor = surd_expression(Surd.root(h.q)) / (2 * sympy.sqrt(sympy.pi))
    else:
        factor = surd_expression(Surd.root(h.q) * normalization_factor(l, normalization))
    return factor * _factored(polynomial)


def _factored(polynomial: Expression) -> Expression:
    """The factors over the integers; a sign in front goes into the factor with most negative terms, if any."""
    import sympy

    coeff, factors = sympy.factor_list(polynomial)
    negatives = [
        sum(bool(term.could_extract_minus_sign()) for term in base.args) if base.is_Add and power % 2 else 0
        for base, power in factors
    ]
    most = max(negatives, default=0)
    if coeff < 0 and most:
        i = negatives.index(most)
        base, power = factors[i]
        coeff, factors[i] = -coeff, (-base, power)
    return sympy.Mul(coeff, *(base**power for base, power in factors))


def w3j_array(l1: int, l2: int, l3: int, convention: str = "e3nn-0.5") -> Expression:
    """The coupling of unit norm, an ImmutableDenseNDimArray of shape (2l1+1, 2l2+1, 2l3+1).  Errors as w3j."""
    import sympy

    shape = (2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)
    flat = [sympy.S.Zero] * (shape[0] * shape[1] * shape[2])
    for (i, j, k), value in w3j(l1, l2, l3, convention).items():
        flat[(i * shape[1] + j) * shape[2] + k] = surd_expression(value)
    return sympy.ImmutableDenseNDimArray(flat, shape)


def wigner_d_expression(l: int) -> Expression:
    """D^l as an ImmutableMatrix in the real symbols w, x, y, z of a unit quaternion, homogeneous of degree 2l."""
    import sympy

    names = symbols("w x y z")
    _, w, x, y, z = sympy.ring(names, sympy.ZZ)
    rows: list[list[Expression]] = []
    for row in wigner_d_parts(l, (w, x, y, z)):
        rows.append([])
        for root, value in row:
            # Not factored: that takes seconds at l = 3 and finds little.
            content, polynomial = value.primitive()
            rows[-1].append(surd_expression(root * int(content)) * polynomial.as_expr(*names))
    return sympy.ImmutableMatrix(rows)


def show(text: str, latex: bool = False) -> str:
    """The formulas that a short text names, one line for each component.

    text: "Y 3" or "Y 3 -1" (harmonics), "w3j 1 1 2" or "CG 1 1 2" (couplings, as the component they give of a
    product of a and b), "D 2" (Wigner-D of a unit quaternion).  Raises RecipeError for another text, IrrepsError for
    impossible degrees.
    """
    import sympy

    formulas = read_formulas(text)
    if latex:
        return "\n".join(f"{f.latex} = {sympy.latex(f.expression)}" for f in formulas)
    width = max(len(f.plain) for f in formulas)
    return "\n".join(f"{f.plain:<{width}} = {_plain(str(f.expression))}" for f in formulas)


def read_formulas(text: str) -> tuple[Formula, ...]:
    """The formulas of `show`, before they are printed."""
    words = text.split()
    if not words or not all(re.fullmatch(r"[+-]?\d+", word) for word in words[1:]):
        raise RecipeError(f"show: got {text!r}; expected {_EXPECTED}")
    match words[0], [int(word) for word in words[1:]]:
        case "Y", [l]:
            check_degree(l)
            return tuple(_harmonic_formula(l, m) for m in range(-l, l + 1))
        case "Y", [l, m]:
            return (_harmonic_formula(l, m),)
        case "w3j", [l1, l2, l3]:
            return _coupling_formulas("w3j", (l1, l2, l3), w3j(l1, l2, l3))
        case "CG", [l1, l2, l3]:
            return _coupling_formulas("CG", (l1, l2, l3), clebsch_gordan(l1, l2, l3))
        case "D", [l]:
            check_degree(l)
            matrix = wigner_d_expression(l)
            return tuple(
                Formula(f"D {l} ({signed(i - l)},{signed(j - l)})", f"D^{{{l}}}_{{{i - l},{j - l}}}", matrix[i, j])
                for i in range(2 * l + 1)
                for j in range(2 * l + 1)
            )
    raise RecipeError(f"show: got {text!r}; expected {_EXPECTED}")


def _harmonic_formula(l: int, m: int) -> Formula:
    return Formula(f"Y {l} {signed(m)}", f"Y_{{{l},{m}}}", harmonic_expression(l, m))


def _coupling_formulas(name: str, degrees: tuple[int, int, int], coupling: Coupling) -> tuple[Formula, ...]:
    """The components of (a ⊗ b) projected on degree l3."""
    import sympy

    l1, l2, l3 = degrees
    out = []
    for k in range(2 * l3 + 1):
        terms = [
            surd_expression(value) * sympy.Symbol(f"a_{i - l1}") * sympy.Symbol(f"b_{j - l2}")
            for (i, j, c), value in coupling.items()
            if c == k
        ]
        label = " ".join(map(str, degrees))
        latex = rf"(a \otimes b)^{{{l3}}}_{{{k - l3}}}"
        out.append(Formula(f"{name} {label} m={signed(k - l3)}", latex, sympy.Add(*terms)))
    return tuple(out)


def _plain(text: str) -> str:
    """sympy's text with √, superscripts, · for products and a[+1] for the components of a."""
    text = re.sub(r"\b([ab])_(-?\d+)", lambda match: f"{match[1]}[{signed(int(match[2]))}]", text)
    text = re.sub(r"sqrt\((\w+)\)", r"√\1", text)
    text = re.sub(r"\*\*(\d+)", lambda match: match[1].translate(_SUPERSCRIPTS), text)
    return text.replace("*", "·")
