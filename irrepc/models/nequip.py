"""NequIP: E(3)-equivariant message passing (Batzner et al., Nature Communications 13, 2453, 2022).

A layer (figure 1c of the paper) maps node features x to x' = gate(self-connection + interaction):

    h  = Linear₁(x)                                          self-interaction
    m_i = Σ_j R(r_ij) · h_j ⊗ Y(r_ij) / √<neighbours>         convolution, eq. 5 and 6
    x' = Gate(Linear₂(m) + x ⊗ a)                            a embeds the species

and the energy of atom i is σ_t MLP(x_i) + μ_t, with scale and shift for each species t, and the nuclear repulsion where
the configuration asks for it. Names and numbers follow the authors' package (nequip 0.19), whose weights load one to
one (irrepc/interop/nequip.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.errors import InputError
from irrepc.nn.convolution import Convolution
from irrepc.nn.gate import Gate
from irrepc.nn.graph import Graph, checked_vectors, each_its_own, first_edges
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.norm import lengths_and_directions
from irrepc.nn.pair import NEQUIP_SCREENING, ScreenedRepulsion
from irrepc.nn.radial import BesselBasis, ScalarMLP, polynomial_cutoff


@dataclass(frozen=True, slots=True)
class NequIPConfig:
    """What defines a NequIP network, but for its weights.

    species             atomic numbers the network knows; graph.species counts into them
    cutoff              Å
    cutoffs             Å, for each species of the centre one of each species of the neighbour, flat; none: cutoff
    layers              message-passing steps T; the last keeps invariants only
    lmax                of the harmonics and the features
    parity              False: only the parities of the harmonics (0e, 1o, 2e, ...); True: both (0e, 0o, 1e, 1o, ...)
    features            copies of each irrep, one number for each degree 0 ... lmax
    embedding           width of the species embedding
    bessels             radial basis functions
    trainable_bessels   whether their roots are weights
    cutoff_power        p of the polynomial cutoff
    radial_depth        hidden layers of the radial perceptron, of radial_width
    avg_num_neighbors   mean number of edges per atom in the training set
    neighbors           the same for each species, instead of it
    scales, shifts      σ_t and μ_t, eV, one for each species
    trainable_scales    whether the scales are weights
    trainable_shifts    whether the shifts are weights
    repulsion           whether nuclei repel each other at short distance (Ziegler, Biersack, Littmark)
    repulsion_power     p of the polynomial cutoff of the repulsion
    readout_depth       hidden layers of the readout, of readout_width; 0 is linear
    """

    species: tuple[int, ...]
    cutoff: float = 5.0
    cutoffs: tuple[float, ...] = ()
    layers: int = 4
    lmax: int = 2
    parity: bool = True
    features: tuple[int, ...] = (32, 32, 32)
    embedding: int = 32
    bessels: int = 8
    trainable_bessels: bool = False
    cutoff_power: int = 6
    radial_depth: int = 2
    radial_width: int = 64
    avg_num_neighbors: float = 12.0
    neighbors: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()
    trainable_scales: bool = False
    trainable_shifts: bool = False
    repulsion: bool = False
    repulsion_power: int = 6
    readout_depth: int = 0
    readout_width: int = 0

    def __post_init__(self) -> None:
        count = len(self.species)
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct atomic numbers, at least one"),
            ("cutoff", math.isfinite(self.cutoff) and self.cutoff > 0, "a finite number > 0 (Å)"),
            (
                "cutoffs",
                len(self.cutoffs) in (0, count**2) and all(0 < c <= self.cutoff for c in self.cutoffs),
                f"{count**2} numbers > 0 and <= cutoff, or none",
            ),
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
            (
                "neighbors",
                len(self.neighbors) in (0, count) and min(self.neighbors, default=1.0) > 0,
                f"{count} numbers > 0, one for each species, or none",
            ),
            ("repulsion_power", self.repulsion_power >= 2, "an integer >= 2, or forces would jump at the cutoff"),
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
            backend,
        )
        self.linear_1 = Linear(irreps_in, irreps_in)
        self.convolution = Convolution(irreps_in, irreps_edge, self.gate.irreps_in, backend=backend, by_pair=True)
        widths = (config.bessels, *(config.radial_width,) * config.radial_depth, self.convolution.weight_numel)
        share = 1.0 if config.neighbors else 1.0 / math.sqrt(config.avg_num_neighbors)
        self.radial = ScalarMLP(widths, scale=share)
        self.linear_2 = Linear(self.convolution.irreps_out, self.gate.irreps_in)
        self.self_connection = None if first else SpeciesLinear(irreps_in, self.gate.irreps_in, config.embedding)
        self.irreps_out = self.gate.irreps_out

    def own(self, x: Tensor, embedding: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a node makes of its features x (N, irreps_in.dim) before it hears of others: to send, and to keep.

        embedding (species, F), one_hot (N, species).
        """
        kept = None if self.self_connection is None else self.self_connection(x, embedding, one_hot)
        return self.linear_1(x), kept

    def forward(self, sent: Tensor, kept: Tensor | None, radial: Tensor, harmonics: Tensor, graph: Graph) -> Tensor:
        """What `own` gave, radial (P, bessels), harmonics (E, (lmax + 1)²) -> (N, irreps_out.dim)."""
        weights = self.radial(radial)
        m = self.convolution(sent, harmonics, weights, graph.senders, graph.receivers, graph.pairs)
        y: Tensor = self.linear_2(m)
        out: Tensor = self.gate(y if kept is None else y + kept)
        return out


