"""One model, two backends and a third: the same weights give the same energies and forces to 1e-12."""

import time

import torch

from irrepc.models import NequIP, energy_and_forces
from irrepc.nn import batch, graph_of, species_of
from irrepc.train.configure import configure
from irrepc.train.data import ethanol

frames = ethanol("test_500K").select(range(8))
config = configure(frames, cutoff=4.0, layers=2, lmax=1, features=(8, 8), embedding=8, radial_width=16)
graph = batch([graph_of(species_of(f.numbers, config.species), f.positions, cutoff=4.0) for f in frames])
print(f"{graph.num_graphs} molecules, {graph.num_atoms} atoms, {graph.num_edges} edges")

# The backend is said once, to the constructor; the weights never know it.
first = NequIP(config, "torch", dtype=torch.float64, seed=0)
reference = energy_and_forces(first, graph)
size = float(reference.forces.abs().max())
print(f"torch: E = {float(reference.energy[0]):.12f} eV, largest force {size:.3f} eV/Å")

for backend in ("numba", "llvm"):
    model = NequIP(config, backend, dtype=torch.float64)
    model.load_state_dict(first.state_dict())
    start = time.perf_counter()
    energy_and_forces(model, graph)  # emitted and compiled here, once; the cache keeps it for the next process
    compiling = time.perf_counter() - start
    start = time.perf_counter()
    found = energy_and_forces(model, graph)
    seconds = time.perf_counter() - start
    energy = float((found.energy - reference.energy).abs().max() / reference.energy.abs().max())
    forces = float((found.forces - reference.forces).abs().max()) / size
    print(f"{backend}: first call {compiling:.2f} s, then {1e3 * seconds:.1f} ms; ", end="")
    print(f"relative difference of energies {energy:.1e}, of forces {forces:.1e}")
    assert energy < 1e-12, energy
    assert forces < 1e-12, forces
