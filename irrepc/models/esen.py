"""eSEN: smooth energies from SO(2) convolutions (Fu et al., ICML 2025, arXiv 2502.12147).

A block maps features x of atoms, degrees 0 ... lmax, in two steps, each on normalised features h and added to x:

    edge-wise   (h_j, h_i) into the edge's frame · radial weights → SO(2) convolution → gate → SO(2) convolution
                → · envelope, back out of the frame, Σ over neighbours
    atom-wise   a gated perceptron for each degree («spectral»), or a perceptron on a grid on the sphere («grid»)

and the energy of an atom is a perceptron of its l = 0 features. Frames are those of nn/frames.py, differentiable
everywhere, and derivatives go through them: forces are right for edges along ± ŷ too. Numbers follow the authors' code
(fairchem-core 1.10), whose weights load one to one (irrepc/interop/esen.py).

One difference: a graph without any edge passes through the blocks like every other; there it skips them, so that an
atom alone had another energy than the same atom far from the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.errors import InputError
from irrepc.models.nequip import scale_shift
from irrepc.nn.degree_norm import NORMS, degree_norm
from irrepc.nn.frames import directions, frame_quaternions
from irrepc.nn.graph import Graph, check_graph, edge_vectors
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.radial import BesselBasis, GaussianBasis, RadialMLP, polynomial_cutoff
from irrepc.nn.s2_grid import OrderS2Activation, S2Grid
from irrepc.nn.so2 import FrameMatrices, OrderGate, Rotate, RotateBack, SO2Convolution
from irrepc.nn.so3_linear import SO3Linear, degrees_of_components

DEGREE_SCALE = 5.0
"""By which the first sum over neighbours is divided, in every published model."""
ENVELOPE_POWER = 5


@dataclass(frozen=True, slots=True)
class ESENConfig:
    """What defines an eSEN network, but for its weights.

    species          atomic numbers the network knows; graph.species counts into them
    cutoff           Å
    layers           blocks
    channels         of every component of the atoms' features
    hidden           channels inside a block, and of the energy's perceptron
    edge_channels    of the species embeddings of edges, and inside the radial perceptrons
    lmax, mmax       degrees of the features, and orders kept in the frame of an edge
    norm             rms_norm_sh, layer_norm_sh or layer_norm
    activation       of messages: gate (equivariant) or s2 (SiLU on a grid, approximately so)
    feed_forward     spectral (equivariant) or grid (approximately so)
    basis            gaussian or bessel (trainable, with its own envelope)
    basis_size       radial functions
    envelope         whether messages fade at the cutoff; without, energies jump there
    grid             rings and points on a ring, an even number; 0 takes the network's own, which is coarse
    scales, shifts   eV, one for each species: E_i = scale e_i + shift, in float64; none: E_i = e_i, as published
    """

    species: tuple[int, ...]
    cutoff: float = 6.0
    layers: int = 10
    channels: int = 128
    hidden: int = 128
    edge_channels: int = 128
    lmax: int = 3
    mmax: int = 2
    norm: str = "rms_norm_sh"
    activation: str = "gate"
    feed_forward: str = "spectral"
    basis: str = "gaussian"
    basis_size: int = 64
    envelope: bool = True
    grid: int = 0
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.species)
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct atomic numbers, at least one"),
            ("cutoff", math.isfinite(self.cutoff) and self.cutoff > 0, "a finite number > 0 (Å)"),
            ("layers", self.layers >= 0, "an integer >= 0"),
            ("channels", self.channels >= 1, "an integer >= 1"),
            ("hidden", self.hidden >= 1, "an integer >= 1"),
            ("edge_channels", self.edge_channels >= 1, "an integer >= 1"),
            ("lmax", self.lmax >= 1, "an integer >= 1"),
            ("mmax", 0 <= self.mmax <= self.lmax, "an integer 0 <= mmax <= lmax"),
            ("norm", self.norm in NORMS, f"one of {', '.join(NORMS)}"),
            ("activation", self.activation in ("gate", "s2"), "gate or s2"),
            ("feed_forward", self.feed_forward in ("spectral", "grid"), "spectral or grid"),
            ("basis", self.basis in ("gaussian", "bessel"), "gaussian or bessel"),
            ("basis_size", self.basis_size >= 2, "an integer >= 2"),
            ("grid", self.grid % 2 == 0 and (self.grid == 0 or self.grid > 2 * self.lmax), "0, or even and > 2 lmax"),
            ("scales", len(self.scales) in (0, count), f"{count} numbers, one for each species, or none"),
            ("shifts", len(self.shifts) in (0, count), f"{count} numbers, one for each species, or none"),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"ESENConfig: got {name} = {getattr(self, name)!r}; expected {expected}")


_ELEMENTS = tuple(range(100))  # the authors' tables have a row for each atomic number, and one for none
PUBLISHED = {
    "eSEN-30M-OAM": ESENConfig(_ELEMENTS),
    "eSEN-30M-MP": ESENConfig(_ELEMENTS, basis_size=10),
    "eSEN-6M": ESENConfig(_ELEMENTS, layers=4, lmax=2),
    "eSEN-3M": ESENConfig(_ELEMENTS, layers=2, lmax=2, basis="bessel", basis_size=10),
}
"""Configurations of published sizes: 30,161,153, 30,085,121, 6,261,249 and 3,199,755 weights."""


class RadialBasis(nn.Module):
    """Functions of the distance: Gaussians of twice their spacing, or Bessel functions under an envelope."""

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.cutoff = config.cutoff
        self.bessel = config.basis == "bessel"
        self.functions: nn.Module = (
            BesselBasis(config.cutoff, config.basis_size, trainable=True)
            if self.bessel
            else GaussianBasis(0.0, config.cutoff, config.basis_size, width=2.0, dtype=torch.float64)
        )
        # ours is (2/c) sin(kr/c)/r, the authors' √(2/c) times that sine over r
        self.scale = math.sqrt(config.cutoff / 2)

    def forward(self, r: Tensor, envelope: Tensor) -> Tensor:
        """Distances and their envelope (E,) -> (E, size)."""
        found: Tensor = self.functions(r)
        return found * (envelope * self.scale).unsqueeze(-1) if self.bessel else found


class EdgeWise(nn.Module):
    """The messages of one block."""

    def __init__(self, config: ESENConfig, edge_size: int, grid: S2Grid | None, backend: str) -> None:
        super().__init__()
        lmax, mmax, hidden = config.lmax, config.mmax, config.hidden
        self.rotate = Rotate(lmax, mmax, config.channels, sides=2, weights="order", backend=backend)
        self.radial = RadialMLP(edge_size, config.edge_channels, self.rotate.weight_numel)
        extra = hidden if grid is not None else lmax * hidden
        self.conv_1 = SO2Convolution(lmax, mmax, 2 * config.channels, hidden, extra=extra)
        self.activation: nn.Module = (
            OrderGate(lmax, mmax, hidden, backend) if grid is None else OrderS2Activation(grid, hidden)
        )
        self.conv_2 = SO2Convolution(lmax, mmax, hidden, config.channels)
        self.rotate_back = RotateBack(lmax, mmax, config.channels, backend=backend)

    def forward(self, h: Tensor, edge: Tensor, into: Tensor, out: Tensor, graph: Graph) -> Tensor:
        """h (N, (lmax+1)²·channels), edge (E, edge_size) -> as h.

        into, out  (E, FrameMatrices.size) rows of D, and the same times the envelope
        """
        x = self.rotate(h, into, graph.senders, graph.receivers, self.radial(edge))
        extra, y = self.conv_1(x)
        _, z = self.conv_2(self.activation(y, extra))
        messages: Tensor = self.rotate_back(z, out, graph.receivers)
        return messages


class SpectralFeedForward(nn.Module):
    """A perceptron for each degree: linear, gate, linear. The gates are sigmoid(silu(·)), as the authors have it."""

    degrees: Tensor

    def __init__(self, lmax: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        self.gates = nn.Linear(channels, lmax * hidden)
        self.linear_1 = SO3Linear(lmax, channels, hidden)
        self.linear_2 = SO3Linear(lmax, hidden, channels)
        self.register_buffer("degrees", degrees_of_components(lmax), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """(N, (lmax+1)²·channels) -> the same shape."""
        y = self.linear_1(h)
        gates = F.silu(self.gates(h[:, : self.channels]))
        factors = torch.unflatten(torch.cat((y[:, : self.hidden], gates), 1).sigmoid(), 1, (-1, self.hidden))
        gated = torch.unflatten(y, 1, (-1, self.hidden)) * factors.index_select(1, self.degrees)
        out: Tensor = self.linear_2(gated.flatten(1))
        return out


class GridFeedForward(nn.Module):
    """A perceptron without biases at each point of a grid on the sphere."""

    def __init__(self, grid: S2Grid, channels: int, hidden: int) -> None:
        super().__init__()
        self.grid, self.channels = grid, channels
        widths = ((channels, hidden), (hidden, hidden), (hidden, channels))
        self.layers = nn.ModuleList(nn.Linear(n, k, bias=False) for n, k in widths)

    def forward(self, h: Tensor) -> Tensor:
        """(N, (lmax+1)²·channels) -> the same shape."""
        v = self.grid.values(torch.unflatten(h, 1, (-1, self.channels)))
        for k, layer in enumerate(self.layers):
            v = layer(F.silu(v) if k else v)
        return self.grid.coefficients(v).flatten(1)


class Block(nn.Module):
    """x + edge-wise(norm(x)), then x + atom-wise(norm(x))."""

    def __init__(self, config: ESENConfig, edge_size: int, grids: tuple[S2Grid | None, S2Grid | None], backend: str):
        super().__init__()
        edges, atoms = grids
        lmax, channels = config.lmax, config.channels
        self.norm_1 = degree_norm(config.norm, lmax, channels)
        self.edge_wise = EdgeWise(config, edge_size, edges, backend)
        self.norm_2 = degree_norm(config.norm, lmax, channels)
        self.atom_wise: nn.Module = (
            SpectralFeedForward(lmax, channels, config.hidden)
            if atoms is None
            else GridFeedForward(atoms, channels, config.hidden)
        )

    def forward(self, x: Tensor, edge: Tensor, into: Tensor, out: Tensor, graph: Graph) -> Tensor:
        """x (N, (lmax+1)²·channels) -> the same shape; the rest as in EdgeWise."""
        x = x + self.edge_wise(self.norm_1(x), edge, into, out, graph)
        y: Tensor = x + self.atom_wise(self.norm_2(x))
        return y


class Backbone(nn.Module):
    """Features of atoms (N, (lmax+1)²·channels) from a graph."""

    def __init__(self, config: ESENConfig, backend: str) -> None:
        super().__init__()
        self.config = config
        count, lmax, mmax, channels = len(config.species), config.lmax, config.mmax, config.channels
        self.embedding = nn.Embedding(count, channels)
        self.senders = nn.Embedding(count, config.edge_channels)
        self.receivers = nn.Embedding(count, config.edge_channels)
        self.basis = RadialBasis(config)
        edge_size = config.basis_size + 2 * config.edge_channels
        self.matrices = FrameMatrices(lmax, mmax, backend)
        self.harmonics = SphericalHarmonics(lmax, "norm", normalize=False, backend=backend)
        self.degree_radial = RadialMLP(edge_size, config.edge_channels, (lmax + 1) * channels)
        self.degree_back = RotateBack(lmax, 0, channels, backend=backend)
        shape = (config.grid, config.grid) if config.grid else None
        grids = (
            S2Grid(lmax, mmax, rings_and_points=shape) if config.activation == "s2" else None,
            S2Grid(lmax, rings_and_points=shape) if config.feed_forward == "grid" else None,
        )
        self.blocks = nn.ModuleList(Block(config, edge_size, grids, backend) for _ in range(config.layers))
        self.norm = degree_norm(config.norm, lmax, channels)

    def forward(self, graph: Graph, frames: Tensor | None = None) -> Tensor:
        """frames: as in `ESEN`."""
        x, edge, into, out = self.begin(graph, frames)
        for block in self.blocks:
            x = block(x, edge, into, out, graph)
        y: Tensor = self.norm(x)
        return y

    def begin(self, graph: Graph, frames: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The features of atoms before the first block, and what blocks are told of edges: edge, into and out."""
        check_graph(graph, len(self.config.species), self.embedding.weight)
        n, r = directions(edge_vectors(graph))
        envelope = polynomial_cutoff(r / self.config.cutoff, ENVELOPE_POWER)
        into = self.matrices(frame_quaternions(n) if frames is None else frames)
        faded = envelope.unsqueeze(-1) if self.config.envelope else torch.ones_like(r).unsqueeze(-1)
        ends = (
            table.weight.index_select(0, graph.species).index_select(0, index.values)
            for table, index in ((self.senders, graph.senders), (self.receivers, graph.receivers))
        )
        edge = torch.cat((self.basis(r, envelope), *ends), 1)
        # in the frame the harmonics of the edge are its rows m' = 0, whatever the roll
        x = self.degree_back(
            (self.degree_radial(edge),), self.harmonics(n) * (faded / DEGREE_SCALE), graph.receivers
        )
        scalars = self.embedding.weight.index_select(0, graph.species)
        x = x + F.pad(scalars, (0, x.shape[1] - scalars.shape[1]))
        return x, edge, into, into * faded if self.config.envelope else into


