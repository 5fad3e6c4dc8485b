"""Convolutions that make their weights in the kernel, edge by edge: from basis functions, or from splines of a table.

The array of weights (edges, paths, channels), the largest of a network, never exists: not in memory, not for autograd.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irreps
from irrepc.algebra.recipe import ProductRecipe, labels, uvu_paths
from irrepc.errors import InputError, IrrepsError
from irrepc.nn.graph import Index, index_of
from irrepc.runtime.load import check_choice, load


class SplineConvolution(nn.Module):
    """o_i = Σ_{edges j → i} w(r_ij) · (x_j ⊗ y_ij), w(r) splines of a table, one for each path and channel.

    irreps_in, irreps_edge, irreps_out, paths, order of weights: as of Convolution
    table  (intervals + degree, weight_numel): control values of B-splines with equal intervals from begin to end, Å.
           On interval n, w = Σ_k b_k(t)·table[n + k]; w has degree - 1 continuous derivatives, and the derivative of
           the convolution is exactly that of the splines. A parameter: train it, or freeze it.
    degree 1 to 7; irrepc.deploy.tables.fit makes tables of given functions

    Raises IrrepsError when no path is left, InputError for a table of the wrong shape or an empty range.
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_edge: Irreps | str,
        irreps_out: Irreps | str | None,
        table: Tensor,
        *,
        begin: float,
        end: float,
        degree: int = 5,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.plan = RadialPaths(irreps_in, irreps_edge, irreps_out, "spline", degree + 1)
        self.irreps_out, self.weight_numel = self.plan.irreps_out, self.plan.weight_numel
        self.begin, self.end, self.degree, self.backend = begin, end, degree, backend
        if table.dim() != 2 or table.shape[0] <= degree or table.shape[1] != self.weight_numel:
            raise InputError(
                f"SplineConvolution: got a table of shape {tuple(table.shape)}; expected (intervals + {degree}, "
                f"{self.weight_numel})"
            )
        if not 0 <= begin < end < math.inf:
            raise InputError(f"SplineConvolution: got splines from {begin} to {end} Å; expected 0 <= begin < end")
        self.intervals = table.shape[0] - degree
        self.table = nn.Parameter(table.detach().clone())
        self._kernel = load(self.plan.recipe, check_choice(backend))

    def forward(self, x: Tensor, y: Tensor, r: Tensor, senders: Index, receivers: Index) -> Tensor:
        """x (N, irreps_in.dim), y (E, irreps_edge.dim), r (E,) Å -> (N, irreps_out.dim).

        Beyond `end` weights are what they are there. Raises InputError for distances below `begin` and when the
        numbers of edges differ; compiled code and other devices, where values are not looked at, continue the weights
        below `begin` as constants.
        """
        _check_edges(y, r, senders, receivers)
        eager = not torch.compiler.is_compiling() and r.device.type == "cpu"
        shortest = float(r.detach().min()) if eager and r.numel() else self.begin
        if shortest < self.begin:
            raise InputError(
                f"SplineConvolution: got a distance of {shortest:.4g} Å; expected {self.begin} Å or more, where the "
                "table begins; do: check the structure, or make a table that begins earlier"
            )
        along = (r - self.begin) * (self.intervals / (self.end - self.begin))
        interval = along.detach().long().clamp(0, self.intervals - 1)
        t = (along - interval).clamp(0, 1).unsqueeze(1)
        tables = [self.table[k : k + self.intervals] for k in range(self.degree + 1)]
        # Only the derivative by the table scatters through the knots: without it they need not be sorted.
        trained = self.table.requires_grad and torch.is_grad_enabled()
        knots = index_of(interval, self.intervals) if trained else _gather_only(interval, self.intervals)
        out: Tensor = self._kernel(x, y, t, *tables, senders, knots, receivers, *self.plan.extents)
        return out

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.plan}, {self.intervals} intervals of degree {self.degree}, backend={self.backend}"


