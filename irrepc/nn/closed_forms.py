"""Closed forms: functions of distances and invariants with their derivatives written down, each one node of autograd.

Torch finds the same derivatives operation by operation, and for training on forces again through each of those: dozens
of small calls for each of these functions.  What is said here of a derivative is differentiable itself, so there is no
highest order.  Compilers and torch.func, which cannot take nodes of autograd apart, get the plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from irrepc.runtime.ops import TRANSFORMED


def is_transformed() -> bool:
    """Whether torch.compile or torch.func looks at what is called now."""
    return torch.compiler.is_compiling() or TRANSFORMED()


def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x)), any shape."""
    if is_transformed() or not (x.requires_grad and torch.is_grad_enabled()):
        return F.silu(x)
    y: Tensor = _silu(x)
    return y


def fade(x: Tensor, p: int) -> Tensor:
    """1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) for x < 1, and 0 from there on; any shape."""
    y: Tensor = _faded(x, p) if is_transformed() else _fade(x, p)
    return y


def sines(r: Tensor, k: Tensor) -> Tensor:
    """sin(k_n r) / r of distances r (E,) and wave numbers k (n,): (E, n); at r = 0 it is k_n, with gradient zero."""
    if is_transformed() or k.requires_grad:  # trained wave numbers are left to torch
        r = r.unsqueeze(-1)
        # torch.sinc would do, were its second derivative at zero not NaN
        there = r > 0
        length = torch.where(there, r, torch.ones_like(r))
        return torch.where(there, torch.sin(length * k) / length, k)
    y: Tensor = _sines(r, k)
    return y


def length_and_direction(v: Tensor) -> tuple[Tensor, Tensor]:
    """|v| (rows,) and v / |v| (rows, 3) of vectors (rows, 3); both zero, with gradient zero, where v is zero."""
    if is_transformed():
        square = v.square().sum(1, keepdim=True)
        there = square > 0
        length = torch.where(there, square, torch.ones_like(square)).sqrt()
        return torch.where(there, length, 0.0).squeeze(1), torch.where(there, v / length, 0.0)
    found: tuple[Tensor, Tensor] = _length_and_direction(v)
    return found


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return _silu_slope(g, x)


class _SiluSlope(torch.autograd.Function):
    """g · silu'(x)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Any:
        ctx.save_for_backward(g, x)
        return torch.ops.aten.silu_backward(g, x)

    @staticmethod
    def backward(ctx: Any, h: Tensor) -> Any:
        g, x = ctx.saved_tensors
        of_g = _silu_slope(h, x) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_g, None
        s = torch.sigmoid(x)  # silu'' = s (1 - s) (2 + x (1 - 2 s))
        bend = torch.addcmul(s * 2, x, s * (1 - 2 * s)) * (1 - s)
        return of_g, g * h * bend


class _Fade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: int) -> Tensor:
        ctx.p = p
        ctx.save_for_backward(x)
        return _faded(x, p)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        p = ctx.p
        slope = _power(x, p - 1) * (1 - x).square() * (-p * (p + 1) * (p + 2) / 2)
        return torch.where(x < 1, g * slope, 0.0), None


class _Sines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: Tensor, k: Tensor) -> Tensor:
        length = torch.where(r > 0, r, torch.inf).unsqueeze(1)
        y = torch.sin(r.unsqueeze(1) * k) / length
        y = torch.where(r.unsqueeze(1) > 0, y, k)
        ctx.save_for_backward(r, k, y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        r, k, y = ctx.saved_tensors
        length = torch.where(r > 0, r, torch.inf)
        # (k cos kr - sin(kr) / r) / r
        slopes = torch.cos(r.unsqueeze(1) * k) * k - y
        return (g * slopes).sum(1) / length, None


class _LengthAndDirection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Any:
        length = torch.linalg.vector_norm(v, dim=1)
        direction = v / torch.where(length > 0, length, torch.inf).unsqueeze(1)
        ctx.save_for_backward(length, direction)
        ctx.set_materialize_grads(False)
        return length, direction

    @staticmethod
    def backward(ctx: Any, of_length: Tensor | None, of_direction: Tensor | None) -> Any:
        length, direction = ctx.saved_tensors
        along = None if of_length is None else of_length.unsqueeze(1)
        if of_direction is None:
            return None if along is None else direction * along
        far = torch.where(length > 0, length, torch.inf).unsqueeze(1)
        across = of_direction / far
        inward = (across * direction).sum(1, keepdim=True)
        return across + direction * (-inward if along is None else along - inward)


_silu: Callable[..., Any] = _Silu.apply
_silu_slope: Callable[..., Any] = _SiluSlope.apply
_fade: Callable[..., Any] = _Fade.apply
_sines: Callable[..., Any] = _Sines.apply
_length_and_direction: Callable[..., Any] = _LengthAndDirection.apply


def _faded(x: Tensor, p: int) -> Tensor:
    a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    return torch.where(x < 1, 1 - _power(x, p) * (a - x * (b - c * x)), 0.0)


def _power(x: Tensor, p: int) -> Tensor:
    """x^p for p >= 1 by squaring, which is faster than torch's power, and more exact."""
    result, square = None, x
    while True:
        if p % 2:
            result = square if result is None else result * square
        p //= 2
        if not p:
            assert result is not None
            return result
        square = square * square
