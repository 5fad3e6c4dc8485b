"""EquiformerV2: attention whose messages are SO(2) convolutions (Liao, Wood, Das and Smidt, ICLR 2024).

A block adds to the features x of atoms, degrees 0 ... lmax, the attention to their neighbours (nn/so2_attention.py) and
then a perceptron of each atom, both of normalised features. The energy of an atom is l = 0 of one more perceptron, its
force l = 1 of one more attention: no gradient of that energy. Numbers follow the authors' code (fairchem-core 1.10),
whose weights load one to one (irrepc/interop/equiformer_v2.py).

Frames of edges are those of nn/frames.py, where the authors draw a new roll about the edge for every call: with the
activation «gate» nothing depends on it, with the others the grid's aliasing does, so theirs gives another result each
time. Nothing fades at the cutoff: energies and forces jump when a neighbour comes or goes. The published networks were
trained on at most 20 neighbours of an atom, the nearest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.errors import InputError
from irrepc.models.nequip import scale_shift
from irrepc.nn.degree_norm import NORMS, degree_norm
from irrepc.nn.dropout import ChannelDropout, PathDropout
from irrepc.nn.frames import directions, frame_quaternions
from irrepc.nn.graph import Graph, check_graph, edge_vectors
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.radial import GaussianBasis, RadialMLP
from irrepc.nn.s2_grid import S2Grid
from irrepc.nn.so2 import FrameMatrices, RotateBack, SO2Convolution
from irrepc.nn.so2_attention import ACTIVATIONS, AttentionShape, EdgeScalars, GivenScalars, SO2Attention
from irrepc.nn.so3_linear import SO3Linear, degrees_of_components

BASIS_SIZE = 600
"""Gaussians of the distance, σ twice their spacing: fixed in the authors' code."""
FEED_FORWARDS = (*ACTIVATIONS, "grid", "separable_grid")
DROPS = ("alpha_drop", "proj_drop", "path_drop")


@dataclass(frozen=True, slots=True)
class EquiformerV2Config:
    """What defines an EquiformerV2 network, but for its weights.

    species             atomic numbers the network knows; graph.species counts into them
    cutoff              Å
    layers              blocks
    channels            of every component of the atoms' features
    hidden              channels inside the messages
    heads, alpha, value of the attention; scalars of a head's score, channels of its value
    feed_hidden         channels inside the perceptrons of atoms
    edge_channels       of the species embeddings of edges, and inside the radial perceptrons
    lmax, mmax          degrees of the features, and orders kept in the frame of an edge
    norm                rms_norm_sh, layer_norm_sh or layer_norm
    activation          of messages: gate (equivariant), separable_s2 or s2 (SiLU on a grid, approximately so)
    feed_forward        the same for the perceptrons of atoms, or grid, separable_grid: a perceptron on the grid
    radial              radial weights for each «order» and degree, or for each «degree» only
    edge_embedding      of species: each module its «own», one «shared» by all, or «none»
    renorm              whether the scalars of scores are normalised
    grid                rings and points on a ring, an even number; 0 takes the network's own, which is coarse
    neighbours, atoms   averages in the training set, by which the first sum over neighbours and the energy are divided
    alpha_drop, proj_drop, path_drop   rates of attention weights, channels of a branch, and whole branches, dropped in
                        training; the published networks were trained with 0.1, 0 and 0.1
    scales, shifts      eV, one for each species: E_i = scale e_i + shift, in float64; none: E_i = e_i, as published
    """

    species: tuple[int, ...]
    cutoff: float = 12.0
    layers: int = 8
    channels: int = 128
    hidden: int = 64
    heads: int = 8
    alpha: int = 64
    value: int = 16
    feed_hidden: int = 128
    edge_channels: int = 128
    lmax: int = 4
    mmax: int = 2
    norm: str = "layer_norm_sh"
    activation: str = "separable_s2"
    feed_forward: str = "separable_grid"
    radial: str = "order"
    edge_embedding: str = "own"
    renorm: bool = True
    grid: int = 18
    neighbours: float = 23.395238876342773
    atoms: float = 77.81317
    alpha_drop: float = 0.0
    proj_drop: float = 0.0
    path_drop: float = 0.0
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.species)
        sizes = ("channels", "hidden", "heads", "alpha", "value", "feed_hidden", "edge_channels", "lmax")
        positive = ("cutoff", "neighbours", "atoms")
        choices = {
            "norm": tuple(NORMS), "activation": ACTIVATIONS, "feed_forward": FEED_FORWARDS,
            "radial": ("order", "degree"), "edge_embedding": ("own", "shared", "none"),
        }  # fmt: skip
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct atomic numbers, at least one"),
            ("layers", self.layers >= 0, "an integer >= 0"),
            *((name, getattr(self, name) >= 1, "an integer >= 1") for name in sizes),
            *((n, math.isfinite(getattr(self, n)) and getattr(self, n) > 0, "a finite number > 0") for n in positive),
            ("mmax", 0 <= self.mmax <= self.lmax, "an integer 0 <= mmax <= lmax"),
            *((name, getattr(self, name) in among, f"one of {', '.join(among)}") for name, among in choices.items()),
            *((n, 0 <= getattr(self, n) < 1, "a rate from 0 to 1, 1 excluded") for n in DROPS),
            ("grid", self.grid % 2 == 0 and (self.grid == 0 or self.grid > 2 * self.lmax), "0, or even and > 2 lmax"),
            *((n, len(getattr(self, n)) in (0, count), f"{count} numbers or none") for n in ("scales", "shifts")),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"EquiformerV2Config: got {name} = {getattr(self, name)!r}; expected {expected}")

    @property
    def shape(self) -> AttentionShape:
        """What its attentions share."""
        return AttentionShape(
            self.lmax, self.mmax, self.channels, self.hidden, self.heads, self.alpha, self.value, self.edge_channels,
            self.activation, self.radial, self.renorm, self.alpha_drop,
        )  # fmt: skip


