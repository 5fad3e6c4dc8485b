"""Energy, forces and stress of any model that gives energies of atoms: the only place where they are differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.nn.graph import Graph


class Prediction(NamedTuple):
    """What a potential says of a graph of N atoms in B structures.

    energy    (B,) eV
    energies  (N,) eV, each atom's share of the energy
    forces    (N, 3) eV/Å, minus the gradient of the energy
    stress    (B, 3, 3) eV/Å³, symmetric, dE/dstrain over the volume (tension is positive); None unless asked for
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor
    stress: Tensor | None


@runtime_checkable
class DirectForces(Protocol):
    """A model with a head for the forces, which are then no gradient of its energy."""

    def energies_and_forces(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Energies of atoms (N,) eV, forces (N, 3) eV/Å."""
        ...


def predict(
    model: Callable[[Graph], Tensor], graph: Graph, *, stress: bool = False, create_graph: bool = False
) -> Prediction:
    """What the model itself means by forces: those of its head where it has one, else as `energy_and_forces`.

    Raises InputError when stress is asked of a model with a force head.
    """
    if not isinstance(model, DirectForces):
        return energy_and_forces(model, graph, stress=stress, create_graph=create_graph)
    if stress:
        raise InputError(f"predict: got stress of {type(model).__name__}; expected none, its forces are no gradient")
    with torch.set_grad_enabled(create_graph):
        energies, forces = model.energies_and_forces(graph)
        energy = energies.new_zeros(graph.num_graphs).index_add(0, graph.batch, energies)
    return Prediction(energy, energies, forces, None)


def energy_and_forces(
    model: Callable[[Graph], Tensor], graph: Graph, *, stress: bool = False, create_graph: bool = False
) -> Prediction:
    """Evaluate `model` (Graph -> energies of atoms (N,), eV) and differentiate: forces -∂E/∂r, stress ∂E/∂ε / V.

    The stress comes from a symmetric strain ε of positions and cell. With create_graph the results can be
    differentiated again, which training on forces needs; otherwise they are detached. Raises InputError when stress is
    asked for a structure without volume, or of positions that are not floats.
    """
    if not graph.positions.is_floating_point():
        raise InputError(f"energy_and_forces: got positions of {graph.positions.dtype}; expected floats")
    with torch.enable_grad():
        positions = graph.positions if graph.positions.requires_grad else graph.positions.detach().requires_grad_()
        moved, wanted = graph._replace(positions=positions), [positions]
        if stress:
            strain = torch.zeros_like(graph.cell).requires_grad_()
            moved, wanted = _strained(moved, (strain + strain.mT) / 2), [positions, strain]
        energies = model(moved)
        gradients = torch.autograd.grad(
            energies.sum(), wanted, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        energy = energies.new_zeros(graph.num_graphs).index_add(0, graph.batch, energies)
        tensor = gradients[1] / _volumes(graph.cell)[:, None, None] if stress else None
    found = Prediction(energy, energies, -gradients[0], tensor)
    if create_graph:
        return found
    return Prediction(*(None if t is None else t.detach() for t in found))  # type: ignore[arg-type]


class Potential(nn.Module):
    """A model with its derivatives, called on graphs; the weights are the model's own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, graph: Graph, *, stress: bool = False, create_graph: bool = False) -> Prediction:
        """As `predict`."""
        return predict(self.model, graph, stress=stress, create_graph=create_graph)


def _strained(graph: Graph, strain: Tensor) -> Graph:
    """r + r ε for atoms and cell vectors, ε (B, 3, 3) symmetric: edge vectors follow, as they are linear in both."""
    by_atom = strain.index_select(0, graph.batch)
    positions = graph.positions + (graph.positions.unsqueeze(1) @ by_atom).squeeze(1)
    return graph._replace(positions=positions, cell=graph.cell + graph.cell @ strain)


def _volumes(cell: Tensor) -> Tensor:
    volumes: Tensor = torch.linalg.det(cell.double()).abs()
    if not torch.compiler.is_compiling() and bool((volumes <= 0).any()):
        raise InputError(
            f"stress: got structure {int(volumes.argmin())} of volume 0; expected a cell; molecules have no stress"
        )
    return volumes.to(cell.dtype)
