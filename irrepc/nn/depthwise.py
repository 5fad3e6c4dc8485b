"""Depthwise tensor products: each channel of the features times the harmonics, along every path, channels unmixed.

Outputs are sorted by degree, even parity first, and their irreps lie apart (irrepc/nn/block_linear.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irreps
from irrepc.algebra.recipe import Label, Path, ProductRecipe, labels, uvu_paths
from irrepc.errors import IrrepsError
from irrepc.nn.graph import Index
from irrepc.runtime.load import check_choice, load


class Depthwise:
    """The paths of x ⊗ Y that end in one of the irreps allowed or in 0e, enumerated by block of x, of Y, then degree.

    paths          in that order, which is also that of the weights: one for each path and channel
    blocks         the multiplicities of their outputs, sorted by degree, even parity first, then by path
    irreps_out     the same with equal irreps joined: one array of the kernel each
    weight_slices  the weights of each path
    order          the paths in the order of `blocks`
    """

    def __init__(self, irreps_in: Irreps, irreps_edge: Irreps, allowed: Irreps) -> None:
        if any(b.mul != 1 for b in irreps_edge):
            raise IrrepsError(f"depthwise: got edge irreps {irreps_edge}; expected multiplicity 1 in each block")
        self.left, extents = labels(irreps_in, "u")
        self.right, _ = labels(irreps_edge, "v", scalar_ones=True)
        out, paths = uvu_paths(self.left, self.right, allowed + Irreps.of("1x0e"))
        self.order = tuple(sorted(range(len(out)), key=lambda k: (out[k].irrep.l, -out[k].irrep.p, k)))
        rank = {k: n for n, k in enumerate(self.order)}
        self.paths = tuple(Path(p.left, p.right, rank[p.out]) for p in paths)
        self.out: tuple[Label, ...] = tuple(out[k] for k in self.order)
        muls = [irreps_in[p.left].mul for p in paths]
        self.blocks = Irreps(tuple(Block(muls[k], out[k].irrep) for k in self.order))
        self.irreps_out = self.blocks.simplify()
        starts = [sum(muls[:k]) for k in range(len(muls))]
        self.weight_numel = sum(muls)
        self.weight_slices = tuple(slice(s, s + m) for s, m in zip(starts, muls, strict=True))
        names = dict.fromkeys(a for label in self.left for a in label.axes)
        self.extents = tuple(extents[name] for name in names)

    def degrees(self) -> tuple[tuple[int, int, int], ...]:
        """(l of x, l of Y, l of the output) of each path, in the order of the weights."""
        return tuple(
            (self.left[p.left].irrep.l, self.right[p.right].irrep.l, self.out[p.out].irrep.l) for p in self.paths
        )

    def sorted_weight(self, weight: Tensor) -> Tensor:
        """A weight (weight_numel,) in the order of the paths -> in the order of `blocks`."""
        return torch.cat([weight[self.weight_slices[k]] for k in self.order])

    def apart(self, arrays: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        """What the kernel gives -> features of irreps_out apart."""
        whole = arrays if isinstance(arrays, tuple) else (arrays,)
        return [
            a.view(a.shape[0] * b.irrep.dim, b.mul) for a, b in zip(whole, self.irreps_out, strict=True)
        ]


class DepthwiseProduct(nn.Module):
    """o = w · (x ⊗ y) on each edge, coefficients √(2l+1)·w3j, channels of x kept ("uvu")."""

    def __init__(
        self, irreps_in: Irreps | str, irreps_edge: Irreps | str, allowed: Irreps | str, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_edge, self.backend = Irreps.of(irreps_in), Irreps.of(irreps_edge), backend
        self.plan = Depthwise(self.irreps_in, self.irreps_edge, Irreps.of(allowed))
        self.irreps_out, self.weight_numel = self.plan.irreps_out, self.plan.weight_numel
        plan = self.plan
        recipe = ProductRecipe(plan.left, plan.right, plan.out, plan.paths, weights="row", apart=True)
        self._kernel = load(recipe, check_choice(backend))

    def forward(self, x: Tensor, y: Tensor, w: Tensor) -> list[Tensor]:
        """x (E, irreps_in.dim), y (E, irreps_edge.dim), w (E, weight_numel) -> features of irreps_out apart."""
        return self.plan.apart(self._kernel(x, y, w, *self.plan.extents))

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.irreps_in} x {self.irreps_edge} -> {self.irreps_out}, {self.weight_numel} weights"


class DepthwiseSum(nn.Module):
    """o_i = Σ_e x_s(e) ⊗ y_e over the rows e that go to i, without weights; x read at row s(e)."""

    def __init__(
        self, irreps_in: Irreps | str, irreps_edge: Irreps | str, allowed: Irreps | str, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_edge, self.backend = Irreps.of(irreps_in), Irreps.of(irreps_edge), backend
        self.plan = Depthwise(self.irreps_in, self.irreps_edge, Irreps.of(allowed))
        self.irreps_out, self.weight_numel = self.plan.irreps_out, self.plan.weight_numel
        plan = self.plan
        paths = tuple(Path(p.left, p.right, p.out, False) for p in plan.paths)
        recipe = ProductRecipe(plan.left, plan.right, plan.out, paths, fused=True, apart=True)
        self._kernel = load(recipe, check_choice(backend))

    def forward(self, x: Tensor, y: Tensor, senders: Index, receivers: Index) -> list[Tensor]:
        """x (rows, irreps_in.dim), y (E, irreps_edge.dim) -> features of irreps_out apart, at the receivers' rows."""
        return self.plan.apart(self._kernel(x, y, senders, receivers, *self.plan.extents))

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.irreps_in} x {self.irreps_edge} -> {self.irreps_out}"