_SMALL = EquiformerV2Config(tuple(range(90)))  # the authors' tables have a row for each atomic number below 90
PUBLISHED = {
    "31M": _SMALL,
    "86M": replace(_SMALL, layers=10, lmax=6, mmax=4),
    "153M": replace(_SMALL, layers=20, lmax=6, mmax=3),
}
"""Configurations of published sizes: 31,058,690, 86,437,250 and 153,602,690 weights."""


class DegreeEmbedding(nn.Module):
    """What an atom first sees of its neighbours: Σ_e w_l(e) Y_l(direction of e), over the average neighbours."""

    def __init__(self, config: EquiformerV2Config, scalars: EdgeScalars | GivenScalars, backend: str) -> None:
        super().__init__()
        lmax = config.lmax
        self.scalars, self.neighbours = scalars, config.neighbours
        self.radial = RadialMLP(scalars.size, config.edge_channels, (lmax + 1) * config.channels)
        self.harmonics = SphericalHarmonics(lmax, "norm", normalize=False, backend=backend)
        self.back = RotateBack(lmax, 0, config.channels, backend=backend)

    def forward(self, n: Tensor, edge: Tensor, stretch: Tensor, graph: Graph) -> Tensor:
        """n (E, 3) unit vectors, edge (E, ...) scalars, stretch ((lmax+1)²,) -> (N, (lmax+1)²·channels)."""
        # in the frame the harmonics of the edge are its rows m' = 0, whatever the roll
        rows = self.harmonics(n) * (stretch / self.neighbours)
        out: Tensor = self.back((self.radial(self.scalars(edge, graph)),), rows, graph.receivers)
        return out


class DegreeGate(nn.Module):
    """SiLU for l = 0, and every degree l > 0 times the sigmoid of its gate."""

    degrees: Tensor

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("degrees", degrees_of_components(lmax), persistent=False)

    def forward(self, y: Tensor, gates: Tensor) -> Tensor:
        """y (N, (lmax+1)²·channels), gates (N, lmax·channels) -> as y."""
        factors = torch.cat((y[:, : self.channels], gates), 1).sigmoid()
        factors = torch.unflatten(factors, 1, (-1, self.channels)).index_select(1, self.degrees)
        return (torch.unflatten(y, 1, (-1, self.channels)) * factors).flatten(1)


class OnGrid(nn.Module):
    """A function of the values at each point of a grid on the sphere; with scalars, l = 0 becomes SiLU(scalars)."""

    def __init__(self, grid: S2Grid, channels: int, function: nn.Module) -> None:
        super().__init__()
        self.grid, self.channels, self.function = grid, channels, function

    def forward(self, y: Tensor, scalars: Tensor | None) -> Tensor:
        """y (N, (lmax+1)²·channels), scalars (N, channels) -> as y."""
        out = self.grid.pointwise(self.function, torch.unflatten(y, 1, (-1, self.channels))).flatten(1)
        return out if scalars is None else torch.cat((F.silu(scalars), out[:, self.channels :]), 1)


