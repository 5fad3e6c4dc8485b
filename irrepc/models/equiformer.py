"""Equiformer: a transformer on atoms with equivariant graph attention (Liao and Smidt, ICLR 2023, arXiv 2206.11990).

A block (figure 1) maps node features x to

    x'  = x + Attention(norm(x))                    irrepc/nn/attention.py
    x'' = Shortcut(x') + FeedForward(norm(x'))      Linear, gate, Linear

and the energy of atom i is σ_t e_i / √<atoms> + μ_t with e = Linear(silu(Linear(norm(x)))) or one more attention. Names
and numbers follow the authors' code, whose weights load one to one (irrepc/interop/equiformer.py).

Which group the network is equivariant under is said by the labels of its irreps alone: with all of them even, vectors
are not told from pseudovectors, and reflections are no symmetry (SE(3)); with 1o for the vectors they are (E(3)).
The attention does not fade at the cutoff: energies jump where an edge appears.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Irreps
from irrepc.models.equiformer_config import EquiformerConfig
from irrepc.models.nequip import ScaleShift
from irrepc.nn.attention import Edges, GraphAttention, edges_of
from irrepc.nn.block_linear import BlockLinear, apart
from irrepc.nn.closed_forms import silu
from irrepc.nn.convolution import Convolution
from irrepc.nn.depthwise import Depthwise
from irrepc.nn.distance_bases import BASES, RadialProfile
from irrepc.nn.dropout import EquivariantDropout, PathDropout
from irrepc.nn.gate import SILU_GAIN
from irrepc.nn.graph import Graph, check_graph, edge_vectors, first_edges
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.norm import EquivariantLayerNorm, safe_norm
from irrepc.nn.swish_gate import SwishGate


class EdgeDegreeEmbedding(nn.Module):
    """Σ_e Linear(R(r_e) · (c ⊗ Y_e)) / √<neighbours>: what surrounds an atom, c the same constant scalars for all.

    The constants are the 0e of a linear map of 1, whose other outputs are zero: of the paths of the product, which
    has weights for all, only those from 0e do anything. 0e is the first block, so they are the first of the weights,
    and the first channels of each irrep.
    """

    def __init__(self, irreps: Irreps, irreps_edge: Irreps, config: EquiformerConfig, backend: str) -> None:
        super().__init__()
        self.plan = Depthwise(irreps, irreps_edge, irreps)
        self.constant = BlockLinear(Irreps.of("1x0e"), irreps)
        self.radial = RadialProfile((config.basis_size, *config.radial_widths, self.plan.weight_numel))
        self.linear = BlockLinear(self.plan.irreps_out, irreps)
        self.convolution = Convolution(Irreps((irreps[0],)), irreps_edge, irreps, backend=backend, by_pair=True)
        self.normalisation = 1.0 / math.sqrt(config.avg_num_neighbors)

    def forward(self, edges: Edges) -> list[Tensor]:
        """Features of the atoms apart."""
        graph, linear, used = edges.graph, self.linear, self.convolution.weight_numel
        atoms, constant = graph.num_atoms, self.constant([edges.basis.new_ones(1, 1)])[0]
        hidden = self.radial.hidden(edges.basis)
        weights = torch.addmm(self.radial.offset[:used], hidden, self.radial.last[:used].t())
        x, paths = constant.expand(atoms, -1), self.convolution.irreps_out
        sums = self.convolution(x, edges.harmonics, weights, graph.senders, graph.receivers, graph.pairs)
        found = dict(zip([b.irrep for b in paths], apart(sums, paths), strict=True))
        degree = graph.receivers.start.diff().to(x.dtype).unsqueeze(-1)
        matrices, out = linear.matrices(), []
        for feed, block in zip(linear.feeds, linear.irreps_out, strict=True):
            if feed is None or block.irrep not in found:
                out.append(sums.new_zeros(atoms * block.irrep.dim, block.mul))
                continue
            y = found[block.irrep] @ matrices[feed.matrix][: x.shape[1]]
            if feed.biased and linear.bias is not None:
                y = y + degree * linear.bias
            out.append(y * self.normalisation)
        return out


class FeedForward(nn.Module):
    """Linear, gate, Linear; where only scalars come out, nothing else is made on the way."""

    def __init__(self, irreps: Irreps, hidden: Irreps, irreps_out: Irreps, rate: float, backend: str) -> None:
        super().__init__()
        self.gate = SwishGate(hidden, backend)
        self.linear_1 = BlockLinear(irreps, self.gate.irreps_in)
        self.linear_2 = BlockLinear(hidden, irreps_out)
        self.dropout = EquivariantDropout(irreps_out, rate)

    def forward(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Features apart, irreps -> irreps_out."""
        if only_scalars(self.linear_2.irreps_out):
            gated = [self.gate.only_scalars(self.linear_1(x, 1)[0])]
        else:
            gated = apart(self.gate(self.linear_1(x)), self.gate.irreps_out)
        out: list[Tensor] = self.dropout(self.linear_2(gated))
        return out


