"""Rotations: exact matrices and generators, the D kernel, and reference values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irrepc.algebra.surd import Surd
from irrepc.errors import IrrepsError
from irrepc.frontend.prove_rotations import quaternion_product
from irrepc.frontend.rotations import Sparse, generators, rotation_matrix, wigner_d_exact, wigner_d_parts
from irrepc.frontend.wigner import block_start, wigner_d
from irrepc.ir.check import check
from irrepc.ir.interpret import interpret
from tests.frontend.test_harmonics import operations

Rows = tuple[tuple[Any, ...], ...]


def evaluate(lmax: int, q: np.ndarray, number: Any = float) -> list[np.ndarray]:
    """The D kernel at quaternions (n, 4) -> matrices (n, 2l+1, 2l+1) for each l."""
    values = interpret(wigner_d(lmax), {"q": [[q[:, i] for i in range(4)]]}, number=lambda c: number(float(c)))["D"][0]
    flat = np.stack([np.broadcast_to(v, len(q)) for v in values], axis=1)
    return [flat[:, block_start(l) : block_start(l + 1)].reshape(len(q), 2 * l + 1, 2 * l + 1) for l in range(lmax + 1)]


def product(a: Rows, b: Rows) -> Rows:
    columns = list(zip(*b, strict=True))
    return tuple(tuple(sum((x * y for x, y in zip(r, c, strict=True)), start=Surd()) for c in columns) for r in a)


def dense(l: int, matrix: Sparse) -> Rows:
    return tuple(tuple(matrix.get((i, j), Surd()) for j in range(2 * l + 1)) for i in range(2 * l + 1))


def identity(l: int, scale: int = 1) -> Rows:
    return tuple(tuple(Surd.of(scale * (i == j)) for j in range(2 * l + 1)) for i in range(2 * l + 1))


@dataclass(frozen=True)
class Dual:
    """value + slope·ε with ε² = 0: exact derivatives of polynomials."""

    value: Fraction
    slope: Fraction = Fraction(0)

    def __add__(self, other: Dual | int) -> Dual:
        other = other if isinstance(other, Dual) else Dual(Fraction(other))
        return Dual(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other: Dual | int) -> Dual:
        other = other if isinstance(other, Dual) else Dual(Fraction(other))
        return Dual(self.value * other.value, self.value * other.slope + self.slope * other.value)

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.slope)

    def __sub__(self, other: Dual) -> Dual:
        return self + -other

    def __pow__(self, power: int) -> Dual:
        out = Dual(Fraction(1))
        for _ in range(power):
            out = out * self
        return out

    __radd__ = __add__
    __rmul__ = __mul__


# ── exact ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("q", [(1, 0, 0, 0), (3, 1, -2, 5), (0, 0, 0, -4), (Fraction(1, 2), 2, Fraction(-1, 3), 7)])
def test_rotation_matrices_are_rotations(q: tuple[Any, ...]) -> None:
    R = rotation_matrix(q)
    columns = list(zip(*R, strict=True))
    assert [[sum(a * b for a, b in zip(u, v, strict=True)) for v in columns] for u in columns] == np.eye(3).tolist()
    (a, b, c), (d, e, f), (g, h, i) = R
    assert a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) == 1
    assert wigner_d_exact(1, q) == tuple(tuple(Surd.of(v) for v in row) for row in R)


def test_rotation_of_a_half_turn_and_a_third() -> None:
    assert rotation_matrix((0, 0, 1, 0)) == ((-1, 0, 0), (0, 1, 0), (0, 0, -1))
    assert rotation_matrix((1, 1, 1, 1)) == ((0, 0, 1), (1, 0, 0), (0, 1, 0))  # x -> y -> z -> x


@pytest.mark.parametrize("q", [(0, 0, 0, 0), (1, 2, 3), (0.5, 1, 0, 0)])
def test_quaternions_that_are_none(q: tuple[float, ...]) -> None:
    with pytest.raises(IrrepsError, match=r"quaternion: got .*; expected four rational numbers"):
        rotation_matrix(q)  # type: ignore[arg-type]


@pytest.mark.parametrize("l", [0, 1, 2, 3, 6])
def test_generators_obey_the_algebra(l: int) -> None:
    x, y, z = (dense(l, g) for g in generators(l))
    for a, b, c in ((x, y, z), (y, z, x), (z, x, y)):
        ab, ba = product(a, b), product(b, a)
        assert tuple(tuple(p - q for p, q in zip(r, s, strict=True)) for r, s in zip(ab, ba, strict=True)) == c
    squares = [product(g, g) for g in (x, y, z)]
    casimir = tuple(tuple(sum(s, start=Surd()) for s in zip(*rows, strict=True)) for rows in zip(*squares, strict=True))
    assert casimir == identity(l, -l * (l + 1))


@pytest.mark.parametrize("l", [1, 2, 5, 8])
def test_generators_are_the_slopes_of_d(l: int) -> None:
    """dD/dt at the identity for q = (1, t/2·axis)."""
    for axis, matrix in enumerate(generators(l)):
        q = [Dual(Fraction(1)), *(Dual(Fraction(0), Fraction(axis == i, 2)) for i in range(3))]
        slopes = tuple(tuple(root * v.slope for root, v in row) for row in wigner_d_parts(l, (q[0], q[1], q[2], q[3])))
        assert slopes == dense(l, matrix)


@pytest.mark.parametrize("lmax", [0, 1, 2, 3, 4, 5, 8, 12])
def test_the_kernel_is_the_closed_form(lmax: int) -> None:
    quaternions = [(3, 1, -2, 5), (1, 0, 0, 0), (0, 0, 0, 2), (-4, 7, 0, 1)]
    rows = interpret(check(wigner_d(lmax)), {"q": [list(q) for q in quaternions]})["D"]
    for q, row in zip(quaternions[: 2 if lmax > 8 else 4], rows, strict=False):
        size = sum(v * v for v in q)
        for l in range(lmax + 1):
            exact = [v * size**l for r in wigner_d_exact(l, q) for v in r]
            assert [Surd.lift(v) for v in row[block_start(l) : block_start(l + 1)]] == exact, (l, q)


def test_the_kernel_is_homogeneous() -> None:
    one, two = interpret(wigner_d(5), {"q": [[1, 2, -3, 4], [3, 6, -9, 12]]})["D"]
    for l in range(6):
        block = slice(block_start(l), block_start(l + 1))
        assert [Surd.lift(v) * 9**l for v in one[block]] == [Surd.lift(v) for v in two[block]]


def test_rational_unit_quaternions_give_orthogonal_matrices() -> None:
    q = (Fraction(1, 5), Fraction(2, 5), Fraction(2, 5), Fraction(4, 5))
    for l in (1, 2, 3):
        D = wigner_d_exact(l, q)
        assert product(D, tuple(zip(*D, strict=True))) == identity(l)
        squared = wigner_d_exact(l, quaternion_product(q, q))
        assert product(D, D) == squared


@pytest.mark.parametrize(("lmax", "most"), [(1, 29), (2, 124), (3, 301), (4, 589), (6, 1620), (8, 3463)])
def test_operation_counts(lmax: int, most: int) -> None:
    assert operations(wigner_d(lmax)) <= most


def test_kernel_shape_and_labels() -> None:
    kernel = wigner_d(3)
    assert (kernel.name, kernel.inputs[0].name, kernel.outputs[0].name) == ("wigner_d", "q", "D")
    assert (kernel.inputs[0].size, kernel.outputs[0].size) == (4, 1 + 9 + 25 + 49)
    assert [block_start(l) for l in range(5)] == [0, 1, 10, 35, 84]
    assert kernel.outputs[0].label(1) == "l=1 (-1,-1)"
    assert kernel.outputs[0].label(6) == "l=1 (0,+1)"
    assert all(len(o.labels) == o.size for o in kernel.operands.values())


@pytest.mark.parametrize("bad", [-1, 2.0, True])
def test_degrees_that_are_none(bad: object) -> None:
    with pytest.raises(IrrepsError, match=r"expected an integer >= 0"):
        wigner_d(bad)  # type: ignore[arg-type]


# ── rounding ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("lmax", "most"), [(4, 2e-6), (8, 4e-6)])
def test_float32(lmax: int, most: float) -> None:
    """Quaternions as float32 holds them: D grows as |q|^2l, so the reference is D of the same rounded quaternion."""
    q = np.random.default_rng(1).normal(size=(400, 4))
    q = (q / np.linalg.norm(q, axis=1, keepdims=True)).astype(np.float32)
    single, double = evaluate(lmax, q, np.float32), evaluate(lmax, q.astype(float))
    assert max(np.abs(a - b).max() for a, b in zip(single, double, strict=True)) < most


# ── reference values ─────────────────────────────────────────────────────────────────────────────


def from_angles(angles: np.ndarray) -> np.ndarray:
    """The quaternion of Ry(α)·Rx(β)·Ry(γ), angles (n, 3)."""
    out = []
    for row in angles.tolist():
        q = (1.0, 0.0, 0.0, 0.0)
        for angle, axis in zip(row, (2, 1, 2), strict=True):
            turn = [np.cos(angle / 2), 0.0, 0.0, 0.0]
            turn[axis] = np.sin(angle / 2)
            q = quaternion_product(q, tuple(turn))  # type: ignore[arg-type]
        out.append(q)
    return np.array(out)


def test_golden_matrices(shared: Path) -> None:
    golden = np.load(shared / "golden" / "e3nn_wigner_D.npz")
    for ours, theirs in (("quat_wxyz", "D"), ("sp_angles", "sp_D")):
        q = golden[ours] if ours == "quat_wxyz" else from_angles(golden[ours])
        for l, D in enumerate(evaluate(8, q)):
            assert np.abs(D - golden[f"{theirs}{l}"]).max() < 2e-13, (theirs, l)
    for q, R in zip(golden["quat_wxyz"], golden["R"], strict=True):
        exact = rotation_matrix(tuple(Fraction(float(v)) for v in q))  # type: ignore[arg-type]
        assert np.abs(np.array([[float(v) for v in row] for row in exact]) - R).max() < 1e-15


@pytest.fixture
def o3() -> Iterator[object]:
    """e3nn's o3 in double precision (its wigner_D builds generators in the default dtype)."""
    torch = pytest.importorskip("torch", reason="e3nn needs torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    torch.set_default_dtype(before)


def test_e3nn_to_degree_12(o3: Any) -> None:
    import torch

    angles = np.random.default_rng(2).uniform(-3, 3, size=(8, 3))
    for l, D in enumerate(evaluate(12, from_angles(angles))):
        theirs = o3.wigner_D(l, *(torch.from_numpy(a) for a in angles.T)).numpy()
        assert np.abs(D - theirs).max() < 2e-13, l
