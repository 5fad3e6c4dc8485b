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
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Irrep, Irreps
from irrepc.errors import InputError
from irrepc.models.nequip import ScaleShift
from irrepc.nn.attention import Edges, GraphAttention, edges_of
from irrepc.nn.block_linear import BlockLinear
from irrepc.nn.convolution import Convolution
from irrepc.nn.depthwise import Depthwise
from irrepc.nn.distance_bases import BASES, RadialProfile
from irrepc.nn.dropout import EquivariantDropout, PathDropout
from irrepc.nn.gate import SILU_GAIN
from irrepc.nn.graph import Graph, check_graph, edge_vectors
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.linear import joined
from irrepc.nn.norm import EquivariantLayerNorm, safe_norm
from irrepc.nn.swish_gate import SwishGate


@dataclass(frozen=True, slots=True)
class EquiformerConfig:
    """What defines an Equiformer, but for its weights. Irreps are sorted by degree, even before odd, each once.

    species             atomic numbers the network knows; graph.species counts into them
    cutoff              Å
    layers              blocks
    features            irreps of the nodes between blocks, 0e among them
    harmonics           irreps of Y: one copy of each degree 0 ... lmax; 1e for an SE(3) network, 1o for E(3)
    head, heads         irreps of one attention head, 0e among them, and how many heads there are
    hidden              irreps of the feed-forward network, 0e among them
    outputs             irreps after the last block: scalars, or any with attention_head
    basis, basis_size   of the distance: "gaussian", "exp" or "bessel" (irrepc/nn/distance_bases.py)
    radial_widths       hidden layers of the radial profiles
    nonlinear_messages  whether messages have a gate inside
    rescale_degree      whether the sum over neighbours is multiplied by their number
    attention_head      whether the energy is read by attention
    avg_num_neighbors, avg_num_atoms   of the training set (those of QM9 with 5 Å, also in the networks for MD17)
    scales, shifts      σ_t and μ_t, eV, one for each species
    alpha_drop, proj_drop, out_drop, path_drop   rates of attention weights, branches' copies of irreps, the last
                        features' copies, and whole branches, dropped in training
    """

    species: tuple[int, ...]
    cutoff: float = 5.0
    layers: int = 6
    features: str = "128x0e+64x1e+32x2e"
    harmonics: str = "1x0e+1x1e+1x2e"
    head: str = "32x0e+16x1e+8x2e"
    heads: int = 4
    hidden: str = "384x0e+192x1e+96x2e"
    outputs: str = "512x0e"
    basis: str = "gaussian"
    basis_size: int = 128
    radial_widths: tuple[int, ...] = (64, 64)
    nonlinear_messages: bool = True
    rescale_degree: bool = False
    attention_head: bool = False
    avg_num_neighbors: float = 15.57930850982666
    avg_num_atoms: float = 18.03065905448718
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()
    alpha_drop: float = 0.0
    proj_drop: float = 0.0
    out_drop: float = 0.0
    path_drop: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.species)
        sides = {name: Irreps.of(getattr(self, name)) for name in ("features", "head", "hidden", "outputs")}
        degrees = [(b.mul, b.irrep.l) for b in Irreps.of(self.harmonics)]
        rates = (self.alpha_drop, self.proj_drop, self.out_drop, self.path_drop)
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct atomic numbers, at least one"),
            ("cutoff", math.isfinite(self.cutoff) and self.cutoff > 0, "a finite number > 0 (Å)"),
            ("layers", self.layers >= 1, "an integer >= 1"),
            *(
                (name, _is_sorted(irreps) and "0e" in irreps, "irreps sorted by degree, even first, each once, with 0e")
                for name, irreps in sides.items()
            ),
            (
                "outputs",
                self.attention_head or len(sides["outputs"]) == 1,
                "scalars only, as there is no attention_head",
            ),
            ("harmonics", degrees == [(1, l) for l in range(len(degrees))], "one copy of each degree 0 ... lmax"),
            ("heads", self.heads >= 1, "an integer >= 1"),
            ("basis", self.basis in BASES, f"one of {', '.join(BASES)}"),
            ("basis_size", self.basis_size >= 1, "an integer >= 1"),
            ("radial_widths", min(self.radial_widths, default=0) >= 1, "integers >= 1, at least one"),
            ("avg_num_neighbors", self.avg_num_neighbors > 0, "a number > 0"),
            ("avg_num_atoms", self.avg_num_atoms > 0, "a number > 0"),
            ("scales", len(self.scales) in (0, count), f"{count} numbers, one for each species, or none"),
            ("shifts", len(self.shifts) in (0, count), f"{count} numbers, one for each species, or none"),
            ("alpha_drop", all(0 <= rate < 1 for rate in rates), "rates from 0 to 1, 1 excluded, for all four"),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"EquiformerConfig: got {name} = {getattr(self, name)!r}; expected {expected}")


