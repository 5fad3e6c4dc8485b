"""Rotation errors: how far a model is from E(RQ) = E(Q) and F(RQ) = F(Q) Rᵀ when it computes with finite digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from irrepc.models.checkpoint import Network
from irrepc.models.potential import predict
from irrepc.nn.graph import Graph
from irrepc.train.batches import join, label
from irrepc.train.frames import Frames


@dataclass(frozen=True, slots=True)
class RotationError:
    """The largest differences over all frames and operations."""

    dtype: str  # "float32", "float64"
    operations: int  # how many
    energy: float  # eV, of a structure
    forces: float  # eV/Å, of a component
    force_scale: float  # eV/Å, root mean square of the model's force components, to compare with


def rotation_error(model: Network, frames: Frames, *, operations: int = 8, seed: int = 0) -> RotationError:
    """Compare the model on rotated, and on rotated and inverted frames with what it says of the frames themselves.

    Raises IrrepcError for no frames, InputError for elements that the model does not know.
    """
    return symmetry_error(model, join(label(frames, model)).graph, random_operations(operations, seed))


def symmetry_error(model: Network, graph: Graph, operations: Sequence[NDArray[np.float64]]) -> RotationError:
    """Compare the model on a graph turned by each of the orthogonal matrices with what it says of the graph itself.

    Forces are those that `predict` gives: of the model's own head where it has one.
    """
    reference = predict(model, graph)
    energy, forces = 0.0, 0.0
    for operation in operations:
        turned = torch.from_numpy(operation).to(graph.positions)
        found = predict(model, graph._replace(positions=graph.positions @ turned.T))
        energy = max(energy, float((found.energy - reference.energy).abs().max()))
        forces = max(forces, float((found.forces - reference.forces @ turned.T).abs().max()))
    return RotationError(
        dtype=str(graph.positions.dtype).removeprefix("torch."),
        operations=len(operations),
        energy=energy,
        forces=forces,
        force_scale=float(reference.forces.square().mean().sqrt()),
    )


def random_operations(count: int, seed: int) -> tuple[NDArray[np.float64], ...]:
    """Orthogonal matrices (3, 3), uniform over O(3) but for the determinants, which are +1 and -1 in turn."""
    generator, found = np.random.default_rng(seed), []
    for k in range(count):
        q, r = np.linalg.qr(generator.normal(size=(3, 3)))
        q *= np.sign(np.diag(r))  # makes the factorisation unique and Q uniform (Mezzadri 2007)
        found.append(q * np.linalg.det(q) * (-1) ** k)
    return tuple(found)
