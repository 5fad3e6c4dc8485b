"""MACE: higher-order equivariant message passing (Batatia et al., NeurIPS 2022, arXiv 2206.07697).

A layer maps node features x to x' in three steps (equations of the paper):

    A_i = Linear(Σ_j R(r_ij) · Linear(x)_j ⊗ Y(r_ij)) / <neighbours>      eq. 8: the atomic basis, 0e+1o+...+lmax
    B_i = Σ_ν Σ_k W[z_i] U_ν A_i ⊗ ... ⊗ A_i                             eq. 10, 11: products of up to ν factors
    x'  = Linear(B) + W'[z_i] x                                           eq. 12: update, residual

and the energy of atom i is E0[z] + scale · (Σ_layers readout(x') + repulsion) + shift.  What later models of the
authors add is in MACEConfig: density, transform, repulsion, heads.  Names and numbers follow the authors' package
(mace-torch 0.3, MACE and ScaleShiftMACE), whose weights load one to one (irrepc/interop/mace.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.errors import InputError
from irrepc.models.nequip import ScaleShift
from irrepc.nn.contraction import SymmetricContraction, species_index
from irrepc.nn.convolution import Convolution
from irrepc.nn.elements import covalent_radii
from irrepc.nn.gate import ACTIVATIONS, SILU_GAIN
from irrepc.nn.graph import Graph, Index, checked_vectors, first_edges
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.linear import Linear, SpeciesLinear
from irrepc.nn.norm import lengths_and_directions
from irrepc.nn.pair import MACE_SCREENING, TRANSFORMS, ScreenedRepulsion
from irrepc.nn.radial import BesselBasis, ScalarMLP, polynomial_cutoff


@dataclass(frozen=True, slots=True)
class MACEConfig:
    """What defines a MACE network, but for its weights.

    species             atomic numbers the network knows; graph.species counts into them
    cutoff              Å
    layers              message-passing steps; the last keeps invariants only
    lmax                of the harmonics and of the atomic basis A
    channels            copies of each irrep
    degrees             of the features between layers, natural parity: (0, 1) is 0e+1o
    correlation         ν, factors of A in a product: 1 to 4
    residual            whether the first layer has the residual path; if not, its A is mixed by species
    density             whether A is divided by 1 + a learned density of neighbours, not by their mean number
    bessels             radial basis functions
    cutoff_power        p of the polynomial cutoff
    transform           of the distance before the basis: "none", "agnesi" or "soft" (irrepc/nn/pair.py)
    repulsion           whether nuclei repel each other at short distance (Ziegler, Biersack, Littmark)
    radial_widths       hidden layers of the radial perceptron
    readout_width       hidden layer of the last readout, for each head
    gate                activation of the last readout: "silu", "tanh", "abs", or "none"
    avg_num_neighbors   mean number of edges per atom in the training set
    heads               names of the levels of theory that the readouts tell apart
    energies            E0 of an isolated atom, eV: for each head, of each species, flat
    scales, shifts      eV, of the sum of the readouts, one for each head
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
    density: bool = False
    bessels: int = 8
    cutoff_power: int = 5
    transform: str = "none"
    repulsion: bool = False
    radial_widths: tuple[int, ...] = (64, 64, 64)
    readout_width: int = 16
    gate: str = "silu"
    avg_num_neighbors: float = 12.0
    heads: tuple[str, ...] = ("Default",)
    energies: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()
    couplings: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count, heads, degrees = len(self.species), len(self.heads), self.degrees
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
            ("transform", self.transform in ("none", *TRANSFORMS), f"none, {' or '.join(TRANSFORMS)}"),
            ("radial_widths", min(self.radial_widths, default=1) >= 1, "integers >= 1"),
            ("readout_width", self.readout_width >= 1, "an integer >= 1"),
            ("gate", self.gate in ("none", *ACTIVATIONS), f"none, {', '.join(ACTIVATIONS)}"),
            ("avg_num_neighbors", self.avg_num_neighbors > 0, "a number > 0"),
            ("heads", heads > 0 and len(set(self.heads)) == heads, "distinct names, at least one"),
            ("energies", len(self.energies) in (0, count * heads), f"{count * heads} numbers, {count} a head, or none"),
            ("scales", len(self.scales) in (0, heads), f"{heads} numbers, one for each head, or none"),
            ("shifts", len(self.shifts) in (0, heads), f"{heads} numbers, one for each head, or none"),
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
        self.convolution = Convolution(irreps_in, edge, basis, backend=backend, by_pair=True)
        widths = (config.bessels, *config.radial_widths, self.convolution.weight_numel)
        share = 1.0 if config.density else 1.0 / config.avg_num_neighbors
        self.radial = ScalarMLP(widths, gain=SILU_GAIN, scale=share)
        self.density = ScalarMLP((config.bessels, 1)) if config.density else None
        self.linear = Linear(self.convolution.irreps_out, basis)
        self.residual = residual
        self.skip = SpeciesLinear(*((irreps_in, self.irreps_out) if residual else (basis, basis)), count)
        counts = config.couplings[: len(degrees) * config.correlation]
        self.contraction = SymmetricContraction(
            basis, self.irreps_out, count, config.correlation, counts=counts, backend=backend
        )
        self.product = Linear(self.irreps_out, self.irreps_out)

    def own(self, x: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor | None]:
        """What a node makes of its features x (N, irreps_in.dim) before it hears of others: to send, and to keep.

        one_hot (N, species).
        """
        identity = torch.eye(one_hot.shape[1], dtype=x.dtype, device=x.device)
        return self.linear_up(x), self.skip(x, identity, one_hot) if self.residual else None

    def forward(
        self,
        sent: Tensor,
        kept: Tensor | None,
        one_hot: Tensor,
        species: Index,
        radial: Tensor,
        harmonics: Tensor,
        graph: Graph,
    ) -> Tensor:
        """What `own` gave -> (N, irreps_out.dim).

        one_hot (N, species), species: Index of the atoms, radial (P, bessels), harmonics (E, (lmax + 1)²).
        """
        weights = self.radial(radial)
        m = self.convolution(sent, harmonics, weights, graph.senders, graph.receivers, graph.pairs)
        a: Tensor = self.linear(m)
        if self.density is not None:
            near = torch.tanh(self.density(radial).square()).index_select(0, graph.pairs.values)
            a = a / (1 + a.new_zeros(a.shape[0], 1).index_add(0, graph.receivers.values, near))
        if not self.residual:
            identity = torch.eye(one_hot.shape[1], dtype=a.dtype, device=a.device)
            a = self.skip(a, identity, one_hot)
        out: Tensor = self.product(self.contraction(a, species))
        return out if kept is None else out + kept


