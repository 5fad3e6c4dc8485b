"""Norms of steerable features, and the layer norm made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Irreps
from irrepc.nn.block_linear import apart, together
from irrepc.nn.closed_forms import length_and_direction
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
    return length_and_direction(v)


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
        self._channels = tuple(b.mul for b in self.irreps)
        self._biases = tuple(b.mul for b in self.irreps if b.irrep.is_scalar)
        self.weight = nn.Parameter(torch.ones(self.irreps.num_irreps, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(self.irreps.count("0e"), dtype=dtype))

    def apart(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Features apart, (rows · (2l + 1), mul) for each block, or for the first of them -> the same shapes."""
        out, biases = [], iter(self.bias.split_with_sizes(self._biases))
        for x, weight, b in zip(blocks, self.weight.split_with_sizes(self._channels), self.irreps, strict=False):
            if b.irrep.is_scalar:
                out.append(F.layer_norm(x, (b.mul,), weight, next(biases), self.eps))
                continue
            whole = x.view(x.shape[0] // b.irrep.dim, b.dim)
            scale = (whole.square().mean(1, keepdim=True) + self.eps).rsqrt()
            out.append((whole * scale).view(x.shape) * weight)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps.dim) -> the same shape, ir_mul."""
        check_width("EquivariantLayerNorm", x, self.irreps)
        return together(self.apart(apart(x, self.irreps)), self.irreps) if len(self.irreps) else x

    def extra_repr(self) -> str:
        """Irreps, for repr."""
        return str(self.irreps)
