"""Labels: under which names and in which units a file says energies, forces and stresses, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irrepc.errors import InputError, IrrepcError
from irrepc.train.frames import Frame

Float = NDArray[np.float64]

# eV, Å and eV/Å³ in one unit; CODATA 2018
ENERGY_UNITS: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": 27.211386245988,
    "rydberg": 13.605693122994,
    "kcal/mol": 0.0433641153,
    "kJ/mol": 0.0103642697,
}
LENGTH_UNITS: dict[str, float] = {"angstrom": 1.0, "bohr": 0.529177210903, "nm": 10.0}
_GPA = 1 / 160.2176634
STRESS_UNITS: dict[str, float] = {"eV/angstrom^3": 1.0, "GPa": _GPA, "kbar": 0.1 * _GPA, "bar": 1e-4 * _GPA}
STRESS_KINDS = ("stress", "virial")


@dataclass(frozen=True, slots=True)
class Labels:
    """Names and units of the labels in a file.

    energy, forces, stress  names; None: forces or stress are not read. A name is looked for among what ASE's
                            calculator of the frame remembers, in the comment line, in the columns, and, in a database,
                            among the key-value pairs and the data
    energy_unit             of the energies
    length_unit             of positions and cells; forces are in energy_unit / length_unit
    stress_unit             of the stress; a virial is in energy_unit
    stress_kind             "stress": dE/dstrain / V, positive under tension (ASE); "virial": -dE/dstrain (eV)
    optional                which of "forces" and "stress" frames may lack; a frame without another is broken
    """

    energy: str = "energy"
    forces: str | None = "forces"
    stress: str | None = "stress"
    energy_unit: str = "eV"
    length_unit: str = "angstrom"
    stress_unit: str = "eV/angstrom^3"
    stress_kind: str = "stress"
    optional: tuple[str, ...] = ("stress",)

    def __post_init__(self) -> None:
        for name, among in (
            ("energy_unit", tuple(ENERGY_UNITS)),
            ("length_unit", tuple(LENGTH_UNITS)),
            ("stress_unit", tuple(STRESS_UNITS)),
            ("stress_kind", STRESS_KINDS),
        ):
            if getattr(self, name) not in among:
                raise InputError(f"labels: got {name} = {getattr(self, name)!r}; expected one of {', '.join(among)}")
        if unknown := set(self.optional) - {"forces", "stress"}:
            raise InputError(f"labels: got optional = {sorted(unknown)}; expected forces, stress, both or none")


def frame_of(atoms: Any, labels: Labels, where: str) -> Frame:
    """The frame of an ase.Atoms, in eV and Å. A lone atom needs no forces, since they vanish.

    Raises IrrepcError, opened by `where`, for missing labels and as `Frame.of` does.
    """
    found = _found(atoms)
    lone = len(atoms) == 1 and not atoms.pbc.any()
    missing = [] if labels.energy in found else [labels.energy]
    for kind, name in (("forces", labels.forces), ("stress", labels.stress)):
        if name and name not in found and kind not in labels.optional and not lone:
            missing.append(name)
    if missing:
        names = sorted(found.keys() - {"numbers", "positions"})
        raise IrrepcError(
            f"{where}: got no {' and no '.join(missing)} among {names}; expected {labels.energy!r} in the comment line "
            f"and the columns {labels.forces!r}; name them as the file does, or leave out frames without labels."
        )
    energy, length = ENERGY_UNITS[labels.energy_unit], LENGTH_UNITS[labels.length_unit]
    forces = found.get(labels.forces) if labels.forces else None
    if forces is None and lone and labels.forces:
        forces = np.zeros((1, 3))
    stress = found.get(labels.stress) if labels.stress else None
    cell = np.asarray(atoms.cell.array, dtype=np.float64) * length
    value = np.asarray(found[labels.energy])
    if value.size != 1:
        raise IrrepcError(f"{where}: got {labels.energy} of shape {value.shape}; expected one number; check the name.")
    return Frame.of(
        numbers=atoms.numbers,
        positions=np.asarray(atoms.positions) * length,
        energy=float(value.reshape(())) * energy,
        forces=None if forces is None else np.asarray(forces, dtype=np.float64) * (energy / length),
        pbc=atoms.pbc.tolist(),
        cell=cell,
        stress=None if stress is None else _stress(stress, cell, labels, where),
        group=str(atoms.info.get("config_type", "")),
        where=where,
    )


def _found(atoms: Any) -> dict[str, Any]:
    """All that the frame carries, by name; ASE moves names it knows into a calculator that only remembers."""
    found: dict[str, Any] = {}
    for place in ("key_value_pairs", "data"):
        extra = atoms.info.get(place)
        if isinstance(extra, Mapping):
            found |= extra
    found |= {**atoms.info, **atoms.arrays}
    return found if atoms.calc is None else {**found, **atoms.calc.results}


def _stress(stress: Any, cell: Float, labels: Labels, where: str) -> Float:
    """(3, 3) eV/Å³, positive under tension."""
    given = full_stress(np.asarray(stress, dtype=np.float64), where)
    if labels.stress_kind == "stress":
        return given * STRESS_UNITS[labels.stress_unit]
    volume = abs(float(np.linalg.det(cell)))
    if volume < 1e-9:
        raise IrrepcError(
            f"{where}: got a virial and no volume; expected a cell; give the cell, or set labels.stress: null."
        )
    return -given * ENERGY_UNITS[labels.energy_unit] / volume


def full_stress(stress: Float, where: str) -> Float:
    """(3, 3) from nine numbers, or from six in Voigt order xx, yy, zz, yz, xz, xy, in which ASE hands them over."""
    if stress.size == 9:
        return stress.reshape(3, 3)
    if stress.size != 6:
        raise IrrepcError(
            f"{where}: got a stress of shape {stress.shape}; expected (6,), (9,) or (3, 3); check its name."
        )
    xx, yy, zz, yz, xz, xy = stress.reshape(6)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
