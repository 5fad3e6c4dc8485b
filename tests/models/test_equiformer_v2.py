"""EquiformerV2: the checks of every model with its true bounds, and the configurations it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from ase import Atoms
from torch import Tensor

from irrepc.errors import InputError
from irrepc.models.equiformer_v2 import EquiformerV2, EquiformerV2Config
from irrepc.models.potential import Potential, Prediction, energy_and_forces, predict
from irrepc.nn.attention import edge_softmax
from irrepc.nn.frames import directions, frame_quaternions
from irrepc.nn.graph import batch, edge_vectors, index_of
from irrepc.nn.neighbours import graph_of_atoms
from irrepc.nn.rotations import multiply_quaternions, random_rotations
from tests.model_checks import ModelChecks, structures

SMALL = EquiformerV2Config(
    species=(1, 6, 8), cutoff=3.0, layers=2, channels=4, hidden=3, heads=2, alpha=3, value=2, feed_hidden=5,
    edge_channels=4, lmax=3, mmax=2, activation="gate", feed_forward="gate", grid=0, neighbours=9.0, atoms=5.0,
)  # fmt: skip


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


def turned(atoms: Atoms, seed: int) -> tuple[Atoms, Tensor]:
    """A rotated copy, and the rotation."""
    turn = random_rotations(1, torch.Generator().manual_seed(seed))[0]
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ turn.numpy().T)
    copy.positions = atoms.positions @ turn.numpy().T
    return copy, turn


class Direct(ModelChecks):
    """Forces of the head: the gradient of nothing; and nothing fades at the cutoff, by the network's definition."""

    inverts = False
    vanishes_at_cutoff = False
    compared = ("llvm",)
    traced = ()
    config: EquiformerV2Config

    @classmethod
    def build(cls, dtype: torch.dtype, backend: str) -> Any:
        return perturbed(EquiformerV2(cls.config, backend, dtype=dtype, seed=1))

    def predict(self, model: Any, atoms: Atoms) -> Prediction:
        return predict(model, self.graph(model, atoms))

    def gradients(self, model: Any) -> dict[str, Tensor]:
        graph = batch([self.graph(model, structures()[name]) for name in ("ethanol", "slab")])
        found = predict(model, graph, create_graph=True)
        names, weights = zip(*model.named_parameters(), strict=True)
        loss = found.energy.square().sum() + found.forces.square().sum()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        return dict(zip(names, gradients, strict=True))

    def test_every_weight_is_trained_by_forces_and_energies(self, model: Any) -> None:
        """But for those of l > 0 of the energy, where l = 0 is alone, and of m > 1 of the force, which is l = 1."""
        gradients = self.gradients(model)
        assert all(bool(torch.isfinite(g).all()) for g in gradients.values())
        idle = {name for name, g in gradients.items() if not bool(g.abs().sum() > 0)}
        config: EquiformerV2Config = model.config
        linear, gates = {"energy.linear_1.weight", "energy.linear_1.bias"}, {"energy.gates.weight", "energy.gates.bias"}
        grid = {f"energy.activation.function.{k}.weight" for k in (0, 2, 4)}
        alone = {"gate": gates, "separable_s2": linear, "separable_grid": linear | grid}
        energy = alone.get(config.feed_forward, set())
        convolutions = (1, 2) if config.activation == "gate" else (2,)  # on a grid all orders meet
        orders = {f"force.conv_{k}.weights.{m - 1}" for k in convolutions for m in range(2, config.mmax + 1)}
        assert idle == energy | orders | {"force.projection.bias"}

    def test_it_jumps_at_the_cutoff_as_it_must(self, model: Any) -> None:
        def pair(distance: float) -> Prediction:
            return self.predict(model, Atoms("OHC", positions=[[0, 0, 0], [0, distance, 0], [1.0, 0.4, 0]]))

        inside, outside = pair(model.cutoff - 1e-6), pair(model.cutoff + 1e-6)
        assert relative(outside.forces, inside.forces) > 1e-4

    # the head's forces are the gradient of nothing
    test_forces_are_minus_the_gradient = None
    test_stress_is_the_gradient_by_strain = None
    test_no_net_force_and_no_net_torque = None


