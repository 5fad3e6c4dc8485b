"""Potential: derivatives of models whose energies are known by hand."""

import pytest
import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.models.potential import Potential, energy_and_forces
from irrepc.nn.graph import Graph, batch, edge_vectors
from irrepc.nn.neighbours import graph_of


def springs(graph: Graph) -> Tensor:
    """Each directed edge gives r²/2 to its centre."""
    energies = graph.positions.new_zeros(graph.num_atoms)
    return energies.index_add(0, graph.receivers.values, edge_vectors(graph).square().sum(1) / 2)


def test_two_atoms_on_a_spring() -> None:
    graph = graph_of([0, 0], [[0.0, 0, 0], [0, 2.0, 0]], cutoff=3.0)
    found = energy_and_forces(springs, graph)
    assert found.energy.tolist() == [4.0]
    assert found.energies.tolist() == [2.0, 2.0]
    assert found.forces.tolist() == [[0.0, 4.0, 0.0], [0.0, -4.0, 0.0]]
    assert found.stress is None


def test_the_stress_is_the_virial_over_the_volume() -> None:
    graphs = [
        graph_of([0], [[0.1, 0.2, 0.3]], [[2.0, 0.1, 0], [0.3, 2.2, 0], [0, 0.4, 2.1]], True, cutoff=3.0),
        graph_of([0, 0], [[0.0, 0, 0], [1.0, 1.1, 0]], [[2.5, 0, 0], [0, 3.0, 0], [0, 0, -2.0]], True, cutoff=3.0),
    ]
    whole = energy_and_forces(springs, batch(graphs), stress=True)
    assert whole.stress is not None
    for k, graph in enumerate(graphs):
        vectors, volume = edge_vectors(graph), abs(float(torch.linalg.det(graph.cell[0])))
        torch.testing.assert_close(whole.stress[k], vectors.T @ vectors / volume, rtol=1e-13, atol=1e-13)


def test_results_are_detached_unless_they_are_to_be_differentiated_again() -> None:
    graph = graph_of([0, 0], [[0.0, 0, 0], [0, 2.0, 0]], cutoff=3.0)
    assert not any(t.requires_grad for t in energy_and_forces(springs, graph)[:3])
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    found = energy_and_forces(lambda g: weight**2 * springs(g), graph, create_graph=True)
    (gradient,) = torch.autograd.grad(found.forces[0, 1], weight)
    assert float(gradient) == 24.0
    with torch.no_grad():
        assert energy_and_forces(springs, graph).forces[0, 1] == 4.0


def test_hessians_go_through_positions_that_ask_for_gradients() -> None:
    graph = graph_of([0, 0], [[0.0, 0, 0], [0, 2.0, 0]], cutoff=3.0)
    positions = graph.positions.clone().requires_grad_()
    found = energy_and_forces(springs, graph._replace(positions=positions), create_graph=True)
    (row,) = torch.autograd.grad(found.forces[0, 1], positions)
    assert row.tolist() == [[0.0, -2.0, 0.0], [0.0, 2.0, 0.0]]


def test_an_energy_that_ignores_positions_has_no_forces() -> None:
    graph = graph_of([0, 1], [[0.0, 0, 0], [0, 2.0, 0]], cutoff=1.0)
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    found = energy_and_forces(lambda g: weight[g.species], graph)
    assert found.energy.tolist() == [2.0]
    assert not found.forces.any()


def test_the_module_is_the_function_and_keeps_the_models_weights() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, graph: Graph) -> Tensor:
            return self.weight * springs(graph)

    graph = graph_of([0, 0], [[0.0, 0, 0], [0, 2.0, 0]], cutoff=3.0)
    potential = Potential(Shift())
    assert torch.equal(potential(graph).forces, 2 * energy_and_forces(springs, graph).forces)
    assert [name for name, _ in potential.named_parameters()] == ["model.weight"]


def test_no_stress_without_a_volume_and_no_integer_positions() -> None:
    molecule = graph_of([0, 0], [[0.0, 0, 0], [0, 2.0, 0]], cutoff=3.0)
    solid = graph_of([0], [[0.0, 0, 0]], torch.eye(3).numpy(), True, cutoff=1.5)
    with pytest.raises(InputError, match="structure 1 of volume 0"):
        energy_and_forces(springs, batch([solid, molecule]), stress=True)
    with pytest.raises(InputError, match="int64"):
        energy_and_forces(springs, molecule._replace(positions=molecule.positions.long()))
