"""Edge frames: they turn ŷ into the edge, and neither they nor their gradients fail anywhere on the sphere."""

import pytest
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.nn.frames import directions, edge_frames, frame_quaternions
from irrepc.nn.rotations import quaternion_to_matrix

POLAR = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
AXES = torch.tensor([[0.0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)


def near(point: Tensor, distance: float) -> Tensor:
    steps = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.nn.functional.normalize(point + distance * steps, dim=1)


SPHERE = near(torch.zeros(3, dtype=torch.float64), 1.0)
PLACES = {"sphere": SPHERE, "axes": AXES} | {
    f"{name} {distance}": near(sign * POLAR, distance)
    for name, sign in (("north", 1), ("south", -1))
    for distance in (1e-3, 1e-8, 1e-12, 1e-160)
}


@pytest.mark.parametrize("place", PLACES)
def test_the_frame_turns_the_polar_axis_into_the_edge(place: str) -> None:
    n = PLACES[place]
    q = frame_quaternions(n)
    torch.testing.assert_close(q.norm(dim=1), torch.ones(len(n), dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(quaternion_to_matrix(q) @ POLAR, n, rtol=0, atol=1e-14)
    torch.testing.assert_close(edge_frames(3.7 * n), q, rtol=0, atol=1e-14)


@pytest.mark.parametrize("place", [p for p in PLACES if p != "axes"])
def test_gradients_of_two_orders_agree_with_differences(place: str) -> None:
    # away from the equator, where the frame jumps on purpose
    n = PLACES[place]
    r = (n[n[:, 1].abs() > 1e-2][:4] * 1.3).requires_grad_()
    assert torch.autograd.gradcheck(edge_frames, (r,), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(edge_frames, (r,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", PLACES)
def test_gradients_are_finite_and_of_ordinary_size(place: str, dtype: torch.dtype) -> None:
    r = PLACES[place].to(dtype).requires_grad_()
    q = edge_frames(r)
    (first,) = torch.autograd.grad((q * torch.arange(1.0, 5.0, dtype=dtype)).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), r)
    for gradient in (first, second):
        assert torch.isfinite(gradient).all()
        assert float(gradient.detach().abs().max()) < 1e3


def test_the_pole_turns_with_the_edge() -> None:
    # at the pole itself a small step of the edge must turn the frame about the perpendicular axis
    r = POLAR.clone()[None].requires_grad_()
    jacobian = torch.autograd.functional.jacobian(edge_frames, r)[0, :, 0]
    expected = torch.tensor([[0.0, 0, 0], [0, 0, 0.5], [0, 0, 0], [-0.5, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-15)


def test_across_the_equator_frames_differ_by_a_turn_about_the_edge() -> None:
    upper = torch.nn.functional.normalize(torch.tensor([[0.6, 1e-9, 0.8]], dtype=torch.float64))
    lower = upper * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    a, b = quaternion_to_matrix(frame_quaternions(upper))[0], quaternion_to_matrix(frame_quaternions(lower))[0]
    torch.testing.assert_close(a[:, 1], b[:, 1], rtol=0, atol=1e-8)
    assert float((a - b).abs().max()) > 0.1
    roll = a.T @ b
    torch.testing.assert_close(roll[1], POLAR, rtol=0, atol=1e-8)


def test_a_zero_edge_is_refused_or_masked() -> None:
    r = torch.tensor([[0.0, 0, 0], [0, 0, 2.0]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(InputError, match="length 0"):
        edge_frames(r)
    mask = torch.tensor([False, True])
    n, length = directions(r, mask)
    assert n.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert length.tolist() == [0.0, 2.0]
    (first,) = torch.autograd.grad(edge_frames(r, mask).square().sum() + length.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), r)
    assert first[0].tolist() == second[0].tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(first).all() and torch.isfinite(second).all()


def test_a_masked_edge_may_hold_anything() -> None:
    r = torch.tensor([[float("nan"), 0, 0], [0, 0, 2.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(edge_frames(r, torch.tensor([False, True])).sum(), r)
    assert torch.isfinite(gradient).all()


def test_no_edges_and_compiling() -> None:
    assert edge_frames(torch.zeros(0, 3)).shape == (0, 4)
    compiled = torch.compile(edge_frames, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(SPHERE), edge_frames(SPHERE))
