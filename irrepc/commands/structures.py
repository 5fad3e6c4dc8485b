"""Structures on the way in and out: files that ASE reads, checked before a model sees them, and calculators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irrepc.errors import InputError, require

CLOSEST = 0.3
"""Å; half the shortest bond there is: nearer atoms are a mistake, or positions in another unit."""
DTYPES = ("float32", "float64")


def read_structures(path: Path, index: str = ":") -> list[Any]:
    """The structures of a file, as ase.Atoms. Raises InputError for a file that is absent, empty or unreadable."""
    if not path.is_file():
        raise InputError(f"structures: got {path}, which is not there; expected a file that ASE reads, such as .extxyz")
    io = require("ase.io", "ase")
    try:
        found = io.read(path, index=index)
    except Exception as error:  # ASE's readers raise whatever their formats run into
        raise InputError(
            f"structures: got {path}, which ASE cannot read ({type(error).__name__}: {error}); expected a file such as "
            ".extxyz, .cif, POSCAR"
        ) from error
    structures = found if isinstance(found, list) else [found]
    if not structures or not all(len(atoms) for atoms in structures):
        raise InputError(f"structures: got {path} without atoms; expected at least one in each structure")
    return structures


def calculator(model: str, dtype: str | None) -> Any:
    """The ASE calculator of what --model says. Raises InputError as `irrepc.load_model`."""
    from irrepc.interop.ase_calculator import IrrepcCalculator, evaluator_of

    evaluator = evaluator_of(model)
    if dtype is None:
        return IrrepcCalculator(evaluator)
    import torch

    from irrepc.interop.network_evaluator import NetworkEvaluator

    if not isinstance(evaluator, NetworkEvaluator):
        raise InputError(f"--dtype: got {dtype} for a deployed model; expected none, it was deployed in its own")
    return IrrepcCalculator(evaluator.model, dtype=getattr(torch, dtype))


def check_structures(structures: list[Any], evaluator: Any, path: Path) -> None:
    """Raise InputError for the first structure that the model cannot or should not be asked about.

    Unknown elements, numbers that are not finite, a degenerate cell, atoms nearer to each other than any bond. A
    deployed model looks at the geometry itself, when it is asked: what could do it here would import torch.
    """
    for number, atoms in enumerate(structures):
        try:
            unknown = sorted(set(atoms.numbers.tolist()) - set(evaluator.species))
            if unknown:
                raise InputError(
                    f"species: got atomic numbers {unknown}; expected only {sorted(evaluator.species)}, the elements "
                    "of the model; take a model that knows these elements"
                )
            if hasattr(evaluator, "check"):
                evaluator.check(atoms.positions, np.asarray(atoms.cell), atoms.pbc, CLOSEST)
        except InputError as error:
            raise InputError(f"{path}, structure {number}: {error}") from error


def written(atoms: Any, results: dict[str, Any]) -> Any:
    """A copy of the atoms that carries these results into a file, and no calculator."""
    single = require("ase.calculators.singlepoint", "ase").SinglePointCalculator
    copy = atoms.copy()
    copy.calc = single(copy, **{k: v for k, v in results.items() if k in ("energy", "energies", "forces", "stress")})
    return copy


def write_structures(path: Path, structures: list[Any], *, append: bool = False) -> None:
    """Write them, in extended XYZ unless the name says another format. Raises InputError without the folder."""
    io = require("ase.io", "ase")
    check_folder(path)
    kind = None if path.suffix not in (".xyz", ".extxyz") else "extxyz"
    io.write(path, structures, format=kind, append=append)


def check_folder(path: Path) -> None:
    """Raise InputError where the folder of a file to be written is not there."""
    if not path.parent.is_dir():
        raise InputError(f"output: got {path}, whose folder is not there; expected a folder that exists; make it")


def voigt(stress: Any) -> NDArray[np.float64]:
    """A stress label as six numbers xx, yy, zz, yz, xz, xy, from six, nine or (3, 3)."""
    array = np.asarray(stress, dtype=np.float64).reshape(-1)
    if array.size == 9:
        array = array[[0, 4, 8, 5, 2, 1]]
    if array.size != 6:
        raise InputError(f"labels: got a stress of {array.size} numbers; expected 6 (xx, yy, zz, yz, xz, xy) or 9")
    return array
