"""LAMMPS with the plugin, on one process and on two: energies, forces, pressure, dynamics, and what it refuses."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from irrepc.deploy import lammps_plugin
from irrepc.deploy.deployed import Deployed, Result
from irrepc.deploy.lammps_plugin import build_plugin, input_lines, installed_lammps, run_command
from irrepc.deploy.native import write_library
from irrepc.deploy.program import Program
from irrepc.errors import BackendError
from tests.deploy.library import CELLS, nequip, structure

MPI = Path(sysconfig.get_path("data")) / "lib"
MISSING = [
    reason
    for reason, is_missing in (
        ("no C++ compiler c++", shutil.which("c++") is None),
        ("no package lammps", importlib.util.find_spec("lammps") is None),
        ("no MPICH of this environment", not (MPI / "libmpi.so.12").exists()),
    )
    if is_missing
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=", ".join(MISSING) or "everything is there")

BAR = 1.6021765e6  # eV/Å³ in bar, as LAMMPS has it for metal units
MASSES = (1.008, 15.999)


class Place(NamedTuple):
    """Where the model and the plugin lie, and the program they were made from."""

    program: Program
    library: Path
    plugin: Path


class Ran(NamedTuple):
    """What LAMMPS printed: a row of thermo output for each time, by column; atoms of the last dump, by id."""

    thermo: list[dict[str, float]]
    forces: np.ndarray
    energies: np.ndarray
    positions: np.ndarray


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder, program = tmp_path_factory.mktemp("lammps"), nequip()
    library, _ = write_library(program, folder / "model.so")
    return Place(program, library, build_plugin(folder))


def write_data(file: Path, cell: np.ndarray, positions: np.ndarray, kinds: np.ndarray) -> None:
    """A data file; the cell is lower triangular, as LAMMPS wants it."""
    (ax, _, _), (bx, by, _), (cx, cy, cz) = cell.tolist()
    lines = ["atoms", "", f"{len(kinds)} atoms", "2 atom types", f"0 {ax!r} xlo xhi", f"0 {by!r} ylo yhi"]
    lines += [f"0 {cz!r} zlo zhi", f"{bx!r} {cx!r} {cy!r} xy xz yz", "", "Masses", ""]
    lines += [f"{k + 1} {mass}" for k, mass in enumerate(MASSES)]
    lines += ["", "Atoms # atomic", ""]
    for k, (kind, (x, y, z)) in enumerate(zip(kinds, positions.tolist(), strict=True)):
        lines.append(f"{k + 1} {kind + 1} {x!r} {y!r} {z!r}")
    file.write_text("\n".join(lines) + "\n")


def start(folder: Path, lines: Sequence[str], processes: int) -> tuple[int, str]:
    """Run LAMMPS; its exit status and all it said."""
    (folder / "in.lammps").write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(MPI), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*run_command(processes), "-in", "in.lammps", "-log", "log.lammps"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def script(place: Place, after: Sequence[str], elements: Sequence[str] = ("H", "O")) -> list[str]:
    """An input up to the model, then `after`."""
    return [
        "atom_style atomic",
        "box tilt large",
        *input_lines(place.library, place.plugin, elements)[:2],
        "read_data data",
        *input_lines(place.library, place.plugin, elements)[2:],
        *after,
    ]


def run(place: Place, folder: Path, name: str, processes: int, after: Sequence[str] = ("run 0",)) -> Ran:
    """Run a structure; energies, forces and pressures in 17 digits."""
    cell, positions, kinds = structure(name)
    write_data(folder / "data", cell, positions, kinds)
    printed = [
        "neighbor 0.6 bin",
        "compute pe all pe/atom",
        "compute stress all stress/atom NULL",
        "compute total all reduce sum c_stress[1] c_stress[2] c_stress[3] c_stress[4] c_stress[5] c_stress[6]",
        "thermo_style custom step pe etotal pxx pyy pzz pxy pxz pyz c_total[*]",
        "thermo_modify format float %25.17g",
        "thermo 10",
        "dump out all custom 10 dump id fx fy fz c_pe xu yu zu",
        "dump_modify out sort id format float %25.17g",
    ]
    status, said = start(folder, script(place, [*printed, *after]), processes)
    assert status == 0, said[-2000:]
    lines, rows = (folder / "log.lammps").read_text().splitlines(), []
    head = max(k for k, line in enumerate(lines) if line.split()[:1] == ["Step"])
    for line in lines[head + 1 :]:
        if line.startswith("Loop"):
            break
        rows.append(dict(zip(lines[head].split(), map(float, line.split()), strict=True)))
    assert "numbers: float64" in lines and "network: NequIP" in lines
    last = (folder / "dump").read_text().split("ITEM: ATOMS")[-1].splitlines()[1:]
    atoms = np.array([line.split() for line in last], float)
    return Ran(rows, atoms[:, 1:4], atoms[:, 4], atoms[:, 5:8])


def meant(program: Program, name: str) -> Result:
    cell, positions, kinds = structure(name)
    return Deployed(program, 1).evaluate(np.array(program.species)[kinds], positions, cell, True)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", CELLS)
def test_energies_forces_and_pressure(place: Place, tmp_path: Path, name: str, processes: int) -> None:
    """Cells thinner than the cutoff and a process without atoms included."""
    ours, found = meant(place.program, name), run(place, tmp_path, name, processes)
    assert ours.stress is not None
    thermo = found.thermo[0]
    assert abs(thermo["PotEng"] - ours.energy) < 1e-10
    assert np.abs(found.energies - ours.energies).max() < 1e-11
    assert np.abs(found.forces - ours.forces).max() < 1e-11
    pressure = [thermo[k] for k in ("Pxx", "Pyy", "Pzz", "Pxy", "Pxz", "Pyz")]
    wanted = -BAR * ours.stress[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    assert np.abs(pressure - wanted).max() < 1e-10 * BAR
    # the sum over atoms of stress times volume
    volume = abs(np.linalg.det(structure(name)[0]))
    by_atoms = [-thermo[f"c_total[{k}]"] / volume for k in range(1, 7)]
    assert np.allclose(by_atoms, pressure, rtol=0, atol=1e-10 * BAR)


def test_dynamics_on_two_processes_follow_those_on_one(place: Place, tmp_path: Path) -> None:
    """60 steps in which atoms cross between processes; the energy is kept."""
    steps = ["velocity all create 600 4711 loop geom", "timestep 0.00025", "fix run all nve", "run 60"]
    ran = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        ran.append(run(place, folder, "wide", processes, steps))
    alone, shared = ran
    moved = np.abs(alone.positions - structure("wide")[1]).max()
    assert 0.02 < moved < 5 and len(alone.thermo) == 7
    assert np.abs(alone.positions - shared.positions).max() < 1e-9
    total, potential = (np.ptp([row[k] for row in alone.thermo]) for k in ("TotEng", "PotEng"))
    assert potential > 2e-3 and total < 0.05 * potential


def test_threads_give_the_same(place: Place, tmp_path: Path) -> None:
    one = run(place, tmp_path, "wide", 1)
    threaded = run(place, tmp_path, "wide", 1, [
        "pair_style irrepc threads 2", f"pair_coeff * * {place.library} H O", "run 0",
    ])  # fmt: skip
    assert np.array_equal(one.forces, threaded.forces)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("got the element Cu; expected those of the model: H O", {"H O": "Cu O"}),
        ("got 4 arguments; expected * * MODEL.so and the elements of all 2 atom types", {"H O": "H"}),
        ("got units real; expected metal", {"units metal": "units real"}),
        ("got newton off; expected on", {"newton on": "newton off"}),
        ("which cannot be opened", {"model.so H": "other.so H"}),
        ("which is no irrepc model of interface 1", {"model.so H": "irrepc_plugin.so H"}),
        ("got 1 arguments; expected none, or: threads N", {"pair_style irrepc": "pair_style irrepc fast"}),
    ],
)
def test_what_does_not_fit_is_refused(place: Place, tmp_path: Path, message: str, changes: dict[str, str]) -> None:
    write_data(tmp_path / "data", *structure("thin"))
    text = "\n".join(script(place, ["run 0"]))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    status, said = start(tmp_path, [text], 1)
    assert status != 0 and message in " ".join(said.split()), said[-1500:]


def test_atoms_that_are_too_close_stop_the_run(place: Place, tmp_path: Path) -> None:
    cell, positions, kinds = structure("skewed")
    positions[1] = positions[0] + 0.1
    write_data(tmp_path / "data", cell, positions, kinds)
    status, said = start(tmp_path, script(place, ["run 0"]), 2)
    assert status != 0 and "at 0.1732 Angstrom from each other" in " ".join(said.split()), said[-1500:]


def test_another_release_of_lammps_is_refused(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(installed_lammps(), release=20240829)
    monkeypatch.setattr(lammps_plugin, "installed_lammps", lambda: other)
    build_plugin(tmp_path)
    status, said = start(tmp_path, [f"plugin load {tmp_path / 'irrepc_plugin.so'}"], 1)
    assert status != 0 and "got LAMMPS release 20250722; expected 20240829" in said


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no C\\+\\+ compiler 'no-such-compiler'"):
        build_plugin(tmp_path, compiler="no-such-compiler")
