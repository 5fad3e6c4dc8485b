"""Make the shipped ethanol set: Langevin dynamics at 300-500 K, energies and forces from GFN2-xTB (needs ase, tblite).

OMP_NUM_THREADS=1 python examples/make_ethanol_dataset.py irrepc/train/data/ethanol_gfn2.npz   (some seven minutes)

The same arguments give the same file on the same machine and versions. Dynamics is chaotic, so that another processor's
rounding leads to other, equally good frames; the labels of given positions agree everywhere.
"""

import argparse
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from rich.progress import track
from tblite.ase import TBLite

from irrepc.train.data import Frame, Frames, save_frames

BONDS = ((0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8))  # of ase.build.molecule("CH3CH2OH")
PROVENANCE = """Ethanol (9 atoms, gas phase, charge 0), sampled and labelled with GFN2-xTB.
Made by examples/make_ethanol_dataset.py of irrepc with tblite {tblite}, ase {ase}, numpy {numpy}.
Groups: train = {trajectories} independent trajectories of {frames} frames at each of 300, 400 and 500 K, in this order;
test_300K, test_500K = one trajectory of {tests} frames each; isolated_atoms = H, C, O (spin multiplicity 2, 3, 3).
Dynamics: Langevin thermostat, friction {friction} 1/fs, time step {timestep} fs; from an anti or gauche conformer,
{equilibration} steps of equilibration, then one frame every {stride} steps. Seed {seed}: trajectory k of the file
(train first) draws from numpy.random.default_rng([{seed}, k]).
Labels: tblite accuracy 0.01, fresh start for every frame, electronic temperature 300 K; origin at the centre of mass.
Units: positions Å, energy eV (total energy), forces eV/Å."""


def label(atoms: Atoms, group: str, multiplicity: int = 1) -> Frame:
    """Converged energy and forces from a fresh start, so that they depend on these positions alone."""
    calculator = TBLite(method="GFN2-xTB", accuracy=0.01, multiplicity=multiplicity, verbosity=0)
    alone = Atoms(atoms.numbers, atoms.positions - atoms.get_center_of_mass(), calculator=calculator)
    return Frame.of(alone.numbers, alone.positions, alone.get_potential_energy(), alone.get_forces(), group=group)


def trajectory(kelvin: float, count: int, group: str, number: int, a: argparse.Namespace) -> Iterator[Frame]:
    """Yield `count` labelled frames of one trajectory."""
    rng, atoms = np.random.default_rng([a.seed, number]), molecule("CH3CH2OH")
    atoms.set_dihedral(0, 1, 2, 3, (180, 60, 300)[number % 3], indices=[3])  # anti, and gauche in both mirror images
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    spread = np.sqrt(units.kB * kelvin * atoms.get_masses())[:, None]  # of the momenta, Maxwell-Boltzmann
    atoms.set_momenta(spread * rng.standard_normal((9, 3)))
    step, friction = a.timestep * units.fs, a.friction / units.fs
    dynamics = Langevin(atoms, step, temperature_K=kelvin, friction=friction, fixcm=False, rng=rng)
    dynamics.run(a.equilibration)
    for _ in range(count):
        dynamics.run(a.stride)
        if (longest := max(atoms.get_distance(*bond) for bond in BONDS)) > 2.0:
            raise RuntimeError(f"{group}: a bond is {longest:.2f} Å long, the molecule came apart; try another seed.")
        yield label(atoms, group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the .npz to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trajectories", type=int, default=4, help="for training, at each temperature (default 4)")
    parser.add_argument("--frames", type=int, default=50, help="of a training trajectory; a test has twice that (50)")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs (default 0.5)")
    parser.add_argument("--stride", type=int, default=200, help="steps from frame to frame (default 200)")
    parser.add_argument("--equilibration", type=int, default=4000, help="steps before the first frame (default 4000)")
    parser.add_argument("--friction", type=float, default=0.01, help="1/fs (default 0.01)")
    a = parser.parse_args()
    plans = [(kelvin, a.frames, "train") for kelvin in (300, 400, 500) for _ in range(a.trajectories)]
    plans += [(kelvin, 2 * a.frames, f"test_{kelvin}K") for kelvin in (300, 500)]
    dynamic = (frame for number, plan in enumerate(plans) for frame in trajectory(*plan, number, a))
    frames = list(track(dynamic, "ethanol", total=sum(count for _, count, _ in plans)))
    frames += [label(Atoms(atom), "isolated_atoms", spin) for atom, spin in (("H", 2), ("C", 3), ("O", 3))]
    facts = {name: version(name) for name in ("tblite", "ase", "numpy")} | vars(a) | {"tests": 2 * a.frames}
    save_frames(a.out, Frames(tuple(frames), PROVENANCE.format(**facts)))


if __name__ == "__main__":
    main()
