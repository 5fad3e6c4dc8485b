"""A run of molecular dynamics at constant energy, to see how well forces and energy of a model belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from irrepc.errors import require
from irrepc.models.checkpoint import Network
from irrepc.train.frames import Frame

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """A run in numbers; the energies are of the whole structure."""

    atoms: int
    timestep: float  # fs
    time: Float  # (records,) ps
    potential: Float  # (records,) eV
    kinetic: Float  # (records,) eV
    temperature: Float  # (records,) K, over the 3N - 6 motions that are left

    @property
    def total(self) -> Float:
        """(records,) eV; constant but for the time step and rounding."""
        return self.potential + self.kinetic

    @property
    def drift(self) -> float:
        """Slope of the total energy by least squares, meV per atom and ps."""
        return 1e3 * float(np.polyfit(self.time, self.total, 1)[0]) / self.atoms

    @property
    def wobble(self) -> float:
        """Root mean square of the total energy about that line, meV per atom."""
        line = np.polyval(np.polyfit(self.time, self.total, 1), self.time)
        return 1e3 * float(np.sqrt(np.square(self.total - line).mean())) / self.atoms


def run_nve(
    model: Network,
    frame: Frame,
    *,
    kelvin: float = 300.0,
    steps: int = 4000,
    timestep: float = 0.5,
    every: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Velocity Verlet of a molecule from the positions of `frame`, velocities drawn at `kelvin`, at rest as a whole.

    timestep fs; dtype of the arithmetic (the model itself is left as it is); a record is made every so many steps, and
    progress(step) is called. Needs the extra irrepc[ase].
    Raises InputError for elements that the model does not know.
    """
    ase, units, verlet = (require(name, "ase") for name in ("ase", "ase.units", "ase.md.verlet"))
    from irrepc.interop.ase_calculator import IrrepcCalculator  # loads ASE, which importing this file must not

    atoms = ase.Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    atoms.calc = IrrepcCalculator(model, dtype=dtype)
    masses = atoms.get_masses()
    atoms.set_velocities(velocities(masses, frame.positions, kelvin * units.kB, np.random.default_rng(seed)))
    dynamics = verlet.VelocityVerlet(atoms, timestep * units.fs)
    records: list[tuple[float, float, float]] = []
    motions = max(3 * len(atoms) - 6, 1)

    def record() -> None:
        kinetic = float(atoms.get_kinetic_energy())
        at = dynamics.nsteps * timestep * 1e-3
        records.append((at, float(atoms.get_potential_energy()), kinetic))
        if progress is not None:
            progress(dynamics.nsteps)

    dynamics.attach(record, interval=every)
    dynamics.run(steps)
    time, potential, kinetic = np.array(records).T
    temperature = 2 * kinetic / (motions * units.kB)
    return Trajectory(len(atoms), timestep, time, potential, kinetic, temperature)


def velocities(masses: Float, positions: Float, energy: float, generator: np.random.Generator) -> Float:
    """Velocities (N, 3) of Maxwell and Boltzmann at kT = `energy`, less those of the whole: it neither moves nor turns.

    In units of √(energy / mass); masses (N,), positions (N, 3).
    """
    drawn = generator.normal(size=positions.shape) * np.sqrt(energy / masses)[:, None]
    drawn -= masses @ drawn / masses.sum()
    r = positions - masses @ positions / masses.sum()
    momentum = masses @ np.cross(r, drawn)
    squares = np.square(r).sum(1)[:, None, None] * np.eye(3)
    inertia = np.einsum("n,nij->ij", masses, squares - r[:, :, None] * r[:, None])
    turning = np.linalg.pinv(inertia, rcond=1e-9) @ momentum  # of a line or a point some inertia vanishes
    at_rest: Float = drawn - np.cross(turning, r)
    return at_rest
