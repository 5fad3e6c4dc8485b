"""Cases: what bench times, the operands of harmonics, rotations, convolutions and contractions of any irreps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import HarmonicsRecipe, ProductRecipe, Recipe, WignerRecipe
from irrepc.commands.bench_timing import Contender
from irrepc.emit.module import BACKENDS as ALL
from irrepc.emit.plan import plan
from irrepc.emit.report import NEIGHBOURS
from irrepc.errors import InputError
from irrepc.nn.contraction import SymmetricContraction, species_index
from irrepc.nn.graph import index_of
from irrepc.nn.rotations import random_quaternions
from irrepc.runtime.load import load

BACKENDS = tuple(b for b in ALL if b != "cuda")
"""Those that run on a CPU; benchmarks/gpu.py times the other one."""
SPECIES = 4
Layers = dict[str, SymmetricContraction]


@dataclass(frozen=True, slots=True)
class Graph:
    """Random edges, sorted by receiver."""

    nodes: int
    senders: Tensor
    receivers: Tensor


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel with its operands.

    rows, nodes  rows of its loop, and rows behind its indices
    extents      how many channels each axis has
    ours         the function for a backend, of the inputs alone
    restore      what is compared of the value and of each gradient; () for all of it
    """

    title: str
    recipe: Recipe
    inputs: tuple[Tensor, ...]
    rows: int
    nodes: int
    extents: dict[str, int]
    ours: Callable[[str], Callable[..., Tensor]]
    restore: tuple[Callable[[Tensor], Tensor], ...] = ()

    def contenders(self) -> list[Contender]:
        """Every backend of ours."""
        return [Contender(b, self.ours(b), self.inputs, 3, self.restore) for b in BACKENDS]


def harmonics_case(lmax: int, edges: int) -> Case:
    """Solid harmonics of unit vectors."""
    recipe = HarmonicsRecipe(lmax)
    r = torch.nn.functional.normalize(torch.randn(edges, 3, generator=_generator(lmax)), dim=1)
    title = f"harmonics to degree {lmax}, {edges:,} rows"
    return Case(title, recipe, (r,), edges, 0, {}, lambda backend: load(recipe, backend))


def rotations_case(lmax: int, edges: int) -> Case:
    """Wigner-D matrices of unit quaternions.

    They are polynomials in q, elsewhere functions of q / |q|: along the sphere gradients are equal, and that part of
    them is compared.
    """
    recipe = WignerRecipe(lmax)
    q = random_quaternions(edges, _generator(lmax), torch.float32)

    def along(gradient: Tensor) -> Tensor:
        return gradient - q * (q * gradient).sum(1, keepdim=True)

    title = f"Wigner-D to degree {lmax}, {edges:,} rows"
    return Case(title, recipe, (q,), edges, 0, {}, lambda b: load(recipe, b), (lambda value: value, along))


def convolution_case(irreps: str, lmax: int, edges: int) -> tuple[Case, Graph]:
    """The fused convolution of features with harmonics to a degree: x, y, w on random edges.

    Raises InputError where there is no path.
    """
    planned = plan(lmax, irreps=irreps, limit=10**9)
    part = planned.part("convolution")
    recipe = part.entries[0].recipe if part is not None else None
    if not isinstance(recipe, ProductRecipe):
        raise InputError(f"bench: got {irreps} with harmonics to degree {lmax}; expected a path between them")
    blocks, extents = Irreps.of(irreps), dict(planned.channels)
    nodes = max(1, edges // NEIGHBOURS)
    generator = _generator(lmax)
    weights = sum(blocks[p.left].mul for p in recipe.paths)
    x = torch.randn(nodes, blocks.dim, generator=generator)
    y = torch.randn(edges, (lmax + 1) ** 2, generator=generator)
    w = torch.randn(edges, weights, generator=generator)
    senders = torch.randint(nodes, (edges,), generator=generator)
    receivers = torch.randint(nodes, (edges,), generator=generator).sort().values
    rest = (index_of(senders, nodes), index_of(receivers, nodes), *(extents[a] for a in recipe_axes(recipe)))

    def ours(backend: str) -> Callable[..., Tensor]:
        kernel = load(recipe, backend)
        return lambda *tensors: kernel(*tensors, *rest)

    title = f"convolution {irreps} to degree {lmax}, {edges:,} edges, {nodes:,} nodes"
    return Case(title, recipe, (x, y, w), edges, nodes, extents, ours), Graph(nodes, senders, receivers)


def recipe_axes(recipe: ProductRecipe) -> tuple[str, ...]:
    """Channel axes as the kernel counts them: first appearance on the left side, then the right."""
    return tuple(dict.fromkeys(a for label in (*recipe.left, *recipe.right) for a in label.axes))


def contraction_case(lmax: int, degree: int, channels: int, rows: int) -> tuple[Case, Layers, Tensor]:
    """MACE's symmetric contraction of correlation 3, weights folded at each call, to all degrees up to one.

    Also returned: the layer of each backend, with the same weights and couplings, and the species (rows,).
    """
    blocks = [f"{channels}x{l}{'eo'[l % 2]}" for l in range(lmax + 1)]
    irreps_in, irreps_out = "+".join(blocks), "+".join(blocks[: degree + 1])
    generator = _generator(lmax)
    species = torch.randint(SPECIES, (rows,), generator=generator)
    index = species_index(species, SPECIES)
    layers = {b: SymmetricContraction(irreps_in, irreps_out, SPECIES, 3, backend=b) for b in BACKENDS}
    first = layers[BACKENDS[0]]
    for layer in layers.values():
        layer.load_state_dict(first.state_dict())
        layer.requires_grad_(False)
    x = torch.randn(rows, first.irreps_in.dim, generator=generator)

    def ours(backend: str) -> Callable[..., Tensor]:
        return lambda x: layers[backend](x, index)

    title = f"symmetric contraction to degree {degree}, lmax {lmax}, correlation 3, {channels} channels, {rows:,} rows"
    return Case(title, first.recipe, (x,), rows, SPECIES, {"u": channels}, ours), layers, species


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