def _is_sorted(irreps: Irreps) -> bool:
    keys = [(b.irrep.l, -b.irrep.p) for b in irreps]
    return bool(keys) and keys == sorted(set(keys)) and min(b.mul for b in irreps) >= 1


# The published networks: MD17 counts the species 0 ... 63 by atomic number; L is the largest degree.
_ALL = tuple(range(64))
MD17_L2 = EquiformerConfig(_ALL, basis="exp", basis_size=32)
MD17_L3 = EquiformerConfig(
    _ALL,
    basis="exp",
    basis_size=32,
    features="128x0e+64x1e+64x2e+32x3e",
    harmonics="1x0e+1x1e+1x2e+1x3e",
    head="32x0e+16x1e+16x2e+8x3e",
    hidden="384x0e+192x1e+192x2e+96x3e",
)
QM9_L2 = EquiformerConfig((1, 6, 7, 8, 9), alpha_drop=0.2)
QM9_L2_E3 = EquiformerConfig(
    (1, 6, 7, 8, 9),
    features="128x0e+32x0o+32x1e+32x1o+16x2e+16x2o",
    harmonics="1x0e+1x1o+1x2e",
    head="32x0e+8x0o+8x1e+8x1o+4x2e+4x2o",
    hidden="384x0e+96x0o+96x1e+96x1o+48x2e+48x2o",
    alpha_drop=0.2,
)


class EdgeDegreeEmbedding(nn.Module):
    """Σ_e Linear(R(r_e) · (c ⊗ Y_e)) / √<neighbours>: what surrounds an atom, c the same constant scalars for all.

    The constants are the 0e of a linear map of 1, whose other outputs are zero: of the paths of the product, which
    has weights for all, only those from 0e do anything.
    """

    def __init__(self, irreps: Irreps, irreps_edge: Irreps, config: EquiformerConfig, backend: str) -> None:
        super().__init__()
        plan = self.plan = Depthwise(irreps, irreps_edge, irreps)
        self.constant = BlockLinear("1x0e", irreps)
        self.radial = RadialProfile((config.basis_size, *config.radial_widths, plan.weight_numel))
        self.linear = BlockLinear(plan.irreps_out, irreps)
        scalars = Irreps((irreps[0],))
        self.convolution = Convolution(scalars, irreps_edge, irreps, backend=backend)
        self._channels, self._width = irreps[0].mul, irreps.dim
        # 0e is the first block, so that its paths are the first in the weights, and first within each irrep
        self._paths = tuple(block.irrep for block in self.convolution.irreps_out)
        self.normalisation = 1.0 / math.sqrt(config.avg_num_neighbors)

    def forward(self, edges: Edges) -> Tensor:
        """(N, irreps.dim)."""
        graph, used = edges.graph, self.convolution.weight_numel
        atoms = graph.num_atoms
        constant = self.constant.weight + self.constant.bias
        weights = torch.addmm(
            self.radial.offset[:used], self.radial.hidden(edges.basis), self.radial.last[:used].t()
        )
        x = constant.expand(atoms, self._channels)
        sums = self.convolution(x, edges.harmonics, weights, graph.senders, graph.receivers)
        found = dict(zip(self._paths, sums.split_with_sizes([b.dim for b in self.convolution.irreps_out], 1), strict=True))
        matrices, out = self.linear.matrices(), []
        for feed, block in zip(self.linear.feeds, self.linear.irreps_out, strict=True):
            if feed is None or block.irrep not in found:
                out.append(sums.new_zeros(atoms, block.dim))
                continue
            matrix = matrices[feed.matrix][: self._channels]
            y = found[block.irrep].reshape(atoms * block.irrep.dim, self._channels) @ matrix
            if feed.biased:
                degree = graph.receivers.start.diff().to(y.dtype).unsqueeze(-1)
                y = y + degree * self.linear.bias
            out.append(y.view(atoms, block.dim))
        return joined(out, 1) * self.normalisation


