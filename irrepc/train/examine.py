"""What is wrong, or looks wrong, with labelled frames: overlapping atoms in one, units in many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irrepc.nn.elements import COVALENT_RADII
from irrepc.nn.neighbours import NeighbourList
from irrepc.train.frames import Frame

Float = NDArray[np.float64]

_NET_FORCE = 0.02  # of the mean |force|: more than what labels of electronic structure leave unbalanced
_RADII = np.array((np.nan, *COVALENT_RADII))


@dataclass(frozen=True, slots=True)
class Look:
    """What one sound frame contributes to the judgement of its set.

    nearest     its shortest distance over the sum of the two covalent radii: near 1 in molecules and solids; inf
                where no pair is within the cutoff
    spread      root mean square of its force components, eV/Å; NaN without forces
    unbalanced  |sum of forces| / sum of |forces|; NaN without forces or with periodicity, where it need not vanish
    lonely      atoms without a neighbour, in a frame of several atoms
    """

    nearest: float
    spread: float
    unbalanced: float
    lonely: int


def distances(frame: Frame, pairs: NeighbourList) -> Float:
    """(E,) Å."""
    cell = np.zeros((3, 3)) if frame.cell is None else frame.cell
    vectors = frame.positions[pairs.senders] - frame.positions[pairs.receivers] + pairs.shifts @ cell
    return np.asarray(np.sqrt(np.square(vectors).sum(1)), dtype=np.float64)


def look(frame: Frame, pairs: NeighbourList) -> Look:
    """Measure one frame; radii beyond curium count as 1.7 Å."""
    z = np.minimum(frame.numbers, len(_RADII))
    radii = np.append(_RADII, 1.7)[z]
    ratio = distances(frame, pairs) / (radii[pairs.senders] + radii[pairs.receivers])
    spread = unbalanced = np.nan
    if frame.forces is not None:
        spread = float(np.sqrt(np.square(frame.forces).mean()))
        whole = float(np.linalg.norm(frame.forces, axis=1).sum())
        if not any(frame.pbc) and whole > 0:
            unbalanced = float(np.linalg.norm(frame.forces.sum(0))) / whole
    atoms = len(frame.numbers)
    lonely = atoms - len(np.unique(pairs.receivers)) if atoms > 1 else 0
    return Look(float(ratio.min(initial=np.inf)), spread, unbalanced, lonely)


def overlap(frame: Frame, pairs: NeighbourList, closest: float) -> str | None:
    """Say which two atoms are nearer than `closest` times the sum of their covalent radii, if any are."""
    if not closest or not len(pairs.senders):
        return None
    radii = np.append(_RADII, 1.7)[np.minimum(frame.numbers, len(_RADII))]
    r = distances(frame, pairs)
    ratio = r / (radii[pairs.senders] + radii[pairs.receivers])
    worst = int(ratio.argmin())
    if ratio[worst] >= closest:
        return None
    i, j = int(pairs.receivers[worst]), int(pairs.senders[worst])
    return (
        f"got atoms {i} and {j} (Z = {frame.numbers[i]} and {frame.numbers[j]}) at {r[worst]:.3f} Å, "
        f"{ratio[worst]:.2f} of the sum of their covalent radii; expected {closest} or more; correct the frame, or "
        "lower data.closest"
    )


def suspicions(looks: Sequence[Look], energies_per_atom: Float) -> list[str]:
    """What looks wrong with a set, in words: units, unbalanced forces, atoms without neighbours, wild energies.

    energies_per_atom  (frames,) eV, after reference energies were taken off
    """
    found = []
    nearest = np.array([one.nearest for one in looks])
    spread = np.array([one.spread for one in looks])
    unbalanced = np.array([one.unbalanced for one in looks])
    near = float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else 1.0
    if near > 1.5:
        found.append(
            f"nearest atoms are {near:.2f} times their covalent radii apart (median); expected about 1: are positions "
            "in bohr? (data.labels.length_unit)"
        )
    elif near < 0.6:
        found.append(
            f"nearest atoms are {near:.2f} times their covalent radii apart (median); expected about 1: are positions "
            "in nm? (data.labels.length_unit)"
        )
    if np.isfinite(spread).any():
        rms = float(np.sqrt(np.nanmean(np.square(spread))))
        if rms > 30:
            found.append(
                f"forces are {rms:.1f} eV/Å (rms); expected 0.01 to 10: are energies in kcal/mol or kJ/mol? "
                "(data.labels.energy_unit)"
            )
        elif 0 < rms < 1e-3:
            found.append(f"forces are {rms:.1e} eV/Å (rms); expected 0.01 to 10: which units? (data.labels)")
        wide = np.flatnonzero(spread > 20 * np.nanmedian(spread))
        if len(wide) and np.nanmedian(spread) > 0:
            found.append(f"forces of {_listed(wide)} are over 20 times the usual size; look at these frames")
    if len(torn := np.flatnonzero(unbalanced > _NET_FORCE)):
        found.append(
            f"forces of {_listed(torn)} do not sum to zero (over {_NET_FORCE:.0%} of their size is left, at most "
            f"{np.nanmax(unbalanced):.0%}); expected balanced forces of molecules; is the calculation converged?"
        )
    if len(lonely := np.flatnonzero([one.lonely for one in looks])):
        found.append(f"some atoms of {_listed(lonely)} have no neighbour within the cutoff; raise model.cutoff?")
    if len(energies_per_atom) > 3:
        distance = np.abs(energies_per_atom - np.median(energies_per_atom))
        usual = np.median(distance)
        if len(wild := np.flatnonzero(distance > np.maximum(50 * usual, 1.0))):
            found.append(
                f"energies of {_listed(wild)} lie over 1 eV per atom and 50 times the usual away from the median; look "
                "at these frames, their units and reference energies"
            )
    return found


def _listed(indices: NDArray[np.int64]) -> str:
    """A few of them, and how many there are."""
    first = ", ".join(str(int(i)) for i in indices[:5])
    return f"frame {first}" if len(indices) == 1 else f"{len(indices)} frames ({first}{', …' * (len(indices) > 5)})"
