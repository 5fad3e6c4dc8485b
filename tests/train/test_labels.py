"""Names and units of labels, files that ASE reads, and frame sets: what is broken, what looks wrong, what is kept."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irrepc.errors import InputError, IrrepcError
from irrepc.nn.neighbours import graph_of, neighbours, species_of
from irrepc.train.cache import FrameSet, frame_set
from irrepc.train.data import Frame, Frames, ethanol, load_frames, save_frames
from irrepc.train.examine import look, overlap, suspicions
from irrepc.train.labels import Labels

ase = pytest.importorskip("ase", reason="ase, which reads the files, is not installed")

CELL = np.diag([4.0, 5.0, 6.0]) + 0.1
POSITIONS = np.array([[0.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.1, 0.8, 0.2]])


def atoms(**info: Any) -> Any:
    made = ase.Atoms("OH2", POSITIONS, cell=CELL, pbc=True)
    made.info |= {"E": -2.0, **info}
    made.arrays["F"] = np.arange(9.0).reshape(3, 3) - 4
    return made


def write(path: Path, *structures: Any) -> Path:
    from ase import io

    io.write(path, list(structures))
    return path


class TestLabels:
    def test_names_and_units(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.xyz", atoms(S=np.arange(9.0)))
        labels = Labels("E", "F", "S", energy_unit="hartree", length_unit="bohr", stress_unit="GPa")
        (frame,) = load_frames(file, labels)
        bohr, hartree = 0.529177210903, 27.211386245988
        assert frame.energy == pytest.approx(-2 * hartree)
        assert frame.forces == pytest.approx((np.arange(9.0).reshape(3, 3) - 4) * hartree / bohr)
        assert frame.positions == pytest.approx(POSITIONS * bohr, abs=1e-8)
        assert frame.cell == pytest.approx(CELL * bohr)
        assert frame.stress == pytest.approx(np.arange(9.0).reshape(3, 3) / 160.2176634)

    def test_a_virial_is_minus_stress_times_volume(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.xyz", atoms(V=np.arange(9.0)))
        (frame,) = load_frames(file, Labels("E", "F", "V", stress_kind="virial"))
        assert frame.stress == pytest.approx(-np.arange(9.0).reshape(3, 3) / np.linalg.det(CELL))

    @pytest.mark.parametrize("suffix", ["db", "traj"])
    def test_databases_and_trajectories(self, tmp_path: Path, suffix: str) -> None:
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.db import connect

        structures = []
        for shift in range(3):
            one = ase.Atoms("OH2", POSITIONS, cell=CELL, pbc=True)
            stress = np.arange(6.0)
            one.calc = SinglePointCalculator(one, energy=-1.0 - shift, forces=POSITIONS + shift, stress=stress)
            structures.append(one)
        file = tmp_path / f"a.{suffix}"
        if suffix == "db":
            with connect(file) as database:
                for one in structures:
                    database.write(one)
        else:
            write(file, *structures)
        frames = load_frames(file)
        assert frames.energies.tolist() == [-1.0, -2.0, -3.0]
        assert frames[2].forces == pytest.approx(POSITIONS + 2)
        assert frames[1].stress == pytest.approx(np.array([[0.0, 5, 4], [5, 1, 3], [4, 3, 2]]))

    def test_names_in_a_database(self, tmp_path: Path) -> None:
        from ase.db import connect

        with connect(tmp_path / "a.db") as database:
            database.write(ase.Atoms("OH2", POSITIONS), key_value_pairs={"dft": -3.0}, data={"grad": POSITIONS})
        (frame,) = load_frames(tmp_path / "a.db", Labels("dft", "grad"))
        assert frame.energy == -3.0 and frame.forces == pytest.approx(POSITIONS)

    def test_forces_may_be_missing_where_it_is_said(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.xyz", atoms())
        with pytest.raises(IrrepcError, match="got no forces among"):
            load_frames(file, Labels("E"))
        (frame,) = load_frames(file, Labels("E", optional=("forces", "stress")))
        assert frame.forces is None and frame.stress is None
        save_frames(tmp_path / "a.npz", Frames((frame,)))
        assert load_frames(tmp_path / "a.npz")[0].forces is None

    def test_unknown_units(self) -> None:
        with pytest.raises(InputError, match="got energy_unit = 'Hartrees'; expected one of eV, meV, hartree"):
            Labels(energy_unit="Hartrees")
        with pytest.raises(InputError, match=r"got optional = \['energy'\]"):
            Labels(optional=("energy",))


class TestFrameSet:
    def test_gives_back_frames_and_graphs(self, tmp_path: Path) -> None:
        file = write(tmp_path / "a.xyz", *(atoms(S=np.arange(9.0)) for _ in range(2)))
        labels = Labels("E", "F", "S")
        made = frame_set([file, file], labels, cutoff=4.5, folder=tmp_path / "sets")
        assert len(made) == 4 and made.cutoff == 4.5 and not made.broken
        expected, found = load_frames(file, labels)[1], made.frame(3)
        for name in ("numbers", "positions", "forces", "cell", "stress"):
            assert np.array_equal(getattr(expected, name), getattr(found, name))
        single = made.labelled(3, (1, 8), torch.float64)
        kinds = species_of(expected.numbers, (1, 8))
        graph = graph_of(kinds, expected.positions, expected.cell, expected.pbc, cutoff=4.5)
        pairs = zip(_flat(single.graph), _flat(graph), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert single.origin.tolist() == [3] and made.loads.tolist() == [graph.num_edges] * 4
        assert pickle.loads(pickle.dumps(made)).frame(0).energy == -2.0

    def test_is_made_once_for_each_content(self, tmp_path: Path) -> None:
        file, folder = tmp_path / "a.npz", tmp_path / "sets"
        save_frames(file, ethanol("test_300K").select([0, 1]))
        first = frame_set([file], Labels(), cutoff=4.0, folder=folder)
        stamp = os.stat(first.folder).st_mtime_ns
        assert frame_set([file], Labels(), cutoff=4.0, folder=folder).folder == first.folder
        assert os.stat(first.folder).st_mtime_ns == stamp
        assert frame_set([file], Labels(), cutoff=4.1, folder=folder).folder != first.folder
        save_frames(file, ethanol("test_300K").select([0, 2]))
        assert frame_set([file], Labels(), cutoff=4.0, folder=folder).folder != first.folder
        assert len(list(folder.iterdir())) == 3  # nothing unfinished is left

    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "a.xyz").write_text("no XYZ\n")
        with pytest.raises(IrrepcError, match="ASE cannot read"):
            frame_set([tmp_path / "a.xyz"], Labels(), cutoff=4.0, folder=tmp_path / "sets")
        assert not list((tmp_path / "sets").iterdir())

    def test_says_which_frames_are_broken_and_why(self, tmp_path: Path) -> None:
        close, absent, wild = atoms(), atoms(), atoms()
        close.positions[1] = [0.3, 0, 0]
        del absent.arrays["F"]
        wild.arrays["F"][0, 0] = np.nan
        file = write(tmp_path / "a.xyz", atoms(), close, atoms(), absent, wild)
        made = frame_set([file], Labels("E", "F"), cutoff=4.0, folder=tmp_path)
        assert isinstance(made, FrameSet) and len(made) == 2 and made.arrays["origin"].tolist() == [0, 2]
        assert [entry.index for entry in made.broken] == [1, 3, 4]
        reasons = [entry.reason for entry in made.broken]
        assert "frame 1: got atoms 0 and 1 (Z = 8 and 1) at 0.300 Å" in reasons[0]
        assert "frame 3: got no F" in reasons[1] and "frame 4: got nan in forces[0, 0]" in reasons[2]
        with pytest.raises(IrrepcError, match=r"got no sound frame: .*got no forces"):
            frame_set([file], Labels("E"), cutoff=4.0, folder=tmp_path)


class TestSuspicions:
    def said(self, **changes: Any) -> str:
        """What is said of ethanol frames with these factors on positions, forces and energies."""
        frames = [
            replace(
                f,
                positions=f.positions * changes.get("positions", 1.0),
                forces=f.forces * changes.get("forces", 1.0) + changes.get("push", 0.0),
                energy=f.energy + (changes.get("jump", 0.0) if k == 3 else 0.0),
            )
            for k, f in enumerate(ethanol("test_300K").select(range(8)))
        ]
        looks = [look(f, neighbours(f.positions, cutoff=changes.get("cutoff", 5.0))) for f in frames]
        return " ".join(suspicions(looks, np.array([f.energy / 9 for f in frames])))

    def test_says_nothing_of_sound_frames(self) -> None:
        assert self.said() == ""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"positions": 1.89}, "are positions in bohr"),
            ({"positions": 0.1}, "are positions in nm"),
            ({"forces": 96.5}, "are energies in kcal/mol or kJ/mol"),
            ({"forces": 1e-4}, "which units"),
            ({"push": 0.3}, "forces of 8 frames (0, 1, 2, 3, 4, …) do not sum to zero"),
            ({"jump": 90.0}, "energies of frame 3 lie over 1 eV per atom"),
            ({"cutoff": 0.97}, "have no neighbour within the cutoff"),
        ],
    )
    def test_names_what_looks_wrong(self, changes: Any, message: str) -> None:
        assert message in self.said(**changes)

    def test_overlap_can_be_switched_off(self) -> None:
        frame = Frame.of([1, 1], [[0, 0, 0], [0, 0, 0.1]], 0.0, None)
        pairs = neighbours(frame.positions, cutoff=3.0)
        assert overlap(frame, pairs, 0.0) is None
        assert "0.16 of the sum of their covalent radii" in str(overlap(frame, pairs, 0.45))


def _flat(graph: Any) -> list[torch.Tensor]:
    return [t for field in graph for t in (field if isinstance(field, tuple) else (field,))]
