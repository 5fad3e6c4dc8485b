"""The shipped ethanol set is sound, and frames survive their files or are refused with a message that helps."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irrepc.errors import IrrepcError, MissingExtraError
from irrepc.train.data import Frame, Frames, ethanol, force_statistics, load_frames, reference_energies, save_frames

REPOSITORY = Path(__file__).parents[2]
SHIPPED = REPOSITORY / "irrepc" / "train" / "data" / "ethanol_gfn2.npz"
SCRIPT = REPOSITORY / "examples" / "make_ethanol_dataset.py"
GROUPS = {"train": 600, "test_300K": 100, "test_500K": 100, "isolated_atoms": 3}
MOLECULES = ("train", "test_300K", "test_500K")
# Pairs of atoms of CH3CH2OH in the order of the file (C C O H H H H H H), with the range of lengths, Å, at 500 K.
BONDS = {(0, 1): (1.3, 1.8), (1, 2): (1.2, 1.7), (2, 3): (0.8, 1.2)} | {
    pair: (0.9, 1.4) for pair in ((1, 4), (1, 5), (0, 6), (0, 7), (0, 8))
}


def random_frames(count: int, seed: int = 0) -> Frames:
    """Frames of 2 to 5 atoms with invented labels; every third is periodic and has a stress."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        atoms = int(rng.integers(2, 6))
        crystal = {"pbc": (True, False, True), "cell": 8 * np.eye(3), "stress": rng.normal(size=(3, 3))}
        frames.append(
            Frame.of(
                rng.choice([1, 6, 8], size=atoms),
                rng.normal(size=(atoms, 3)),
                rng.normal(),
                rng.normal(size=(atoms, 3)),
                group=f"set {index % 2}",
                **(crystal if index % 3 == 0 else {}),
            )
        )
    return Frames(tuple(frames), "invented, Å")


def assert_same(first: Frames, second: Frames, atol: float = 0.0) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.pbc, one.group) == (other.pbc, other.group)
        for name in ("numbers", "positions", "energy", "forces", "cell", "stress"):
            left, right = getattr(one, name), getattr(other, name)
            assert (left is None) == (right is None), name
            if left is not None:
                np.testing.assert_allclose(left, right, rtol=0, atol=atol, err_msg=name)


