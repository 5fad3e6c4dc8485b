"""Drift of the total energy at constant energy: 24 atoms of periodic water and 64 atoms of silicon, in float64.

python benchmarks/drift.py --model MODEL --out FOLDER [--picoseconds 5] [--timestep 0.25] [--temperature 300]

MODEL is what `irrepc md` takes: a file of irrepc, a deployed network, a published network. Structures are relaxed a
little first, so that the bath of no thermostat is near the temperature asked for. A run that was stopped goes on.
"""

import argparse
from pathlib import Path

from ase.build import bulk
from ase.io import write
from ase.optimize import FIRE
from rich.console import Console
from time_sevennet import water

from irrepc.commands.md import Settings, resume, start
from irrepc.commands.structures import calculator

LIMIT = 1e-5
"""eV per atom and ps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", default="float64", help="of the arithmetic; «own» for a deployed network")
    parser.add_argument("--picoseconds", type=float, default=5.0)
    parser.add_argument("--timestep", type=float, default=0.25, help="fs")
    parser.add_argument("--temperature", type=float, default=300.0, help="K")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    dtype, console = None if given.dtype == "own" else given.dtype, Console(highlight=False)
    steps = round(1e3 * given.picoseconds / given.timestep)
    for name, atoms in (("water", water(2)), ("silicon", bulk("Si", "diamond", a=5.43, cubic=True) * 2)):
        restart = given.out / f"{name}.restart.npz"
        if restart.exists():
            drift = resume(restart, steps, console)
        else:
            atoms.calc = calculator(given.model, dtype)
            FIRE(atoms, logfile=None).run(fmax=0.5, steps=50)
            write(given.out / f"{name}.start.extxyz", atoms)
            settings = Settings(given.model, dtype, timestep=given.timestep, temperature=given.temperature)
            drift = start(given.out / f"{name}.start.extxyz", given.out / name, settings, steps, console)
        console.print(f"{name}: drift {drift:.1e} eV per atom and ps, limit {LIMIT:.0e}")


if __name__ == "__main__":
    main()
