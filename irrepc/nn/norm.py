"""Norms of steerable features, and the layer norm made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.nn.graph import InputError


def safe_norm(v: Tensor, dim: int) -> Tensor:
    """√Σ v² along `dim`, with gradient zero where v is zero (a norm has none there, and sqrt would make it NaN)."""
    square = v.square().sum(dim)
    positive = square > 0
    # both branches must be finite: autograd multiplies the one not taken by zero, and 0 · ∞ is NaN
    return torch.where(positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square))


def irreps_norm(x: Tensor, irreps: Irreps) -> Tensor:
    """The length of each copy of each irrep: (rows, irreps.dim) ir_mul -> (rows, irreps.num_irreps)."""
    rows = x.shape[0]
    norms = [
        safe_norm(x[:, where].reshape(rows, block.irrep.dim, block.mul), 1)
        for block, where in zip(irreps, irreps.slices(), strict=True)
    ]
    return torch.cat(norms, 1) if norms else x.new_zeros(rows, 0)


class EquivariantLayerNorm(nn.Module):
    """Each block over its mean square: x · w / √(mean over channels and components of x² + ε) (Liao 2023, appendix).

    0e blocks are centred over their channels first and shifted by a bias last. Blocks of other irreps cannot be
    centred: their mean is a tensor, not a number.

    weight  (num_irreps,), ones at first
    bias    (channels of 0e blocks,), zeros at first
    """

    def __init__(self, irreps: Irreps | str, *, eps: float = 1e-5, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.irreps, self.eps = Irreps.of(irreps), eps
        self._width = self.irreps.dim
        self._blocks = tuple(
            (where.start, where.stop, block.irrep.dim, block.mul, block.irrep.is_scalar)
            for block, where in zip(self.irreps, self.irreps.slices(), strict=True)
            if block.mul
        )
        self.weight = nn.Parameter(torch.ones(self.irreps.num_irreps, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(self.irreps.count("0e"), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps.dim) -> the same shape, ir_mul."""
        rows = x.shape[0]
        if x.shape[1:] != (self._width,):
            raise InputError(f"EquivariantLayerNorm: got shape {tuple(x.shape)}; expected (rows, {self._width})")
        out, channel, scalar = [], 0, 0
        for start, stop, components, mul, centred in self._blocks:
            block = x[:, start:stop].reshape(rows, components, mul)
            if centred:
                block = block - block.mean(2, keepdim=True)
            scale = (block.square().mean((1, 2), keepdim=True) + self.eps).rsqrt()
            block = block * scale * self.weight[channel : channel + mul]
            if centred:
                block = block + self.bias[scalar : scalar + mul]
                scalar += mul
            out.append(block.reshape(rows, components * mul))
            channel += mul
        return torch.cat(out, 1) if out else x

    def extra_repr(self) -> str:
        """Irreps, for repr."""
        return str(self.irreps)
