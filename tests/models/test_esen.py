"""eSEN: the checks of every model, forces along the polar axis, and the configurations it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import Tensor

from irrepc.errors import InputError
from irrepc.models.esen import ESEN, DirectESEN, ESENConfig
from irrepc.models.potential import Potential, Prediction, energy_and_forces, predict
from irrepc.nn.frames import directions, frame_quaternions
from irrepc.nn.graph import Graph, batch, edge_vectors
from irrepc.nn.neighbours import graph_of_atoms
from irrepc.nn.rotations import quaternion_to_matrix, random_rotations
from tests.model_checks import ModelChecks, structures

SMALL = ESENConfig(
    species=(1, 6, 8), cutoff=3.0, layers=2, channels=4, hidden=3, edge_channels=4, lmax=3, mmax=2, basis_size=5
)


def perturbed(model: Any) -> Any:
    """Biases, affines and the tiny tables of species moved away from their first values, which hide mistakes."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise.to(parameter.dtype))
    return model


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


class TestESEN(ModelChecks):
    inverts = False  # the complex matrices of orders m > 0 tell left from right
    compared = ("llvm",)
    traced = ("llvm",)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return perturbed(ESEN(SMALL, backend, dtype=dtype, seed=1))


def assert_idle(checks: ModelChecks, model: Any) -> None:
    """The last block's weights for l > 0 and its gates: norms that keep l = 0 to itself bring them to no energy."""
    last = f"backbone.blocks.{model.config.layers - 1}."
    idle = {name for name, g in checks.gradients(model).items() if not bool(g.abs().sum() > 0)}
    orders = {f"{last}edge_wise.conv_{k}.weights.{m}" for k in (1, 2) for m in range(model.config.mmax)}
    assert idle - {f"{last}norm_2.weight", "backbone.norm.weight"} == {
        *orders, f"{last}atom_wise.gates.weight", f"{last}atom_wise.gates.bias"
    }  # fmt: skip


class TestESENWithBessels(ModelChecks):
    inverts = False
    compared = ("llvm",)
    traced = ()

    def test_every_weight_is_trained_by_forces_and_energies(self, model: Any) -> None:
        assert_idle(self, model)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        config = replace(SMALL, lmax=2, mmax=1, basis="bessel", norm="layer_norm_sh", layers=1)
        return perturbed(ESEN(config, backend, dtype=dtype, seed=2))


class TestESENWithSeparateNorms(ModelChecks):
    step = 2e-4  # a degree of small features is scaled up on its own: the energy is more strongly curved
    inverts = False
    compared = ()
    traced = ()

    def test_every_weight_is_trained_by_forces_and_energies(self, model: Any) -> None:
        assert_idle(self, model)

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return perturbed(ESEN(replace(SMALL, lmax=2, mmax=2, norm="layer_norm"), backend, dtype=dtype, seed=3))


class Aliasing(ModelChecks):
    """What a grid folds back differs from one rotated copy to the next; all else holds as tightly as ever."""

    inverts = False
    compared = ("llvm",)
    traced = ()
    aliasing: float
    """Of forces between rotated copies, relative to the largest; measured over all structures, times two."""

    def error(self, model: Any, atoms: Atoms, seed: int) -> float:
        turn = random_rotations(1, torch.Generator().manual_seed(seed))[0]
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ turn.numpy().T)
        turned.positions = atoms.positions @ turn.numpy().T
        return relative(self.predict(model, turned).forces, self.predict(model, atoms).forces @ turn.T)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_rotation(self, model: Any, atoms: Atoms, seed: int) -> None:
        assert self.error(model, atoms, seed) < self.aliasing

    def test_the_bound_is_true(self, model: Any) -> None:
        errors = [self.error(model, atoms, seed) for atoms in structures().values() for seed in (0, 1)]
        assert self.aliasing / 4 < max(errors) < self.aliasing

    def test_no_net_force_and_no_net_torque(self, model: Any, atoms: Atoms) -> None:
        forces = self.predict(model, atoms).forces
        assert float(forces.sum(0).abs().max()) < self.tolerance * float(forces.abs().max())


