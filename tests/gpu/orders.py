"""Orders: a kernel's value and first and second gradients on a device, beside those of the torch text in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import ProductRecipe, Recipe, labels, uvu_paths
from irrepc.frontend.derive import derive
from irrepc.ir.kernel import Operand
from irrepc.nn.graph import Index, index_of
from irrepc.runtime.load import load

CUDA = torch.device("cuda")
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-13}
"""Of the largest number; rows of fifty edges are summed in another order than in the reference."""


class Problem:
    """A kernel and random operands for it.

    rows     of the loop (edges)
    sizes    rows behind each index
    extents  how many channels each axis has
    empty    indices name no row from here on: rows without edges
    """

    def __init__(
        self,
        recipe: Recipe,
        dtype: torch.dtype,
        rows: int,
        sizes: dict[str, int],
        extents: dict[str, int],
        device: torch.device = CUDA,
        empty: int = 1,
    ) -> None:
        self.recipe, self.dtype = recipe, dtype
        forward = derive(recipe)
        generator = torch.Generator().manual_seed(0)
        self.extents = tuple(extents[a] for a in forward.channels)
        self.indices = tuple(
            _index(rows, sizes[name], empty, generator).to(device) for name in forward.indices
        )
        self.inputs = tuple(
            torch.randn(_shape(o, rows, sizes, extents), dtype=torch.float64, generator=generator).to(device, dtype)
            for o in forward.inputs
        )

    def run(self, kernel: Callable[..., Any], dtype: torch.dtype) -> list[Tensor]:
        """Value, gradients of a sum of its squares, gradients of a sum of squares of these."""
        leaves = tuple(t.to(dtype, copy=True).requires_grad_() for t in self.inputs)
        value = kernel(*leaves, *self.indices, *self.extents)
        outputs = value if isinstance(value, tuple) else (value,)
        first = torch.autograd.grad(_energy(outputs), leaves, create_graph=True)
        second = torch.autograd.grad(_energy(first), leaves)
        return [t.detach() for t in (*outputs, *first, *second)]

    def check(self, backend: str = "cuda") -> None:
        """Compare with the torch text in float64, with memory that is not written holding NaN."""
        with poisoned():
            got = self.run(load(self.recipe, backend), self.dtype)
        wanted = self.run(load(self.recipe, "torch"), torch.float64)
        for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
            assert a.shape == b.shape
            assert a.dtype == self.dtype
            if not b.numel():
                continue
            scale = max(float(b.abs().max()), 1e-3)
            error = float((a.double() - b).abs().max()) / scale
            assert error < TOLERANCE[self.dtype], f"tensor {number} of {self.recipe}: {error:.1e}"


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill what torch.empty gives with NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def convolution(lmax: int) -> ProductRecipe:
    """Features, harmonics and messages of natural parity to lmax, one multiplicity."""
    harmonics = Irreps.spherical_harmonics(lmax)
    left, _ = labels(Irreps.of([(2, b.irrep) for b in harmonics]), "u")
    right, _ = labels(harmonics, "v", scalar_ones=True)
    out, paths = uvu_paths(left, right, harmonics)
    return ProductRecipe(left, right, out, paths, weights="row", fused=True)


def _energy(tensors: tuple[Tensor, ...]) -> Tensor:
    # Means, so that the second gradients do not outgrow the first ones with the number of rows.
    return torch.stack([(t**2).sum() / max(t.numel(), 1) for t in tensors]).sum()


def _index(rows: int, size: int, empty: int, generator: torch.Generator) -> Index:
    return index_of(torch.randint(max(size - empty, 1), (rows,), generator=generator), size)


def _shape(o: Operand, rows: int, sizes: dict[str, int], extents: dict[str, int]) -> tuple[int, ...]:
    width = 0
    for axes in o.components:
        count = 1
        for a in axes:
            count *= extents[a]
        width += count
    if o.rows is None:
        return (width,)
    return (rows if o.index is None else sizes[o.index], width)
