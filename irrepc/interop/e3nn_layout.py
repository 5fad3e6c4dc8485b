"""The two memory layouts of steerable features: e3nn's mul_ir (component fast) and our ir_mul (channel fast)."""

from __future__ import annotations

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps


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