class TestESENWithGrid(Aliasing):
    """Its perceptron acts on a grid of 6 x 7 points: a gradient of an energy, but of one that knows the axes."""

    aliasing = 1.7e-3

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        config = replace(SMALL, lmax=2, mmax=2, feed_forward="grid")
        return perturbed(ESEN(config, backend, dtype=dtype, seed=4))


class TestDirectESEN(ModelChecks):
    inverts = False
    compared = ("llvm",)
    traced = ()

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return perturbed(DirectESEN(SMALL, backend, dtype=dtype, seed=5))

    def predict(self, model: Any, atoms: Atoms) -> Prediction:
        return predict(model, self.graph(model, atoms))

    def gradients(self, model: Any) -> dict[str, Tensor]:
        graph = batch([self.graph(model, structures()[name]) for name in ("ethanol", "slab")])
        found = predict(model, graph, create_graph=True)
        names, weights = zip(*model.named_parameters(), strict=True)
        loss = found.energy.square().sum() + found.forces.square().sum()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        return {n: g for n, g in zip(names, gradients, strict=True) if n != "force.bias"}  # of l = 0, which is no force

    # the head's forces are the gradient of nothing
    test_forces_are_minus_the_gradient = None
    test_stress_is_the_gradient_by_strain = None
    test_no_net_force_and_no_net_torque = None
    test_smooth_at_the_cutoff = None
    test_isolated_atoms_and_no_edges = None


class TestDirectESENOnGrids(TestDirectESEN):
    """SiLU on grids of edges too, 8 x 5 points, and no envelope, as in the authors' own example of direct forces."""

    vanishes_at_cutoff = False
    aliasing = 5.4e-2

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        config = replace(SMALL, activation="s2", feed_forward="grid", envelope=False)
        return DirectESEN(config, backend, dtype=dtype, seed=6)

    error = Aliasing.error
    test_rotation = Aliasing.test_rotation
    test_the_bound_is_true = Aliasing.test_the_bound_is_true


@pytest.mark.parametrize("activation", ["gate", "s2"])
def test_a_finer_grid_is_more_nearly_equivariant(activation: str) -> None:
    turn = random_rotations(1, torch.Generator().manual_seed(0))[0]
    atoms = structures()["ethanol"].copy()
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.numpy().T
    errors = []
    for grid in (0, 14, 28):
        config = replace(SMALL, lmax=2, mmax=2, feed_forward="grid", activation=activation, grid=grid)
        model = perturbed(ESEN(config, "torch", dtype=torch.float64, seed=6))
        a, b = (energy_and_forces(model, graph_of_atoms(x, cutoff=3.0, species=(1, 6, 8))) for x in (atoms, turned))
        errors.append(relative(b.forces, a.forces @ turn.T))
    assert errors[0] > 20 * errors[1] > 400 * errors[2]
    assert errors[2] < 1e-8


def edge_along_the_axis(tilt: float) -> Atoms:
    """A bent molecule with one bond at an angle `tilt` (radians) from ŷ."""
    return Atoms("OCH", positions=[[0, 0, 0], [1.2 * np.sin(tilt), 1.2 * np.cos(tilt), 0], [0.9, -0.5, 0.3]])


def snapped(graph: Graph) -> Tensor:
    """Frames as the authors make them: within 1.4 mrad of ± ŷ an edge is taken for ± ŷ, and its gradient dropped."""
    n, _ = directions(edge_vectors(graph))
    axis = torch.zeros_like(n)
    axis[:, 1] = n[:, 1].sign()
    near = (n[:, 1].abs() > 0.999999).unsqueeze(-1)
    return frame_quaternions(torch.where(near, axis, n))