class ESEN(nn.Module):
    """Energies of atoms from a graph; forces and stress are its derivatives (models/potential.py).

    config   what defines the network
    backend  of the compiled layers: "torch", "llvm", ... or "auto" (by the device); no part of the weights
    dtype    of the weights and the arithmetic
    seed     of the weights, drawn as the authors' code draws them
    """

    def __init__(
        self, config: ESENConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        self.backbone = Backbone(config, backend)
        self.energy = energy_perceptron(config.channels, config.hidden)
        self.scale_shift = scale_shift(config.scales, config.shifts, len(config.species))
        initialise(self, dtype, seed)

    def forward(self, graph: Graph, frames: Tensor | None = None) -> Tensor:
        """Energies (N,) of the atoms, eV, in the dtype of the weights, or float64 where there are shifts.

        frames  unit quaternions (E, 4) with R ŷ = the direction of the edge, instead of those of nn/frames.py. Only
                with the activation s2 does anything depend on them; no derivative goes through them.
        """
        return self.energies(self.backbone(graph, frames), graph.species)

    def energies(self, x: Tensor, species: Tensor) -> Tensor:
        """Features and species of atoms -> energies (N,)."""
        out: Tensor = self.energy(x[:, : self.config.channels]).squeeze(-1)
        return out if self.scale_shift is None else self.scale_shift(out, species)

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)