class BasisConvolution(nn.Module):
    """o_i = Σ_{edges j → i} w · (x_j ⊗ y_ij), w = h W / √size: the last layer of a radial network, in the kernel.

    irreps_in, irreps_edge, irreps_out, paths, order of weights: as of Convolution
    size   functions h of an edge; it pays up to about 8: each weight takes `size` multiply-adds in every order
    weight (size, weight_numel), drawn with unit variance

    Raises IrrepsError when no path is left.
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_edge: Irreps | str,
        irreps_out: Irreps | str | None,
        size: int,
        *,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.plan = RadialPaths(irreps_in, irreps_edge, irreps_out, "basis", size)
        self.irreps_out, self.weight_numel = self.plan.irreps_out, self.plan.weight_numel
        self.size, self.backend = size, backend
        self.weight = nn.Parameter(torch.randn(size, self.weight_numel, dtype=dtype))
        self._kernel = load(self.plan.recipe, check_choice(backend))

    def forward(self, x: Tensor, y: Tensor, h: Tensor, senders: Index, receivers: Index) -> Tensor:
        """x (N, irreps_in.dim), y (E, irreps_edge.dim), h (E, size) -> (N, irreps_out.dim).

        Raises InputError when the numbers of edges differ.
        """
        _check_edges(y, h, senders, receivers)
        matrix = (self.weight / math.sqrt(self.size)).flatten()
        out: Tensor = self._kernel(x, y, h, matrix, senders, receivers, *self.plan.extents)
        return out

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.plan}, {self.size} basis functions, backend={self.backend}"


class RadialPaths:
    """The paths of a convolution whose weights are made in the kernel, as Convolution enumerates them.

    extents        of the kernel's channel axes
    weight_slices  where the weights of each path lie
    """

    def __init__(
        self, irreps_in: Irreps | str, irreps_edge: Irreps | str, irreps_out: Irreps | str | None, kind: str, terms: int
    ) -> None:
        self.irreps_in, self.irreps_edge = Irreps.of(irreps_in), Irreps.of(irreps_edge)
        allowed = None if irreps_out is None else Irreps.of(irreps_out)
        if any(b.mul != 1 for b in self.irreps_edge):
            raise IrrepsError(f"convolution: got edge irreps {self.irreps_edge}; expected multiplicity 1 in each block")
        left, channels = labels(self.irreps_in, "u")
        right, _ = labels(self.irreps_edge, "v", scalar_ones=True)
        out, self.paths = uvu_paths(left, right, allowed)
        if not self.paths:
            raise IrrepsError(
                f"convolution: got no path from {self.irreps_in} ⊗ {self.irreps_edge} to {allowed}; "
                "expected at least one; allow more output irreps"
            )
        self.recipe = ProductRecipe(left, right, out, self.paths, weights=kind, terms=terms, fused=True)
        muls = [self.irreps_in[p.left].mul for p in self.paths]
        self.irreps_out = Irreps(tuple(Block(mul, label.irrep) for mul, label in zip(muls, out, strict=True)))
        starts = [sum(muls[:k]) for k in range(len(muls))]
        self.weight_numel = sum(muls)
        self.weight_slices = tuple(slice(s, s + m) for s, m in zip(starts, muls, strict=True))
        self.extents = tuple(channels[name] for name in dict.fromkeys(a for label in left for a in label.axes))

    def __str__(self) -> str:
        return f"{self.irreps_in} x {self.irreps_edge} -> {self.irreps_out}, {self.weight_numel} weights"


def _check_edges(y: Tensor, radial: Tensor, senders: Index, receivers: Index) -> None:
    counts = (y.shape[0], radial.shape[0], senders.values.shape[0], receivers.values.shape[0])
    if len(set(counts)) != 1:
        raise InputError(
            f"convolution: got {counts[0]} rows of y, {counts[1]} distances or rows of basis functions, {counts[2]} "
            f"senders and {counts[3]} receivers; expected the same number of edges"
        )


def _gather_only(values: Tensor, rows: int) -> Index:
    """An index that can be read through and not added through: in no order."""
    return Index(values, values, values.new_zeros(rows + 1))