class Snapped(torch.nn.Module):
    """The same network with the authors' treatment of edges near the polar axis."""

    def __init__(self, model: ESEN) -> None:
        super().__init__()
        self.model = model

    def forward(self, graph: Graph) -> Tensor:
        energies: Tensor = self.model(graph, snapped(graph))
        return energies


@pytest.mark.parametrize("tilt", [0.0, 1e-9, 5e-4, np.pi])
def test_forces_are_right_for_edges_along_the_polar_axis(tilt: float) -> None:
    model = TestESEN.build(torch.float64, "llvm")
    turn = random_rotations(1, torch.Generator().manual_seed(3))[0]
    atoms = edge_along_the_axis(tilt)
    turned = atoms.copy()
    turned.positions = atoms.positions @ turn.numpy().T
    graphs = [graph_of_atoms(x, cutoff=3.0, species=(1, 6, 8)) for x in (atoms, turned)]
    ours, copy = (energy_and_forces(model, g).forces for g in graphs)
    assert relative(ours, copy @ turn) < 1e-12
    theirs, far = (energy_and_forces(Snapped(model), g).forces for g in graphs)
    assert relative(far, copy) < 1e-12  # away from the axis both are the same
    assert relative(theirs, copy @ turn) > 1e-2


def test_frames_of_any_roll_give_the_same_forces() -> None:
    model = TestESEN.build(torch.float64, "torch")
    graph = graph_of_atoms(structures()["solid"], cutoff=3.0, species=(1, 6, 8))
    n, _ = directions(edge_vectors(graph))
    angle = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    roll = torch.stack((angle.cos(), torch.zeros_like(angle), angle.sin(), torch.zeros_like(angle)), 1)

    def rolled(positions: Graph) -> Tensor:
        q = frame_quaternions(directions(edge_vectors(positions))[0])
        w, x, y, z = q.unbind(1)
        a, _, b, _ = roll.unbind(1)
        turned = torch.stack((w * a - y * b, x * a - z * b, w * b + y * a, x * b + z * a), 1)
        assert float((quaternion_to_matrix(turned)[:, :, 1] - n).abs().max().detach()) < 1e-14
        out: Tensor = model(positions, turned)
        return out

    expected, found = energy_and_forces(model, graph), energy_and_forces(rolled, graph)
    torch.testing.assert_close(found.energy, expected.energy, rtol=1e-12, atol=1e-12)
    assert relative(found.forces, expected.forces) < 1e-12


def test_a_head_for_forces_is_used_and_has_no_stress() -> None:
    model = DirectESEN(SMALL, "torch", dtype=torch.float64)
    graph = graph_of_atoms(structures()["solid"], cutoff=3.0, species=(1, 6, 8))
    found = Potential(model)(graph)
    assert torch.equal(found.forces, model.energies_and_forces(graph)[1])
    assert not found.forces.requires_grad
    assert relative(energy_and_forces(model, graph).forces, found.forces) > 1e-3
    with pytest.raises(InputError, match="got stress of DirectESEN"):
        predict(model, graph, stress=True)


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    a = ESEN(SMALL, "torch", seed=1)
    torch.manual_seed(1)
    b, c = ESEN(SMALL, "torch", seed=1), ESEN(SMALL, "torch", seed=2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.backbone.embedding.weight, c.backbone.embedding.weight)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"species": ()}, "species"),
        ({"cutoff": 0.0}, "cutoff = 0.0"),
        ({"lmax": 0, "mmax": 0}, "lmax = 0"),
        ({"mmax": 4}, "mmax = 4; expected an integer 0 <= mmax <= lmax"),
        ({"norm": "batch"}, "one of rms_norm_sh, layer_norm_sh, layer_norm"),
        ({"activation": "tanh"}, "gate or s2"),
        ({"feed_forward": "none"}, "spectral or grid"),
        ({"basis": "fourier"}, "gaussian or bessel"),
        ({"basis_size": 1}, "basis_size = 1"),
        ({"grid": 9}, "grid = 9"),
        ({"grid": 6}, "grid = 6"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change)
