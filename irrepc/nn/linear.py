"""Linear and SpeciesLinear: equivariant linear maps, one dense matrix for each pair of equal irreps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.nn.kept import Kept


class _Target(NamedTuple):
    """An output block, the numbers of the input blocks and of the matrices that feed it, and its place in the bias."""

    components: int
    mul: int
    scale: float
    blocks: tuple[int, ...]
    matrices: tuple[int, ...]
    bias: int | None


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
        self._targets, self._shapes, self._biases = _plan(self.irreps_in, self.irreps_out)
        self._widths = tuple(b.dim for b in self.irreps_in)
        self._sizes = tuple(n * m for n, m in self._shapes)
        self.weight_numel = sum(self._sizes)
        self.weight = nn.Parameter(torch.randn(self.weight_numel, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(sum(self._biases), dtype=dtype)) if bias else None
        self._matrices: Kept[list[Tensor]] = Kept()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps_in.dim) -> (rows, irreps_out.dim), both ir_mul."""
        rows = x.shape[0]
        check_width("Linear", x, self.irreps_in)
        # split, not slices: its backward writes each gradient once, that of a slice fills the whole row with zeros
        blocks = x.split_with_sizes(self._widths, 1)
        matrices = self._matrices((self.weight,), self.matrices)
        biases = () if self.bias is None else self.bias.split_with_sizes(self._biases)
        out = []
        for target, matrix in zip(self._targets, matrices, strict=True):
            if not target.blocks:
                out.append(x.new_zeros(rows, target.components * target.mul))
                continue
            features = joined([torch.unflatten(blocks[k], 1, (target.components, -1)) for k in target.blocks], 2)
            y = features.reshape(rows * target.components, matrix.shape[0]) @ matrix
            if target.bias is not None and biases:
                y = y + biases[target.bias]
            out.append(y.view(rows, target.components * target.mul))
        return joined(out, 1) if out else x.new_zeros(rows, 0)

    def matrices(self) -> list[Tensor]:
        """W / √fan_in of each output block, (fan_in, mul)."""
        parts = [
            w.view(shape) for w, shape in zip(self.weight.split_with_sizes(self._sizes), self._shapes, strict=True)
        ]
        none = self.weight.new_zeros(0, 0)
        return [joined([parts[k] for k in t.matrices], 0) * t.scale if t.matrices else none for t in self._targets]

    def extra_repr(self) -> str:
        """Irreps and the number of weights, for repr."""
        return f"{self.irreps_in} -> {self.irreps_out}, {self.weight_numel} weights"


class SpeciesLinear(nn.Module):
    """y_v = Σ_uf W_ufv x_u a_f / √(fan_in · F): a linear map for each species, made from its embedding a.

    Equal to e3nn's FullyConnectedTensorProduct(irreps_in, Fx0e, irreps_out) of x and a[species], with the same weights,
    but the matrices Σ_f W_ufv a_f are made once for each species, not once for each atom.

    weight  flat, for each input block, for each output block of the same irrep, an array (mul_in, F, mul_out)
    """

    def __init__(
        self, irreps_in: Irreps | str, irreps_out: Irreps | str, features: int, *, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out, self.features = Irreps.of(irreps_in), Irreps.of(irreps_out), features
        self._targets, self._shapes, _ = _plan(self.irreps_in, self.irreps_out)
        self._widths = tuple(b.dim for b in self.irreps_in)
        self._sizes = tuple(n * features * m for n, m in self._shapes)
        self.weight_numel = sum(self._sizes)
        self.weight = nn.Parameter(torch.randn(self.weight_numel, dtype=dtype))
        self._matrices: Kept[list[Tensor]] = Kept()

    def forward(self, x: Tensor, embedding: Tensor, one_hot: Tensor) -> Tensor:
        """x (rows, irreps_in.dim), embedding a (species, F), one_hot (rows, species) -> (rows, irreps_out.dim)."""
        rows = x.shape[0]
        check_width("SpeciesLinear", x, self.irreps_in)
        blocks = x.split_with_sizes(self._widths, 1)
        matrices = self._matrices((self.weight, embedding), lambda: self.matrices(embedding))
        out = []
        for target, matrix in zip(self._targets, matrices, strict=True):
            if not target.blocks:
                out.append(x.new_zeros(rows, target.components * target.mul))
                continue
            features = joined([torch.unflatten(blocks[k], 1, (target.components, -1)) for k in target.blocks], 2)
            by_species = one_hot[:, None, :, None] * features.unsqueeze(2)
            y = by_species.reshape(rows * target.components, matrix.shape[0]) @ matrix
            out.append(y.view(rows, target.components * target.mul))
        return joined(out, 1) if out else x.new_zeros(rows, 0)

    def matrices(self, embedding: Tensor) -> list[Tensor]:
        """Σ_f W_ufv a_f / √(fan_in · F) of each output block, (species · fan_in, mul)."""
        cubes = [
            torch.einsum("tf,ufv->tuv", embedding, w.view(n, self.features, m))
            for w, (n, m) in zip(self.weight.split_with_sizes(self._sizes), self._shapes, strict=True)
        ]
        none, share = self.weight.new_zeros(0, 0), 1.0 / math.sqrt(self.features)
        return [
            joined([cubes[k] for k in t.matrices], 1).flatten(0, 1) * (t.scale * share) if t.matrices else none
            for t in self._targets
        ]

    def extra_repr(self) -> str:
        """Irreps and the number of weights, for repr."""
        return f"{self.irreps_in} x {self.features}x0e -> {self.irreps_out}, {self.weight_numel} weights"


def check_width(layer: str, x: Tensor, irreps: Irreps) -> None:
    """Raise InputError unless x is (rows, irreps.dim)."""
    if x.shape[1:] != (irreps.dim,):
        raise InputError(f"{layer}: got shape {tuple(x.shape)}; expected (rows, {irreps.dim}) of {irreps}")


def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """torch.cat, without a copy where there is one part only."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _plan(
    irreps_in: Irreps, irreps_out: Irreps
) -> tuple[tuple[_Target, ...], tuple[tuple[int, int], ...], tuple[int, ...]]:
    """What feeds each output block, the shape of each matrix in the flat weight, and the sizes of the biases."""
    pairs = [
        (i, k)
        for i, block in enumerate(irreps_in)
        for k, target in enumerate(irreps_out)
        if block.irrep == target.irrep and block.mul and target.mul
    ]
    scalars = [k for k, block in enumerate(irreps_out) if block.irrep.is_scalar]
    targets = []
    for k, block in enumerate(irreps_out):
        feeding = [(i, number) for number, (i, target) in enumerate(pairs) if target == k]
        fan_in = sum(irreps_in[i].mul for i, _ in feeding)
        targets.append(
            _Target(
                block.irrep.dim,
                block.mul,
                1.0 / math.sqrt(fan_in) if fan_in else 0.0,
                tuple(i for i, _ in feeding),
                tuple(number for _, number in feeding),
                scalars.index(k) if k in scalars else None,
            )
        )
    shapes = tuple((irreps_in[i].mul, irreps_out[k].mul) for i, k in pairs)
    return tuple(targets), shapes, tuple(irreps_out[k].mul for k in scalars)
