"""Deployed networks: the numbers of the network they were made of, derivatives of their own energy, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import irrepc.deploy
from irrepc.deploy import workers
from irrepc.deploy.compile import compile_network, deploy
from irrepc.deploy.deployed import Deployed
from irrepc.deploy.file import read_program, write_program
from irrepc.errors import InputError
from irrepc.models import MACE, TFN, MACEConfig, TFNConfig, energy_and_forces
from irrepc.nn.neighbours import graph_of, species_of
from tests.deploy.networks import NAMES, network, program, structures


@pytest.mark.parametrize("structure", structures())
@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_network(name: str, structure: str) -> None:
    numbers, positions, cell, pbc = structures()[structure]
    model = network(name)
    found = Deployed(program(name)).evaluate(numbers, positions, cell, pbc)
    graph = graph_of(species_of(numbers, model.species), positions, cell, pbc, cutoff=model.cutoff)
    exact = energy_and_forces(model, graph, stress=found.stress is not None)
    scale = max(1.0, float(exact.forces.abs().max()))
    assert found.energy == pytest.approx(float(exact.energy), abs=1e-6 * scale)
    np.testing.assert_allclose(found.energies, exact.energies.detach(), atol=1e-6 * scale)
    np.testing.assert_allclose(found.forces, exact.forces, atol=1e-5 * scale)
    if found.stress is not None:
        np.testing.assert_allclose(found.stress, exact.stress[0], atol=1e-6 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_forces_and_stress_are_derivatives_of_the_energy(name: str) -> None:
    numbers, positions, cell, pbc = structures()["thin cell"]
    deployed = Deployed(program(name), skin=0.0)
    found = deployed.evaluate(numbers, positions, cell, pbc)
    scale, h = max(1.0, np.abs(found.forces).max()), 1e-4
    generator = np.random.default_rng(3)

    def slope(direction: np.ndarray, strain: np.ndarray) -> float:
        """Four-point difference of the energy along a move of atoms and a strain of everything."""
        energies = []
        for step in (-2, -1, 1, 2):
            map_ = np.eye(3) + step * h * strain
            moved = (positions + step * h * direction) @ map_
            energies.append(deployed.evaluate(numbers, moved, cell @ map_, pbc).energy)
        return float(np.dot((1, -8, 8, -1), energies) / (12 * h))

    for _ in range(3):
        direction = generator.normal(size=positions.shape)
        expected = -float((found.forces * direction).sum())
        assert slope(direction, np.zeros((3, 3))) == pytest.approx(expected, abs=2e-7 * scale)
    strain = generator.normal(size=(3, 3))
    strain = (strain + strain.T) / 2
    expected = float((found.stress * strain).sum() * abs(np.linalg.det(cell)))
    assert slope(np.zeros_like(positions), strain) == pytest.approx(expected, abs=2e-6 * scale)


@pytest.mark.parametrize("name", ("nequip", "mace"))
def test_float32_is_near(name: str) -> None:
    numbers, positions, cell, pbc = structures()["thin cell"]
    one, two = (Deployed(program(name, d)).evaluate(numbers, positions, cell, pbc) for d in ("float32", "float64"))
    scale = np.abs(two.forces).max()
    np.testing.assert_allclose(one.forces, two.forces, atol=2e-5 * scale)
    assert one.forces.dtype == np.float64


@pytest.mark.parametrize("name", ("nequip", "mace of pairs"))
def test_threads_and_reruns_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, positions, cell, pbc = structures()["thin cell"]
    one = Deployed(program(name, "float32"), threads=1).evaluate(numbers, positions, cell, pbc)
    monkeypatch.setattr(workers, "WORTH_THREADS", 1)
    three = Deployed(program(name, "float32"), threads=3)
    for _ in range(3):
        found = three.evaluate(numbers, positions, cell, pbc)
        assert found.energy == one.energy
        np.testing.assert_array_equal(found.forces, one.forces)
        np.testing.assert_array_equal(found.stress, one.stress)


def test_the_order_of_atoms_is_the_callers() -> None:
    numbers, positions, cell, pbc = structures()["slab"]
    deployed = Deployed(program("nequip"))
    found = deployed.evaluate(numbers, positions, cell, pbc)
    order = np.array([2, 0, 3, 1])
    moved = deployed.evaluate(numbers[order], positions[order], cell, pbc)
    np.testing.assert_allclose(moved.forces, found.forces[order], atol=1e-12)
    np.testing.assert_allclose(moved.energies, found.energies[order], atol=1e-12)


def test_a_skin_changes_no_bit_and_saves_searches() -> None:
    numbers, positions, cell, pbc = structures()["thin cell"]
    kept, anew = Deployed(program("nequip"), skin=0.6), Deployed(program("nequip"), skin=0.0)
    generator = np.random.default_rng(5)
    for _ in range(5):
        positions = positions + generator.normal(0, 0.02, positions.shape)
        with_skin = kept.evaluate(numbers, positions, cell, pbc)
        without = anew.evaluate(numbers, positions, cell, pbc)
        np.testing.assert_allclose(with_skin.forces, without.forces, atol=1e-12)
    assert (kept.searches, anew.searches) == (1, 5)
    kept.evaluate(numbers, positions + np.array([[0.4, 0, 0]] + [[0, 0, 0]] * 3), cell, pbc)
    assert kept.searches == 2


def test_no_atoms_and_lone_atoms() -> None:
    deployed, model = Deployed(program("mace")), network("mace")
    assert deployed.evaluate(np.zeros(0, int), np.zeros((0, 3))).energy == 0.0
    alone = deployed.evaluate([6], [[0.0, 0, 0]])
    exact = energy_and_forces(model, graph_of([1], [[0.0, 0, 0]], cutoff=model.cutoff))
    assert alone.energy == pytest.approx(float(exact.energy), abs=1e-12)
    np.testing.assert_array_equal(alone.forces, 0)


def test_the_stated_bound_holds() -> None:
    model = network("nequip")
    made = deploy(model, accuracy=1e-5)
    assert made.metadata["force_bound"] <= 1e-5
    numbers, positions, cell, pbc = structures()["thin cell"]
    graph = graph_of(species_of(numbers, model.species), positions, cell, pbc, cutoff=model.cutoff)
    forces = energy_and_forces(model, graph).forces.numpy()
    found = Deployed(made).evaluate(numbers, positions, cell, pbc)
    rounding = made.metadata["force_error_float32"]
    assert np.abs(found.forces - forces).max() < 1e-5 + 4 * float(rounding)


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_gives_the_same_bits_without_torch(tmp_path: Path) -> None:
    file = tmp_path / "small.irrepc"
    write_program(file, program("mace"))
    numbers, positions, cell, pbc = structures()["thin cell"]
    expected = Deployed(program("mace")).evaluate(numbers, positions, cell, pbc)
    np.savez(tmp_path / "structure.npz", numbers=numbers, positions=positions, cell=cell)
    script = f"""
