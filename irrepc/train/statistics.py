"""Statistics: what a network should know of its training set before the first step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irrepc.errors import IrrepcError
from irrepc.train.cache import FrameSet

Int = NDArray[np.int64]
Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the training frames."""

    frames: int
    species: tuple[int, ...]  # atomic numbers, ascending
    neighbours: float  # mean number of edges of an atom
    atoms: float  # mean number of atoms of a frame
    force_scale: float  # eV/Å, root mean square of force components; 1 without forces
    energies: tuple[float, ...]  # eV, of a lone atom of each species, or by least squares
    rest: float  # eV per atom, mean of what is left of the energies without those
    rest_scale: float  # eV per atom, its standard deviation


def compositions(frames: FrameSet, chosen: Int, species: Sequence[int]) -> Float:
    """(frames, species): how many atoms of each species every frame has."""
    counts = np.zeros((len(chosen), len(species)))
    for row, index in enumerate(chosen):
        numbers = frames.composition(int(index))
        counts[row] = [np.count_nonzero(numbers == z) for z in species]
    return counts


def statistics(frames: FrameSet, chosen: Int, energies: dict[int, float] | None) -> Statistics:
    """Over the chosen frames. energies: eV by atomic number; None: by least squares over these frames.

    Where compositions do not tell species apart, least squares takes the solution of smallest norm.
    Raises IrrepcError for a species without an energy.
    """
    species = tuple(sorted({int(z) for index in chosen for z in np.unique(frames.composition(int(index)))}))
    counts, labels = compositions(frames, chosen, species), np.asarray(frames.arrays["energy"])[chosen]
    if energies is None:
        alone = np.linalg.lstsq(counts, labels, rcond=None)[0]
    else:
        if missing := [z for z in species if z not in energies]:
            raise IrrepcError(
                f"energies: got none of atomic numbers {missing}; expected one for each of {species}; add lone atoms, "
                'or set data.energies: "fit"'
            )
        alone = np.array([energies[z] for z in species])
    rest = (labels - counts @ alone) / counts.sum(1)
    spread = np.asarray(frames.arrays["spread"])[chosen]
    sizes = frames.sizes[chosen]
    known = np.isfinite(spread)
    scale = float(np.sqrt((np.square(spread) * sizes)[known].sum() / sizes[known].sum())) if known.any() else 1.0
    return Statistics(
        frames=len(chosen),
        species=species,
        neighbours=max(float(frames.loads[chosen].sum() / sizes.sum()), 1.0),
        atoms=float(sizes.mean()),
        force_scale=scale or 1.0,
        energies=tuple(float(e) for e in alone),
        rest=float(rest.mean()),
        rest_scale=float(rest.std()),
    )


def write_statistics(found: Statistics, path: Path) -> None:
    """As JSON, in which floats keep all their digits."""
    path.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")


def read_statistics(path: Path) -> Statistics:
    """What `write_statistics` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Statistics(**{**content, "species": tuple(content["species"]), "energies": tuple(content["energies"])})
