"""Convolution: gather, weighted tensor product with the harmonics, and sum over neighbours, as one fused kernel.

The message of TFN, NequIP and MACE: m_i = Σ_j w_p(r_ij) · (x_j ⊗ Y(r_ij))_p along every path p.
"""

from __future__ import annotations

from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irreps
from irrepc.algebra.recipe import ProductRecipe, labels, uvu_paths
from irrepc.errors import InputError, IrrepsError
from irrepc.nn.graph import Index
from irrepc.runtime.load import check_choice, load


class Convolution(nn.Module):
    """o_i = Σ_{edges j → i} w · (x_j ⊗ y_ij), channels of x kept ("uvu"), coefficients √(2l+1)·w3j.

    irreps_in    of the node features x
    irreps_edge  of the edge features y, multiplicity 1 for each block, as spherical harmonics have
    irreps_out   the irreps that may come out (their multiplicities do not matter); None for all
    by_pair      whether weights come for each pair of atoms, which its two directions share, and not for each edge

    Paths are enumerated by block of x, block of y, degree of the result; `irreps_out` then holds one block for each
    path, with the multiplicity of its x block.  Raises IrrepsError when no path is left.
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_edge: Irreps | str,
        irreps_out: Irreps | str | None = None,
        backend: str = "auto",
        *,
        by_pair: bool = False,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_edge = Irreps.of(irreps_in), Irreps.of(irreps_edge)
        allowed = None if irreps_out is None else Irreps.of(irreps_out)
        if any(b.mul != 1 for b in self.irreps_edge):
            raise IrrepsError(f"convolution: got edge irreps {self.irreps_edge}; expected multiplicity 1 in each block")
        left, extents = labels(self.irreps_in, "u")
        right, _ = labels(self.irreps_edge, "v", scalar_ones=True)
        out, self.paths = uvu_paths(left, right, allowed)
        if not self.paths:
            raise IrrepsError(
                f"convolution: got no path from {self.irreps_in} ⊗ {self.irreps_edge} to {allowed}; "
                "expected at least one; allow more output irreps"
            )
        self.irreps_out = Irreps(
            tuple(Block(self.irreps_in[p.left].mul, label.irrep) for p, label in zip(self.paths, out, strict=True))
        )
        muls = [self.irreps_in[p.left].mul for p in self.paths]
        self.weight_numel = sum(muls)
        starts = [sum(muls[:i]) for i in range(len(muls))]
        self.weight_slices = tuple(slice(s, s + m) for s, m in zip(starts, muls, strict=True))
        self.backend, self.by_pair = backend, by_pair
        self.recipe = ProductRecipe(left, right, out, self.paths, weights="pair" if by_pair else "row", fused=True)
        self._extents = _in_kernel_order(self.recipe, extents)
        self._kernel = load(self.recipe, check_choice(backend))

    def forward(
        self, x: Tensor, y: Tensor, w: Tensor, senders: Index, receivers: Index, pairs: Index | None = None
    ) -> Tensor:
        """x (N, irreps_in.dim), y (E, irreps_edge.dim), w (E, weight_numel) -> (N, irreps_out.dim).

        senders, receivers: Index over the rows of x and of the result; with by_pair also pairs, an Index over P rows,
        and w is (P, weight_numel). Raises InputError when the numbers of edges or pairs differ.
        """
        if self.by_pair != (pairs is not None):
            raise InputError(f"convolution: got {'no ' * (pairs is None)}pairs; expected them with by_pair=True only")
        indices = (senders, receivers) if pairs is None else (senders, pairs, receivers)
        counts = [y.shape[0], *(index.values.shape[0] for index in indices)]
        weights = counts[0] if pairs is None else pairs.start.shape[0] - 1
        if any(count != counts[0] for count in counts) or w.shape[0] != weights:
            raise InputError(
                f"convolution: got {counts[0]} rows of y, {w.shape[0]} of w and indices of {counts[1:]} edges; "
                f"expected the same number of edges, and {weights} weights"
            )
        out: Tensor = self._kernel(x, y, w, *indices, *self._extents)
        return out

    def extra_repr(self) -> str:
        """For repr."""
        return (
            f"{self.irreps_in} x {self.irreps_edge} -> {self.irreps_out}, {len(self.paths)} paths, "
            f"{self.weight_numel} weights, backend={self.backend}"
        )


def _in_kernel_order(recipe: ProductRecipe, extents: dict[str, int]) -> tuple[int, ...]:
    """Channel extents as the kernel counts its axes: first appearance in the left side, then the right."""
    names = dict.fromkeys(a for label in (*recipe.left, *recipe.right) for a in label.axes)
    return tuple(extents[name] for name in names)
