"""IrrepcCalculator: a network or a deployed one as an ASE calculator, for ASE's relaxations and dynamics.

This file imports no torch: a deployed network runs without.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irrepc.errors import InputError, require
from irrepc.runtime.model_file import is_model_file, read_kind

try:
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
except ModuleNotFoundError:
    require("ase", "ase")  # says how to get it
    raise

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # ASE's order: xx, yy, zz, yz, xz, xy


class Answer(Protocol):
    """What is read of an answer: eV, (N,) eV, (N, 3) eV/Å, (3, 3) eV/Å³ with tension positive, or none."""

    @property
    def energy(self) -> float: ...
    @property
    def energies(self) -> NDArray[np.float64]: ...
    @property
    def forces(self) -> NDArray[np.float64]: ...
    @property
    def stress(self) -> NDArray[np.float64] | None: ...


@runtime_checkable
class Evaluator(Protocol):
    """What can stand behind the calculator: it knows some elements and answers for plain arrays."""

    species: tuple[int, ...]
    cutoff: float

    def evaluate(
        self,
        numbers: ArrayLike,
        positions: ArrayLike,
        cell: ArrayLike | None = None,
        pbc: bool | Sequence[bool] = False,
    ) -> Answer:
        """Atomic numbers (N,), positions (N, 3) Å, cell (3, 3) Å, rows are vectors, periodic flags."""
        ...


class IrrepcCalculator(Calculator):
    """Energy, forces and stress of a model, for ase.Atoms.

    model    a network, an evaluator (a deployed network), or whatever `irrepc.load_model` reads; copied or its own
    options  of a network: device, dtype (the model's own unless given), skin (0.5 Å; neighbours are searched anew only
             after an atom has moved half of it, or the cell has changed)

    Raises InputError when atoms hold an element the model does not know, as `neighbours` does, and where an answer is
    not finite. The stress needs a periodic direction and a cell with a volume; without, PropertyNotImplementedError.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 - ASE's name, a list

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.evaluator = evaluator_of(model, **options)

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results`: energy, free_energy (eV), energies (N,), forces (N, 3) eV/Å, stress (6,) eV/Å³, Voigt."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        atoms = self.atoms
        solid = bool(np.any(atoms.pbc)) and atoms.cell.rank == 3
        if "stress" in properties and not solid:
            raise PropertyNotImplementedError(
                f"stress: got pbc {atoms.pbc.tolist()} and cell {atoms.cell.tolist()}; "
                "expected a periodic direction and three cell vectors"
            )
        found = self.evaluator.evaluate(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc)
        finite = np.isfinite(found.energies) & np.isfinite(found.forces).all(1)
        if not finite.all():
            atom = int(np.flatnonzero(~finite)[0])
            raise InputError(
                f"model: got {found.energies[atom]} eV and forces {found.forces[atom].tolist()} for atom {atom} at "
                f"{atoms.positions[atom].tolist()}; expected finite numbers; look at its neighbours, or at the weights"
            )
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,  # there is no electronic temperature
            "energies": found.energies,
            "forces": found.forces,
        }
        if found.stress is not None:
            self.results["stress"] = np.array([found.stress[i, j] for i, j in _VOIGT])
        elif "stress" in properties:
            raise PropertyNotImplementedError("stress: got a model that gives none here; expected one with a gradient")


def evaluator_of(model: Any, **options: Any) -> Evaluator:
    """The evaluator of a network, of a file or name that holds one, or the evaluator given.

    Raises InputError as `irrepc.load_model`, and for options that a deployed network does not have.
    """
    if isinstance(model, str | Path):
        if Path(model).is_file() and is_model_file(model) and read_kind(model) == "deployed":
            model = import_module("irrepc.deploy").load(model)
        else:
            model = import_module("irrepc.interop.sources").load_model(model)
    if isinstance(model, Evaluator):
        if options:
            raise InputError(f"calculator: got {', '.join(options)} with a deployed model; expected none of them")
        return model
    evaluator: Evaluator = import_module("irrepc.interop.network_evaluator").NetworkEvaluator(model, **options)
    return evaluator
