"""Rotations: e3nn's conventions, all branches, and gradients that stay finite."""

import math

import pytest
import torch
from e3nn import o3
from torch import Tensor

from irrepc.errors import InputError
from irrepc.nn.rotations import (
    axis_angle_to_quaternion,
    check_rotations,
    euler_to_quaternion,
    invert_quaternion,
    matrix_to_euler,
    matrix_to_quaternion,
    multiply_quaternions,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
    random_quaternions,
    random_rotations,
)

HALF_TURNS = [[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0.8, 0], [0, 0.6, 0, 0.8], [0, 0, -0.6, 0.8]]
SPECIAL = torch.tensor([[1.0, 0, 0, 0], *HALF_TURNS], dtype=torch.float64)
NEARLY = torch.nn.functional.normalize(SPECIAL + 1e-9 * torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64), dim=1)


def some(count: int = 50, seed: int = 0) -> Tensor:
    return random_quaternions(count, torch.Generator().manual_seed(seed))


def assert_same_rotation(a: Tensor, b: Tensor, tolerance: float = 1e-14) -> None:
    sign = torch.where((a * b).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    torch.testing.assert_close(a, sign * b, rtol=0, atol=tolerance)


def test_random_quaternions_are_uniform_and_repeat_with_the_seed() -> None:
    q = some(20000)
    torch.testing.assert_close(q.norm(dim=1), torch.ones(20000, dtype=torch.float64), rtol=0, atol=1e-14)
    mean = random_rotations(20000, torch.Generator().manual_seed(3)).mean(0)
    assert float(mean.abs().max()) < 0.02
    second = (q[:, :, None] * q[:, None, :]).mean(0)
    torch.testing.assert_close(second, torch.eye(4, dtype=torch.float64) / 4, rtol=0, atol=0.01)
    assert torch.equal(q, some(20000))
    assert not torch.equal(q, some(20000, seed=1))


def test_matrices_are_e3nns_and_proper() -> None:
    angles = torch.rand(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 6 - 3
    ours = quaternion_to_matrix(euler_to_quaternion(*angles))
    torch.testing.assert_close(ours, o3.angles_to_matrix(*angles), rtol=0, atol=1e-14)
    check_rotations(ours)


@pytest.mark.parametrize("q", [some(), SPECIAL, NEARLY], ids=["any", "half turns", "nearly half turns"])
def test_matrix_to_quaternion_in_all_branches(q: Tensor) -> None:
    found = matrix_to_quaternion(quaternion_to_matrix(q))
    assert_same_rotation(found, q)
    assert (found[:, 0] >= 0).all()


@pytest.mark.parametrize("q", [some(6), SPECIAL, NEARLY], ids=["any", "half turns", "nearly half turns"])
def test_matrix_to_quaternion_is_differentiable_everywhere(q: Tensor) -> None:
    # along rotations exp(t·axis) R: the derivative of the quaternion is half the axis times q
    axis = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)

    def turned(t: Tensor) -> Tensor:
        small = torch.cat(((t / 2).cos()[:, None], (t / 2).sin()[:, None] * axis / axis.norm()), 1)
        return matrix_to_quaternion(quaternion_to_matrix(multiply_quaternions(small, q)))

    zero = torch.zeros(len(q), dtype=torch.float64)
    found = turned(zero)
    tangent = torch.autograd.functional.jacobian(turned, zero).diagonal(dim1=0, dim2=2).T
    generator = torch.cat((torch.zeros(1, dtype=torch.float64), axis / axis.norm() / 2))
    torch.testing.assert_close(tangent, multiply_quaternions(generator.expand_as(found), found), rtol=0, atol=1e-12)


def test_products_and_inverses_are_those_of_the_matrices() -> None:
    a, b = some(seed=1), some(seed=2)
    torch.testing.assert_close(
        quaternion_to_matrix(multiply_quaternions(a, b)), quaternion_to_matrix(a) @ quaternion_to_matrix(b)
    )
    torch.testing.assert_close(quaternion_to_matrix(invert_quaternion(a)), quaternion_to_matrix(a).mT)


def test_axis_and_angle_go_both_ways_and_are_e3nns() -> None:
    axis = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angle = torch.linspace(0.01, 3.1, 30, dtype=torch.float64)
    q = axis_angle_to_quaternion(axis, angle)
    torch.testing.assert_close(q, o3.axis_angle_to_quaternion(axis, angle), rtol=0, atol=1e-14)
    unit, back = quaternion_to_axis_angle(-q)
    torch.testing.assert_close(unit, axis / axis.norm(dim=1, keepdim=True), rtol=0, atol=1e-12)
    torch.testing.assert_close(back, angle, rtol=0, atol=1e-12)


def test_the_identity_has_an_axis_and_a_finite_gradient() -> None:
    q = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    axis, angle = quaternion_to_axis_angle(q)
    assert axis.tolist() == [[0.0, 1.0, 0.0]]
    assert angle.tolist() == [0.0]
    (gradient,) = torch.autograd.grad(axis.sum() + angle.sum(), q)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("q", [some(), SPECIAL, NEARLY], ids=["any", "half turns", "nearly half turns"])
def test_euler_angles_go_both_ways(q: Tensor) -> None:
    alpha, beta, gamma = matrix_to_euler(quaternion_to_matrix(q))
    assert_same_rotation(euler_to_quaternion(alpha, beta, gamma), q, 1e-12)
    assert ((beta >= 0) & (beta <= math.pi)).all()


def test_euler_angles_are_e3nns() -> None:
    matrices = quaternion_to_matrix(some())
    for ours, theirs in zip(matrix_to_euler(matrices), o3.matrix_to_angles(matrices), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)  # theirs takes an arc cosine


@pytest.mark.parametrize("function", [quaternion_to_matrix, invert_quaternion])
def test_empty_and_batched_shapes(function: object) -> None:
    assert function(torch.zeros(0, 4)).shape[0] == 0  # type: ignore[operator]
    assert function(some(6).view(2, 3, 4)).shape[:2] == (2, 3)  # type: ignore[operator]
    assert matrix_to_quaternion(torch.eye(3).expand(2, 3, 3, 3)).shape == (2, 3, 4)
    assert matrix_to_quaternion(torch.zeros(0, 3, 3)).shape == (0, 4)


@pytest.mark.parametrize(
    "matrix", [-torch.eye(3), 1.01 * torch.eye(3), torch.full((3, 3), float("nan")), torch.eye(2), torch.eye(3).long()]
)
def test_what_is_no_rotation_is_refused(matrix: Tensor) -> None:
    with pytest.raises(InputError, match="rotation: got"):
        matrix_to_quaternion(matrix)
    with pytest.raises(InputError, match="rotation: got"):
        matrix_to_euler(matrix)
