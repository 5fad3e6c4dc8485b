"""Accuracy: how far forces of a program are from those of the network it was made of, on structures made for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from irrepc.deploy.deployed import Deployed
from irrepc.deploy.neighbours import check_structure, pairs_within
from irrepc.models.potential import energy_and_forces
from irrepc.nn.elements import covalent_radii
from irrepc.nn.graph import graph_from_edges

IMAGES = np.stack(np.meshgrid(*([-1, 0, 1],) * 3, indexing="ij"), -1).reshape(-1, 3)


class Structure(NamedTuple):
    """kinds (N,) numbers of species, positions (N, 3) Å, cell (3, 3) Å, periodic in all directions."""

    kinds: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]


class Difference(NamedTuple):
    """The largest differences: of energies per atom (eV) and of forces (eV/Å); and the largest force."""

    energy: float
    force: float
    largest: float


def random_structures(
    species: Sequence[int], count: int, seed: int, closest: float, atoms: int = 12
) -> list[Structure]:
    """Crowded and loose random packings of a few elements.

    No atoms are nearer than 0.7 of the sum of their covalent radii, or than `closest` (Å).
    """
    generator = np.random.default_rng(seed)
    radii = np.array(covalent_radii(tuple(species)))
    found = []
    for number in range(count):
        kinds = generator.choice(generator.permutation(len(species))[:3], atoms)
        edge = 2 * radii[kinds].mean() * (atoms ** (1 / 3)) * (1.0 + 0.15 * (number % 4))
        cell = edge * (np.eye(3) + 0.1 * generator.standard_normal((3, 3)))
        places: list[NDArray[np.float64]] = []
        while len(places) < atoms:
            place = generator.random(3)
            apart = np.array(places).reshape(-1, 1, 3) - place + IMAGES
            distance = np.linalg.norm(apart @ cell, axis=2).min(1)
            least = 0.7 * (radii[kinds[: len(places)]] + radii[kinds[len(places)]])
            if (distance > np.maximum(least, closest)).all():
                places.append(place)
            else:  # a little more room for every miss, so that this ends
                cell *= 1.001
        found.append(Structure(kinds.astype(np.int64), np.array(places) @ cell, cell))
    return found


def difference(deployed: Deployed, model: Any, structures: Sequence[Structure]) -> Difference:
    """Deployed against exact; the model is in float64."""
    worst = np.zeros(3)
    for s in structures:
        points, box, periodic = check_structure(s.positions, s.cell, True)
        pairs = pairs_within(points, box, periodic, deployed.cutoff)
        numbers = np.array(deployed.species)[s.kinds]
        found = deployed.evaluate_pairs(numbers, points, pairs, box, True)
        graph = graph_from_edges(
            torch.from_numpy(points),
            torch.from_numpy(s.kinds),
            torch.from_numpy(pairs.senders),
            torch.from_numpy(pairs.receivers),
            shifts=torch.from_numpy(pairs.shifts).double(),
            cell=torch.from_numpy(box),
        )
        exact = energy_and_forces(model, graph)
        energy = abs(found.energy - float(exact.energy)) / len(points)
        force = np.abs(found.forces - exact.forces.numpy()).max()
        worst = np.maximum(worst, (energy, force, float(exact.forces.abs().max())))
    return Difference(*worst.tolist())
