"""Relax: positions, and the cell where asked, moved until no force is larger than fmax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from irrepc.commands.structures import (
    calculator,
    check_folder,
    check_structures,
    read_structures,
    write_structures,
    written,
)
from irrepc.errors import InputError, require

OPTIMIZERS = {"fire": "FIRE", "lbfgs": "LBFGS"}


def relax(
    source: Path,
    out: Path,
    model: str,
    *,
    fmax: float,
    steps: int,
    optimizer: str,
    cell: bool,
    trajectory: Path | None,
    dtype: str | None,
    console: Console,
) -> bool:
    """Relax every structure of the file, write the results to `out`; True when all have converged.

    fmax        eV/Å, of the largest force on an atom; with `cell` of the cell's generalised forces too
    trajectory  extended XYZ that gets every step
    Raises InputError before the first step where a structure or a file is not what it should be.
    """
    if not (np.isfinite(fmax) and fmax > 0):
        raise InputError(f"--fmax: got {fmax}; expected a finite number > 0 (eV/Å)")
    for path in (out, trajectory):
        if path is not None:
            check_folder(path)
    structures = read_structures(source)
    calc = calculator(model, dtype)
    check_structures(structures, calc.evaluator, source)
    for number, atoms in enumerate(structures):
        if cell and not (atoms.pbc.all() and atoms.cell.rank == 3):
            raise InputError(
                f"--cell: got structure {number} of {source} with pbc {atoms.pbc.tolist()}; expected three periodic "
                "directions; leave --cell out"
            )
    if trajectory is not None:
        trajectory.unlink(missing_ok=True)
    converged, done = True, []
    for number, atoms in enumerate(structures):
        atoms.calc = calc
        before = float(atoms.get_potential_energy())
        used, force = _descend(atoms, fmax, steps, optimizer, cell, trajectory, console)
        reached = force < fmax
        converged &= reached
        after = float(atoms.get_potential_energy())
        console.out(
            f"  {number:4} {len(atoms)} atoms, {used} steps, energy {before:.6f} -> {after:.6f} eV, "
            f"largest force {force:.2e} eV/Å{'' if reached else ': not converged'}",
            highlight=False,
            style=None if reached else "red",
        )
        done.append(written(atoms, calc.results))
    write_structures(out, done)
    console.out(f"{len(done)} structures -> {out}", highlight=False)
    return converged


def _descend(
    atoms: Any, fmax: float, steps: int, optimizer: str, cell: bool, trajectory: Path | None, console: Console
) -> tuple[int, float]:
    """Steps taken, and the largest force at the end."""
    moved = require("ase.filters", "ase").FrechetCellFilter(atoms) if cell else atoms
    made = getattr(require("ase.optimize", "ase"), OPTIMIZERS[optimizer])(moved, logfile=None)
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("relaxing")

        def record() -> None:
            force = _largest(moved)
            bar.update(task, description=f"step {made.nsteps}: largest force {force:.3e} eV/Å")
            if trajectory is not None:
                write_structures(trajectory, [written(atoms, atoms.calc.results)], append=True)

        made.attach(record)
        made.run(fmax=fmax, steps=steps)
    return int(made.nsteps), _largest(moved)


def _largest(moved: Any) -> float:
    return float(np.linalg.norm(moved.get_forces(), axis=1).max())
