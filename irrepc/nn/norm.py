"""Norms of steerable features, and the layer norm made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.nn.linear import check_width


def safe_norm(v: Tensor, dim: int) -> Tensor:
    """√Σ v² along `dim`, with gradient zero where v is zero (a norm has none there, and sqrt would make it NaN)."""
    square = v.square().sum(dim)
    positive = square > 0
    # both branches must be finite: autograd multiplies the one not taken by zero, and 0 · ∞ is NaN
    return torch.where(
        positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square)
    )


def lengths_and_directions(v: Tensor) -> tuple[Tensor, Tensor]:
    """|v| (rows,) and v / |v| (rows, 3) of vectors (rows, 3); both zero, with gradient zero, where v is zero."""
    square = v.square().sum(1, keepdim=True)
    there = square > 0
    length = torch.where(there, square, torch.ones_like(square)).sqrt()
    return torch.where(there, length, 0.0).squeeze(1), torch.where(there, v / length, 0.0)


def irreps_norm(x: Tensor, irreps: Irreps) -> Tensor:
    """The length of each copy of each irrep: (rows, irreps.dim) ir_mul -> (rows, irreps.num_irreps)."""
    blocks = x.split_with_sizes([block.dim for block in irreps], 1)
    norms = [
        safe_norm(torch.unflatten(part, 1, (block.irrep.dim, block.mul)), 1)
        for part, block in zip(blocks, irreps, strict=True)
    ]
    return torch.cat(norms, 1) if norms else x.new_zeros(x.shape[0], 0)


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
        self._widths = tuple(b.dim for b in self.irreps)
        self._blocks = tuple((b.irrep.dim, b.mul) for b in self.irreps)
        self._channels = tuple(b.mul for b in self.irreps)
        self._scalars = tuple(b.irrep.is_scalar for b in self.irreps)
        self._biases = tuple(b.mul for b in self.irreps if b.irrep.is_scalar)
        self.weight = nn.Parameter(torch.ones(self.irreps.num_irreps, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(self.irreps.count("0e"), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps.dim) -> the same shape, ir_mul."""
        check_width("EquivariantLayerNorm", x, self.irreps)
        out, biases = [], iter(self.bias.split_with_sizes(self._biases))
        parts = zip(x.split_with_sizes(self._widths, 1), self.weight.split_with_sizes(self._channels), strict=True)
        for (part, weight), shape, scalar in zip(parts, self._blocks, self._scalars, strict=True):
            block = torch.unflatten(part, 1, shape)
            if scalar:
                block = block - block.mean(2, keepdim=True)
            scale = (block.square().mean((1, 2), keepdim=True) + self.eps).rsqrt()
            block = block * scale * weight
            out.append((block + next(biases) if scalar else block).flatten(1))
        return torch.cat(out, 1) if out else x

    def extra_repr(self) -> str:
        """Irreps, for repr."""
        return str(self.irreps)
