"""SevenNet: NequIP made parallel and universal (Park, Kim, Hwang, Han, J. Chem. Theory Comput. 20, 4857, 2024).

A layer maps node features x to x' = gate(self-connection + interaction), as NequIP's does (models/nequip.py):

    h   = Linear₁(x)                                          self-interaction
    m_i = Σ_j R(r_ij) · h_j ⊗ Y(r_ij) / denominator           convolution
    x'  = Gate(Linear₂(m) + Linear₀(x))                       the self-connection does not know the species

and the energy of atom i is σ_t Linear₄(Linear₃(x_i)) + μ_t, with scale and shift for each species t. What differs from
NequIP: every irrep is even, so that the network is invariant under rotations only, and products such as 1 x 1 -> 1 are
among its paths; the radial waves are trained; the perceptrons and gates have e3nn's gains. Names and numbers follow the
authors' package (sevenn), whose checkpoints irrepc/interop/sevennet.py reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.errors import InputError
from irrepc.models.nequip import ScaleShift
from irrepc.nn.closed_forms import sines
from irrepc.nn.convolution import Convolution
from irrepc.nn.gate import SILU_GAIN, Gate
from irrepc.nn.graph import Graph, checked_vectors, first_edges
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.linear import Linear
from irrepc.nn.norm import lengths_and_directions
from irrepc.nn.radial import ScalarMLP, polynomial_cutoff

ENVELOPES = ("polynomial", "xplor")


@dataclass(frozen=True, slots=True)
class SevenNetConfig:
    """What defines a SevenNet, but for its weights.

    species        atomic numbers the network knows; graph.species counts into them
    cutoff         Å
    envelope       "polynomial" of cutoff_power, or "xplor": one up to cutoff_on (Å), then a quintic in r²
    layers         message-passing steps; the last keeps invariants only
    lmax           of the harmonics and the features
    features       copies of each irrep, one number for each degree 0 ... lmax
    bessels        radial waves
    radial_widths  hidden layers of the radial perceptron
    denominators   what the sums over neighbours are divided by, one for each layer
    readout_width  between the two linear maps of the readout
    scales, shifts σ_t and μ_t, eV, one for each species
    """

    species: tuple[int, ...]
    cutoff: float = 5.0
    envelope: str = "polynomial"
    cutoff_power: int = 6
    cutoff_on: float = 4.5
    layers: int = 5
    lmax: int = 2
    features: tuple[int, ...] = (128, 64, 32)
    bessels: int = 8
    radial_widths: tuple[int, ...] = (64, 64)
    denominators: tuple[float, ...] = ()
    readout_width: int = 64
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.species)
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct atomic numbers, at least one"),
            ("cutoff", math.isfinite(self.cutoff) and self.cutoff > 0, "a finite number > 0 (Å)"),
            ("envelope", self.envelope in ENVELOPES, " or ".join(ENVELOPES)),
            ("cutoff_power", self.cutoff_power >= 2, "an integer >= 2, or forces would jump at the cutoff"),
            ("cutoff_on", self.envelope != "xplor" or 0 < self.cutoff_on < self.cutoff, "a number in (0, cutoff) (Å)"),
            ("layers", self.layers >= 1, "an integer >= 1"),
            ("lmax", self.lmax >= 0, "an integer >= 0"),
            (
                "features",
                len(self.features) == self.lmax + 1 and min(self.features, default=0) >= 1,
                "lmax + 1 integers >= 1",
            ),
            ("bessels", self.bessels >= 1, "an integer >= 1"),
            ("radial_widths", min(self.radial_widths, default=1) >= 1, "integers >= 1"),
            (
                "denominators",
                len(self.denominators) in (0, self.layers) and min(self.denominators, default=1.0) > 0,
                f"{self.layers} numbers > 0, one for each layer, or none",
            ),
            ("readout_width", self.readout_width >= 1, "an integer >= 1"),
            ("scales", len(self.scales) in (0, count), f"{count} numbers, one for each species, or none"),
            ("shifts", len(self.shifts) in (0, count), f"{count} numbers, one for each species, or none"),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"SevenNetConfig: got {name} = {getattr(self, name)!r}; expected {expected}")


def xplor_cutoff(r: Tensor, start: float, stop: float) -> Tensor:
    """1 up to start, 0 from stop on, between them (c² - r²)² (c² + 2r² - 3s²) / (c² - s²)³; all in Å, same shape as r.

    Value and first derivative are continuous (CHARMM's switching function, J. Comput. Chem. 4, 187, 1983).
    """
    c, s, x = stop**2, start**2, r.square()
    between = (c - x).square() * (c + 2 * x - 3 * s) / (c - s) ** 3
    return torch.where(r < start, torch.ones_like(r), torch.where(r < stop, between, torch.zeros_like(r)))


class RadialWaves(nn.Module):
    """b_n(r) = (2 / r_c) sin(k_n r) / r with trained k_n, that begin as nπ / r_c.

    waves  (n,) k_n, 1/Å
    """

    def __init__(self, cutoff: float, size: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cutoff, self.size = cutoff, size
        self.waves = nn.Parameter(torch.arange(1, size + 1, dtype=dtype) * (math.pi / cutoff))

    def forward(self, r: Tensor) -> Tensor:
        """Distances (E,) Å -> (E, size), 1/Å²."""
        return sines(r, self.waves) * (2 / self.cutoff)


class Interaction(nn.Module):
    """One layer: self-interaction, convolution over the neighbours, self-connection, gate."""

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_edge: Irreps,
        features: tuple[int, ...],
        config: SevenNetConfig,
        *,
        share: float,
        backend: str,
    ) -> None:
        super().__init__()
        scalars, *rest = (Block(mul, Irrep(degree, 1)) for degree, mul in enumerate(features))
        gates = Irreps(tuple(Block(b.mul, Irrep(0, 1)) for b in rest))
        self.gate = Gate(Irreps((scalars,)), ["silu"], gates, ["silu"] * len(gates), Irreps(tuple(rest)), backend)
        self.linear_1 = Linear(irreps_in, irreps_in)
        self.convolution = Convolution(irreps_in, irreps_edge, self.gate.irreps_in, backend=backend, by_pair=True)
        widths = (config.bessels, *config.radial_widths, self.convolution.weight_numel)
        self.radial = ScalarMLP(widths, gain=SILU_GAIN, scale=share)
        self.linear_2 = Linear(self.convolution.irreps_out, self.gate.irreps_in)
        self.self_connection = Linear(irreps_in, self.gate.irreps_in)
        self.irreps_out = self.gate.irreps_out

    def own(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a node makes of its features x (N, irreps_in.dim) before it hears of others: to send, and to keep."""
        return self.linear_1(x), self.self_connection(x)

    def forward(self, sent: Tensor, kept: Tensor, radial: Tensor, harmonics: Tensor, graph: Graph) -> Tensor:
        """What `own` gave, radial (P, bessels), harmonics (E, (lmax + 1)²) -> (N, irreps_out.dim)."""
        weights = self.radial(radial)
        m = self.convolution(sent, harmonics, weights, graph.senders, graph.receivers, graph.pairs)
        out: Tensor = self.gate(self.linear_2(m) + kept)
        return out


class SevenNet(nn.Module):
    """Energies of atoms from a graph.

    config   what defines the network
    backend  of the compiled layers: "torch", "numba", ... or "auto" (by the device); no part of the weights
    dtype    of the weights and the arithmetic, but for the last scale and shift, which are float64
    seed     of the weights: all but the radial waves are drawn from a normal distribution of unit variance
    """

    def __init__(
        self, config: SevenNetConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        count = len(config.species)
        edge = Irreps(tuple(Block(1, Irrep(degree, 1)) for degree in range(config.lmax + 1)))
        self.embedding = nn.Embedding(count, config.features[0])
        self.harmonics = SphericalHarmonics(config.lmax, normalize=False, backend=backend)
        self.basis = RadialWaves(config.cutoff, config.bessels)
        irreps, layers = Irreps.of(f"{config.features[0]}x0e"), []
        for k, denominator in enumerate(config.denominators or (1.0,) * config.layers):
            kept = config.features if k < config.layers - 1 else config.features[:1]
            layers.append(Interaction(irreps, edge, kept, config, share=1 / denominator, backend=backend))
            irreps = layers[-1].irreps_out
        self.layers = nn.ModuleList(layers)
        hidden = f"{config.readout_width}x0e"
        self.readout_1, self.readout_2 = Linear(irreps, hidden), Linear(hidden, "1x0e")
        self.scale_shift = ScaleShift(config.scales or (1.0,) * count, config.shifts or (0.0,) * count)
        self.to(dtype)
        generator = torch.Generator().manual_seed(seed)
        drawn = (self.embedding, self.layers, self.readout_1, self.readout_2)
        with torch.no_grad():
            for parameter in (p for part in drawn for p in part.parameters()):
                # in float64, so that a seed means the same in every dtype
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights, or in float64."""
        weight = self.embedding.weight
        r, directions = lengths_and_directions(checked_vectors(graph, len(self.species), weight))
        harmonics = self.harmonics(directions)
        radial = self.radial_features(r.index_select(0, first_edges(graph.pairs)))
        x = weight * (1 / math.sqrt(len(self.species)))
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, Interaction)
            sent, kept = layer.own(x)
            if k == 0:  # before any message an atom is its species: what it sends and keeps was made once for each
                sent, kept = sent.index_select(0, graph.species), kept.index_select(0, graph.species)
            x = layer(sent, kept, radial, harmonics, graph)
        energies: Tensor = self.scale_shift(self.readout_2(self.readout_1(x)).squeeze(-1), graph.species)
        return energies

    def radial_features(self, r: Tensor) -> Tensor:
        """Distances r (P,) Å of pairs -> waves times envelope, (P, bessels)."""
        if self.config.envelope == "xplor":
            fade = xplor_cutoff(r, self.config.cutoff_on, self.cutoff)
        else:
            fade = polynomial_cutoff(r / self.cutoff, self.config.cutoff_power)
        radial: Tensor = self.basis(r) * fade.unsqueeze(1)
        return radial

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