class FeedForward(nn.Module):
    """Linear, gate, Linear."""

    def __init__(self, irreps: Irreps, hidden: Irreps, irreps_out: Irreps, rate: float, backend: str) -> None:
        super().__init__()
        self.gate = SwishGate(hidden, backend)
        self.linear_1 = BlockLinear(irreps, self.gate.irreps_in)
        self.linear_2 = BlockLinear(hidden, irreps_out)
        self.dropout = EquivariantDropout(irreps_out, rate)
        self._widths = tuple(b.dim for b in irreps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, irreps.dim) -> (N, irreps_out.dim)."""
        out: Tensor = self.dropout(self.linear_2(self.gate(self.linear_1.apart(x.split_with_sizes(self._widths, 1)))))
        return out


def attention(irreps_out: Irreps, irreps: Irreps, config: EquiformerConfig, backend: str) -> GraphAttention:
    """The attention layer of a configuration."""
    return GraphAttention(
        irreps,
        Irreps.of(config.harmonics),
        irreps_out,
        Irreps.of(config.head),
        config.heads,
        (config.basis_size, *config.radial_widths),
        nonlinear=config.nonlinear_messages,
        rescale=config.rescale_degree,
        alpha_drop=config.alpha_drop,
        proj_drop=config.proj_drop,
        backend=backend,
    )


class TransformerBlock(nn.Module):
    """Attention and feed-forward network, each on normalised features and added to what came in."""

    def __init__(self, irreps: Irreps, irreps_out: Irreps, config: EquiformerConfig, backend: str) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = EquivariantLayerNorm(irreps), EquivariantLayerNorm(irreps)
        self.attention = attention(irreps, irreps, config, backend)
        self.feed_forward = FeedForward(irreps, Irreps.of(config.hidden), irreps_out, config.proj_drop, backend)
        self.shortcut = None if irreps == irreps_out else BlockLinear(irreps, irreps_out)
        self.path = PathDropout(config.path_drop)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """(N, irreps.dim) -> (N, irreps_out.dim)."""
        batch, structures = edges.graph.batch, edges.graph.num_graphs
        x = x + self.path(self.attention(self.norm_1(x), edges), batch, structures)
        y = self.path(self.feed_forward(self.norm_2(x)), batch, structures)
        kept: Tensor = x if self.shortcut is None else self.shortcut(x)
        return kept + y


class ScalarReadout(nn.Module):
    """Linear, SiLU, Linear on scalars."""

    def __init__(self, irreps: Irreps) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = BlockLinear(irreps, irreps), BlockLinear(irreps, "1x0e")

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """(N, scalars) -> (N, 1)."""
        out: Tensor = self.linear_2(F.silu(self.linear_1(x)) * SILU_GAIN)
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
                attention(scalar, outputs, config, backend) if config.attention_head else ScalarReadout(outputs)
            )
        self.scale_shift = ScaleShift(config.scales or (1.0,) * count, config.shifts or (0.0,) * count)
        self.to(dtype).eval()

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights."""
        check_graph(graph, len(self.species), self.embedding)
        vectors = edge_vectors(graph)
        edges = edges_of(graph, self.harmonics(vectors), self.basis(safe_norm(vectors, -1)), self.config.heads)
        surroundings = self.surroundings(edges)
        scalars = self.embedding.index_select(0, graph.species) + self.embedding_bias
        x = surroundings + F.pad(scalars, (0, surroundings.shape[1] - scalars.shape[1]))
        for block in self.blocks:
            x = block(x, edges)
        e = self.readout(self.dropout(self.norm(x)), edges).squeeze(-1) / math.sqrt(self.config.avg_num_atoms)
        energies: Tensor = self.scale_shift(e, graph.species)
        return energies

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
