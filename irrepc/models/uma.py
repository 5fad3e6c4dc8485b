"""UMA: eSEN blocks that know the charge, the spin and the data set of a structure (Wood et al., arXiv 2506.23971).

The backbone is that of models/esen.py. What is new is a vector s for each structure,

    s = silu(W · [charge ; spin ; data set] + b),

added to the l = 0 features of every atom before the first block, and in each block to the normalised features that
messages are made of. Charge and spin enter as waves sin(2π w q), cos(2π w q) of drawn frequencies w, as an affine
function, or as the rows of a table; a spin of 0 means «not given». Some l = 0 channels may be held so that their sum
over the atoms of a structure is its charge, or its spin less one.

The published models are mixtures of experts: their SO(2) weights are sums over experts with coefficients that depend on
the composition and on s. For one composition, charge, spin and data set such a sum is a plain weight, and the authors'
package writes models merged so (`merge_mole`); those are UMA as it stands here. Numbers follow fairchem-core 2.24.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.errors import InputError
from irrepc.models.esen import Backbone, Block, ESENConfig, energy_perceptron, initialise
from irrepc.models.nequip import scale_shift
from irrepc.nn.graph import Graph

EMBEDDINGS = ("waves", "affine", "table")
CHARGES, SPINS = range(-100, 101), range(101)
"""What the tables have rows for."""
NO_SPIN = -100.0
"""What an affine embedding takes a spin of 0 for."""


@dataclass(frozen=True, slots=True)
class UMAConfig(ESENConfig):
    """What defines a UMA network, but for its weights: what defines an eSEN network, gaussian and fading, and

    embedding        of charge and spin: waves, affine or table
    datasets         names of data sets, each with a vector of its own; none: the vector s does without
    charge_channels  first l = 0 channel, and the one after the last, whose sum over a structure is its charge
    spin_channels    the same for its spin less one
    """

    embedding: str = "waves"
    datasets: tuple[str, ...] = ()
    charge_channels: tuple[int, int] = (0, 0)
    spin_channels: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        ESENConfig.__post_init__(self)
        channels = self.channels
        spans = [(name, getattr(self, name)) for name in ("charge_channels", "spin_channels")]
        rules = (
            ("basis", self.basis == "gaussian", "gaussian"),
            ("envelope", self.envelope, "True"),
            ("channels", channels % 2 == 0, "an even number: sines and cosines"),
            ("embedding", self.embedding in EMBEDDINGS, f"one of {', '.join(EMBEDDINGS)}"),
            ("datasets", len(set(self.datasets)) == len(self.datasets), "distinct names"),
            *((n, len(s) == 2 and 0 <= s[0] <= s[1] <= channels, f"0 <= first <= end <= {channels}") for n, s in spans),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"UMAConfig: got {name} = {getattr(self, name)!r}; expected {expected}")


class Systems(NamedTuple):
    """What is known of each of B structures beyond its atoms.

    charge   (B,) total charge, e
    spin     (B,) spin multiplicity 2S + 1; 0 where it is not given
    dataset  (B,) int64, counts into the data sets of the configuration
    """

    charge: Tensor
    spin: Tensor
    dataset: Tensor

    @staticmethod
    def of(model: UMA, charge: float = 0, spin: float = 0, dataset: str | None = None) -> Systems:
        """One structure; without a name of a data set, the first. Raises InputError for a name the model lacks."""
        names = model.config.datasets
        if dataset is not None and dataset not in names:
            raise InputError(f"uma: got data set {dataset!r}; expected one of {', '.join(names) or 'none'}")
        like = model.systems.mix.weight
        return Systems(
            like.new_tensor([charge]),
            like.new_tensor([spin]),
            torch.tensor([names.index(dataset) if dataset else 0], device=like.device),
        )


class NumberEmbedding(nn.Module):
    """A number of a structure, its charge or its spin, as a vector.

    absent  whether 0 stands for «not given», as it does for spins
    """

    def __init__(self, kind: str, size: int, known: range, *, absent: bool) -> None:
        super().__init__()
        self.kind, self.known, self.absent = kind, known, absent
        match kind:
            case "waves":
                self.frequencies = nn.Parameter(torch.randn(size // 2))
            case "affine":
                self.affine = nn.Linear(1, size)
            case _:
                self.embedding = nn.Embedding(len(known), size)

    def forward(self, numbers: Tensor) -> Tensor:
        """(B,) -> (B, size)."""
        match self.kind:
            case "waves":
                angle = numbers.unsqueeze(-1) * (2 * math.pi * self.frequencies)
                waves = torch.cat((angle.sin(), angle.cos()), 1)
                return waves.masked_fill((numbers == 0).unsqueeze(-1), 0) if self.absent else waves
            case "affine":
                given = torch.where(numbers == 0, NO_SPIN, numbers) if self.absent else numbers
                out: Tensor = self.affine(given.unsqueeze(-1))
            case _:
                out = self.embedding(numbers.long() - self.known.start)
        return out


class SystemEmbedding(nn.Module):
    """The vector s of a structure."""

    def __init__(self, config: UMAConfig) -> None:
        super().__init__()
        size = config.channels
        self.charge = NumberEmbedding(config.embedding, size, CHARGES, absent=False)
        self.spin = NumberEmbedding(config.embedding, size, SPINS, absent=True)
        self.dataset_embedding = nn.Embedding(len(config.datasets), size) if config.datasets else None
        self.mix = nn.Linear((3 if config.datasets else 2) * size, size)

    def forward(self, systems: Systems) -> Tensor:
        """-> (B, channels)."""
        parts = [self.charge(systems.charge), self.spin(systems.spin)]
        if self.dataset_embedding is not None:
            parts.append(self.dataset_embedding(systems.dataset))
        out: Tensor = F.silu(self.mix(torch.cat(parts, 1)))
        return out


class UMA(nn.Module):
    """Energies of atoms from a graph and from what is known of its structures.

    Arguments as those of ESEN; the frequencies of waves are drawn normally.
    """

    def __init__(
        self, config: UMAConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        self.backbone = Backbone(config, backend)
        self.systems = SystemEmbedding(config)
        self.energy = energy_perceptron(config.channels, config.hidden)
        self.scale_shift = scale_shift(config.scales, config.shifts, len(config.species))
        initialise(self, dtype, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("frequencies"):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def forward(self, graph: Graph, systems: Systems | None = None) -> Tensor:
        """Energies (N,) of the atoms, eV, in the dtype of the weights, or float64 where there are shifts.

        systems  of the B structures, or one for all of them; without: neutral, spin not given, the first data set.
                 Raises InputError when there are others, or numbers without a row in the table.
        """
        systems = self._checked(Systems.of(self) if systems is None else systems, graph.num_graphs)
        backbone = self.backbone
        x, edge, into, out = backbone.begin(graph)
        known = self.systems(systems).index_select(0, graph.batch)
        known = F.pad(known, (0, x.shape[1] - known.shape[1]))
        x = x + known
        for block in backbone.blocks:
            assert isinstance(block, Block)
            x = x + block.edge_wise(block.norm_1(x) + known, edge, into, out, graph)
            x = self._balanced(x + block.atom_wise(block.norm_2(x)), systems, graph)
        scalars = backbone.norm(x)[:, : self.config.channels]
        energies: Tensor = self.energy(scalars).squeeze(-1)
        return energies if self.scale_shift is None else self.scale_shift(energies, graph.species)

    def _balanced(self, x: Tensor, systems: Systems, graph: Graph) -> Tensor:
        """Held channels moved, by the same for every atom of a structure, to their sum."""
        for (first, end), wanted in (
            (self.config.charge_channels, systems.charge),
            (self.config.spin_channels, systems.spin - 1),
        ):
            if end > first:
                there, atoms = x[:, first:end], torch.bincount(graph.batch, minlength=graph.num_graphs)
                sums = there.new_zeros(graph.num_graphs, end - first).index_add(0, graph.batch, there)
                excess = (sums - wanted.unsqueeze(-1)) / atoms.unsqueeze(-1)
                x = torch.cat((x[:, :first], there - excess.index_select(0, graph.batch), x[:, end:]), 1)
        return x

    def _checked(self, systems: Systems, count: int) -> Systems:
        sizes = {t.shape for t in systems}
        if sizes == {(1,)}:
            systems = Systems(*(t.expand(count) for t in systems))
        elif sizes != {(count,)}:
            raise InputError(f"uma: got systems of {[tuple(t.shape) for t in systems]}; expected ({count},), or (1,)")
        if self.config.embedding == "table" and not torch.compiler.is_compiling():
            for name, known in (("charge", CHARGES), ("spin", SPINS)):
                values = getattr(systems, name)
                if bool((values != values.round()).any() | (values < known.start).any() | (values >= known.stop).any()):
                    raise InputError(
                        f"uma: got {name} {values.tolist()}; expected whole numbers {known.start} ... {known.stop - 1}"
                    )
        return systems

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)


class UMAOf(nn.Module):
    """A UMA network for structures of one kind, a model of graphs alone: what calculators and dynamics take."""

    def __init__(self, model: UMA, charge: float = 0, spin: float = 0, dataset: str | None = None) -> None:
        super().__init__()
        self.model, self.cutoff, self.species = model, model.cutoff, model.species
        self.system = (charge, spin, dataset)
        Systems.of(model, *self.system)  # says at once what is wrong

    def forward(self, graph: Graph) -> Tensor:
        """Energies (N,) of the atoms, eV."""
        out: Tensor = self.model(graph, Systems.of(self.model, *self.system))
        return out