class TestEthanol:
    def test_groups_and_size(self) -> None:
        assert {name: len(ethanol(name)) for name in load_frames(SHIPPED).groups} == GROUPS
        assert len(ethanol()) == GROUPS["train"]
        assert SHIPPED.stat().st_size <= 1_000_000

    def test_file_is_plain_arrays(self) -> None:
        with np.load(SHIPPED, allow_pickle=False) as archive:
            assert all(archive[name].dtype.kind in "bifU" for name in archive.files)

    @pytest.mark.parametrize(
        "fact", ["GFN2-xTB", "tblite 0.", "300, 400 and 500 K", "Langevin", "friction", "Seed 0", "eV/Å", "time step"]
    )
    def test_provenance_says(self, fact: str) -> None:
        assert fact in ethanol().provenance

    @pytest.mark.parametrize("group", MOLECULES)
    def test_no_frame_came_apart(self, group: str) -> None:
        for index, frame in enumerate(ethanol(group)):
            assert frame.numbers.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
            distances = np.linalg.norm(frame.positions[:, None] - frame.positions, axis=-1)
            for pair in zip(*np.triu_indices(9, 1), strict=True):
                shortest, longest = BONDS.get((int(pair[0]), int(pair[1])), (1.35, 5.0))
                assert shortest < distances[pair] < longest, (index, pair)

    @pytest.mark.parametrize("group", MOLECULES)
    def test_labels_are_those_of_a_free_molecule(self, group: str) -> None:
        atoms = reference_energies(ethanol("isolated_atoms"))
        assert tuple(atoms) == (1, 6, 8)
        for frame in ethanol(group):
            np.testing.assert_allclose(frame.forces.sum(axis=0), 0, atol=1e-9)
            np.testing.assert_allclose(np.cross(frame.positions, frame.forces).sum(axis=0), 0, atol=1e-5)
            atomisation = sum(atoms[int(number)] for number in frame.numbers) - frame.energy
            assert 43 < atomisation < 47  # eV; nature says 33.5: GFN2-xTB puts open-shell atoms far too high

    def test_hotter_frames_lie_higher(self) -> None:
        means = ethanol().energies.reshape(3, 200).mean(axis=1)  # 300, 400, 500 K in this order
        # Equipartition: (3 N - 6) / 2 of Boltzmann's constant, here 0.9 meV/K for each molecule.
        np.testing.assert_allclose(np.diff(means), 0.0905, atol=0.05)
        spreads = [force_statistics(ethanol().select(range(first, first + 200))) for first in (0, 200, 400)]
        assert 0.5 < spreads[0].root_mean_square < spreads[1].root_mean_square < spreads[2].root_mean_square < 2
        assert spreads[2].largest < 15

    def test_trajectories_are_independent(self) -> None:
        everything = load_frames(SHIPPED).energies
        assert len(np.unique(everything)) == len(everything)
        # Frames 50 fs or more apart in one trajectory: the energies of neighbours hardly agree more than any others.
        runs = ethanol().energies.reshape(12, 50)
        runs = runs - runs.mean(axis=1, keepdims=True)
        assert abs((runs[:, 1:] * runs[:, :-1]).mean() / np.square(runs).mean()) < 0.5

    def test_both_conformers_are_seen(self) -> None:
        carbon, carbon_of_oh, oxygen, hydrogen = np.stack([frame.positions[:4] for frame in ethanol()], axis=1)
        axis = oxygen - carbon_of_oh
        before, after = np.cross(carbon_of_oh - carbon, axis), np.cross(axis, hydrogen - oxygen)
        sine = (np.cross(before, after) * axis).sum(-1) / np.linalg.norm(axis, axis=-1)
        torsion = np.degrees(np.arctan2(sine, (before * after).sum(-1)))
        # Anti is 67 meV above gauche in GFN2-xTB, so that it is rare.
        counts = [int(chosen.sum()) for chosen in (abs(torsion) > 120, (torsion > 0) & (torsion < 120))]
        anti, gauche, mirrored = *counts, len(torsion) - sum(counts)
        assert anti > 30 and gauche > 200 and mirrored > 200

    def test_unknown_group(self) -> None:
        with pytest.raises(IrrepcError, match=r"got 'validation'; expected one of \('train', "):
            ethanol("validation")

    @pytest.mark.slow
    def test_relabelling_gives_the_shipped_labels(self) -> None:
        calculators = pytest.importorskip("tblite.ase", reason="tblite, which made the labels, is not installed")
        ase = pytest.importorskip("ase", reason="ase, through which tblite is called, is not installed")
        frames = ethanol()
        for frame in (frames[0], frames[299], frames[599]):
            calculator = calculators.TBLite(method="GFN2-xTB", accuracy=0.01, multiplicity=1, verbosity=0)
            atoms = ase.Atoms(frame.numbers, frame.positions, calculator=calculator)
            np.testing.assert_allclose(atoms.get_potential_energy(), frame.energy, rtol=0, atol=1e-6)
            np.testing.assert_allclose(atoms.get_forces(), frame.forces, rtol=0, atol=1e-5)
            # Along a random direction the energy changes as the forces say.
            direction, energies = np.random.default_rng(0).normal(size=(9, 3)), []
            for step in (2e-4, -2e-4):
                atoms.positions = frame.positions + step * direction
                energies.append(atoms.get_potential_energy())
            slope = (energies[0] - energies[1]) / 4e-4
            np.testing.assert_allclose(slope, -(frame.forces * direction).sum(), rtol=0, atol=3e-5)

    @pytest.mark.slow
    def test_script_is_deterministic(self, tmp_path: Path) -> None:
        for module in ("tblite", "ase", "rich"):
            pytest.importorskip(module, reason=f"{module}, which the script needs, is not installed")
        small = ["--trajectories", "1", "--frames", "1", "--stride", "20", "--equilibration", "20", "--seed"]
        contents = []
        for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
            command = [sys.executable, str(SCRIPT), str(tmp_path / f"{name}.npz"), *small, seed]
            environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "TERM": "dumb"}
            subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300)
            contents.append((tmp_path / f"{name}.npz").read_bytes())
        assert contents[0] == contents[1] != contents[2]
        frames = load_frames(tmp_path / "a.npz")
        assert {name: len(frames.group(name)) for name in frames.groups} == {
            "train": 3,
            "test_300K": 2,
            "test_500K": 2,
            "isolated_atoms": 3,
        }
        assert "Seed 5" in frames.provenance


