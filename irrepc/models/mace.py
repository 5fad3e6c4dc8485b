"""MACE: higher-order equivariant message passing (Batatia et al., NeurIPS 2022, arXiv 2206.07697).

A layer maps node features x to x' in three steps (equations of the paper):

    A_i = Linear(Σ_j R(r_ij) · Linear(x)_j ⊗ Y(r_ij)) / <neighbours>      eq. 8: the atomic basis, 0e+1o+...+lmax
    B_i = Σ_ν Σ_k W[z_i] U_ν A_i ⊗ ... ⊗ A_i                             eq. 10, 11: products of up to ν factors
    x'  = Linear(B) + W'[z_i] x                                           eq. 12: update, residual

and the energy of atom i is E0[z] + scale · Σ_layers readout(x') + shift.  Names and numbers follow the authors' package
(mace-torch 0.3, MACE and ScaleShiftMACE), whose weights load one to one (irrepc/interop/mace.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.errors import InputError
from irrepc.models.nequip import ScaleShift
from irrepc.nn.contraction import SymmetricContraction, species_index
from irrepc.nn.convolution import Convolution
from irrepc.nn.gate import SILU_GAIN
from irrepc.nn.graph import Graph, Index, check_graph, edge_vectors
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.norm import safe_norm
from irrepc.nn.radial import BesselBasis, ScalarMLP, polynomial_cutoff


@dataclass(frozen=True, slots=True)
class MACEConfig:
    """What defines a MACE network, but for its weights.

    species             atomic numbers the network knows; graph.species counts into them
    cutoff              Å
    layers              message-passing steps; the last of several keeps invariants only
    lmax                of the harmonics and of the atomic basis A
    channels            copies of each irrep
    degrees             of the features between layers, natural parity: (0, 1) is 0e+1o
    correlation         ν, factors of A in a product: 1 to 4
    residual            whether the first layer has the residual path; if not, its A is mixed by species
    bessels             radial basis functions
    cutoff_power        p of the polynomial cutoff
    radial_widths       hidden layers of the radial perceptron
    readout_width       hidden layer of the last readout
    avg_num_neighbors   mean number of edges per atom in the training set
    energies            E0 of an isolated atom of each species, eV
    scale, shift        eV, of the sum of the readouts
    couplings           the number of couplings of each degree and each ν = 1, 2, ..., flat; none: all coupling trees
    """

    species: tuple[int, ...]
    cutoff: float = 5.0
    layers: int = 2
    lmax: int = 3
    channels: int = 128
    degrees: tuple[int, ...] = (0, 1)
    correlation: int = 3
    residual: bool = True
    bessels: int = 8
    cutoff_power: int = 5
    radial_widths: tuple[int, ...] = (64, 64, 64)
    readout_width: int = 16
    avg_num_neighbors: float = 12.0
    energies: tuple[float, ...] = ()
    scale: float = 1.0
    shift: float = 0.0
    couplings: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count, degrees = len(self.species), self.degrees
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct atomic numbers, at least one"),
            ("cutoff", math.isfinite(self.cutoff) and self.cutoff > 0, "a finite number > 0 (Å)"),
            ("layers", self.layers >= 1, "an integer >= 1"),
            ("lmax", self.lmax >= 0, "an integer >= 0"),
            ("channels", self.channels >= 1, "an integer >= 1"),
            (
                "degrees",
                0 in degrees and list(degrees) == sorted(set(degrees)) and max(degrees) <= self.lmax,
                "rising degrees from 0 to lmax",
            ),
            ("correlation", 1 <= self.correlation <= 4, "an integer from 1 to 4"),
            ("bessels", self.bessels >= 1, "an integer >= 1"),
            ("cutoff_power", self.cutoff_power >= 2, "an integer >= 2, or forces would jump at the cutoff"),
            ("radial_widths", min(self.radial_widths, default=1) >= 1, "integers >= 1"),
            ("readout_width", self.readout_width >= 1, "an integer >= 1"),
            ("avg_num_neighbors", self.avg_num_neighbors > 0, "a number > 0"),
            ("energies", len(self.energies) in (0, count), f"{count} numbers, one for each species, or none"),
            (
                "couplings",
                len(self.couplings) in (0, len(degrees) * self.correlation),
                f"{len(degrees) * self.correlation} numbers, one for each degree and each ν, or none",
            ),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"MACEConfig: got {name} = {getattr(self, name)!r}; expected {expected}")

    def irreps(self, degrees: tuple[int, ...]) -> Irreps:
        """Features of all channels with these degrees, natural parity."""
        return Irreps(tuple(Block(self.channels, Irrep(l, (-1) ** l)) for l in degrees))


class Interaction(nn.Module):
    """One layer: messages into the atomic basis A, its products B, the update."""

    def __init__(
        self, irreps_in: Irreps, degrees: tuple[int, ...], config: MACEConfig, *, residual: bool, backend: str
    ) -> None:
        super().__init__()
        count = len(config.species)
        edge, basis = Irreps.spherical_harmonics(config.lmax), config.irreps(tuple(range(config.lmax + 1)))
        self.irreps_out = config.irreps(degrees)
        self.linear_up = Linear(irreps_in, irreps_in)
        self.convolution = Convolution(irreps_in, edge, basis, backend=backend)
        widths = (config.bessels, *config.radial_widths, self.convolution.weight_numel)
        self.radial = ScalarMLP(widths, gain=SILU_GAIN)
        self.linear = Linear(self.convolution.irreps_out, basis)
        self.residual = residual
        self.skip = SpeciesLinear(*((irreps_in, self.irreps_out) if residual else (basis, basis)), count)
        counts = config.couplings[: len(degrees) * config.correlation]
        self.contraction = SymmetricContraction(
            basis, self.irreps_out, count, config.correlation, counts=counts, backend=backend
        )
        self.product = Linear(self.irreps_out, self.irreps_out)
        self.normalisation = 1.0 / config.avg_num_neighbors

    def forward(
        self, x: Tensor, one_hot: Tensor, species: Index, radial: Tensor, harmonics: Tensor, graph: Graph
    ) -> Tensor:
        """x (N, irreps_in.dim) -> (N, irreps_out.dim).

        one_hot (N, species), species: Index of the atoms, radial (E, bessels), harmonics (E, (lmax + 1)²).
        """
        identity = torch.eye(one_hot.shape[1], dtype=x.dtype, device=x.device)
        h = self.linear_up(x)
        m = self.convolution(h, harmonics, self.radial(radial), graph.senders, graph.receivers)
        a: Tensor = self.linear(m) * self.normalisation
        if not self.residual:
            a = self.skip(a, identity, one_hot)
        out: Tensor = self.product(self.contraction(a, species))
        return out + self.skip(x, identity, one_hot) if self.residual else out


class MACE(nn.Module):
    """MACE and ScaleShiftMACE: a graph -> the energy of each atom.

    embedding  (species, channels), the first features of each species, times √species
    seed       of the weights, which are drawn with unit variance (products: divided by the number of couplings)
    """

    def __init__(
        self, config: MACEConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        count = len(config.species)
        self.embedding = nn.Parameter(torch.empty(count, config.channels))
        self.basis = BesselBasis(config.cutoff, config.bessels)
        self.harmonics = SphericalHarmonics(config.lmax, backend=backend)
        layers: list[Interaction] = []
        readouts: list[nn.Module] = []
        irreps = config.irreps((0,))
        for k in range(config.layers):
            last = k == config.layers - 1 > 0
            degrees = (0,) if last else config.degrees
            layers.append(Interaction(irreps, degrees, config, residual=k > 0 or config.residual, backend=backend))
            irreps = layers[-1].irreps_out
            widths = (config.channels, config.readout_width, 1)
            readouts.append(ScalarMLP(widths, gain=SILU_GAIN) if last else Linear(irreps, "1x0e"))
        self.layers, self.readouts = nn.ModuleList(layers), nn.ModuleList(readouts)
        shifts = tuple(e + config.shift for e in config.energies or (0.0,) * count)
        self.scale_shift = ScaleShift((config.scale,) * count, shifts)
        self.to(dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():  # drawn in float64, so that a seed means the same in every dtype
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            for layer in layers:
                for weight in layer.contraction.weights:
                    weight /= max(weight.shape[1], 1)

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights."""
        count = len(self.species)
        check_graph(graph, count, self.embedding)
        vectors = -edge_vectors(graph)  # the paper's r_ij points from the neighbour to the centre
        r = safe_norm(vectors, -1)
        # MACE writes √(2/r_c) before the basis, where the basis of Gasteiger, as NequIP has it, is 2/r_c
        gain = math.sqrt(self.cutoff / 2)
        radial = self.basis(r) * (gain * polynomial_cutoff(r / self.cutoff, self.config.cutoff_power).unsqueeze(-1))
        harmonics = self.harmonics(vectors)
        one_hot = F.one_hot(graph.species, count).to(self.embedding.dtype)
        species = species_index(graph.species, count)
        x = one_hot @ (self.embedding / math.sqrt(count))
        total = x.new_zeros(x.shape[0])
        for layer, readout in zip(self.layers, self.readouts, strict=True):
            x = layer(x, one_hot, species, radial, harmonics, graph)
            total = total + readout(x).squeeze(-1)
        energies: Tensor = self.scale_shift(total, graph.species)
        return energies

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