def only_scalars(irreps: Irreps) -> bool:
    """Whether there is nothing but 0e, in one block."""
    return len(irreps) == 1 and irreps[0].irrep.is_scalar


def attention(
    irreps_out: Irreps, irreps: Irreps, config: EquiformerConfig, backend: str, read: int | None = None
) -> GraphAttention:
    """The attention layer of a configuration, of whose result the first `read` blocks are made (None: all)."""
    return GraphAttention(
        irreps,
        Irreps.of(config.harmonics),
        irreps_out,
        Irreps.of(config.head),
        config.heads,
        (config.basis_size, *config.radial_widths),
        nonlinear=config.nonlinear_messages,
        rescale=config.rescale_degree,
        read=read,
        alpha_drop=config.alpha_drop,
        proj_drop=config.proj_drop,
        backend=backend,
    )


class TransformerBlock(nn.Module):
    """Attention and feed-forward network, each on normalised features and added to what came in.

    After the attention, scalars depend on scalars alone: where only they come out, no more is made of it.
    """

    def __init__(self, irreps: Irreps, irreps_out: Irreps, config: EquiformerConfig, backend: str) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = EquivariantLayerNorm(irreps), EquivariantLayerNorm(irreps)
        self.read = 1 if only_scalars(irreps_out) else None
        self.attention = attention(irreps, irreps, config, backend, self.read)
        self.feed_forward = FeedForward(irreps, Irreps.of(config.hidden), irreps_out, config.proj_drop, backend)
        self.shortcut = None if irreps == irreps_out else BlockLinear(irreps, irreps_out)
        self.path = PathDropout(config.path_drop)

    def forward(self, x: Sequence[Tensor], edges: Edges) -> list[Tensor]:
        """Features of the atoms apart, irreps -> irreps_out."""
        batch, structures = edges.graph.batch, edges.graph.num_graphs
        y = self.path(self.attention(self.norm_1.apart(x), edges), batch, structures)
        x = [a + b for a, b in zip(x[: self.read], y, strict=True)]
        y = self.path(self.feed_forward(self.norm_2.apart(x)), batch, structures)
        kept = x if self.shortcut is None else self.shortcut(x)
        return [a + b for a, b in zip(kept, y, strict=True)]


class ScalarReadout(nn.Module):
    """Linear, SiLU, Linear on scalars."""

    def __init__(self, irreps: Irreps) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = BlockLinear(irreps, irreps), BlockLinear(irreps, "1x0e")

    def forward(self, x: Sequence[Tensor], edges: Edges) -> list[Tensor]:
        """Scalars (N, mul), alone in a list -> (N, 1) alike."""
        out: list[Tensor] = self.linear_2([silu(y) * SILU_GAIN for y in self.linear_1(x)])
        return out


class Equiformer(nn.Module):
    """Energies of atoms from a graph.

    config   what defines the network
    backend  of the compiled layers: "torch", "numba", ... or "auto" (by the device); no part of the weights
    dtype    of the weights and the arithmetic, but for the last scale and shift, which are float64
    seed     of the weights, which are drawn as the authors do

    A new network is in evaluation mode; dropouts act after `train()`.
    """

    def __init__(
        self, config: EquiformerConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        count = len(config.species)
        irreps, edge = Irreps.of(config.features), Irreps.of(config.harmonics)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Parameter(torch.randn(count, irreps[0].mul))
            self.embedding_bias = nn.Parameter(torch.zeros(irreps[0].mul))
            self.harmonics = SphericalHarmonics(edge.lmax, normalization="component", normalize=True, backend=backend)
            self.basis = BASES[config.basis](config.cutoff, config.basis_size, dtype=dtype)
            self.surroundings = EdgeDegreeEmbedding(irreps, edge, config, backend)
            outputs = Irreps.of(config.outputs)
            ends = [irreps] * (config.layers - 1) + [outputs]
            self.blocks = nn.ModuleList(TransformerBlock(irreps, end, config, backend) for end in ends)
            self.norm = EquivariantLayerNorm(outputs)
            self.dropout = EquivariantDropout(outputs, config.out_drop)
            scalar = Irreps.of("1x0e")
            self.readout = (
                attention(scalar, outputs, config, backend, 1) if config.attention_head else ScalarReadout(outputs)
            )
        self.scale_shift = ScaleShift(config.scales or (1.0,) * count, config.shifts or (0.0,) * count)
        self.to(dtype).eval()

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights."""
        check_graph(graph, len(self.species), self.embedding)
        vectors = edge_vectors(graph)
        distances = safe_norm(vectors.index_select(0, first_edges(graph.pairs)), -1)
        edges = edges_of(graph, self.harmonics(vectors), self.basis(distances), self.config.heads)
        scalars, *others = self.surroundings(edges)
        x = [scalars + self.embedding.index_select(0, graph.species) + self.embedding_bias, *others]
        for block in self.blocks:
            x = block(x, edges)
        e = self.readout(self.dropout(self.norm.apart(x)), edges)[0].squeeze(-1)
        e = e / math.sqrt(self.config.avg_num_atoms)
        energies: Tensor = self.scale_shift(e, graph.species)
        return energies

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
