"""Harmonics: exact polynomials, the kernel that evaluates them, and reference values."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irrepc.algebra.conventions import Conventions
from irrepc.algebra.surd import ONE, Surd
from irrepc.errors import ConventionError, IrrepsError
from irrepc.frontend.harmonics import harmonic, harmonics, profile, spherical_harmonics
from irrepc.frontend.polynomial import Polynomial
from irrepc.ir.check import check
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Kernel


def operations(kernel: Kernel) -> int:
    """Multiplications and additions as written; copies, signs and constants are free."""
    count = 0
    for equation in kernel.equations:
        for term in equation.terms:
            scaled = bool(term.factors) and term.coeff not in (ONE, -ONE)
            count += max(0, len(term.factors) - 1) + scaled
        count += max(0, len(equation.terms) - 1)
    return count


def evaluate(kernel: Kernel, xyz: np.ndarray, number: Any = float) -> np.ndarray:
    """The kernel at points (n, 3) -> (n, (lmax+1)²), all points at once as numbers of the ring."""
    row = [xyz[:, i] for i in range(3)]
    values = interpret(kernel, {"r": [row]}, number=lambda c: number(float(c)))["Y"][0]
    return np.stack([np.broadcast_to(v, len(xyz)) for v in values], axis=1)


# ── exact ────────────────────────────────────────────────────────────────────────────────────────


def test_small_harmonics_by_hand() -> None:
    one, x, y, z = ({(0, 0, 0): 1}, {(1, 0, 0): 1}, {(0, 1, 0): 1}, {(0, 0, 1): 1})
    wanted = {
        (0, 0): (1, one),
        (1, -1): (3, x),
        (1, 0): (3, y),
        (1, 1): (3, z),
        (2, -2): (15, {(1, 0, 1): 1}),
        (2, -1): (15, {(1, 1, 0): 1}),
        (2, 0): (Fraction(5, 4), {(0, 2, 0): 2, (2, 0, 0): -1, (0, 0, 2): -1}),
        (2, 1): (15, {(0, 1, 1): 1}),
        (2, 2): (Fraction(15, 4), {(0, 0, 2): 1, (2, 0, 0): -1}),
    }
    assert {key: tuple(h) for key, h in harmonics(2).items()} == {
        key: (q, Polynomial.of(terms)) for key, (q, terms) in wanted.items()
    }


@pytest.mark.parametrize("normalization", ["component", "norm"])
@pytest.mark.parametrize("lmax", [0, 1, 2, 3, 4, 5, 6, 12])
def test_the_kernel_is_the_closed_form(lmax: int, normalization: str) -> None:
    """At an integer grid of points, in exact arithmetic."""
    kernel = check(spherical_harmonics(lmax, normalization))
    points = [[0, 0, 0], [0, 1, 0], [0, -2, 0], [3, 0, 0], [0, 0, 5], [1, -2, 3], [-7, 4, 5], [10, 3, -4], [1, 1, 1]]
    rows = interpret(kernel, {"r": points})["Y"]
    for point, row in zip(points, rows, strict=True):
        for (l, m), h in harmonics(lmax).items():
            scale = Surd.of(1) if normalization == "component" else Surd.root(Fraction(1, 2 * l + 1))
            assert Surd.lift(row[l * l + l + m]) == Surd.root(h.q) * scale * h.P.at(*point), (l, m, point)


def test_the_norm_kernel_has_unit_length() -> None:
    """Σ_m Y_lm² = |r|^2l exactly, at a rational point."""
    row = interpret(spherical_harmonics(12, "norm"), {"r": [[Fraction(1, 2), -3, Fraction(2, 7)]]})["Y"][0]
    size = Fraction(1, 4) + 9 + Fraction(4, 49)
    for l in range(13):
        assert sum((Surd.lift(v).squared() for v in row[l * l : (l + 1) ** 2]), start=Surd()) == Surd.of(size**l)


@pytest.mark.parametrize(("lmax", "most"), [(1, 3), (2, 18), (4, 65), (6, 139), (8, 242), (12, 532)])
def test_operation_counts(lmax: int, most: int) -> None:
    assert operations(spherical_harmonics(lmax)) <= most


def test_kernel_shape_and_labels() -> None:
    kernel = spherical_harmonics(5)
    assert (kernel.name, kernel.inputs[0].name, kernel.outputs[0].name) == ("spherical_harmonics", "r", "Y")
    assert (kernel.inputs[0].size, kernel.outputs[0].size) == (3, 36)
    assert kernel.outputs[0].label(0) == "l=0 m=0"
    assert kernel.outputs[0].label(35) == "l=5 m=+5"
    assert all(len(o.labels) == o.size for o in kernel.operands.values())


def test_profiles_at_the_pole_are_positive() -> None:
    assert all(profile(l, m)[0].sign > 0 for l in range(9) for m in range(l + 1))


@pytest.mark.parametrize(("l", "m"), [(1, 2), (0, -1), (3, -4)])
def test_orders_beyond_the_degree(l: int, m: int) -> None:
    with pytest.raises(IrrepsError, match=f"harmonic: got l={l}, m={m}; expected -l <= m <= l"):
        harmonic(l, m)


@pytest.mark.parametrize("bad", [-1, 2.0, True, "3", None])
def test_degrees_that_are_none(bad: object) -> None:
    with pytest.raises(IrrepsError, match=r"expected an integer >= 0"):
        spherical_harmonics(bad)  # type: ignore[arg-type]


def test_normalizations_outside_the_exact_ring() -> None:
    with pytest.raises(ConventionError, match=r"'integral', whose factor 1/√\(4π\) is not in the exact ring"):
        spherical_harmonics(2, "integral")
    with pytest.raises(ConventionError, match=r"got 'orthonormal'; expected component or norm"):
        spherical_harmonics(2, "orthonormal")


# ── rounding ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("lmax", "most"), [(4, 1.2e-6), (8, 2.5e-6), (12, 4e-6)])
def test_float32_keeps_its_digits_near_the_poles(lmax: int, most: float) -> None:
    """Measured 0.9e-6, 1.9e-6, 2.9e-6; the recurrence in l instead of m gives 1.1e-6, 7.7e-6, 24e-6."""
    draw = np.random.default_rng(0)
    near = np.array([0, 1, 0]) + 0.01 * draw.normal(size=(4000, 3))
    points = np.concatenate([draw.normal(size=(4000, 3)), near, np.eye(3), -np.eye(3)])
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    kernel = spherical_harmonics(lmax)
    error = np.abs(evaluate(kernel, points, np.float32) - evaluate(kernel, points.astype(float)))
    assert evaluate(kernel, points, np.float32).dtype == np.float32
    assert error.max() < most


# ── reference values ─────────────────────────────────────────────────────────────────────────────


def relative_error(ours: np.ndarray, theirs: np.ndarray, xyz: np.ndarray) -> float:
    """The largest difference relative to r^l."""
    r = np.linalg.norm(xyz, axis=1)
    worst = 0.0
    for l in range(int(np.sqrt(ours.shape[1]))):
        block = slice(l * l, (l + 1) ** 2)
        worst = max(worst, float((np.abs(ours[:, block] - theirs[:, block]) / r[:, None] ** l).max()))
    return worst


def test_golden_harmonics(shared: Path) -> None:
    golden = np.load(shared / "golden" / "e3nn_sh.npz")
    xyz = golden["xyz"]
    component, norm = (evaluate(spherical_harmonics(8, name), xyz) for name in ("component", "norm"))
    assert relative_error(component, golden["sh_component"], xyz) < 1e-13
    assert relative_error(norm, golden["sh_norm"], xyz) < 1e-13
    factor = Conventions(normalization="integral").post_factor
    assert relative_error(factor * component, golden["sh_integral"], xyz) < 1e-13
    unit = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)
    normalized = factor * evaluate(spherical_harmonics(8), unit)
    assert relative_error(normalized, golden["sh_integral_normalized"], unit) < 1e-13


def test_golden_harmonics_of_the_other_axes(shared: Path) -> None:
    """sphericart's polar axis is z: its value at (u0, u1, u2) is ours at (u1, u2, u0)."""
    golden = np.load(shared / "golden" / "sphericart_sh.npz")
    xyz = golden["xyz"][:, [1, 2, 0]]
    factor = Conventions(normalization="integral").post_factor
    assert relative_error(factor * evaluate(spherical_harmonics(8), xyz), golden["solid"], xyz) < 1e-13
    unit = xyz / np.linalg.norm(xyz, axis=1, keepdims=True)
    assert relative_error(factor * evaluate(spherical_harmonics(8), unit), golden["sph"], unit) < 1e-13
    assert relative_error(factor * evaluate(spherical_harmonics(8), golden["xyz"]), golden["solid"], xyz) > 0.1


@pytest.fixture
def o3() -> Iterator[object]:
    """e3nn's o3 in double precision."""
    torch = pytest.importorskip("torch", reason="e3nn needs torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    torch.set_default_dtype(before)


@pytest.mark.parametrize("normalization", ["component", "norm"])
def test_e3nn_to_degree_12(normalization: str, o3: Any) -> None:
    import torch

    xyz = np.random.default_rng(5).normal(size=(40, 3))
    theirs = o3.spherical_harmonics(list(range(13)), torch.from_numpy(xyz), False, normalization).numpy()
    assert relative_error(evaluate(spherical_harmonics(12, normalization), xyz), theirs, xyz) < 1e-13


def test_sphericart_at_degree_12() -> None:
    sphericart = pytest.importorskip("sphericart", reason="sphericart is not installed")
    xyz = np.random.default_rng(6).normal(size=(40, 3))
    factor = Conventions(normalization="integral").post_factor
    theirs = sphericart.SolidHarmonics(12).compute(np.ascontiguousarray(xyz[:, [2, 0, 1]]))
    assert relative_error(factor * evaluate(spherical_harmonics(12), xyz), theirs, xyz) < 1e-13
