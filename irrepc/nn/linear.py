"""Linear and SpeciesLinear: equivariant linear maps, one dense matrix for each pair of equal irreps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irreps
from irrepc.errors import InputError
from irrepc.nn.block_product import BlockProduct, Target
from irrepc.nn.kept import Kept


class Linear(nn.Module):
    """y_v = Σ_u W_uv x_u / √fan_in + b_v, within each irrep, as e3nn's o3.Linear with the same weights.

    weight  flat, as e3nn: for each input block, for each output block of the same irrep, a matrix (mul_in, mul_out)
    bias    flat, one number for each channel of the 0e output blocks (only with bias=True)

    The fan-in of an output block is the number of all input channels that feed it. An output block that nothing feeds
    is zero. Raises IrrepsError for irreps that cannot be read.
    """

    bias: nn.Parameter | None
    places: Tensor

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
        self._product = block_product(self.irreps_in, self.irreps_out)
        self.weight_numel = sum(n * m for n, m in self._product.shapes)
        self.weight = nn.Parameter(torch.randn(self.weight_numel, dtype=dtype))
        columns = [k for block, at in _columns(self.irreps_out) if block.irrep.is_scalar for k in at]
        self.bias = nn.Parameter(torch.zeros(len(columns), dtype=dtype)) if bias else None
        self.register_buffer("places", torch.tensor(columns, dtype=torch.int64) if bias else None, persistent=False)
        self._matrices: Kept[list[Tensor]] = Kept()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps_in.dim) -> (rows, irreps_out.dim), both ir_mul."""
        check_width("Linear", x, self.irreps_in)
        matrices = self._matrices((self.weight,), lambda: self._product.matrices(self.weight.detach()))
        y = self._product(self.weight, x, None, matrices)
        return y if self.bias is None else y + y.new_zeros(y.shape[1]).index_add(0, self.places, self.bias)

    def matrices(self) -> list[Tensor]:
        """W / √fan_in of each output block that is fed, (fan_in, mul)."""
        return self._product.matrices(self.weight)

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
        self._product = block_product(self.irreps_in, self.irreps_out)
        self.weight_numel = sum(n * m for n, m in self._product.shapes) * features
        self.weight = nn.Parameter(torch.randn(self.weight_numel, dtype=dtype))
        self._matrices: Kept[tuple[Tensor, list[Tensor]]] = Kept()

    def forward(self, x: Tensor, embedding: Tensor, one_hot: Tensor) -> Tensor:
        """x (rows, irreps_in.dim), embedding a (species, F), one_hot (rows, species) -> (rows, irreps_out.dim)."""
        check_width("SpeciesLinear", x, self.irreps_in)
        product = self._of(one_hot.shape[1])

        def make() -> tuple[Tensor, list[Tensor]]:
            weights = self.by_species(embedding)
            return weights, product.matrices(weights.detach())

        weights, matrices = self._matrices((self.weight, embedding), make)
        return product(weights, x, one_hot, matrices)

    def matrices(self, embedding: Tensor) -> list[Tensor]:
        """Σ_f W_ufv a_f / √(fan_in · F) of each output block that is fed, (species · fan_in, mul)."""
        return self._of(embedding.shape[0]).matrices(self.by_species(embedding))

    def _of(self, species: int) -> BlockProduct:
        if self._product.species != species:
            self._product = replace(self._product, species=species)
        return self._product

    def by_species(self, embedding: Tensor) -> Tensor:
        """Σ_f W_ufv a_f / √F, the weights of a Linear for each species, (species, weights)."""
        shapes = self._product.shapes
        pieces = self.weight.split_with_sizes([n * self.features * m for n, m in shapes])
        first = [w.view(n, self.features, m).transpose(0, 1) for w, (n, m) in zip(pieces, shapes, strict=True)]
        spread = joined([w.reshape(self.features, n * m) for w, (n, m) in zip(first, shapes, strict=True)], 1)
        return (embedding @ spread) * (1.0 / math.sqrt(self.features))

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


def block_product(irreps_in: Irreps, irreps_out: Irreps) -> BlockProduct:
    """What feeds each output block, and the shape of each matrix in the flat weight."""
    pairs = [
        (i, k)
        for i, block in enumerate(irreps_in)
        for k, target in enumerate(irreps_out)
        if block.irrep == target.irrep and block.mul and target.mul
    ]
    targets = []
    for k, block in enumerate(irreps_out):
        feeding = [(i, number) for number, (i, target) in enumerate(pairs) if target == k]
        fan_in = sum(irreps_in[i].mul for i, _ in feeding)
        scale = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
        blocks, matrices = tuple(i for i, _ in feeding), tuple(number for _, number in feeding)
        targets.append(Target(block.irrep.dim, block.mul, scale, blocks, matrices))
    shapes = tuple((irreps_in[i].mul, irreps_out[k].mul) for i, k in pairs)
    return BlockProduct(tuple((b.irrep.dim, b.mul) for b in irreps_in), shapes, tuple(targets))


def _columns(irreps: Irreps) -> list[tuple[Block, range]]:
    """Each block and its columns."""
    ends = [sum(b.dim for b in irreps.blocks[: k + 1]) for k in range(len(irreps))]
    return [(b, range(end - b.dim, end)) for b, end in zip(irreps, ends, strict=True)]