import sys
for name in ("torch", "sympy", "ase", "vesin"):
    sys.modules[name] = None
import numpy as np
import irrepc.deploy
s = np.load({str(tmp_path / "structure.npz")!r})
found = irrepc.deploy.load({str(file)!r}).evaluate(s["numbers"], s["positions"], s["cell"], True)
np.savez({str(tmp_path / "found.npz")!r}, energy=found.energy, forces=found.forces, stress=found.stress)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    found = np.load(tmp_path / "found.npz")
    assert float(found["energy"]) == expected.energy
    np.testing.assert_array_equal(found["forces"], expected.forces)
    np.testing.assert_array_equal(found["stress"], expected.stress)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "small.irrepc"
    write_program(file, program("nequip"))
    whole = file.read_bytes()
    assert read_program(file).steps == program("nequip").steps
    for content in (whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1]), b"", whole[:100]):
        file.write_bytes(content)
        with pytest.raises(InputError):
            irrepc.deploy.load(file)
    file.write_bytes(whole.replace(b'"version":"', b'"version":"9'))
    with pytest.raises(InputError):
        irrepc.deploy.load(file)
    with pytest.raises(FileNotFoundError):
        irrepc.deploy.load(tmp_path / "none")


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"numbers": [6, 8]}, r"got atomic numbers \[8\]; expected only \[1, 6, 29\]"),
        ({"numbers": [6]}, "expected \\(2,\\) atomic numbers"),
        ({"numbers": [6, -1]}, r"got atomic numbers \[-1\]"),
        ({"positions": [[0, 0, 0], [np.nan, 0, 0]]}, "got atom 1 at .*expected finite numbers"),
        ({"positions": [[0, 0, 0], [np.inf, 0, 0]]}, "got atom 1"),
        ({"positions": [[0, 0, 0], [0.3, 0, 0]]}, "atoms at 0.3000 Å from each other; expected 0.5 Å or more"),
        ({"positions": [[0, 0, 0], [0, 0, 0]]}, "atoms at 0.0000 Å"),
        ({"positions": [0, 0, 0]}, "got shape"),
        ({"cell": np.ones((3, 3)), "pbc": True}, "expected independent vectors"),
        ({"pbc": True}, "expected independent vectors"),
        ({"cell": [[np.nan] * 3] * 3, "pbc": True}, "finite numbers"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], says: str) -> None:
    given = {"numbers": [6, 1], "positions": [[0, 0, 0], [1.1, 0, 0]]} | change
    with pytest.raises(InputError, match=says):
        Deployed(program("nequip")).evaluate(**given)


def test_other_networks_are_refused() -> None:
    with pytest.raises(InputError, match="got a TFN; expected one of NequIP, SevenNet, MACE"):
        compile_network(TFN(TFNConfig(species=(1,)), dtype=torch.float64))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"density": True}, "got a MACE with density"),
        ({"repulsion": True}, "got a MACE with repulsion"),
        ({"species": tuple(range(1, 18)), "transform": "agnesi"}, "for 153 pairs of species; expected at most 128"),
    ],
)
def test_what_is_not_deployed_is_said(more: dict[str, object], says: str) -> None:
    config = MACEConfig(**({"species": (1, 8), "lmax": 1, "channels": 2, "radial_widths": (4,)} | more))
    with pytest.raises(InputError, match=says):
        compile_network(MACE(config, dtype=torch.float64))