class FeedForward(nn.Module):
    """Linear for each degree, activation, linear for each degree; kind is one of FEED_FORWARDS."""

    def __init__(self, config: EquiformerV2Config, channels_out: int, grid: S2Grid | None) -> None:
        super().__init__()
        lmax, channels, hidden = config.lmax, config.channels, config.feed_hidden
        self.channels = channels
        gates = {"gate": lmax * hidden, "separable_s2": hidden, "separable_grid": hidden}.get(config.feed_forward, 0)
        self.gates = nn.Linear(channels, gates) if gates else None
        self.linear_1 = SO3Linear(lmax, channels, hidden)
        function: nn.Module = nn.SiLU()
        if config.feed_forward.endswith("grid"):
            a, b, c = (nn.Linear(hidden, hidden, bias=False) for _ in range(3))
            function = nn.Sequential(a, nn.SiLU(), b, nn.SiLU(), c)
        self.activation: nn.Module = DegreeGate(lmax, hidden) if grid is None else OnGrid(grid, hidden, function)
        self.linear_2 = SO3Linear(lmax, hidden, channels_out)

    def forward(self, h: Tensor) -> Tensor:
        """(N, (lmax+1)²·channels) -> (N, (lmax+1)²·channels_out)."""
        gates = None if self.gates is None else self.gates(h[:, : self.channels])
        out: Tensor = self.linear_2(self.activation(self.linear_1(h), gates))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: EquiformerV2Config, attention: SO2Attention, grid: S2Grid | None) -> None:
        super().__init__()
        self.norm_1 = degree_norm(config.norm, config.lmax, config.channels)
        self.attention = attention
        self.norm_2 = degree_norm(config.norm, config.lmax, config.channels)
        self.feed_forward = FeedForward(config, config.channels, grid)
        self.path, self.drop = PathDropout(config.path_drop), ChannelDropout(config.channels, config.proj_drop)

    def forward(self, x: Tensor, edge: Tensor, into: Tensor, out: Tensor, graph: Graph) -> Tensor:
        """x (N, (lmax+1)²·channels) -> the same shape; the rest as in SO2Attention."""
        x = x + self.dropped(self.attention(self.norm_1(x), edge, into, out, graph), graph)
        y: Tensor = x + self.dropped(self.feed_forward(self.norm_2(x)), graph)
        return y

    def dropped(self, branch: Tensor, graph: Graph) -> Tensor:
        """A branch as it is in evaluation; in training some structures go without it, others without some channels."""
        out: Tensor = self.drop(self.path([branch], graph.batch, graph.num_graphs)[0])
        return out


class Features(NamedTuple):
    """What both heads read: normalised features of atoms (N, (lmax+1)²·channels), and what SO2Attention takes."""

    atoms: Tensor
    edge: Tensor
    into: Tensor
    out: Tensor