class TestNpz:
    def test_round_trip_in_equal_bytes(self, tmp_path: Path) -> None:
        frames = random_frames(7)
        save_frames(tmp_path / "a.npz", frames)
        read = load_frames(tmp_path / "a.npz")
        assert_same(frames, read)
        assert read.provenance == frames.provenance
        save_frames(tmp_path / "b.npz", read)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_interrupted_write_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_frames(tmp_path / "a.npz", random_frames(3))
        before = (tmp_path / "a.npz").read_bytes()

        def fail(stream, **arrays: object) -> None:
            stream.write(b"half a file")
            raise KeyboardInterrupt

        monkeypatch.setattr(np, "savez_compressed", fail)
        with pytest.raises(KeyboardInterrupt):
            save_frames(tmp_path / "a.npz", random_frames(4))
        assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
        assert (tmp_path / "a.npz").read_bytes() == before

    @pytest.mark.parametrize("name", ["energy", "forces", "positions", "stress"])
    def test_nan_is_named_by_frame(self, tmp_path: Path, name: str) -> None:
        path = self.altered(tmp_path, lambda arrays: arrays[name][-1:].fill(np.nan))
        if name == "stress":  # all NaN means that there is none
            assert load_frames(path)[-1].stress is None
            path = self.altered(tmp_path, lambda arrays: arrays[name][-1, 0].fill(np.nan))
        with pytest.raises(IrrepcError, match=rf"altered.npz, frame 6: got nan in {name}"):
            load_frames(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda arrays: arrays.pop("forces"), "with the arrays"),
            (lambda arrays: arrays.update(format=np.array("other 2")), "and format other 2; expected"),
            (lambda arrays: arrays.update(forces=arrays["forces"][:-1]), "rows of 'forces'; expected"),
            (lambda arrays: arrays.update(pbc=arrays["pbc"][:, 0]), "frame 0: got 1 flags of pbc"),
            (lambda arrays: arrays.update(energy=arrays["energy"][0]), "with 1 rows of 'energy'; expected 7"),
            (lambda arrays: arrays.update(numbers=np.array([{}] * 3)), "cannot read .*allow_pickle"),
            (
                lambda arrays: arrays.update({name: array[:0] for name, array in arrays.items() if array.ndim}),
                "no fram",
            ),
        ],
    )
    def test_wrong_contents(self, tmp_path: Path, change, message: str) -> None:
        with pytest.raises(IrrepcError, match=message):
            load_frames(self.altered(tmp_path, change))

    @pytest.mark.parametrize("kept", [0, 10, 1000])
    def test_truncated_file(self, tmp_path: Path, kept: int) -> None:
        path = tmp_path / "cut.npz"
        path.write_bytes(SHIPPED.read_bytes()[:kept])
        with pytest.raises(IrrepcError, match=r"cut.npz, which NumPy cannot read"):
            load_frames(path)

    def test_names_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "a.hdf5").touch()
        with pytest.raises(IrrepcError, match=r"suffix '.hdf5'; expected one of .npz, .xyz, .extxyz"):
            load_frames(tmp_path / "a.hdf5")
        with pytest.raises(IrrepcError, match="is no file"):
            load_frames(tmp_path / "absent.npz")
        with pytest.raises(IrrepcError, match=r"expected .npz"):
            save_frames(tmp_path / "a.xyz", random_frames(1))
        with pytest.raises(IrrepcError, match="got no frames"):
            save_frames(tmp_path / "a.npz", Frames(()))

    @staticmethod
    def altered(folder: Path, change) -> Path:
        """A file of seven random frames of which `change` has altered the dict of arrays."""
        save_frames(folder / "good.npz", random_frames(7))
        with np.load(folder / "good.npz") as archive:
            arrays = {name: archive[name] for name in archive.files}
        change(arrays)
        np.savez(folder / "altered.npz", allow_pickle=True, **arrays)
        return folder / "altered.npz"