class TestGate(Direct):
    compared = ("numba", "llvm")
    config = SMALL


class TestGateWithRadialWeightsByDegree(Direct):
    config = replace(SMALL, lmax=2, mmax=2, radial="degree", edge_embedding="shared", norm="rms_norm_sh")


class TestGateWithoutSpeciesOfEdges(Direct):
    # degrees of small features are scaled up each on its own
    single_tolerance = 1e-3
    config = replace(SMALL, lmax=2, mmax=0, edge_embedding="none", norm="layer_norm", renorm=False)


class Aliasing(Direct):
    """What a grid folds back differs from one rotated copy to the next; all else holds as tightly as ever."""

    aliasing: float
    """Of forces between rotated copies, relative to the largest; measured over all structures, times two."""

    def error(self, model: Any, atoms: Atoms, seed: int) -> float:
        copy, turn = turned(atoms, seed)
        return relative(self.predict(model, copy).forces, self.predict(model, atoms).forces @ turn.T)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_rotation(self, model: Any, atoms: Atoms, seed: int) -> None:
        assert self.error(model, atoms, seed) < self.aliasing

    def test_the_bound_is_true(self, model: Any) -> None:
        errors = [self.error(model, atoms, seed) for atoms in structures().values() for seed in (0, 1)]
        assert self.aliasing / 4 < max(errors) < self.aliasing


class TestPublishedKind(Aliasing):
    """Separable activations of messages, a perceptron on the grid, 18 x 18 points: as in all published networks."""

    aliasing = 8.2e-4
    config = replace(SMALL, activation="separable_s2", feed_forward="separable_grid", grid=18)


class TestSeparable(Aliasing):
    """The network's own grids, 6 x 3 points for messages and 6 x 7 for atoms."""

    aliasing = 0.57
    config = replace(SMALL, activation="separable_s2", feed_forward="separable_s2", lmax=2, mmax=1)


class TestPlain(Aliasing):
    """Even l = 0 comes from the grid: 6 x 7 points."""

    aliasing = 3.8e-2
    config = replace(SMALL, activation="s2", feed_forward="s2", lmax=2, mmax=2)


class TestPlainGrid(Aliasing):
    """Messages with gates, which are exact, and a perceptron on the grid alone."""

    aliasing = 6.6e-3
    config = replace(SMALL, activation="gate", feed_forward="grid", lmax=2, mmax=1)


@pytest.mark.parametrize("activation", ["gate", "separable_s2"])
def test_a_finer_grid_is_more_nearly_equivariant(activation: str) -> None:
    atoms = structures()["ethanol"]
    copy, turn = turned(atoms, 0)
    errors = []
    for grid in (0, 14, 28):
        config = replace(SMALL, lmax=2, mmax=2, feed_forward="separable_grid", activation=activation, grid=grid)
        model = perturbed(EquiformerV2(config, "torch", dtype=torch.float64, seed=6))
        a, b = (predict(model, graph_of_atoms(x, cutoff=3.0, species=(1, 6, 8))) for x in (atoms, copy))
        errors.append(relative(b.forces, a.forces @ turn.T))
    assert errors[0] > 20 * errors[1] > 400 * errors[2]


def test_frames_of_any_roll_give_the_same_result_with_gates() -> None:
    model = TestGate.build(torch.float64, "torch")
    graph = graph_of_atoms(structures()["solid"], cutoff=3.0, species=(1, 6, 8))
    angle = torch.rand(graph.num_edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    roll = torch.stack((angle.cos(), torch.zeros_like(angle), angle.sin(), torch.zeros_like(angle)), 1)
    frames = multiply_quaternions(frame_quaternions(directions(edge_vectors(graph))[0]), roll)
    with torch.no_grad():
        expected, found = model.energies_and_forces(graph), model.energies_and_forces(graph, frames)
    assert relative(found[0], expected[0]) < 1e-12
    assert relative(found[1], expected[1]) < 1e-12


def test_each_head_has_scores_of_its_own() -> None:
    model = TestGate.build(torch.float64, "torch")
    graph = graph_of_atoms(structures()["ethanol"], cutoff=3.0, species=(1, 6, 8))
    expected = predict(model, graph).forces
    with torch.no_grad():
        model.force.dot.copy_(model.force.dot.flip(0))
    assert relative(predict(model, graph).forces, expected) > 1e-3


def test_attention_adds_up_to_one() -> None:
    model = TestGate.build(torch.float64, "torch")
    graph = graph_of_atoms(structures()["solid"], cutoff=3.0, species=(1, 6, 8))
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(graph.num_edges, 6, generator=generator, dtype=torch.float64) * 30
    alpha = model.blocks[0].attention.attention(scores, graph)
    total = torch.zeros(4, 2, dtype=torch.float64).index_add(0, graph.receivers.values, alpha)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-14, atol=0)
    assert float(edge_softmax(torch.full((2, 1), 900.0), index_of(torch.tensor([0, 0]), 1)).max()) == 0.5