class EquiformerV2(nn.Module):
    """Energies of atoms from a graph, and forces from a head of their own (models/potential.py: predict).

    config   what defines the network
    backend  of the compiled layers: "torch", "llvm", ... or "auto" (by the device); no part of the weights
    dtype    of the weights and the arithmetic
    seed     of the weights, drawn as the authors' code draws those of the published networks

    A new network is in evaluation mode; dropouts act after `train()`.
    """

    sizes: Tensor
    kept_sizes: Tensor

    def __init__(
        self, config: EquiformerV2Config, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        lmax, mmax, channels, count = config.lmax, config.mmax, config.channels, len(config.species)
        rings = (config.grid, config.grid) if config.grid else None
        edges = atoms = None
        if config.activation != "gate":
            edges = S2Grid(lmax, mmax, normalization="component", rings_and_points=rings)
        if config.feed_forward != "gate":
            atoms = S2Grid(lmax, normalization="component", rings_and_points=rings)

        self.basis = GaussianBasis(0.0, config.cutoff, BASIS_SIZE, width=2.0, dtype=torch.float64)
        shared = config.edge_embedding == "shared"
        self.scalars = EdgeScalars(BASIS_SIZE, count, config.edge_channels) if shared else GivenScalars(BASIS_SIZE)

        def scalars() -> EdgeScalars | GivenScalars:
            own = config.edge_embedding == "own"
            return EdgeScalars(BASIS_SIZE, count, config.edge_channels) if own else GivenScalars(self.scalars.size)

        def attention(channels_out: int, alpha_drop: float) -> SO2Attention:
            shape = replace(config.shape, alpha_drop=alpha_drop)
            return SO2Attention(shape, channels_out, scalars(), edges, backend)

        self.matrices = FrameMatrices(lmax, mmax, backend)
        self.embedding = nn.Embedding(count, channels)
        self.degree = DegreeEmbedding(config, scalars(), backend)
        attentions = [attention(channels, config.alpha_drop) for _ in range(config.layers)]
        self.blocks = nn.ModuleList(Block(config, layer, atoms) for layer in attentions)
        self.norm = degree_norm(config.norm, lmax, channels)
        self.energy = FeedForward(config, 1, atoms)
        self.force = attention(1, 0.0)
        self.scale_shift = scale_shift(config.scales, config.shifts, count)
        # 2l+1 of each component, and of each number of the kept rows of D: whole numbers, which every dtype holds
        degrees = degrees_of_components(lmax)
        kept = [2 * l + 1 for l in range(lmax + 1) for _ in range((2 * min(l, mmax) + 1) * (2 * l + 1))]
        self.register_buffer("sizes", (2 * degrees + 1).to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("kept_sizes", torch.tensor(kept, dtype=torch.get_default_dtype()), persistent=False)
        self.reset(dtype, seed)
        self.eval()

    def forward(self, graph: Graph, frames: Tensor | None = None) -> Tensor:
        """Energies (N,) of the atoms, eV, in the dtype of the weights, or float64 where there are shifts.

        frames  unit quaternions (E, 4) with R ŷ = the direction of the edge, instead of those of nn/frames.py
        """
        return self.energies(self.features(graph, frames), graph.species)

    def energies_and_forces(self, graph: Graph, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energies (N,) eV, and forces (N, 3) eV/Å of the head; frames as above."""
        found = self.features(graph, frames)
        forces = self.force(found.atoms, found.edge, found.into, found.out, graph)
        return self.energies(found, graph.species), forces[:, 1:4]

    def energies(self, found: Features, species: Tensor) -> Tensor:
        """(N,) eV."""
        out: Tensor = self.energy(found.atoms)[:, 0] / self.config.atoms
        return out if self.scale_shift is None else self.scale_shift(out, species)

    def features(self, graph: Graph, frames: Tensor | None = None) -> Features:
        """All blocks; frames as in `forward`."""
        check_graph(graph, len(self.config.species), self.embedding.weight)
        n, r = directions(edge_vectors(graph))
        into = self.matrices(frame_quaternions(n) if frames is None else frames)
        out = into * self.stretch(self.kept_sizes)
        edge = self.scalars(self.basis(r), graph)
        x = self.degree(n, edge, self.stretch(self.sizes), graph)
        scalars = self.embedding.weight.index_select(0, graph.species)
        x = x + F.pad(scalars, (0, x.shape[1] - scalars.shape[1]))
        for block in self.blocks:
            x = block(x, edge, into, out, graph)
        return Features(self.norm(x), edge, into, out)

    def stretch(self, sizes: Tensor) -> Tensor:
        """√((2l+1)/(2mmax+1)) for l > mmax, else 1: makes up for the orders that were left out (authors' code)."""
        return (sizes / (2 * self.config.mmax + 1)).clamp(min=1).sqrt()

    def reset(self, dtype: torch.dtype, seed: int) -> None:
        """Draw all weights in float64 and round them, so that a seed means the same in every dtype.

        Linear maps uniformly in ± 1/√inputs, biases zero; atoms normally, the species of edges within ± 1e-3.
        """
        generator = torch.Generator().manual_seed(seed)
        self.to(torch.float64)
        for name, module in self.named_modules():
            match module:
                case SO2Convolution() | SO3Linear() | SO2Attention():
                    module.reset(generator)
                case nn.Linear():
                    bound = 1 / math.sqrt(module.in_features)
                    nn.init.uniform_(module.weight, -bound, bound, generator)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
                case nn.Embedding() if name == "embedding":
                    nn.init.normal_(module.weight, generator=generator)
                case nn.Embedding():
                    nn.init.uniform_(module.weight, -1e-3, 1e-3, generator)
        self.to(dtype)

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