class TestExtendedXyz:
    def test_round_trip(self, tmp_path: Path) -> None:
        ase_io = pytest.importorskip("ase.io", reason="ase, which reads extended XYZ, is not installed")
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator

        frames, structures = random_frames(6), []
        for frame in frames:
            atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
            labels = {"energy": frame.energy, "forces": frame.forces}
            if frame.stress is not None:
                symmetric = (frame.stress + frame.stress.T) / 2
                labels["stress"] = symmetric[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
            atoms.calc = SinglePointCalculator(atoms, **labels)
            atoms.info["config_type"] = frame.group
            structures.append(atoms)
        ase_io.write(tmp_path / "a.extxyz", structures, format="extxyz")
        read = load_frames(tmp_path / "a.extxyz")
        expected = []
        for frame in frames:
            stress = None if frame.stress is None else (frame.stress + frame.stress.T) / 2
            parts = (frame.numbers, frame.positions, frame.energy, frame.forces)
            expected.append(Frame.of(*parts, pbc=frame.pbc, cell=frame.cell, stress=stress, group=frame.group))
        assert_same(read, Frames(tuple(expected)), atol=1e-7)  # eight decimals in the file

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "got no frames|cannot read"),
            ("2\nProperties=species:S:1:pos:R:3 energy=1\nH 0 0 0\nH 0 0 1\n", "frame 0: got no forces among"),
            ("1\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 0 0 0\n", "frame 0: got no energy among"),
            (
                "2\nProperties=species:S:1:pos:R:3 REF_energy=1\nH 0 0 0\nH 0 0 1\n",
                "no energy and no forces .*REF_energy",
            ),
            ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=NaN\nH 0 0 0 0 0 0\n", "frame 0: got nan in energy"),
            ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nH 0 0 0 0 nan 0\n", r"nan in forces\[0, 1\]"),
            ("3\nProperties=species:S:1:pos:R:3 energy=1\nH 0 0 0\n", "ASE cannot read"),
            ("this is no XYZ file\n", "ASE cannot read"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, text: str, message: str) -> None:
        pytest.importorskip("ase.io", reason="ase, which reads extended XYZ, is not installed")
        path = tmp_path / "bad.xyz"
        path.write_text(text)
        with pytest.raises(IrrepcError, match=message):
            load_frames(path)

    def test_index_counts_frames(self, tmp_path: Path) -> None:
        pytest.importorskip("ase.io", reason="ase, which reads extended XYZ, is not installed")
        line = "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy={}\nH 0 0 0 0 0 0\n"
        (tmp_path / "a.xyz").write_text("".join(line.format(energy) for energy in (1, 2, "nan", 4)))
        with pytest.raises(IrrepcError, match=r"a.xyz, frame 2: got nan in energy"):
            load_frames(tmp_path / "a.xyz")

    def test_without_ase(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in [name for name in sys.modules if name == "ase" or name.startswith("ase.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setattr(sys, "path", [])
        (tmp_path / "a.xyz").touch()
        with pytest.raises(MissingExtraError, match=r"irrepc\[ase\]"):
            load_frames(tmp_path / "a.xyz")

    def test_published_sets(self, shared: Path) -> None:
        pytest.importorskip("ase.io", reason="ase, which reads extended XYZ, is not installed")
        frames = load_frames(shared / "data" / "acac" / "train_300K.xyz")
        assert len(frames) == 500 and frames.species == (1, 6, 8) and frames[0].cell is None
        atoms = reference_energies(load_frames(shared / "data" / "acac" / "isolated_atoms.xyz"))
        assert atoms == pytest.approx({1: -13.568422, 6: -1026.853900, 8: -2037.796869}, abs=1e-6)
        with pytest.raises(IrrepcError, match="frame 0: got no forces"):
            load_frames(shared / "data" / "acac" / "test_dihedral.xyz")


def test_imports_neither_torch_nor_ase() -> None:
    code = (
        "import sys; from irrepc.train.data import ethanol; ethanol(); "
        "loaded = {'torch', 'ase', 'sympy', 'numba'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=60)
