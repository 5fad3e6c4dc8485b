"""Errors of a model against labels: energies per atom in meV, forces in meV/Å; by element and by size of the force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from irrepc.errors import InputError
from irrepc.models.checkpoint import Network
from irrepc.models.potential import DirectForces, predict
from irrepc.train.batches import Labelled, join, label
from irrepc.train.frames import Frames
from irrepc.train.losses import Tally
from irrepc.train.order import Graphs

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean absolute and root mean square errors; forces over components; NaN where there are no labels."""

    energy_mae: float  # meV per atom
    energy_rmse: float  # meV per atom
    force_mae: float  # meV/Å
    force_rmse: float  # meV/Å

    @classmethod
    def of(cls, energy_per_atom: Float, forces: Float) -> Errors:
        """From differences to the labels, of any shape, in eV and eV/Å; NaN are left out."""
        return cls(*_pair(energy_per_atom), *_pair(forces))

    @classmethod
    def read(cls, tally: Tally) -> Errors:
        """From sums over batches."""
        found = tally.errors()
        names = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse")
        return cls(*(found.get(name, np.nan) for name in names))


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Labels and answers, side by side, frame after frame; NaN where there is no label."""

    atoms: Int  # (frames,) their numbers of atoms
    energy_labels: Float  # (frames,) eV
    energies: Float  # (frames,) eV
    force_labels: Float  # (atoms of all frames, 3) eV/Å
    forces: Float  # (atoms of all frames, 3) eV/Å
    numbers: Int  # (atoms of all frames,) atomic numbers
    stress_labels: Float | None = None  # (frames, 3, 3) eV/Å³; None where stress was not asked for
    stress: Float | None = None

    @property
    def errors(self) -> Errors:
        """The differences in four numbers."""
        return Errors.of((self.energies - self.energy_labels) / self.atoms, self.forces - self.force_labels)

    @property
    def energy_rmse_per_frame(self) -> float:
        """meV, of whole structures: what papers on molecules print."""
        return _pair(self.energies - self.energy_labels)[1]

    @property
    def relative_energy_rmse(self) -> float:
        """meV, of whole structures, with both sides counted from their means: what a scan's curve shows."""
        gap = self.energies - self.energy_labels
        return _pair(gap - gap.mean())[1]

    @property
    def stress_rmse(self) -> float:
        """meV/Å³, over components; NaN without labels."""
        if self.stress is None or self.stress_labels is None:
            return float("nan")
        return _pair(self.stress - self.stress_labels)[1]

    def by_element(self) -> dict[int, tuple[int, float, float]]:
        """Atomic number -> atoms with labels, MAE and RMSE of their force components in meV/Å."""
        gap = self.forces - self.force_labels
        known = np.isfinite(gap).all(1)
        return {
            int(z): (int((chosen := known & (self.numbers == z)).sum()), *_pair(gap[chosen]))
            for z in np.unique(self.numbers[known])
        }

    def by_force(self, bins: int = 6) -> list[tuple[float, float, int, float]]:
        """Equally filled classes of |force label|: (from, to) eV/Å, atoms, RMSE of components in meV/Å."""
        gap, size = self.forces - self.force_labels, np.linalg.norm(self.force_labels, axis=1)
        gap, size = gap[np.isfinite(size)], size[np.isfinite(size)]
        if not len(size):
            return []
        found = []
        for piece in np.array_split(np.argsort(size, kind="stable"), min(bins, len(size))):
            found.append((float(size[piece[0]]), float(size[piece[-1]]), len(piece), _pair(gap[piece])[1]))
        return found


def evaluate(
    model: Network,
    frames: Frames | Graphs,
    *,
    batch_size: int = 50,
    stress: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Energies and forces of every frame, and, where asked for, stresses of a model that has them.

    Forces are what the model means by them: those of its head where it has one. progress(part) after each batch.
    Raises IrrepcError for no frames, InputError for elements not known and for stress of a model with a force head.
    """
    if stress and isinstance(model, DirectForces):
        raise InputError(f"evaluate: got stress of {type(model).__name__}; expected none, its forces are no gradient")
    device, species = next(model.parameters()).device, np.array(model.species)
    columns: list[tuple[Float | Int, ...]] = []
    whole, done = len(frames), 0
    for batch in _batches(model, frames, batch_size):
        moved = batch.to(device)
        found = predict(model, moved.graph, stress=stress)
        atoms = torch.bincount(batch.graph.batch, minlength=batch.graph.num_graphs).numpy()
        tensor = torch.full_like(batch.stress, torch.nan) if found.stress is None else found.stress
        sides = (batch.energy, found.energy, batch.forces, found.forces, batch.stress, tensor)
        columns.append((atoms, *map(_array, sides), species[batch.graph.species.numpy()]))
        done += len(atoms)
        if progress is not None:
            progress(done / whole)
    joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
    atoms, energy_labels, energies, force_labels, forces, stress_labels, stresses, numbers = joined
    kept = (stress_labels, stresses) if stress else (None, None)
    return Evaluation(atoms, energy_labels, energies, force_labels, forces, numbers, *kept)


def _batches(model: Network, frames: Frames | Graphs, size: int) -> Iterator[Labelled]:
    if isinstance(frames, Graphs):
        for start in range(0, len(frames), size):
            yield join([frames[k] for k in range(start, min(start + size, len(frames)))])
        return
    singles = label(frames, model)
    for start in range(0, len(singles), size):
        found = join(singles[start : start + size])
        yield found.to("cpu")


def _array(tensor: torch.Tensor) -> Float:
    out: Float = tensor.detach().double().cpu().numpy()
    return out


def _pair(gaps: Float) -> tuple[float, float]:
    """Mean absolute and root mean square, times 1000; NaN without numbers."""
    known = gaps[np.isfinite(gaps)]
    if not known.size:
        return float("nan"), float("nan")
    return 1e3 * float(np.abs(known).mean()), 1e3 * float(np.sqrt(np.square(known).mean()))