class DirectESEN(nn.Module):
    """eSEN with a head for the forces, linear in the features of degree 1: fast, and no gradient of any energy."""

    def __init__(
        self, config: ESENConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        self.potential = ESEN(config, backend, dtype=dtype)
        self.force = SO3Linear(1, config.channels, 1)
        initialise(self, dtype, seed)

    def forward(self, graph: Graph, frames: Tensor | None = None) -> Tensor:
        """Energies (N,) of the atoms, eV; as ESEN."""
        out: Tensor = self.potential(graph, frames)
        return out

    def energies_and_forces(self, graph: Graph, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energies (N,) eV and forces (N, 3) eV/Å of the head."""
        x = self.potential.backbone(graph, frames)
        forces = self.force(x[:, : 4 * self.config.channels])
        return self.potential.energies(x, graph.species), forces[:, 1:]


def initialise(model: nn.Module, dtype: torch.dtype, seed: int) -> None:
    """Draw all weights: linear maps uniformly in ± 1/√inputs, atoms normally, the species of edges within ± 1e-3.

    They are drawn in float64 and rounded, so that a seed means the same in every dtype.
    """
    generator = torch.Generator().manual_seed(seed)
    model.to(torch.float64)
    for name, module in model.named_modules():
        match module:
            case SO2Convolution() | SO3Linear():
                module.reset(generator)
            case nn.Linear():
                bound = 1 / math.sqrt(module.in_features)
                for tensor in module.parameters():
                    nn.init.uniform_(tensor, -bound, bound, generator)
            case nn.Embedding() if name.endswith("embedding"):
                nn.init.normal_(module.weight, generator=generator)
            case nn.Embedding():
                nn.init.uniform_(module.weight, -1e-3, 1e-3, generator)
    model.to(dtype)


def energy_perceptron(channels: int, hidden: int) -> nn.Sequential:
    """Scalars of an atom (N, channels) -> its energy (N, 1)."""
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
    )
