"""Molecular dynamics with a model's forces: relax ethanol, then run it at constant energy, both through ASE."""

import sys

import numpy as np
import torch
from ase import Atoms
from ase.optimize import BFGS

from irrepc.interop.ase_calculator import IrrepcCalculator
from irrepc.models import NequIP
from irrepc.train.configure import configure
from irrepc.train.data import ethanol, split
from irrepc.train.dynamics import run_nve
from irrepc.train.fit import fit
from irrepc.train.frames import Frame

seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
torch.set_num_threads(1)

# A small network, trained for some seconds: rough, but smooth and conservative, since forces are -dE/dr.
train, validation = split(ethanol("train"), (200, 20), seed=0)
config = configure(
    train, cutoff=4.0, layers=2, lmax=1, parity=False, features=(8, 8), embedding=8, radial_depth=1, radial_width=16
)
model = NequIP(config, seed=0)
history = fit(model, train, validation, seconds=seconds, batch_size=5, learning_rate=0.02, energy_weight=10)
errors = history.epochs[-1].validation
print(f"{len(history.epochs)} epochs: forces {errors.force_mae:.0f} meV/Å, energy {errors.energy_mae:.1f} meV/atom")

# Any ASE program can use the calculator.
frame = ethanol("test_300K")[0]
atoms = Atoms(frame.numbers, frame.positions, calculator=IrrepcCalculator(model, dtype=torch.float64))
before = atoms.get_potential_energy()
relaxation = BFGS(atoms, logfile=None)
relaxation.run(fmax=0.02, steps=200)
largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
print(f"relaxed in {relaxation.nsteps} steps: {before:.3f} -> {atoms.get_potential_energy():.3f} eV,", end=" ")
print(f"largest force {largest:.3f} eV/Å, C-C {atoms.get_distance(0, 1):.3f} Å, C-O {atoms.get_distance(1, 2):.3f} Å")
assert atoms.get_potential_energy() < before

# Constant energy: what potential loses, kinetic gains.
relaxed = Frame.of(atoms.numbers, atoms.positions, 0.0, np.zeros((9, 3)))
run = run_nve(model, relaxed, kelvin=300.0, steps=400, timestep=0.5, seed=0)
exchange = 1e3 * np.ptp(run.kinetic) / run.atoms
print(f"{run.time[-1]:.2f} ps at constant energy: kinetic energy moves by {exchange:.1f} meV per atom,", end=" ")
print(f"the total by {1e3 * np.ptp(run.total) / run.atoms:.3f} (drift {run.drift:+.3f} meV per atom and ps)")
assert np.ptp(run.total) < 0.1 * np.ptp(run.kinetic)
