"""Dropout that keeps symmetry: whole copies of irreps are dropped, or all that a structure receives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.nn.linear import joined


class EquivariantDropout(nn.Module):
    """In training every copy of an irrep is dropped with this probability, the others grow by 1/(1 - rate)."""

    def __init__(self, irreps: Irreps | str, rate: float) -> None:
        super().__init__()
        self.irreps, self.rate = Irreps.of(irreps), check_rate("dropout", rate)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps.dim) -> the same shape, ir_mul."""
        if not self.training or not self.rate:
            return x
        kept = F.dropout(x.new_ones(x.shape[0], self.irreps.num_irreps), self.rate)
        blocks = x.split_with_sizes([b.dim for b in self.irreps], 1)
        masks = kept.split_with_sizes([b.mul for b in self.irreps], 1)
        out = [
            (torch.unflatten(part, 1, (b.irrep.dim, b.mul)) * mask.unsqueeze(1)).flatten(1)
            for part, mask, b in zip(blocks, masks, self.irreps, strict=True)
        ]
        return joined(out, 1)

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.irreps}, rate={self.rate}"


class PathDropout(nn.Module):
    """In training a branch is dropped for a whole structure with this probability (Huang 2016, stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = check_rate("path dropout", rate)

    def forward(self, x: Tensor, batch: Tensor, structures: int) -> Tensor:
        """x (N, width) with batch (N,) counting into the structures -> the same shape."""
        if not self.training or not self.rate:
            return x
        kept = F.dropout(x.new_ones(structures, 1), self.rate)
        return x * kept.index_select(0, batch)

    def extra_repr(self) -> str:
        """For repr."""
        return f"rate={self.rate}"


def check_rate(what: str, rate: float) -> float:
    """Return a rate from 0 to 1, 1 excluded; raise InputError otherwise."""
    if not 0 <= rate < 1:
        raise InputError(f"{what}: got rate {rate!r}; expected 0 <= rate < 1")
    return rate
