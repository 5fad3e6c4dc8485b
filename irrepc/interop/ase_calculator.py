"""IrrepcCalculator: a model as an ASE calculator, so that ASE relaxes structures and runs dynamics with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irrepc.errors import require
from irrepc.models.checkpoint import Network, load_model
from irrepc.models.potential import DirectForces, predict
from irrepc.nn.neighbours import SkinList, species_of

try:
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
except ModuleNotFoundError:
    require("ase", "ase")  # says how to get it
    raise

_VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # ASE's order: xx, yy, zz, yz, xz, xy


class IrrepcCalculator(Calculator):
    """Energy, forces and stress of a model, for ase.Atoms.

    model   a model, or a file of save_model; it is copied, so that later changes to it do not reach the calculator
    device  where it runs
    dtype   of the arithmetic; the model's own unless given
    skin    Å: neighbours are searched anew only after an atom has moved half of it, or the cell has changed

    Raises InputError when atoms hold an element the model does not know, and as `neighbours` does.
    The stress needs a periodic direction and a cell with a volume; without, PropertyNotImplementedError.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 - ASE's name, a list

    def __init__(
        self,
        model: Network | str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        skin: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        network = load_model(model) if isinstance(model, str | Path) else copy.deepcopy(model)
        self.model = network.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.device, self.dtype = torch.device(device), next(network.parameters()).dtype
        self.pairs = SkinList(network.cutoff, skin)

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
        if "stress" in properties and isinstance(self.model, DirectForces):
            raise PropertyNotImplementedError("stress: got a network with a force head; expected forces by gradient")
        if "stress" in properties and not solid:
            raise PropertyNotImplementedError(
                f"stress: got pbc {atoms.pbc.tolist()} and cell {atoms.cell.tolist()}; "
                "expected a periodic direction and three cell vectors"
            )
        species = species_of(atoms.numbers, self.model.species)
        graph = self.pairs.graph(species, atoms.positions, np.asarray(atoms.cell), atoms.pbc, dtype=self.dtype)
        stress = solid and not isinstance(self.model, DirectForces)
        found = predict(self.model, graph.to(self.device), stress=stress)
        energy = float(found.energy)
        self.results = {
            "energy": energy,
            "free_energy": energy,  # there is no electronic temperature
            "energies": found.energies.double().cpu().numpy(),
            "forces": found.forces.double().cpu().numpy(),
        }
        if found.stress is not None:
            tensor = found.stress[0].double().cpu().numpy()
            self.results["stress"] = np.array([tensor[i, j] for i, j in _VOIGT])
