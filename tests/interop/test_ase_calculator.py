"""IrrepcCalculator: ASE's conventions, relaxations, dynamics, and atoms it refuses."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from irrepc.errors import InputError, MissingExtraError
from irrepc.interop.ase_calculator import IrrepcCalculator
from irrepc.models.checkpoint import save_model
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.models.potential import energy_and_forces
from irrepc.nn.neighbours import graph_of_atoms
from tests.model_checks import structures

CONFIG = NequIPConfig(
    species=(1, 6, 8),
    cutoff=3.0,
    layers=1,
    lmax=1,
    features=(4, 4),
    embedding=4,
    bessels=4,
    radial_depth=1,
    radial_width=6,
    scales=(1.0, 1.2, 1.4),
    shifts=(-13.5, -1027.1, -2041.8),
)


@pytest.fixture(scope="module")
def model() -> NequIP:
    return NequIP(CONFIG, "torch", dtype=torch.float64, seed=2)


def with_calculator(name: str, model: Any, **options: Any) -> Atoms:
    atoms = structures()[name].copy()
    atoms.calc = IrrepcCalculator(model, **options)
    return atoms


@pytest.mark.parametrize("name", structures())
def test_results_are_those_of_the_potential(model: NequIP, name: str) -> None:
    atoms = with_calculator(name, model)
    solid = name == "solid"
    expected = energy_and_forces(model, graph_of_atoms(atoms, cutoff=3.0, species=model.species), stress=solid)
    assert atoms.get_potential_energy() == pytest.approx(float(expected.energy), rel=1e-14)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, atol=1e-13)
    np.testing.assert_allclose(atoms.get_potential_energies(), expected.energies, rtol=1e-14)
    if expected.stress is not None:
        np.testing.assert_allclose(atoms.get_stress(voigt=False), expected.stress[0], atol=1e-14)


def test_the_stress_has_ases_sign_order_and_unit(model: NequIP) -> None:
    atoms = with_calculator("solid", model)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-8)


def test_a_molecule_has_no_stress(model: NequIP) -> None:
    for name in ("ethanol", "slab"):
        with pytest.raises(PropertyNotImplementedError, match="three cell vectors"):
            with_calculator(name, model).get_stress()


def test_elements_the_model_does_not_know(model: NequIP) -> None:
    atoms = Atoms("HFN", positions=np.eye(3))
    atoms.calc = IrrepcCalculator(model)
    with pytest.raises(InputError, match=r"atomic numbers \[7, 9\]; expected only \[1, 6, 8\]"):
        atoms.get_potential_energy()


def test_a_file_does_as_well_as_a_model_and_neither_is_changed(model: NequIP, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.pt")
    expected = with_calculator("ethanol", model).get_forces()
    from_file = with_calculator("ethanol", tmp_path / "model.pt").get_forces()
    np.testing.assert_allclose(from_file, expected, atol=1e-12)
    single = with_calculator("ethanol", model, dtype=torch.float32)
    np.testing.assert_allclose(single.get_forces(), expected, atol=1e-4)
    assert single.get_forces().dtype == np.float64
    assert model.embedding.weight.dtype == torch.float64
    assert model.embedding.weight.requires_grad


def dynamics(model: NequIP, step: float, skin: float = 0.5) -> tuple[Atoms, float]:
    """Ethanol after 20 fs from 150 K in steps of `step` fs, and the largest change of its total energy, eV."""
    atoms = with_calculator("ethanol", model, skin=skin)
    spread = np.sqrt(units.kB * 150 / atoms.get_masses())[:, None]
    atoms.set_velocities(np.random.default_rng(0).normal(size=atoms.positions.shape) * spread)
    energies = [atoms.get_total_energy()]
    verlet = VelocityVerlet(atoms, step * units.fs)
    verlet.attach(lambda: energies.append(atoms.get_total_energy()))
    verlet.run(round(20 / step))
    return atoms, float(np.ptp(energies))


def test_dynamics_conserve_the_energy_to_the_order_of_the_integrator(model: NequIP) -> None:
    (_, coarse), (_, fine) = dynamics(model, 1.0), dynamics(model, 0.5)
    assert coarse < 1e-4
    assert 3.5 < coarse / fine < 4.5  # the error of velocity Verlet is of second order, if forces are gradients


def test_a_skin_changes_nothing_but_the_number_of_searches(model: NequIP) -> None:
    (kept, _), (fresh, _) = dynamics(model, 0.5), dynamics(model, 0.5, skin=0.0)
    np.testing.assert_allclose(kept.positions, fresh.positions, atol=1e-12)
    assert kept.calc.evaluator.pairs.made < 8
    assert fresh.calc.evaluator.pairs.made == 41


def test_relaxation_goes_downhill(model: NequIP) -> None:
    atoms = with_calculator("ethanol", model)
    energies = [atoms.get_potential_energy()]
    relaxation = BFGS(atoms, logfile=None, maxstep=0.02)
    relaxation.attach(lambda: energies.append(atoms.get_potential_energy()))
    relaxation.run(fmax=1e-4, steps=6)
    assert all(np.diff(energies[1:]) < 0)
    assert energies[-1] < energies[0] - 1e-3


def test_results_follow_every_change_of_the_atoms(model: NequIP) -> None:
    atoms = with_calculator("solid", model)
    atoms.get_forces()
    generator = np.random.default_rng(0)
    for change in ("move", "strain", "species", "pbc", "remove", "move"):
        if change == "move":
            atoms.positions += generator.normal(scale=0.05, size=atoms.positions.shape)
        elif change == "strain":
            atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
        elif change == "species":
            atoms.numbers[0] = 8
        elif change == "pbc":
            atoms.pbc = (True, False, True)
        else:
            del atoms[1]
        fresh = atoms.copy()
        fresh.calc = IrrepcCalculator(model)
        np.testing.assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-12, err_msg=change)


class Springs:
    """An evaluator that is no network: every atom on a spring to the origin."""

    species = (1, 6, 8)
    cutoff = 1.0

    def evaluate(self, numbers: Any, positions: Any, cell: Any = None, pbc: Any = False) -> Any:
        energies = 0.5 * np.square(positions).sum(1)
        energies[np.asarray(numbers) == 6] = np.nan
        return SimpleNamespace(energy=energies.sum(), energies=energies, forces=-positions, stress=None)


def test_any_evaluator_will_do() -> None:
    atoms = Atoms("HO", positions=[[1.0, 0, 0], [0, 2.0, 0]], cell=np.eye(3), pbc=True)
    atoms.calc = IrrepcCalculator(Springs())
    assert atoms.get_potential_energy() == 2.5
    np.testing.assert_array_equal(atoms.get_forces(), -atoms.positions)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    with pytest.raises(InputError, match="got skin with a deployed model"):
        IrrepcCalculator(Springs(), skin=0.1)


def test_an_answer_that_is_not_finite_is_no_answer() -> None:
    atoms = Atoms("HC", positions=[[1.0, 0, 0], [0, 2.0, 0]])
    atoms.calc = IrrepcCalculator(Springs())
    with pytest.raises(InputError, match=r"got nan eV .* for atom 1"):
        atoms.get_forces()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"positions": [[0, 0, np.nan], [0, 0, 1.0]]}, "expected finite numbers"),
        ({"positions": [[0, 0, 0.5], [0, 0, 0.5]]}, "remove the double"),
        ({"cell": [[3.0, 0, 0], [6.0, 0, 0], [0, 0, 3.0]], "pbc": True}, "independent vectors"),
        ({"cell": np.zeros((3, 3)), "pbc": True}, "independent vectors"),
        ({"cell": 0.01 * np.eye(3), "pbc": True}, "give the cell in Å"),
    ],
)
def test_structures_without_meaning_are_refused(model: NequIP, change: dict[str, Any], says: str) -> None:
    atoms = Atoms("HO", **{"positions": [[0, 0, 0], [0, 0, 1.0]], **change})
    atoms.calc = IrrepcCalculator(model)
    with pytest.raises(InputError, match=says):
        atoms.get_potential_energy()
    assert not atoms.calc.results


def test_a_calculator_of_a_deployed_model_needs_no_torch() -> None:
    code = "import sys, irrepc.interop.ase_calculator; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_without_ase_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "irrepc.interop.ase_calculator"
    monkeypatch.delitem(sys.modules, name)
    for part in [m for m in sys.modules if m.partition(".")[0] == "ase"]:
        monkeypatch.delitem(sys.modules, part)
    monkeypatch.setitem(sys.modules, "ase", None)
    with pytest.raises(MissingExtraError, match=r"irrepc\[ase\]"):
        import_module(name)
