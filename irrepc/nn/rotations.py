"""Rotations in their four forms: matrix, unit quaternion (w, x, y, z), axis and angle, Euler angles YXY.

All functions act on any leading shape. e3nn's conventions: R(α, β, γ) = R_y(α) R_x(β) R_y(γ), γ applied first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.nn.norm import safe_norm


def check_rotations(matrices: Tensor, tolerance: float = 1e-4) -> None:
    """Raise InputError unless `matrices` (..., 3, 3) are finite, orthogonal and of determinant +1."""
    if matrices.shape[-2:] != (3, 3) or not matrices.is_floating_point():
        raise InputError(f"rotation: got {tuple(matrices.shape)} of {matrices.dtype}; expected (..., 3, 3) floats")
    if matrices.numel() == 0:
        return
    with torch.no_grad():
        unit = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
        error = float((matrices @ matrices.mT - unit).abs().max())
        smallest = float(torch.linalg.det(matrices).min())
    if not (error <= tolerance and smallest > 0):
        raise InputError(
            f"rotation: got |R Rᵀ - 1| up to {error:.1e} and determinants down to {smallest:.3f}; expected at most "
            f"{tolerance:.0e} and +1; split off a reflection, and orthogonalise"
        )


def multiply_quaternions(a: Tensor, b: Tensor) -> Tensor:
    """The rotation b followed by a: (..., 4) -> (..., 4)."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        -1,
    )


def invert_quaternion(q: Tensor) -> Tensor:
    """The conjugate, which is the inverse of a unit quaternion: (..., 4) -> (..., 4)."""
    return torch.cat((q[..., :1], -q[..., 1:]), -1)


def quaternion_to_matrix(q: Tensor) -> Tensor:
    """Unit quaternions (..., 4) -> matrices (..., 3, 3)."""
    w, x, y, z = q.unbind(-1)
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_quaternion(matrices: Tensor) -> Tensor:
    """Rotations (..., 3, 3) -> unit quaternions (..., 4) with w >= 0; differentiable at every rotation.

    4 q qᵀ is linear in R; its row of the largest diagonal entry (4 q_k² >= 1) over 2 |q_k| is ± q (Shepperd 1978).
    Raises InputError as `check_rotations`.
    """
    check_rotations(matrices)
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrices.unbind(-2))
    rows = (
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    )
    products = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    row = products.gather(-2, largest.expand(*largest.shape[:-1], 4)).squeeze(-2)
    size = row.gather(-1, largest.squeeze(-1)).sqrt() * 2
    return row / torch.where(row[..., :1] < 0, -size, size)


def axis_angle_to_quaternion(axis: Tensor, angle: Tensor) -> Tensor:
    """Axes (..., 3) of any length but zero, angles (...) in radians -> unit quaternions (..., 4)."""
    unit = axis / axis.norm(dim=-1, keepdim=True)
    half = angle.unsqueeze(-1) / 2
    return torch.cat((half.cos().expand_as(unit[..., :1]), half.sin() * unit), -1)


def quaternion_to_axis_angle(q: Tensor) -> tuple[Tensor, Tensor]:
    """Unit quaternions (..., 4) -> unit axes (..., 3) and angles (...) in 0 ... π; the identity turns about y."""
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = safe_norm(q[..., 1:], -1)
    turned = (sine > 0).unsqueeze(-1)
    polar = torch.zeros_like(q[..., 1:]) + q.new_tensor([0.0, 1.0, 0.0])
    axis = torch.where(turned, q[..., 1:] / torch.where(turned, sine.unsqueeze(-1), torch.ones_like(polar)), polar)
    return axis, 2 * torch.atan2(sine, q[..., 0])


def euler_to_quaternion(alpha: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """Angles (...) in radians -> unit quaternions (..., 4) of R_y(α) R_x(β) R_y(γ)."""
    half, plus, minus = beta / 2, (alpha + gamma) / 2, (alpha - gamma) / 2
    return torch.stack(
        (half.cos() * plus.cos(), half.sin() * minus.cos(), half.cos() * plus.sin(), -half.sin() * minus.sin()), -1
    )


def matrix_to_euler(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations (..., 3, 3) -> (α, β, γ), each (...), β in 0 ... π; α is 0 where β is 0 or π.

    There the angles have no gradient (the quaternion has). Raises InputError as `check_rotations`.
    """
    check_rotations(matrices)
    x, y, z = matrices[..., 1].unbind(-1)
    alpha, beta = torch.atan2(x, z), torch.atan2(safe_norm(torch.stack((x, z), -1), -1), y)
    # R_y(-α) R turns nothing but x and z any more: its first row is that of R_x(β) R_y(γ), which β leaves alone
    rest = alpha.cos().unsqueeze(-1) * matrices[..., 0, :] - alpha.sin().unsqueeze(-1) * matrices[..., 2, :]
    return alpha, beta, torch.atan2(rest[..., 2], rest[..., 0])


def random_quaternions(count: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform over all rotations: (count, 4), on the generator's device."""
    normal: Tensor = torch.randn(count, 4, generator=generator, dtype=dtype, device=generator.device)
    length: Tensor = normal.norm(dim=1, keepdim=True)
    return normal / length


def random_rotations(count: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform over all rotations: (count, 3, 3), on the generator's device."""
    return quaternion_to_matrix(random_quaternions(count, generator, dtype))
