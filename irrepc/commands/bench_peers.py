"""Peers: the same objects by e3nn and sphericart, where they are installed, and by torch.compile."""

from __future__ import annotations

import math
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.algebra.recipe import ProductRecipe
from irrepc.commands.bench_cases import Case, Graph
from irrepc.commands.bench_timing import Contender
from irrepc.interop.e3nn_layout import from_e3nn, to_e3nn


def harmonics_peers(lmax: int, case: Case) -> list[Contender]:
    """e3nn's spherical_harmonics and sphericart's SolidHarmonics at the same vectors."""
    (r,) = case.inputs
    peers = []
    if find_spec("e3nn") is not None:
        o3: Any = import_module("e3nn.o3")
        degrees = list(range(lmax + 1))

        def by_e3nn(r: Tensor) -> Tensor:
            value: Tensor = o3.spherical_harmonics(degrees, r, normalize=False, normalization="component")
            return value

        peers.append(Contender("e3nn", by_e3nn, (r,), 3, is_peer=True))
    if find_spec("sphericart") is not None and find_spec("sphericart.torch") is not None:
        solid: Any = import_module("sphericart.torch").SolidHarmonics(lmax)
        # sphericart's polar axis is z, and its harmonics have ∫ Y² = 1.
        scale = math.sqrt(4 * math.pi)
        peers.append(
            Contender(
                "sphericart",
                lambda turned: solid(turned),
                (r[:, [2, 0, 1]].contiguous(),),
                2,
                (lambda value: value * scale, lambda gradient: gradient[:, [1, 2, 0]] * scale),
                is_peer=True,
            )
        )
    return peers


def rotations_peers(lmax: int, case: Case) -> list[Contender]:
    """e3nn's wigner_D, a product of matrices of three angles, at the same quaternions."""
    if find_spec("e3nn") is None:
        return []
    o3: Any = import_module("e3nn.o3")

    def by_e3nn(q: Tensor) -> Tensor:
        angles = o3.quaternion_to_angles(q)
        return torch.cat([o3.wigner_D(l, *angles).flatten(1) for l in range(lmax + 1)], 1)

    # arc cosines lose half the digits of float32 near the poles
    return [Contender("e3nn", by_e3nn, case.inputs, 2, case.restore, is_peer=True, tolerance=2e-2)]


def convolution_peers(irreps: str, lmax: int, case: Case, graph: Graph, *, compiled: bool) -> list[Contender]:
    """e3nn's TensorProduct between a gather and a scatter; compiled: also what torch.compile makes of products."""
    if find_spec("e3nn") is None or not isinstance(case.recipe, ProductRecipe):
        return []
    o3: Any = import_module("e3nn.o3")
    recipe, left = case.recipe, Irreps.of(irreps)
    right = Irreps.spherical_harmonics(lmax)
    out = Irreps.of([(left[p.left].mul, b.irrep) for p, b in zip(recipe.paths, recipe.out, strict=True)])
    product = o3.TensorProduct(
        *(o3.Irreps(str(side)) for side in (left, right, out)),
        [(p.left, p.right, p.out, "uvu", True) for p in recipe.paths],
        irrep_normalization="component",
        path_normalization="none",
        shared_weights=False,
        internal_weights=False,
    )
    x, y, w = case.inputs
    product.to(x)  # its couplings: device and dtype

    def run(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        messages: Tensor = product(x.index_select(0, graph.senders), y, w)
        return messages.new_zeros(graph.nodes, messages.shape[1]).index_add(0, graph.receivers, messages)

    def same(t: Tensor) -> Tensor:
        return t

    restore = (lambda value: from_e3nn(value, out), lambda gradient: from_e3nn(gradient, left), same, same)
    peers = [Contender("e3nn", run, (to_e3nn(x, left), y, w), 3, restore, is_peer=True)]
    if compiled:
        peers.append(Contender("torch.compile", _compiled(recipe, left, lmax, graph, o3), (x, y, w), 2, is_peer=True))
    return peers


def _compiled(recipe: ProductRecipe, left: Irreps, lmax: int, graph: Graph, o3: Any) -> Any:
    """The best formulation found for torch.compile: for each block of x one matrix of all its paths, then weights.

    M[e, (path, k), i] = Σ_j C[i, j, k]·y[e, j] by one product, messages M·x by another; for any closure that reaches
    e3nn's Irreps compilation fails.
    """
    blocks = []
    for number, (block, where) in enumerate(zip(left, left.slices(), strict=True)):
        paths = [(n, p) for n, p in enumerate(recipe.paths) if p.left == number]
        d1, pieces, sizes = block.irrep.dim, [], []
        for _, p in paths:
            l2, l3 = recipe.right[p.right].irrep.l, recipe.out[p.out].irrep.l
            table = torch.zeros((lmax + 1) ** 2, 2 * l3 + 1, d1)
            coupling = o3.wigner_3j(block.irrep.l, l2, l3, dtype=torch.float64) * math.sqrt(2 * l3 + 1)
            table[l2 * l2 : (l2 + 1) ** 2] = coupling.permute(1, 2, 0).float()
            pieces.append(table)
            sizes.append(2 * l3 + 1)
        blocks.append((where, d1, block.mul, torch.cat(pieces, 1).flatten(1), sizes, [n for n, _ in paths]))
    muls = [left[p.left].mul for p in recipe.paths]
    starts = [sum(muls[:n]) for n in range(len(muls))]
    senders, receivers, nodes = graph.senders, graph.receivers, graph.nodes

    def run(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        gathered = x.index_select(0, senders)
        found: dict[int, Tensor] = {}
        for where, d1, mul, table, sizes, paths in blocks:
            matrix = (y @ table).view(-1, sum(sizes), d1)
            parts = torch.bmm(matrix, gathered[:, where].reshape(-1, d1, mul)).split_with_sizes(sizes, 1)
            for n, part in zip(paths, parts, strict=True):
                found[n] = (part * w[:, starts[n] : starts[n] + mul].unsqueeze(1)).flatten(1)
        messages = torch.cat([found[n] for n in sorted(found)], 1)
        return messages.new_zeros(nodes, messages.shape[1]).index_add(0, receivers, messages)

    return torch.compile(run)
