"""Dropout that keeps symmetry: whole copies of irreps are dropped, or all that a structure receives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError


class EquivariantDropout(nn.Module):
    """In training every copy of an irrep is dropped with this probability, the others grow by 1/(1 - rate)."""

    def __init__(self, irreps: Irreps | str, rate: float) -> None:
        super().__init__()
        self.irreps, self.rate = Irreps.of(irreps), check_rate("dropout", rate)

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        """Features apart (irrepc/nn/block_linear.py), all or the first of them -> the same shapes."""
        if not self.training or not self.rate:
            return blocks
        out = []
        for x, b in zip(blocks, self.irreps, strict=False):
            parts = x.view(x.shape[0] // b.irrep.dim, b.irrep.dim, b.mul)
            kept = F.dropout(x.new_ones(parts.shape[0], 1, b.mul), self.rate)
            out.append((parts * kept).view(x.shape))
        return out

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.irreps}, rate={self.rate}"


class PathDropout(nn.Module):
    """In training a branch is dropped for a whole structure with this probability (Huang 2016, stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = check_rate("path dropout", rate)

    def forward(self, blocks: list[Tensor], batch: Tensor, structures: int) -> list[Tensor]:
        """Features of the atoms apart, batch (N,) counting into the structures -> the same shapes."""
        if not self.training or not self.rate:
            return blocks
        kept = F.dropout(blocks[0].new_ones(structures, 1), self.rate).index_select(0, batch)
        return [(x.view(batch.shape[0], x.numel() // max(batch.shape[0], 1)) * kept).view(x.shape) for x in blocks]

    def extra_repr(self) -> str:
        """For repr."""
        return f"rate={self.rate}"


class ChannelDropout(nn.Module):
    """In training a channel of an atom is dropped, all its components at once, with this probability."""

    def __init__(self, channels: int, rate: float) -> None:
        super().__init__()
        self.channels, self.rate = channels, check_rate("channel dropout", rate)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, components·channels), channels fast -> the same shape."""
        if not self.training or not self.rate:
            return x
        kept = F.dropout(x.new_ones(x.shape[0], 1, self.channels), self.rate)
        return (torch.unflatten(x, 1, (-1, self.channels)) * kept).flatten(1)

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.channels} channels, rate={self.rate}"


def check_rate(what: str, rate: float) -> float:
    """Return a rate from 0 to 1, 1 excluded; raise InputError otherwise."""
    if not 0 <= rate < 1:
        raise InputError(f"{what}: got rate {rate!r}; expected 0 <= rate < 1")
    return rate
