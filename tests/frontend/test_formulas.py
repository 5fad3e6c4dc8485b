"""Formulas: the sympy expressions are the exact objects, and they print so that one can read them."""

import subprocess
import sys

import pytest
import sympy

from irrepc.algebra.surd import Surd
from irrepc.errors import ConventionError, IrrepsError, RecipeError
from irrepc.frontend.clebsch_gordan import w3j
from irrepc.frontend.formulas import (
    harmonic_expression,
    show,
    surd_expression,
    symbols,
    w3j_array,
    wigner_d_expression,
)
from irrepc.frontend.harmonics import harmonic
from irrepc.frontend.rotations import wigner_d_exact


@pytest.mark.parametrize("l", [0, 1, 3, 6, 12])
def test_harmonic_expressions_are_the_polynomials(l: int) -> None:
    x, y, z = symbols("x y z")
    for m in sorted({-l, -min(l, 1), 0, l}):
        h = harmonic(l, m)
        expression = harmonic_expression(l, m)
        assert expression.free_symbols <= {x, y, z}
        wanted = surd_expression(Surd.root(h.q)) * h.P.at(2, -3, 5)
        assert sympy.simplify(expression.subs({x: 2, y: -3, z: 5}) - wanted) == 0


def test_normalizations() -> None:
    assert harmonic_expression(0, 0, "integral") == 1 / (2 * sympy.sqrt(sympy.pi))
    for l, m in ((1, 0), (2, -1), (4, 3)):
        component = harmonic_expression(l, m)
        assert sympy.simplify(harmonic_expression(l, m, "norm") * sympy.sqrt(2 * l + 1) - component) == 0
        assert sympy.simplify(harmonic_expression(l, m, "integral") * sympy.sqrt(4 * sympy.pi) - component) == 0
    with pytest.raises(ConventionError, match=r"normalization: got 'racah'; expected one of component, norm, integral"):
        harmonic_expression(1, 0, "racah")


def test_integral_harmonics_have_unit_integral() -> None:
    """By sympy's own integration over the sphere, nothing of ours but the expression."""
    x, y, z = symbols("x y z")
    t, p = symbols("t p")
    point = {x: sympy.sin(t) * sympy.sin(p), y: sympy.cos(t), z: sympy.sin(t) * sympy.cos(p)}
    for l, m in ((1, 1), (2, 0), (2, 2)):
        square = sympy.expand(harmonic_expression(l, m, "integral").subs(point) ** 2 * sympy.sin(t))
        assert sympy.integrate(sympy.integrate(square, (p, 0, 2 * sympy.pi)), (t, 0, sympy.pi)) == 1


def test_symbols_are_real() -> None:
    assert all(s.is_real for s in harmonic_expression(3, 1).free_symbols | wigner_d_expression(1).free_symbols)


@pytest.mark.parametrize("degrees", [(1, 1, 1), (1, 1, 2), (2, 3, 3)])
def test_coupling_arrays(degrees: tuple[int, int, int]) -> None:
    array = w3j_array(*degrees)
    assert array.shape == tuple(2 * l + 1 for l in degrees)
    entries = w3j(*degrees)
    for i in range(array.shape[0]):
        for j in range(array.shape[1]):
            for k in range(array.shape[2]):
                assert array[i, j, k] == surd_expression(entries.get((i, j, k), Surd()))
    assert w3j_array(1, 2, 2, convention="e3nn-0.4") == -w3j_array(1, 2, 2)


@pytest.mark.parametrize("l", [0, 1, 2, 3])
def test_rotation_expressions(l: int) -> None:
    w, x, y, z = symbols("w x y z")
    q = (1, 2, 2, 4)  # of length 5
    matrix = wigner_d_expression(l).subs(dict(zip((w, x, y, z), (sympy.Rational(v, 5) for v in q), strict=True)))
    exact = wigner_d_exact(l, q)
    assert matrix.shape == (2 * l + 1, 2 * l + 1)
    assert all(
        sympy.expand(matrix[i, j] - surd_expression(exact[i][j])) == 0
        for i in range(2 * l + 1)
        for j in range(2 * l + 1)
    )


# ── what is printed ──────────────────────────────────────────────────────────────────────────────


def test_harmonics_on_paper() -> None:
    assert show("Y 2").splitlines() == [
        "Y 2 -2 = √15·x·z",
        "Y 2 -1 = √15·x·y",
        "Y 2 0  = √5·(-x² + 2·y² - z²)/2",
        "Y 2 +1 = √15·y·z",
        "Y 2 +2 = √15·(-x + z)·(x + z)/2",
    ]
    assert show("Y 3 -1") == "Y 3 -1 = √42·x·(-x² + 4·y² - z²)/4"
    assert show("Y 0") == "Y 0 0 = 1"
    assert len(show("Y 5").splitlines()) == 11
    assert show("Y 12 -11") == (
        "Y 12 -11 = 5·√2028117·x·y·(-x¹⁰ + 55·x⁸·z² - 330·x⁶·z⁴ + 462·x⁴·z⁶ - 165·x²·z⁸ + 11·z¹⁰)/512"
    )


def test_couplings_on_paper() -> None:
    assert show("w3j 1 1 2").splitlines()[2] == (
        "w3j 1 1 2 m=0  = -√30·a[-1]·b[-1]/30 + √30·a[0]·b[0]/15 - √30·a[+1]·b[+1]/30"
    )
    assert show("CG 1 1 1").splitlines()[0] == "CG 1 1 1 m=-1 = √2·a[0]·b[+1]/2 - √2·a[+1]·b[0]/2"
    assert show("CG 1 1 0") == "CG 1 1 0 m=0 = √3·a[-1]·b[-1]/3 + √3·a[0]·b[0]/3 + √3·a[+1]·b[+1]/3"


def test_rotations_on_paper() -> None:
    lines = show("D 1").splitlines()
    assert len(lines) == 9
    assert lines[0] == "D 1 (-1,-1) = w² + x² - y² - z²"
    assert lines[1] == "D 1 (-1,0)  = -2·w·z + 2·x·y"
    assert len(show("D 2").splitlines()) == 25


def test_latex() -> None:
    assert show("Y 1", latex=True).splitlines()[1] == r"Y_{1,0} = \sqrt{3} y"
    assert show("D 1", latex=True).splitlines()[0] == r"D^{1}_{-1,-1} = w^{2} + x^{2} - y^{2} - z^{2}"
    assert show("w3j 1 1 1", latex=True).splitlines()[0] == (
        r"(a \otimes b)^{1}_{-1} = \frac{\sqrt{6} a_{0} b_{1}}{6} - \frac{\sqrt{6} a_{1} b_{0}}{6}"
    )


@pytest.mark.parametrize("text", ["", "Z 3", "Y", "Y 1 2 3", "Y x", "w3j 1 1", "D 1 1", "D 1.5"])
def test_texts_that_name_nothing(text: str) -> None:
    with pytest.raises(RecipeError, match=r"show: got .*; expected 'Y l', 'Y l m'"):
        show(text)


@pytest.mark.parametrize("text", ["Y -1", "Y 2 3", "w3j 1 1 3", "D -2"])
def test_degrees_that_do_not_fit(text: str) -> None:
    with pytest.raises(IrrepsError):
        show(text)


def test_sympy_is_not_loaded_by_the_exact_work() -> None:
    code = (
        "import sys; import irrepc.frontend.formulas; from irrepc.frontend.proofs import prove; prove(1);"
        "assert not {'sympy', 'numpy', 'torch'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
