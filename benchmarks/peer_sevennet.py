"""Runs the authors' SevenNet (sevenn) for time_sevennet.py, in an environment of its own; needs nothing of irrepc.

python peer_sevennet.py FOLDER NAME THREADS reads FOLDER/structures.traj, writes FOLDER/NAME.json (energies, forces and
stresses of the calculator as shipped, float32) and answers lines «STRUCTURE ROUNDS» with a JSON list of seconds.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase.io import read
from sevenn.calculator import SevenNetCalculator

MOVE = 0.005


def main(folder: Path, name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    structures = {atoms.info["name"]: atoms for atoms in read(folder / "structures.traj", ":")}
    calculator = SevenNetCalculator(name.replace("sevennet", "7net"), device="cpu")
    found = {}
    for title, atoms in structures.items():
        atoms.calc = calculator
        found[title] = {
            "energy": float(atoms.get_potential_energy()),
            "forces": atoms.get_forces().tolist(),
            "stress": atoms.get_stress().tolist() if atoms.pbc.any() else None,
        }
    (folder / f"{name}.json").write_text(json.dumps(found))
    print("[]", flush=True)
    generator = np.random.default_rng(0)
    for line in sys.stdin:
        title, rounds = line.split()
        atoms, seconds = structures[title], []
        places = atoms.positions.copy()
        for _ in range(int(rounds)):
            atoms.positions = places + generator.normal(scale=MOVE, size=places.shape)
            start = time.perf_counter()
            calculator.calculate(atoms, ["energy", "forces", "stress"])
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
