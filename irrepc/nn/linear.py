"""Linear: the equivariant linear map, one dense matrix for each pair of equal irreps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.nn.graph import InputError


class _Source(NamedTuple):
    """An input block that feeds an output block: where it lies in the row, and its matrix in the flat weight."""

    start: int
    stop: int
    mul: int
    weight: int


class _Target(NamedTuple):
    """An output block; bias is its place in the flat bias, or -1."""

    components: int
    mul: int
    scale: float
    sources: tuple[_Source, ...]
    bias: int


class Linear(nn.Module):
    """y_v = Σ_u W_uv x_u / √fan_in + b_v, within each irrep, as e3nn's o3.Linear with the same weights.

    weight  flat, as e3nn: for each input block, for each output block of the same irrep, a matrix (mul_in, mul_out)
    bias    flat, one number for each channel of the 0e output blocks (only with bias=True)

    The fan-in of an output block is the number of all input channels that feed it. An output block that nothing feeds
    is zero. Raises IrrepsError for irreps that cannot be read.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_out: Irreps | str,
        *,
        bias: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps.of(irreps_in), Irreps.of(irreps_out)
        self._width = self.irreps_in.dim
        self._targets, self.weight_numel, biases = _plan(self.irreps_in, self.irreps_out, bias)
        self.weight = nn.Parameter(torch.randn(self.weight_numel, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(biases, dtype=dtype)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps_in.dim) -> (rows, irreps_out.dim), both ir_mul."""
        rows = x.shape[0]
        if x.shape[1:] != (self._width,):
            raise InputError(f"Linear: got shape {tuple(x.shape)}; expected (rows, {self._width}) of {self.irreps_in}")
        out = []
        for target in self._targets:
            if not target.sources:
                out.append(x.new_zeros(rows, target.components * target.mul))
                continue
            parts = [x[:, s.start : s.stop].reshape(rows, target.components, s.mul) for s in target.sources]
            matrices = [
                self.weight[s.weight : s.weight + s.mul * target.mul].view(s.mul, target.mul) for s in target.sources
            ]
            features = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
            matrix = matrices[0] if len(matrices) == 1 else torch.cat(matrices)
            y = features.reshape(rows * target.components, matrix.shape[0]) @ (matrix * target.scale)
            if self.bias is not None and target.bias >= 0:
                y = y + self.bias[target.bias : target.bias + target.mul]
            out.append(y.view(rows, target.components * target.mul))
        return torch.cat(out, 1) if out else x.new_zeros(rows, 0)

    def extra_repr(self) -> str:
        """Irreps and the number of weights, for repr."""
        return f"{self.irreps_in} -> {self.irreps_out}, {self.weight_numel} weights"


def _plan(irreps_in: Irreps, irreps_out: Irreps, bias: bool) -> tuple[tuple[_Target, ...], int, int]:
    sources: list[list[_Source]] = [[] for _ in irreps_out]
    offset = biases = 0
    for block, where in zip(irreps_in, irreps_in.slices(), strict=True):
        for k, target in enumerate(irreps_out):
            if block.irrep == target.irrep and block.mul and target.mul:
                sources[k].append(_Source(where.start, where.stop, block.mul, offset))
                offset += block.mul * target.mul
    targets = []
    for block, feeding in zip(irreps_out, sources, strict=True):
        fan_in = sum(s.mul for s in feeding)
        has_bias = bias and block.irrep.is_scalar
        scale = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
        targets.append(_Target(block.irrep.dim, block.mul, scale, tuple(feeding), biases if has_bias else -1))
        biases += block.mul if has_bias else 0
    return tuple(targets), offset, biases
