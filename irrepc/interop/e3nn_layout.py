"""The two memory layouts of steerable features: e3nn's mul_ir (component fast) and our ir_mul (channel fast)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.nn.closed_forms import is_transformed


def mul_ir_permutation(irreps: Irreps | str) -> Tensor:
    """(irreps.dim,) int64: for each place of an ir_mul row the place of the same number in the mul_ir row."""
    irreps = Irreps.of(irreps)
    pieces = [
        torch.arange(where.start, where.stop).view(block.mul, block.irrep.dim).T.reshape(-1)
        for block, where in zip(irreps, irreps.slices(), strict=True)
    ]
    return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.int64)


def from_e3nn(x: Tensor, irreps: Irreps | str) -> Tensor:
    """Features (..., irreps.dim) in e3nn's layout -> the same in ours."""
    return x.index_select(-1, mul_ir_permutation(irreps).to(x.device))


def to_e3nn(x: Tensor, irreps: Irreps | str) -> Tensor:
    """Features (..., irreps.dim) in our layout -> the same in e3nn's."""
    return x.index_select(-1, torch.argsort(mul_ir_permutation(irreps)).to(x.device))


class Relayout(nn.Module):
    """Rows of one layout -> the other, with a gather forward and a gather backward, for layers that do it every call.

    to_e3nn  True: ours -> e3nn's; False: e3nn's -> ours
    """

    def __init__(self, irreps: Irreps | str, *, to_e3nn: bool) -> None:
        super().__init__()
        order = mul_ir_permutation(irreps)
        inverse = torch.argsort(order)
        self.same = bool(torch.equal(order, inverse) and torch.equal(order, torch.arange(len(order))))
        self.register_buffer("order", inverse if to_e3nn else order, persistent=False)
        self.register_buffer("inverse", order if to_e3nn else inverse, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps.dim) -> the same shape; the same tensor where both layouts are equal."""
        if self.same:
            return x
        order, inverse = self.get_buffer("order"), self.get_buffer("inverse")
        if is_transformed():
            return x.index_select(1, order)
        y: Tensor = _Permuted.apply(x, order, inverse)  # type: ignore[no-untyped-call]
        return y


class _Permuted(torch.autograd.Function):
    """Columns in another order; torch's own backward of index_select adds into zeros, twice as slow as a gather."""

    @staticmethod
    def forward(x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return x.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Permuted.apply(g, inverse, order), None, None  # type: ignore[no-untyped-call]
