"""NequIP: E(3)-equivariant message passing (Batzner et al., Nature Communications 13, 2453, 2022).

A layer (figure 1c of the paper) maps node features x to x' = gate(self-connection + interaction):

    h  = Linear₁(x)                                          self-interaction
    m_i = Σ_j R(r_ij) · h_j ⊗ Y(r_ij) / √<neighbours>         convolution, eq. 5 and 6
    x' = Gate(Linear₂(m) + x ⊗ a)                            a embeds the species

and the energy of atom i is σ_t MLP(x_i) + μ_t, with scale and shift for each species t. Names and numbers follow the
authors' package (nequip 0.19), whose weights load one to one (irrepc/interop/nequip.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.errors import InputError
from irrepc.nn.convolution import Convolution
from irrepc.nn.gate import Gate
from irrepc.nn.graph import Graph, check_graph, edge_vectors
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.norm import safe_norm
from irrepc.nn.radial import BesselBasis, ScalarMLP, polynomial_cutoff


@dataclass(frozen=True, slots=True)
class NequIPConfig:
    """What defines a NequIP network, but for its weights.

    species             atomic numbers the network knows; graph.species counts into them
    cutoff              Å
    layers              message-passing steps T; the last keeps invariants only
    lmax                of the harmonics and the features
    parity              False: only the parities of the harmonics (0e, 1o, 2e, ...); True: both (0e, 0o, 1e, 1o, ...)
    features            copies of each irrep, one number for each degree 0 ... lmax
    embedding           width of the species embedding
    bessels             radial basis functions
    cutoff_power        p of the polynomial cutoff
    radial_depth        hidden layers of the radial perceptron, of radial_width
    avg_num_neighbors   mean number of edges per atom in the training set
    scales, shifts      σ_t and μ_t, eV, one for each species
    readout_depth       hidden layers of the readout, of readout_width; 0 is linear
    """

    species: tuple[int, ...]
    cutoff: float = 5.0
    layers: int = 4
    lmax: int = 2
    parity: bool = True
    features: tuple[int, ...] = (32, 32, 32)
    embedding: int = 32
    bessels: int = 8
    cutoff_power: int = 6
    radial_depth: int = 2
    radial_width: int = 64
    avg_num_neighbors: float = 12.0
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()
    readout_depth: int = 0
    readout_width: int = 0

    def __post_init__(self) -> None:
        count = len(self.species)
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct atomic numbers, at least one"),
            ("cutoff", math.isfinite(self.cutoff) and self.cutoff > 0, "a finite number > 0 (Å)"),
            ("layers", self.layers >= 1, "an integer >= 1"),
            ("lmax", self.lmax >= 0, "an integer >= 0"),
            (
                "features",
                len(self.features) == self.lmax + 1 and min(self.features, default=0) >= 1,
                "lmax + 1 integers >= 1",
            ),
            ("embedding", self.embedding >= 1, "an integer >= 1"),
            ("bessels", self.bessels >= 1, "an integer >= 1"),
            ("cutoff_power", self.cutoff_power >= 2, "an integer >= 2, or forces would jump at the cutoff"),
            ("radial_depth", self.radial_depth >= 0, "an integer >= 0"),
            ("avg_num_neighbors", self.avg_num_neighbors > 0, "a number > 0"),
            ("scales", len(self.scales) in (0, count), f"{count} numbers, one for each species, or none"),
            ("shifts", len(self.shifts) in (0, count), f"{count} numbers, one for each species, or none"),
            ("readout_depth", self.readout_depth >= 0, "an integer >= 0"),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"NequIPConfig: got {name} = {getattr(self, name)!r}; expected {expected}")

    def hidden(self) -> Irreps:
        """The irreps a layer may hold: degree by degree, even before odd."""
        blocks = []
        for degree, mul in enumerate(self.features):
            parities = (1, -1) if self.parity else ((-1) ** degree,)
            blocks += [Block(mul, Irrep(degree, p)) for p in parities]
        return Irreps(tuple(blocks))


class Interaction(nn.Module):
    """One layer: self-interaction, convolution over the neighbours, self-connection, gate."""

    def __init__(
        self, irreps_in: Irreps, irreps_edge: Irreps, hidden: Irreps, config: NequIPConfig, *, first: bool, backend: str
    ) -> None:
        super().__init__()
        reached = {irrep for a in irreps_in for b in irreps_edge for irrep in a.irrep * b.irrep}
        scalars = Irreps(tuple(b for b in hidden if b.irrep.l == 0 and b.irrep in reached))
        gated = Irreps(tuple(b for b in hidden if b.irrep.l > 0 and b.irrep in reached))
        gates = Irreps(tuple(Block(b.mul, Irrep(0, 1)) for b in gated))
        self.gate = Gate(
            scalars,
            ["silu" if b.irrep.p == 1 else "tanh" for b in scalars],
            gates,
            ["silu"] * len(gates),
            gated,
        )
        self.linear_1 = Linear(irreps_in, irreps_in)
        self.convolution = Convolution(irreps_in, irreps_edge, self.gate.irreps_in, backend=backend)
        widths = (config.bessels, *(config.radial_width,) * config.radial_depth, self.convolution.weight_numel)
        self.radial = ScalarMLP(widths)
        self.linear_2 = Linear(self.convolution.irreps_out, self.gate.irreps_in)
        self.self_connection = None if first else SpeciesLinear(irreps_in, self.gate.irreps_in, config.embedding)
        self.normalisation = 1.0 / math.sqrt(config.avg_num_neighbors)
        self.irreps_out = self.gate.irreps_out

    def forward(
        self, x: Tensor, embedding: Tensor, one_hot: Tensor, radial: Tensor, harmonics: Tensor, graph: Graph
    ) -> Tensor:
        """x (N, irreps_in.dim) -> (N, irreps_out.dim).

        embedding (species, F), one_hot (N, species), radial (E, bessels), harmonics (E, (lmax + 1)²).
        """
        h = self.linear_1(x) * self.normalisation
        m = self.convolution(h, harmonics, self.radial(radial), graph.senders, graph.receivers)
        y: Tensor = self.linear_2(m)
        if self.self_connection is not None:
            y = y + self.self_connection(x, embedding, one_hot)
        out: Tensor = self.gate(y)
        return out


class ScaleShift(nn.Module):
    """E_i = σ_t e_i + μ_t, always in float64: total energies need more digits than float32 has."""

    scales: Tensor
    shifts: Tensor

    def __init__(self, scales: tuple[float, ...], shifts: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scales", torch.tensor(scales, dtype=torch.float64))
        self.register_buffer("shifts", torch.tensor(shifts, dtype=torch.float64))

    def forward(self, energies: Tensor, species: Tensor) -> Tensor:
        """energies (N,), species (N,) int64 -> (N,) float64, eV."""
        scale, shift = self.scales.index_select(0, species), self.shifts.index_select(0, species)
        return scale * energies.to(torch.float64) + shift

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ScaleShift:
        kept = {name: buffer.clone() for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in kept.items():  # a new device, but never a new dtype
            self._buffers[name] = buffer.to(self.get_buffer(name).device)
        return self


class NequIP(nn.Module):
    """Energies of atoms from a graph.

    config   what defines the network
    backend  of the compiled layers: "torch", "numba", ... or "auto" (by the device); no part of the weights
    dtype    of the weights and the arithmetic, but for the last scale and shift, which are float64
    seed     of the weights: all are drawn from a normal distribution of unit variance
    """

    def __init__(
        self, config: NequIPConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        count = len(config.species)
        hidden, edge = config.hidden(), Irreps.spherical_harmonics(config.lmax)
        self.embedding = nn.Embedding(count, config.embedding)
        self.harmonics = SphericalHarmonics(config.lmax, normalization="component", normalize=True, backend=backend)
        self.basis = BesselBasis(config.cutoff, config.bessels)
        irreps, layers = Irreps.of(f"{config.embedding}x0e"), []
        for k in range(config.layers):
            kept = hidden if k < config.layers - 1 else Irreps.of(f"{config.features[0]}x0e")
            layers.append(Interaction(irreps, edge, kept, config, first=k == 0, backend=backend))
            irreps = layers[-1].irreps_out
        self.layers = nn.ModuleList(layers)
        self.readout = ScalarMLP((irreps.dim, *(config.readout_width,) * config.readout_depth, 1))
        self.scale_shift = ScaleShift(config.scales or (1.0,) * count, config.shifts or (0.0,) * count)
        self.to(dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():  # drawn in float64, so that a seed means the same in every dtype
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights."""
        check_graph(graph, len(self.species), self.embedding.weight)
        vectors = edge_vectors(graph)
        r = safe_norm(vectors, -1)
        radial = self.basis(r) * polynomial_cutoff(r / self.cutoff, self.config.cutoff_power).unsqueeze(-1)
        harmonics = self.harmonics(vectors)
        embedding = self.embedding.weight
        one_hot = F.one_hot(graph.species, len(self.species)).to(embedding.dtype)
        x = one_hot @ embedding
        for layer in self.layers:
            x = layer(x, embedding, one_hot, radial, harmonics, graph)
        energies: Tensor = self.scale_shift(self.readout(x).squeeze(-1), graph.species)
        return energies

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
