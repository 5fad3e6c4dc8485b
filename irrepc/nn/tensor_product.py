"""TensorProduct: Clebsch-Gordan products of two features along chosen instructions, with e3nn's modes and weights.

A mode says what becomes of the channels u of the left and v of the right side: "uvu" and "uvv" keep one of them,
"uuu" pairs them, "uvuv" keeps both, "uvw" and "uuw" mix them into new channels w.  The coupling is a compiled
kernel; the mixing is one matrix product for each instruction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irreps
from irrepc.errors import InputError, IrrepsError
from irrepc.nn.couplings import MIXED, PAIRED, Coupling, Couplings, weight_shape
from irrepc.runtime.load import check_choice

MODES = ("uvw", "uvu", "uvv", "uuw", "uuu", "uvuv")


class Instruction(NamedTuple):
    """left[i1] ⊗ right[i2] -> out[i_out] in a mode; path_weight multiplies the variance of the path."""

    i1: int
    i2: int
    i_out: int
    mode: str
    has_weight: bool
    path_weight: float = 1.0


class TensorProduct(nn.Module):
    """out = Σ over instructions of (weighted) couplings of x and y, equal to e3nn's o3.TensorProduct.

    instructions            as e3nn: (i1, i2, i_out, mode, has_weight[, path_weight])
    irrep_normalization     "component", "norm" or "none"
    path_normalization      "element", "path" or "none"
    shared_weights          True: one flat `weight` parameter; False: weights are given for each row in the call

    The flat weight holds the weighted instructions in order, each (mul1, mul2, mul_out) as its mode says.
    Features are in ir_mul layout (e3nn's is mul_ir: interop/e3nn_layout.py).
    Raises IrrepsError for an instruction that is not possible.
    """

    weight: Tensor

    def __init__(
        self,
        irreps1: Irreps | str,
        irreps2: Irreps | str,
        irreps_out: Irreps | str,
        instructions: Sequence[Instruction | tuple[int, int, int, str, bool] | tuple[int, int, int, str, bool, float]],
        *,
        irrep_normalization: str = "component",
        path_normalization: str = "element",
        shared_weights: bool = True,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.irreps1, self.irreps2, self.irreps_out = Irreps.of(irreps1), Irreps.of(irreps2), Irreps.of(irreps_out)
        self.instructions = tuple(Instruction(*i) for i in instructions)
        self.shared_weights, self.backend = shared_weights, check_choice(backend)
        for i in self.instructions:
            self._check(i)
        coefficients = self._normalise(irrep_normalization, path_normalization)
        couplings = tuple(
            Coupling(i.i1, i.i2, i.i_out, i.mode, i.has_weight, coefficient)
            for i, coefficient in zip(self.instructions, coefficients, strict=True)
        )
        sides = (self.irreps1, self.irreps2, self.irreps_out)
        sizes = [math.prod(weight_shape(c, *sides)) if c.has_weight else 0 for c in couplings]
        starts = [sum(sizes[:n]) for n in range(len(sizes))]
        self.weight_numel = sum(sizes)
        self.weight_slices = tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))
        self.couplings = Couplings(*sides, couplings, shared_weights, backend)
        if shared_weights:
            self.weight = nn.Parameter(torch.randn(self.weight_numel, dtype=dtype))

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """x (rows, irreps1.dim), y (rows, irreps2.dim) -> (rows, irreps_out.dim).

        weight (rows, weight_numel), needed exactly when the weights are not shared; InputError otherwise.
        """
        if (weight is None) != self.shared_weights:
            given, wanted = ("none", "(rows, weight_numel)") if weight is None else ("some", "none: they are shared")
            raise InputError(f"tensor_product: got {given} weights; expected {wanted}")
        if x.shape[0] != y.shape[0]:
            raise InputError(f"tensor_product: got {x.shape[0]} rows of x and {y.shape[0]} of y; expected as many")
        return self.couplings(x, y, self.weight if weight is None else weight)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """For repr."""
        return (
            f"{self.irreps1} x {self.irreps2} -> {self.irreps_out}, {len(self.instructions)} instructions, "
            f"{self.weight_numel} weights, backend={self.backend}"
        )

    def _check(self, i: Instruction) -> None:
        a, b, c = self.irreps1[i.i1], self.irreps2[i.i2], self.irreps_out[i.i_out]
        product = a.irrep * b.irrep
        if c.irrep not in product:
            raise IrrepsError(
                f"tensor_product: output {c.irrep} is not in {a.irrep} ⊗ {b.irrep} = {'+'.join(map(str, product))}; "
                f"drop {c.irrep} or raise lmax of the inputs"
            )
        if i.mode not in MODES:
            raise IrrepsError(f"tensor_product: got mode {i.mode!r}; expected one of {', '.join(MODES)}")
        channels = {"uvu": a.mul, "uvv": b.mul, "uuu": a.mul, "uvuv": a.mul * b.mul}.get(i.mode, c.mul)
        if c.mul != channels:
            raise IrrepsError(f"tensor_product: mode {i.mode} of {a} and {b} gives {channels} channels; got {c}")
        if i.mode in PAIRED and a.mul != b.mul:
            raise IrrepsError(f"tensor_product: mode {i.mode} pairs channels; got {a} and {b}; expected equal numbers")
        if i.mode in MIXED and not i.has_weight:
            raise IrrepsError(f"tensor_product: mode {i.mode} mixes channels; expected has_weight=True")

    def _normalise(self, irrep_normalization: str, path_normalization: str) -> tuple[float, ...]:
        """e3nn's path coefficients, without the √(2l+1) that the kernel holds."""
        for given, kinds in ((irrep_normalization, ("component", "norm")), (path_normalization, ("element", "path"))):
            if given not in (*kinds, "none"):
                raise IrrepsError(f"tensor_product: got normalization {given!r}; expected {', '.join(kinds)} or none")

        def fan(i: Instruction) -> int:
            a, b = self.irreps1[i.i1].mul, self.irreps2[i.i2].mul
            return {"uvw": a * b, "uvu": b, "uvv": a, "uuw": a}.get(i.mode, 1)

        out = []
        for i in self.instructions:
            together = [j for j in self.instructions if j.i_out == i.i_out]
            share = {"element": sum(fan(j) for j in together), "path": fan(i) * len(together), "none": 1}
            variance = i.path_weight / share[path_normalization]
            if irrep_normalization != "component":
                variance /= self.irreps_out[i.i_out].irrep.dim
            if irrep_normalization == "norm":
                variance *= self.irreps1[i.i1].irrep.dim * self.irreps2[i.i2].irrep.dim
            out.append(math.sqrt(variance))
        return tuple(out)


class FullyConnectedTensorProduct(TensorProduct):
    """Every path to every output block, all channels mixed ("uvw"), as e3nn's class of this name."""

    def __init__(
        self,
        irreps1: Irreps | str,
        irreps2: Irreps | str,
        irreps_out: Irreps | str,
        *,
        irrep_normalization: str = "component",
        path_normalization: str = "element",
        shared_weights: bool = True,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        a, b, c = Irreps.of(irreps1), Irreps.of(irreps2), Irreps.of(irreps_out)
        super().__init__(
            a,
            b,
            c,
            [
                Instruction(i, j, k, "uvw", True)
                for i, x in enumerate(a)
                for j, y in enumerate(b)
                for k, z in enumerate(c)
                if z.irrep in x.irrep * y.irrep
            ],
            irrep_normalization=irrep_normalization,
            path_normalization=path_normalization,
            shared_weights=shared_weights,
            backend=backend,
            dtype=dtype,
        )


def full_tensor_product(irreps1: Irreps | str, irreps2: Irreps | str, *, backend: str = "auto") -> TensorProduct:
    """All irreps of the product, nothing mixed ("uvuv"), no weights; output blocks sorted by (l, p)."""
    a, b = Irreps.of(irreps1), Irreps.of(irreps2)
    found = [
        (Block(x.mul * y.mul, irrep), i, j)
        for i, x in enumerate(a)
        for j, y in enumerate(b)
        for irrep in x.irrep * y.irrep
    ]
    order = sorted(range(len(found)), key=lambda n: (found[n][0].irrep, n))
    instructions = [Instruction(found[n][1], found[n][2], k, "uvuv", False) for k, n in enumerate(order)]
    return TensorProduct(a, b, Irreps(tuple(found[n][0] for n in order)), instructions, backend=backend)


def elementwise_tensor_product(
    irreps1: Irreps | str, irreps2: Irreps | str, *, backend: str = "auto"
) -> TensorProduct:
    """Channel by channel ("uuu"), no weights, as e3nn's ElementwiseTensorProduct.

    Blocks are cut so that both sides have equal multiplicities; raises IrrepsError when the numbers of irreps differ.
    """
    a, b = Irreps.of(irreps1).simplify(), Irreps.of(irreps2).simplify()
    if a.num_irreps != b.num_irreps:
        raise IrrepsError(f"elementwise_tensor_product: got {a.num_irreps} and {b.num_irreps} irreps; expected as many")
    left, right = list(a), list(b)
    i = 0
    while i < len(left):
        short = min(left[i].mul, right[i].mul)
        for side in (left, right):
            if side[i].mul > short:
                side[i : i + 1] = [Block(short, side[i].irrep), Block(side[i].mul - short, side[i].irrep)]
        i += 1
    out: list[Block] = []
    instructions: list[Instruction] = []
    for n, (x, y) in enumerate(zip(left, right, strict=True)):
        for irrep in x.irrep * y.irrep:
            instructions.append(Instruction(n, n, len(out), "uuu", False))
            out.append(Block(x.mul, irrep))
    return TensorProduct(Irreps(tuple(left)), Irreps(tuple(right)), Irreps(tuple(out)), instructions, backend=backend)