def test_a_head_for_forces_is_used_and_has_no_stress() -> None:
    model = EquiformerV2(SMALL, "torch", dtype=torch.float64)
    graph = graph_of_atoms(structures()["solid"], cutoff=3.0, species=(1, 6, 8))
    found = Potential(model)(graph)
    assert torch.equal(found.forces, model.energies_and_forces(graph)[1])
    assert not found.forces.requires_grad
    assert relative(energy_and_forces(model, graph).forces, found.forces) > 1e-3
    with pytest.raises(InputError, match="got stress of EquiformerV2"):
        predict(model, graph, stress=True)


def test_the_energy_is_divided_by_the_average_number_of_atoms() -> None:
    graph = graph_of_atoms(structures()["ethanol"], cutoff=3.0, species=(1, 6, 8))
    one, two = (EquiformerV2(replace(SMALL, atoms=n), "torch", dtype=torch.float64) for n in (1.0, 2.0))
    torch.testing.assert_close(one(graph), 2 * two(graph), rtol=1e-14, atol=0)


@pytest.mark.parametrize("rate", ["alpha_drop", "proj_drop", "path_drop"])
def test_dropouts_act_in_training_and_keep_the_symmetry(rate: str) -> None:
    atoms, (copy, turn) = structures()["ethanol"], turned(structures()["ethanol"], 4)
    model = perturbed(EquiformerV2(replace(SMALL, **{rate: 0.4}), "torch", dtype=torch.float64, seed=3))
    plain = perturbed(EquiformerV2(SMALL, "torch", dtype=torch.float64, seed=3))

    def forces(network: EquiformerV2, of: Atoms) -> Tensor:
        torch.manual_seed(7)
        return predict(network, graph_of_atoms(of, cutoff=3.0, species=(1, 6, 8))).forces

    assert torch.equal(forces(model, atoms), forces(plain, atoms)), "a new network is in evaluation mode"
    model.train()
    dropped = forces(model, atoms)
    assert not torch.allclose(dropped, forces(plain, atoms))
    torch.testing.assert_close(forces(model, copy), dropped @ turn.T, rtol=1e-9, atol=1e-12)


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    a = EquiformerV2(SMALL, "torch", seed=1)
    torch.manual_seed(1)
    b, c = EquiformerV2(SMALL, "torch", seed=1), EquiformerV2(SMALL, "torch", seed=2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.embedding.weight, c.embedding.weight)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"species": ()}, "species"),
        ({"cutoff": 0.0}, "cutoff = 0.0"),
        ({"layers": -1}, "layers = -1"),
        ({"heads": 0}, "heads = 0; expected an integer >= 1"),
        ({"atoms": float("nan")}, "atoms = nan; expected a finite number > 0"),
        ({"mmax": 4}, "mmax = 4; expected an integer 0 <= mmax <= lmax"),
        ({"norm": "batch"}, "one of rms_norm_sh, layer_norm_sh, layer_norm"),
        ({"activation": "grid"}, "one of gate, separable_s2, s2"),
        ({"feed_forward": "spectral"}, "separable_grid"),
        ({"radial": "none"}, "radial = 'none'; expected one of order, degree"),
        ({"edge_embedding": "both"}, "one of own, shared, none"),
        ({"grid": 9}, "grid = 9"),
        ({"grid": 6}, "grid = 6"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(SMALL, **change)