class ScaleShift(nn.Module):
    """E_i = σ_t e_i + μ_t, always in float64: total energies need more digits than float32 has.

    trainable  which of "scales" and "shifts" are weights
    """

    scales: Tensor
    shifts: Tensor

    def __init__(self, scales: tuple[float, ...], shifts: tuple[float, ...], trainable: tuple[str, ...] = ()) -> None:
        super().__init__()
        for name, values in (("scales", scales), ("shifts", shifts)):
            tensor = torch.tensor(values, dtype=torch.float64)
            if name in trainable:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def forward(self, energies: Tensor, species: Tensor) -> Tensor:
        """energies (N,), species (N,) int64 -> (N,) float64, eV."""
        scale, shift = self.scales.index_select(0, species), self.shifts.index_select(0, species)
        return scale * energies.to(torch.float64) + shift

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ScaleShift:
        exact = {name: getattr(self, name).detach().clone() for name in ("scales", "shifts")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in exact.items():  # a new device, but never a new dtype
            moved = getattr(self, name)
            moved.data = tensor.to(moved.device)
        return self


def scale_shift(scales: tuple[float, ...], shifts: tuple[float, ...], species: int) -> ScaleShift | None:
    """What the numbers of a configuration say, 1 and 0 where one is left out; None where both are."""
    return ScaleShift(scales or (1.0,) * species, shifts or (0.0,) * species) if scales or shifts else None


class NequIP(nn.Module):
    """Energies of atoms from a graph.

    config   what defines the network
    backend  of the compiled layers: "torch", "numba", ... or "auto" (by the device); no part of the weights
    dtype    of the weights and the arithmetic, but for the last scale and shift, which are float64
    seed     of the weights: all are drawn from a normal distribution of unit variance
    """

    stretch: Tensor | None
    shares: Tensor | None

    def __init__(
        self, config: NequIPConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        count = len(config.species)
        hidden, edge = config.hidden(), Irreps.spherical_harmonics(config.lmax)
        self.embedding = nn.Embedding(count, config.embedding)
        self.harmonics = SphericalHarmonics(config.lmax, normalize=False, backend=backend)
        self.basis = BesselBasis(config.cutoff, config.bessels, trainable=config.trainable_bessels)
        self.repulsion = None
        if config.repulsion:
            reach = torch.tensor(config.cutoffs or (config.cutoff,) * count**2, dtype=torch.float64).view(count, -1)
            self.repulsion = ScreenedRepulsion(config.species, NEQUIP_SCREENING, reach, config.repulsion_power)
        self.register_buffer("stretch", None)
        # the authors allow i → j another cutoff than j → i, whose weights then differ
        self.directed = False
        if config.cutoffs:
            self.stretch = config.cutoff / torch.tensor(config.cutoffs, dtype=torch.float64).view(count, count)
            self.directed = not torch.equal(self.stretch, self.stretch.T)
        self.register_buffer("shares", None)
        if config.neighbors:
            self.shares = torch.tensor(config.neighbors, dtype=torch.float64).rsqrt().unsqueeze(1)
        irreps, layers = Irreps.of(f"{config.embedding}x0e"), []
        for k in range(config.layers):
            kept = hidden if k < config.layers - 1 else Irreps.of(f"{config.features[0]}x0e")
            layers.append(Interaction(irreps, edge, kept, config, first=k == 0, backend=backend))
            irreps = layers[-1].irreps_out
        self.layers = nn.ModuleList(layers)
        self.readout = ScalarMLP((irreps.dim, *(config.readout_width,) * config.readout_depth, 1))
        trainable = {"scales": config.trainable_scales, "shifts": config.trainable_shifts}
        self.scale_shift = ScaleShift(
            config.scales or (1.0,) * count,
            config.shifts or (0.0,) * count,
            tuple(name for name, wanted in trainable.items() if wanted),
        )
        self.to(dtype)
        generator = torch.Generator().manual_seed(seed)
        drawn = (self.embedding, self.layers, self.readout)
        with torch.no_grad():
            for parameter in (p for part in drawn for p in part.parameters()):
                # in float64, so that a seed means the same in every dtype
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights, or in float64."""
        count, embedding = len(self.species), self.embedding.weight
        vectors = checked_vectors(graph, count, embedding)
        if self.directed:
            graph = graph._replace(pairs=each_its_own(graph.num_edges, embedding.device))
        r, directions = lengths_and_directions(vectors)
        harmonics, radial = self.harmonics(directions), self.radial_features(r, graph)
        kinds = torch.eye(count, dtype=embedding.dtype, device=embedding.device)
        x, one_hot = embedding, kinds.index_select(0, graph.species)
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, Interaction)
            sent, kept = layer.own(x, embedding, kinds)
            if self.shares is not None:
                sent = sent * (kinds @ self.shares)
            if k == 0:  # before any message an atom is its species: what it sends was made once for each
                sent = sent.index_select(0, graph.species)
            x, kinds = layer(sent, kept, radial, harmonics, graph), one_hot
        energies: Tensor = self.scale_shift(self.readout(x).squeeze(-1), graph.species)
        if self.repulsion is not None:
            i, j = graph.receivers.values, graph.senders.values
            energies = energies.index_add(0, i, self.repulsion(r, graph.species[i], graph.species[j]).to(energies))
        return energies

    def radial_features(self, r: Tensor, graph: Graph) -> Tensor:
        """Distances r (E,) Å -> basis times cutoff of each pair, (P, bessels)."""
        edges = first_edges(graph.pairs)
        r = r.index_select(0, edges)
        if self.stretch is not None:  # a shorter cutoff of two species: as if all their distances were longer
            i, j = graph.receivers.values[edges], graph.senders.values[edges]
            r = r * self.stretch[graph.species[i], graph.species[j]]
        fade = polynomial_cutoff(r / self.cutoff, self.config.cutoff_power)
        radial: Tensor = self.basis(r) * fade.unsqueeze(1)
        return radial

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
