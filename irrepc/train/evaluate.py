"""Errors of a model against labels: energies per atom in meV, forces in meV/Å."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irrepc.models.checkpoint import Network
from irrepc.models.potential import energy_and_forces
from irrepc.train.batches import join, label
from irrepc.train.frames import Frames

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean absolute and root mean square errors; forces over components."""

    energy_mae: float  # meV per atom
    energy_rmse: float  # meV per atom
    force_mae: float  # meV/Å
    force_rmse: float  # meV/Å

    @classmethod
    def of(cls, energy_per_atom: Float, forces: Float) -> Errors:
        """From differences to the labels, of any shape, in eV and eV/Å."""
        return cls(
            energy_mae=1e3 * float(np.abs(energy_per_atom).mean()),
            energy_rmse=1e3 * float(np.sqrt(np.square(energy_per_atom).mean())),
            force_mae=1e3 * float(np.abs(forces).mean()),
            force_rmse=1e3 * float(np.sqrt(np.square(forces).mean())),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Labels and answers, side by side, frame after frame."""

    atoms: NDArray[np.int64]  # (frames,) their numbers of atoms
    energy_labels: Float  # (frames,) eV
    energies: Float  # (frames,) eV
    force_labels: Float  # (atoms of all frames, 3) eV/Å
    forces: Float  # (atoms of all frames, 3) eV/Å

    @property
    def errors(self) -> Errors:
        """The differences in four numbers."""
        return Errors.of((self.energies - self.energy_labels) / self.atoms, self.forces - self.force_labels)


def evaluate(model: Network, frames: Frames, *, batch_size: int = 50) -> Evaluation:
    """Energies and forces of every frame. Raises IrrepcError for no frames, InputError for elements not known."""
    singles, energies, forces = label(frames, model), [], []
    for start in range(0, len(singles), batch_size):
        found = energy_and_forces(model, join(singles[start : start + batch_size]).graph)
        energies.append(found.energy.double().cpu().numpy())
        forces.append(found.forces.double().cpu().numpy())
    return Evaluation(
        atoms=np.array([len(frame.numbers) for frame in frames]),
        energy_labels=frames.energies,
        energies=np.concatenate(energies),
        force_labels=frames.forces,
        forces=np.concatenate(forces),
    )
