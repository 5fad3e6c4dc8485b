"""BlockLinear: an equivariant linear map of features whose irreps lie apart, one matrix product for each.

Features apart are a list with a contiguous matrix (rows · (2l + 1), channels) for each block of their irreps: a linear
map reads and writes them without a copy. The fan-in is part of the weights (LinearRS of Equiformer's authors), so
nothing is scaled at run time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.errors import IrrepsError
from irrepc.nn.linear import joined


def apart(x: Tensor, irreps: Irreps) -> list[Tensor]:
    """(rows, irreps.dim), ir_mul -> a matrix (rows · (2l + 1), mul) for each block."""
    parts = x.split_with_sizes([b.dim for b in irreps], 1)
    return [part.reshape(x.shape[0] * b.irrep.dim, b.mul) for part, b in zip(parts, irreps, strict=True)]


def together(blocks: Sequence[Tensor], irreps: Irreps) -> Tensor:
    """Features apart -> (rows, irreps.dim), ir_mul."""
    rows = blocks[0].shape[0] // irreps[0].irrep.dim
    return joined([part.view(rows, b.dim) for part, b in zip(blocks, irreps, strict=True)], 1)


class Feed(NamedTuple):
    """Where an output block comes from: the numbers of an input block and of a matrix, and whether a bias is added."""

    block: int
    matrix: int
    biased: bool


class BlockLinear(nn.Module):
    """y_v = Σ_u W_uv x_u + b_v within each irrep; each irrep stands in one block of either side.

    weight  flat: for each input block whose irrep comes out too, a matrix (mul_in, mul_out); of variance 1/mul_in
    bias    (channels of the 0e output block,), zeros at first

    An output block that nothing feeds is zero. Raises IrrepsError where an irrep stands in two blocks.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_out: Irreps | str,
        *,
        bias: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps.of(irreps_in), Irreps.of(irreps_out)
        for side in (self.irreps_in, self.irreps_out):
            if len({b.irrep for b in side}) != len(side):
                raise IrrepsError(f"BlockLinear: got {side}; expected each irrep once; do: sort and simplify")
        outs, ins = ({b.irrep: b.mul for b in side} for side in (self.irreps_out, self.irreps_in))
        self._shapes = tuple((b.mul, outs[b.irrep]) for b in self.irreps_in if b.irrep in outs)
        self._sizes = tuple(n * m for n, m in self._shapes)
        shared = [b.irrep for b in self.irreps_in if b.irrep in outs]
        sources = {b.irrep: k for k, b in enumerate(self.irreps_in)}
        self.feeds = tuple(
            Feed(sources[b.irrep], shared.index(b.irrep), bias and b.irrep.is_scalar) if b.irrep in ins else None
            for b in self.irreps_out
        )
        self.weight_numel = sum(self._sizes)
        pieces = [torch.randn(n * m, dtype=dtype) / math.sqrt(n) for n, m in self._shapes]
        self.weight = nn.Parameter(joined(pieces, 0) if pieces else torch.zeros(0, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(self.irreps_out.count("0e"), dtype=dtype)) if bias else None

    def matrices(self) -> list[Tensor]:
        """Views of the weight, (mul_in, mul_out), one for each irrep of both sides, in the order of the input."""
        pieces = self.weight.split_with_sizes(self._sizes)
        return [w.view(shape) for w, shape in zip(pieces, self._shapes, strict=True)]

    def forward(self, blocks: Sequence[Tensor], read: int | None = None) -> list[Tensor]:
        """Features of irreps_in apart -> features of irreps_out apart: its first `read` blocks, by default all.

        Blocks of the input that those do not need may be left out at the end.
        """
        matrices, out = self.matrices(), []
        for feed, block in zip(self.feeds[:read], self.irreps_out.blocks[:read], strict=True):
            if feed is None:
                rows = blocks[0].shape[0] // self.irreps_in[0].irrep.dim
                out.append(blocks[0].new_zeros(rows * block.irrep.dim, block.mul))
            elif feed.biased and self.bias is not None:
                out.append(torch.addmm(self.bias, blocks[feed.block], matrices[feed.matrix]))
            else:
                out.append(blocks[feed.block] @ matrices[feed.matrix])
        return out

    def extra_repr(self) -> str:
        """Irreps and the number of weights, for repr."""
        return f"{self.irreps_in} -> {self.irreps_out}, {self.weight_numel} weights"
