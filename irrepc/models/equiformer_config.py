"""EquiformerConfig: what defines an Equiformer, and the published networks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.nn.distance_bases import BASES


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


# Published networks: those for MD17 count the species 0 ... 63 by atomic number; L2, L3: the largest degree.
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