class Readout(nn.Module):
    """The last readout: invariants -> hidden units of each head -> activation -> one energy for each head."""

    def __init__(self, channels: int, width: int, heads: int, gate: str) -> None:
        super().__init__()
        self.linear_1 = Linear(f"{channels}x0e", f"{heads * width}x0e")
        self.activation = nn.Identity() if gate == "none" else ACTIVATIONS[gate]
        self.linear_2 = Linear(f"{heads * width}x0e", f"{heads}x0e")

    def forward(self, x: Tensor, head: Tensor) -> Tensor:
        """x (N, channels), head (N, heads), one-hot -> (N, heads); hidden units of other heads are silent."""
        hidden = self.activation(self.linear_1(x)).unflatten(1, (head.shape[1], -1))
        out: Tensor = self.linear_2((hidden * head.unsqueeze(2)).flatten(1))
        return out


class MACE(nn.Module):
    """MACE and ScaleShiftMACE: a graph -> the energy of each atom.

    embedding  (species, channels), the first features of each species, times √species
    head       which of config.heads speaks where the call does not say; a number that may be set
    seed       of the weights, which are drawn with unit variance (products: divided by the number of couplings)
    """

    gain: Tensor

    def __init__(
        self, config: MACEConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species, self.head = config, config.cutoff, config.species, 0
        count, heads = len(config.species), len(config.heads)
        self.embedding = nn.Parameter(torch.empty(count, config.channels))
        self.basis = BesselBasis(config.cutoff, config.bessels)
        # MACE writes √(2/r_c) before the basis, where the basis of Gasteiger, as NequIP has it, is 2/r_c
        self.register_buffer("gain", torch.tensor(math.sqrt(config.cutoff / 2), dtype=torch.float64))
        self.transform = None if config.transform == "none" else TRANSFORMS[config.transform](config.species)
        self.repulsion = None
        if config.repulsion:
            radii = torch.tensor(covalent_radii(config.species), dtype=torch.float64)
            self.repulsion = ScreenedRepulsion(
                config.species, MACE_SCREENING, radii[:, None] + radii[None, :], config.cutoff_power
            )
        self.harmonics = SphericalHarmonics(config.lmax, normalize=False, backend=backend)
        layers: list[Interaction] = []
        readouts: list[nn.Module] = []
        irreps = config.irreps((0,))
        for k in range(config.layers):
            last = k == config.layers - 1
            degrees = (0,) if last else config.degrees
            layers.append(Interaction(irreps, degrees, config, residual=k > 0 or config.residual, backend=backend))
            irreps = layers[-1].irreps_out
            nonlinear = last and k > 0
            readouts.append(
                Readout(config.channels, config.readout_width, heads, config.gate)
                if nonlinear
                else Linear(irreps, f"{heads}x0e")
            )
        self.layers, self.readouts = nn.ModuleList(layers), nn.ModuleList(readouts)
        energies, shifts = config.energies or (0.0,) * (count * heads), config.shifts or (0.0,) * heads
        self.scale_shift = ScaleShift(  # of each species of each head, which stand one after the other
            tuple(scale for scale in config.scales or (1.0,) * heads for _ in range(count)),
            tuple(energy + shifts[k // count] for k, energy in enumerate(energies)),
        )
        self.to(dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():  # drawn in float64, so that a seed means the same in every dtype
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            for layer in layers:
                for weight in layer.contraction.weights:
                    weight /= max(weight.shape[1], 1)

    def forward(self, graph: Graph, heads: Tensor | None = None) -> Tensor:
        """Energies (N,) of the atoms, eV, float64; positions in the dtype of the weights, or in float64.

        heads (B,) int64: the head of each structure, a number into config.heads; without it, all take self.head.
        """
        count, levels = len(self.species), len(self.config.heads)
        # the paper's r_ij points from the neighbour to the centre
        vectors = -checked_vectors(graph, count, self.embedding)
        r, directions = lengths_and_directions(vectors)
        harmonics, radial = self.harmonics(directions), self.radial_features(r, graph)
        species = species_index(graph.species, count)
        kinds = torch.eye(count, dtype=self.embedding.dtype, device=self.embedding.device)
        one_hot = kinds.index_select(0, graph.species)
        head = graph.batch.new_full((graph.num_atoms,), self.head) if heads is None else heads[graph.batch]
        speaking = torch.eye(levels, dtype=one_hot.dtype, device=one_hot.device).index_select(0, head)
        total = speaking.new_zeros(graph.num_atoms)
        if self.repulsion is not None:
            i, j = graph.receivers.values, graph.senders.values
            total = total.index_add(0, i, self.repulsion(r, graph.species[i], graph.species[j]))
        x = self.embedding / math.sqrt(count)
        for k, (layer, readout) in enumerate(zip(self.layers, self.readouts, strict=True)):
            assert isinstance(layer, Interaction)
            sent, kept = layer.own(x, kinds)
            if k == 0:  # before any message an atom is its species: what it sends and keeps was made once for each
                sent = sent.index_select(0, graph.species)
                kept = None if kept is None else kept.index_select(0, graph.species)
            x, kinds = layer(sent, kept, one_hot, species, radial, harmonics, graph), one_hot
            found = readout(x, speaking) if isinstance(readout, Readout) else readout(x)
            total = total + (found * speaking).sum(1)
        energies: Tensor = self.scale_shift(total, head * count + graph.species)
        return energies

    def radial_features(self, r: Tensor, graph: Graph) -> Tensor:
        """Distances r (E,) Å -> basis times cutoff of each pair, (P, bessels)."""
        edges = first_edges(graph.pairs)
        r = r.index_select(0, edges)
        fade = self.gain * polynomial_cutoff(r / self.cutoff, self.config.cutoff_power)
        if self.transform is not None:  # symmetric in the two species
            i, j = graph.receivers.values[edges], graph.senders.values[edges]
            r = self.transform(r, graph.species[i], graph.species[j])
        radial: Tensor = self.basis(r) * fade.unsqueeze(1)
        return radial

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)
