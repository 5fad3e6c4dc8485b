"""Time SevenNet through ASE, energy, forces and stress, against the authors' package; results checked equal first.

python benchmarks/time_sevennet.py --python PATH --source SOURCE [--deployed NAME=FILE] [--rounds N] [--threads N]

PATH is the Python of an environment with sevenn, SOURCE its folder or wheel, FILE a deployed network to be timed too.
The package runs in a process of its own, idle while the other is timed; rounds alternate, atoms move a little before
each evaluation, and neighbour lists are part of it. All processes get an allocator that keeps freed memory, which
speeds the authors' package up by almost two; --as-shipped leaves it alone.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from peer_process import ALLOCATOR, Peer

from irrepc.interop.ase_calculator import IrrepcCalculator
from irrepc.interop.sources import load_model

NAMES = ("sevennet-0", "sevennet-l3i5")
MOVE = 0.005
"""Å, as in peer_sevennet.py."""


def structures() -> dict[str, Atoms]:
    """192 atoms of water, 256 of copper, 21 of two molecules, all shaken a little."""
    copper = bulk("Cu", "fcc", a=3.615, cubic=True) * (4, 4, 4)
    above = molecule("CH3CONH2")
    above.positions += [0, 0, 3.5]
    found = {"water": water(4), "copper": copper, "molecule": molecule("C6H6") + above}
    for name, atoms in found.items():
        atoms.rattle(0.03, seed=0)
        atoms.info["name"] = name
    return found


def water(n: int, apart: float = 3.104) -> Atoms:
    """n³ molecules on a grid of the density of water, turned at random."""
    generator, box = np.random.default_rng(1), Atoms(cell=3 * [n * apart], pbc=True)
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.euler_rotate(*generator.uniform(0, 360, size=3), center="COM")
        one.translate(np.array(place) * apart - one.get_center_of_mass())
        box += one
    return box


def seconds(calculator: IrrepcCalculator, atoms: Atoms, rounds: int, generator: np.random.Generator) -> list[float]:
    moved, out = atoms.copy(), []
    for _ in range(rounds):
        moved.positions = atoms.positions + generator.normal(scale=MOVE, size=atoms.positions.shape)
        start = time.perf_counter()
        calculator.calculate(moved, ["energy", "forces"])  # and the stress, where there is one
        out.append(time.perf_counter() - start)
    return out


def difference(calculator: IrrepcCalculator, atoms: Atoms, expected: dict[str, Any]) -> tuple[float, float, float]:
    """Of energies (relative), forces and stresses (of the largest)."""
    calculator.calculate(atoms, ["energy"])
    found = calculator.results
    energy = abs(found["energy"] - expected["energy"]) / abs(expected["energy"])
    forces = np.abs(found["forces"] - expected["forces"]).max() / np.abs(expected["forces"]).max()
    if expected["stress"] is None:
        return energy, float(forces), 0.0
    stress = np.abs(found["stress"] - expected["stress"]).max() / np.abs(expected["stress"]).max()
    return energy, float(forces), float(stress)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the Python of an environment with sevenn")
    parser.add_argument("--source", required=True, help="the folder or the wheel of sevenn")
    parser.add_argument("--deployed", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--names", nargs="+", default=list(NAMES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--as-shipped", action="store_true")
    given = parser.parse_args()
    if not given.as_shipped and any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    torch.set_num_threads(given.threads)
    cases, generator = structures(), np.random.default_rng(0)
    deployed = dict(word.split("=", 1) for word in given.deployed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder / "structures.traj", list(cases.values()))
        print("| network | structure | atoms | contender | ΔE, ΔF, Δσ | official (min) | irrepc (min) | ratio (min) |")
        print("|---|---|---:|---|---:|---:|---:|---:|")
        for name in given.names:
            peer = Peer(given.python, "peer_sevennet.py", str(folder), name, str(given.threads))
            expected = json.loads((folder / f"{name}.json").read_text())
            network = load_model(given.source, name=name)
            contenders = {"exact": IrrepcCalculator(network)}
            if name in deployed:
                contenders["deployed"] = IrrepcCalculator(deployed[name])
            for structure, atoms in cases.items():
                deltas = {kind: difference(c, atoms, expected[structure]) for kind, c in contenders.items()}
                assert max(max(delta) for delta in deltas.values()) < 1e-3, deltas
                theirs, ours = [], {kind: [] for kind in contenders}
                peer.time(structure, 2)  # allocators and compilers wake up
                for _ in range(given.rounds):
                    theirs += peer.time(structure, 1)
                    for kind, calculator in contenders.items():
                        ours[kind] += seconds(calculator, atoms, 1, generator)
                a = statistics.median(theirs)
                for kind, mine in ours.items():
                    b, (de, df, ds) = statistics.median(mine), deltas[kind]
                    print(
                        f"| {name} | {structure} | {len(atoms)} | {kind} | {de:.0e}, {df:.0e}, {ds:.0e} "
                        f"| {1e3 * a:.0f} ({1e3 * min(theirs):.0f}) ms | {1e3 * b:.1f} ({1e3 * min(mine):.1f}) ms "
                        f"| {a / b:.1f} ({min(theirs) / min(mine):.1f}) |",
                        flush=True,
                    )
            peer.close()


if __name__ == "__main__":
    main()
