"""ModelChecks: the physics and the manners that every network must keep.

A test class inherits it and says how the network is built:

    class TestNequIP(ModelChecks):
        @classmethod
        def build(cls, dtype, backend): return NequIP(config, backend, dtype=dtype)

Structures hold H, C and O, which the network must know. Forces are compared relative to the largest of the structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor

from irrepc.models.checkpoint import load_model, save_model
from irrepc.models.potential import DirectForces, Prediction, energy_and_forces, predict
from irrepc.nn.graph import Graph, batch, each_its_own
from irrepc.nn.neighbours import graph_of_atoms
from irrepc.nn.rotations import random_rotations


@cache
def structures() -> dict[str, Atoms]:
    """Small structures that between them have every kind of neighbour: do not change them, copy."""
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=1)
    places = [[0.1, 0.2, 0.0], [0.9, 1.4, 0.3], [2.0, 0.3, 1.1], [1.2, 2.3, 1.7]]
    solid = Atoms("HCOH", positions=places, cell=[[3.1, 0.0, 0.2], [0.4, 2.9, 0.0], [-0.3, 0.5, 2.6]], pbc=True)
    slab = Atoms("COH", positions=places[:3], cell=[[2.6, 0.3, 0], [0, 2.9, 0], [0, 0, 0]], pbc=(True, True, False))
    # bonds along the polar axis of the harmonics, both ways, and along the others
    cross = Atoms("COHHO", positions=[[0, 0, 0], [0, 1.2, 0], [0, -1.1, 0], [1.3, 0, 0], [0, 0, -1.4]])
    return {"ethanol": ethanol, "solid": solid, "slab": slab, "cross": cross}


class ModelChecks:
    """Inherit, give `build`, and loosen what the network's own definition loosens, with the reason beside it."""

    tolerance = 1e-10
    """Of symmetries, relative to the largest force (float64)."""
    single_tolerance = 2e-4
    """Of float32 against float64, relative to the largest force."""
    step = 1e-3
    """Å, of finite differences."""
    inverts = True
    """Whether reflections are symmetries of the network."""
    vanishes_at_cutoff = True
    """Whether messages fade before the cutoff."""
    compared: tuple[str, ...] = ("numba", "llvm")
    """Backends to hold against torch; each compiles for seconds."""
    traced: tuple[str, ...] = ("torch", "llvm")
    """Backends whose training step torch.compile must take whole; that takes seconds too."""

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        """The network under test, small, with the same weights on each call."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Any:
        return cls.build(torch.float64, "torch")

    @pytest.fixture(params=structures())
    def atoms(self, request: pytest.FixtureRequest) -> Atoms:
        return structures()[request.param].copy()

    # ── evaluation ───────────────────────────────────────────────────────────────────────────────

    def graph(self, model: Any, atoms: Atoms, dtype: torch.dtype = torch.float64) -> Graph:
        return graph_of_atoms(atoms, cutoff=model.cutoff, species=model.species, dtype=dtype)

    def predict(self, model: Any, atoms: Atoms) -> Prediction:
        return energy_and_forces(model, self.graph(model, atoms), stress=atoms.cell.rank == 3)

    def assert_same(self, found: Prediction, expected: Prediction, scale: Tensor | None = None) -> None:
        """Energies, forces and stress agree within `tolerance` of the largest force."""
        largest = float(expected.forces.abs().max()) if scale is None else float(scale)
        margin = self.tolerance * max(largest, 1e-3)
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, rtol=self.tolerance, atol=margin)

    # ── symmetries ───────────────────────────────────────────────────────────────────────────────

    def assert_covariant(self, model: Any, atoms: Atoms, matrix: Tensor) -> None:
        """Atoms and cell turned by `matrix`: energies stay, forces and stress turn along."""
        before = self.predict(model, atoms)
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ matrix.numpy().T)
        turned.positions = atoms.positions @ matrix.numpy().T
        expected = before._replace(
            forces=before.forces @ matrix.T,
            stress=None if before.stress is None else matrix @ before.stress @ matrix.T,
        )
        self.assert_same(self.predict(model, turned), expected)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_rotation(self, model: Any, atoms: Atoms, seed: int) -> None:
        self.assert_covariant(model, atoms, random_rotations(1, torch.Generator().manual_seed(seed))[0])

    def test_inversion(self, model: Any, atoms: Atoms) -> None:
        if not self.inverts:
            pytest.skip("this network is invariant under rotations only, by its definition")
        self.assert_covariant(model, atoms, -random_rotations(1, torch.Generator().manual_seed(2))[0])

    def test_translation_and_lattice_translation(self, model: Any, atoms: Atoms) -> None:
        expected = self.predict(model, atoms)
        moved = atoms.copy()
        moved.positions += [3.7, -11.3, 0.9]
        jumps = np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) * np.asarray(atoms.pbc)
        moved.positions += jumps @ atoms.cell.array
        self.assert_same(self.predict(model, moved), expected)

    def test_permutation(self, model: Any, atoms: Atoms) -> None:
        order = np.random.default_rng(0).permutation(len(atoms))
        before = self.predict(model, atoms)
        expected = before._replace(energies=before.energies[order], forces=before.forces[order])
        self.assert_same(self.predict(model, atoms[order]), expected)

    def test_pairs_save_work_and_nothing_else(self, model: Any, atoms: Atoms) -> None:
        graph = self.graph(model, atoms)
        directed = graph._replace(pairs=each_its_own(graph.num_edges))
        stress = bool(atoms.pbc.all()) and not isinstance(model, DirectForces)
        self.assert_same(predict(model, graph, stress=stress), predict(model, directed, stress=stress))

    def test_a_batch_is_its_structures(self, model: Any) -> None:
        parts = [*structures().values(), Atoms("O"), Atoms("HH", positions=[[0, 0, 0], [0, 0.74, 0]])]
        singles = [self.predict(model, atoms) for atoms in parts]
        whole = predict(model, batch([self.graph(model, atoms) for atoms in parts]))
        expected = Prediction(*(torch.cat([getattr(s, f) for s in singles]) for f in Prediction._fields[:3]), None)
        self.assert_same(whole, expected)

    # ── derivatives ──────────────────────────────────────────────────────────────────────────────

    def difference(self, energy: Callable[[float], float], step: float) -> float:
        """dE/dt at 0 by central differences of fourth order."""
        return float((8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step))

    def test_forces_are_minus_the_gradient(self, model: Any, atoms: Atoms) -> None:
        forces = self.predict(model, atoms).forces
        margin = 1e-6 * max(float(forces.abs().max()), 1e-3)
        for direction in np.random.default_rng(0).normal(size=(3, len(atoms), 3)):

            def energy(t: float, direction: np.ndarray = direction) -> float:
                moved = atoms.copy()
                moved.positions += t * direction
                return float(self.predict(model, moved).energy)

            expected = -float((forces * torch.from_numpy(direction)).sum())
            assert abs(self.difference(energy, self.step) - expected) < margin * math.sqrt(direction.size)

    def test_stress_is_the_gradient_by_strain(self, model: Any) -> None:
        atoms = structures()["solid"]
        stress = self.predict(model, atoms).stress
        assert stress is not None
        assert torch.equal(stress, stress.mT)
        for strain in np.random.default_rng(0).normal(size=(3, 3, 3)):

            def energy(t: float, strain: np.ndarray = strain) -> float:
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ (np.eye(3) + t * (strain + strain.T) / 2), scale_atoms=True)
                return float(self.predict(model, moved).energy)

            expected = float((stress[0] * torch.from_numpy(strain)).sum()) * atoms.get_volume()
            scale = float(stress.abs().max()) * atoms.get_volume()
            assert abs(self.difference(energy, 1e-4) - expected) < 1e-6 * max(scale, 1e-3)

    def test_no_net_force_and_no_net_torque(self, model: Any, atoms: Atoms) -> None:
        forces = self.predict(model, atoms).forces
        margin = self.tolerance * max(float(forces.abs().max()), 1e-3)
        assert float(forces.sum(0).abs().max()) < margin
        if not atoms.pbc.any():
            torque = torch.linalg.cross(torch.from_numpy(atoms.positions), forces).sum(0)
            assert float(torque.abs().max()) < 10 * margin

    def test_every_weight_is_trained_by_forces_and_energies(self, model: Any) -> None:
        gradients = self.gradients(model)
        idle = [name for name, g in gradients.items() if not bool(g.abs().sum() > 0)]
        assert not idle, f"no gradient reaches {idle}"
        assert all(bool(torch.isfinite(g).all()) for g in gradients.values())

    def gradients(self, model: Any) -> dict[str, Tensor]:
        """Of a loss of energies and forces, by weight: it takes the second derivatives that training takes."""
        graph = batch([self.graph(model, structures()[name]) for name in ("ethanol", "slab")])
        found = energy_and_forces(model, graph, create_graph=True)
        names, weights = zip(*model.named_parameters(), strict=True)
        loss = found.energy.square().sum() + found.forces.square().sum()
        return dict(zip(names, torch.autograd.grad(loss, weights), strict=True))

    # ── the cutoff, and what lies beyond ─────────────────────────────────────────────────────────

    def test_smooth_at_the_cutoff(self, model: Any) -> None:
        if not self.vanishes_at_cutoff:
            pytest.skip("this network does not fade at the cutoff, by its definition")

        def pair(distance: float) -> Prediction:
            # the third atom's messages reach the first through the second
            return self.predict(model, Atoms("OHC", positions=[[0, 0, 0], [0.3, distance, 0.2], [1.0, 0.4, 0]]))

        edge = math.sqrt(model.cutoff**2 - 0.13)
        step = 1e-5
        inside, outside = pair(edge - step), pair(edge + step)
        assert self.graph_edges(model, edge - step) == self.graph_edges(model, edge + step) + 2
        for a, b in ((inside.energy, outside.energy), (inside.forces, outside.forces)):
            torch.testing.assert_close(a, b, rtol=0, atol=50 * step * max(float(outside.forces.abs().max()), 1e-2))

    def graph_edges(self, model: Any, distance: float) -> int:
        return self.graph(model, Atoms("OH", positions=[[0, 0, 0], [0.3, distance, 0.2]])).num_edges

    def test_far_apart_is_the_sum(self, model: Any) -> None:
        one, other = structures()["ethanol"], structures()["cross"].copy()
        other.positions += [0, 60.0, 0]
        a, b, both = (self.predict(model, atoms) for atoms in (one, other, one + other))
        expected = Prediction(*(torch.cat((getattr(a, f), getattr(b, f))) for f in Prediction._fields[:3]), None)
        self.assert_same(both, expected._replace(energy=expected.energy.sum(0, keepdim=True)))

    def test_isolated_atoms_and_no_edges(self, model: Any) -> None:
        alone = [self.predict(model, Atoms(symbol)) for symbol in "HCO"]
        for found in alone:
            assert bool(torch.isfinite(found.energy).all())
            assert found.forces.tolist() == [[0.0, 0.0, 0.0]]
        gas = self.predict(model, Atoms("HCO", positions=np.diag([50.0, 100.0, 150.0])))
        torch.testing.assert_close(gas.energies, torch.cat([f.energy for f in alone]), rtol=1e-14, atol=1e-14)
        assert not gas.forces.any()

    def test_no_atoms(self, model: Any) -> None:
        found = self.predict(model, Atoms())
        assert found.energy.tolist() == [0.0]
        assert found.forces.shape == (0, 3)

    # ── numbers, backends, files ─────────────────────────────────────────────────────────────────

    def test_float32_agrees_with_float64(self, model: Any, atoms: Atoms) -> None:
        single = self.build(torch.float32, "torch")
        found = predict(single, self.graph(single, atoms, torch.float32))
        expected = self.predict(model, atoms)
        margin = self.single_tolerance * max(float(expected.forces.abs().max()), 1e-3)
        assert found.forces.dtype == torch.float32
        assert torch.get_default_dtype() == torch.float32
        torch.testing.assert_close(found.forces.double(), expected.forces, rtol=0, atol=margin)
        torch.testing.assert_close(found.energies.double(), expected.energies, rtol=1e-6, atol=margin * len(atoms))

    @pytest.mark.parametrize("backend", [pytest.param("numba", marks=pytest.mark.slow), "llvm"])
    def test_backends_agree(self, model: Any, backend: str) -> None:
        if backend not in self.compared:
            pytest.skip(f"{backend} is not compared for this network: another class does it, or it cannot run")
        other = self.build(torch.float64, backend)
        assert other.state_dict().keys() == model.state_dict().keys()
        other.load_state_dict(model.state_dict())
        for atoms in structures().values():
            self.assert_same(self.predict(other, atoms), self.predict(model, atoms))
        expected = self.gradients(model)
        for name, gradient in self.gradients(other).items():
            margin = 1e-9 * float(expected[name].abs().max())
            torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=margin)

    @pytest.mark.gpu
    def test_the_gpu_agrees_with_the_cpu(self, model: Any) -> None:
        there = self.build(torch.float64, "auto").to("cuda")
        for atoms in structures().values():
            found = energy_and_forces(there, self.graph(model, atoms).to("cuda"), stress=atoms.cell.rank == 3)
            self.assert_same(Prediction(*(None if t is None else t.cpu() for t in found)), self.predict(model, atoms))

    @pytest.mark.slow
    @pytest.mark.parametrize("backend", ["torch", "numba", "llvm"])
    def test_training_on_forces_compiles_whole(self, backend: str) -> None:
        if backend not in self.traced:
            pytest.skip(f"{backend} is not traced for this network: another class does it, or it cannot be")
        model = self.build(torch.float64, backend)
        graph = self.graph(model, structures()["solid"])
        # torch.compile wants tensors that ask for gradients to come from outside
        graph = graph._replace(positions=graph.positions.requires_grad_())
        weights = list(model.parameters())

        def loss(graph: Graph) -> Tensor:
            found = energy_and_forces(model, graph, create_graph=True)
            return found.energy.square().sum() + found.forces.square().sum()

        torch._dynamo.reset()
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
            found = torch.autograd.grad(compiled(graph), weights)
        for a, b in zip(found, torch.autograd.grad(loss(graph), weights), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(b.abs().max()))

    @pytest.mark.slow
    def test_it_can_be_exported(self, model: Any) -> None:
        graph = self.graph(model, structures()["solid"])
        exported = torch.export.export(model, (graph,)).module()
        torch.testing.assert_close(exported(graph), model(graph), rtol=1e-12, atol=1e-12)

    def test_save_and_load(self, model: Any, tmp_path: Path) -> None:
        save_model(model, tmp_path / "model.pt")
        again = load_model(tmp_path / "model.pt", "torch")
        assert type(again) is type(model)
        assert again.config == model.config
        for atoms in structures().values():
            assert torch.equal(self.predict(again, atoms).forces, self.predict(model, atoms).forces)
