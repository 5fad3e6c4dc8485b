"""Functions of an edge's distance and two species: screened nuclear repulsion, and transforms of the distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from irrepc.nn.elements import covalent_radii
from irrepc.nn.radial import polynomial_cutoff


class Screening(NamedTuple):
    """Numbers of the universal screening of Ziegler, Biersack and Littmark (1985), as a package rounds them.

    coulomb             e²/4πε₀, eV Å
    length, exponent    a = length / (Z_i^exponent + Z_j^exponent), Å
    amplitudes, decays  φ(x) = Σ amplitude · exp(-decay · x)
    """

    coulomb: float
    length: float
    exponent: float
    amplitudes: tuple[float, ...]
    decays: tuple[float, ...]


MACE_SCREENING = Screening(
    14.3996, 0.4543 * 0.529, 0.300, (0.1818, 0.5099, 0.2802, 0.02817), (3.2, 0.9423, 0.4028, 0.2016)
)
NEQUIP_SCREENING = Screening(
    14.399645, 0.46850, 0.23, (0.02817, 0.28022, 0.50986, 0.18175), (0.20162, 0.40290, 0.94229, 3.19980)
)


class ScreenedRepulsion(nn.Module):
    """E_ij = ½ · coulomb · Z_i Z_j / r · φ(r / a) · fade(r / reach), half for each direction of a pair, eV.

    species    atomic numbers
    reach      where the polynomial cutoff of `power` ends the term, Å: (species, species), or one number for all

    The numbers are buffers, so that a file's own roundings of them can be put in.
    """

    coulomb: Tensor
    numbers: Tensor
    length: Tensor
    exponent: Tensor
    amplitudes: Tensor
    reach: Tensor

    def __init__(self, species: Sequence[int], screening: Screening, reach: Tensor | float, power: int) -> None:
        super().__init__()
        count = len(species)
        self.decays, self.power = screening.decays, power
        everywhere = torch.as_tensor(reach, dtype=torch.float64).expand(count, count).contiguous()
        for name, value in (
            ("coulomb", torch.tensor(screening.coulomb, dtype=torch.float64)),
            ("numbers", torch.tensor(species, dtype=torch.float64)),
            ("length", torch.tensor(screening.length, dtype=torch.float64)),
            ("exponent", torch.tensor(screening.exponent, dtype=torch.float64)),
            ("amplitudes", torch.tensor(screening.amplitudes, dtype=torch.float64)),
            ("reach", everywhere),
        ):
            self.register_buffer(name, value)

    def forward(self, r: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Distances r (E,) Å > 0 and the species (E,) int64 of both ends -> (E,) eV."""
        powers = self.numbers.pow(self.exponent)
        charges = self.numbers.index_select(0, first) * self.numbers.index_select(0, second)
        x = r * (powers.index_select(0, first) + powers.index_select(0, second)) / self.length
        screens = zip(self.amplitudes, self.decays, strict=True)
        screening = torch.stack([amplitude * torch.exp(-decay * x) for amplitude, decay in screens]).sum(0)
        fade = polynomial_cutoff(r / self.reach[first, second], self.power)
        energies: Tensor = 0.5 * self.coulomb * charges / r * screening * fade
        return energies


class AgnesiTransform(nn.Module):
    """r -> 1 / (1 + a s^q / (1 + s^(q-p))), s = r / r₀, r₀ the mean covalent radius: from 1 down to 0.

    Witt et al., ACEpotentials.jl, J. Chem. Phys. 159, 164101 (2023), with MACE's numbers.
    """

    radii: Tensor
    constants: Tensor

    def __init__(self, species: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("radii", torch.tensor(covalent_radii(species), dtype=torch.float64))
        self.register_buffer("constants", torch.tensor((0.9183, 4.5791, 1.0805), dtype=torch.float64))

    def forward(self, r: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Distances r (E,) Å > 0 and the species (E,) int64 of both ends -> (E,), without unit."""
        q, p, a = self.constants
        s = r * 2 / (self.radii.index_select(0, first) + self.radii.index_select(0, second))
        transformed: Tensor = 1 / (1 + a * s**q / (1 + s ** (q - p)))
        return transformed


class SoftTransform(nn.Module):
    """r -> p₀ + (r - p₀) · ½ (1 + tanh(α (r - m))): r itself beyond the bond, p₀ before it (MACE).

    p₀ = ¾ R and p₁ = 4/3 R of the sum R of covalent radii, m their mean, α = steepness / (p₁ - p₀).
    """

    radii: Tensor
    constants: Tensor

    def __init__(self, species: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("radii", torch.tensor(covalent_radii(species), dtype=torch.float64))
        self.register_buffer("constants", torch.tensor((4.0,), dtype=torch.float64))

    def forward(self, r: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Distances r (E,) Å and the species (E,) int64 of both ends -> (E,) Å."""
        total = self.radii.index_select(0, first) + self.radii.index_select(0, second)
        low, high = total * (3 / 4), total * (4 / 3)
        steepness = self.constants[0] / (high - low)
        softened: Tensor = low + (r - low) * (0.5 * (1 + torch.tanh(steepness * (r - 0.5 * (low + high)))))
        return softened


TRANSFORMS = {"agnesi": AgnesiTransform, "soft": SoftTransform}
