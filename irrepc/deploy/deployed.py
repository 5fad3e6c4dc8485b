"""Deployed: a compiled network, asked for energies, forces and stress; it needs NumPy and llvmlite, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irrepc.deploy.engine import Edges, Engine
from irrepc.deploy.neighbours import Pairs, check_structure, pairs_within
from irrepc.deploy.program import Program
from irrepc.errors import InputError

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class Result(NamedTuple):
    """What a network says of one structure of N atoms, all float64.

    energy    eV
    energies  (N,) eV, each atom's share
    forces    (N, 3) eV/Å
    stress    (3, 3) eV/Å³, symmetric, tension positive; None where the structure is not periodic in all directions
    """

    energy: float
    energies: Float
    forces: Float
    stress: Float | None


class Deployed:
    """A deployed network, ready to run; `irrepc.deploy.load` makes it from a file."""

    def __init__(self, program: Program, threads: int | None = None) -> None:
        self.program, self.engine = program, Engine(program, threads)
        self.species, self.cutoff = program.species, program.cutoff
        self._cutoffs = np.array(program.cutoffs)
        self._number = {z: k for k, z in enumerate(program.species)}

    def evaluate(
        self,
        numbers: ArrayLike,
        positions: ArrayLike,
        cell: ArrayLike | None = None,
        pbc: bool | Sequence[bool] = False,
    ) -> Result:
        """Energy, forces and stress of one structure: atomic numbers (N,), positions (N, 3) Å, cell (3, 3) Å, rows.

        Raises InputError for elements the network does not know, numbers that are not finite, a degenerate cell, and
        atoms nearer than the tables begin.
        """
        points, box, periodic = check_structure(positions, cell, pbc)
        kinds = self.kinds(numbers, len(points))
        pairs = pairs_within(points, box, periodic, self.cutoff)
        return self.evaluate_pairs(kinds, points, pairs, box, periodic)

    def evaluate_pairs(
        self, kinds: Int, points: Float, pairs: Pairs, box: Float, periodic: NDArray[np.bool_]
    ) -> Result:
        """The same with pairs given, sorted by receiver; those beyond the cutoff are left out.

        kinds  (N,) numbers of the species, as `kinds` gives them
        """
        offsets = pairs.shifts @ box
        vectors = points[pairs.senders] - points[pairs.receivers] + offsets
        reach = self._cutoffs[kinds[pairs.receivers] * len(self.species) + kinds[pairs.senders]]
        near = np.flatnonzero(np.einsum("ij,ij->i", vectors, vectors) < reach**2)
        order = np.argsort(kinds, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        receivers, senders = place[pairs.receivers[near]], place[pairs.senders[near]]
        by_receiver = np.argsort(receivers, kind="stable")
        edges = Edges(kinds[order], senders[by_receiver], receivers[by_receiver], offsets[near][by_receiver])
        found = self.engine.run(points[order], edges)
        stress = found.virial / abs(np.linalg.det(box)) if periodic.all() else None
        return Result(float(found.energies.sum()), found.energies[place], found.forces[place], stress)

    def kinds(self, numbers: ArrayLike, atoms: int) -> Int:
        """Atomic numbers (N,) as numbers of the network's species.

        Raises InputError naming the elements it does not know.
        """
        z = np.asarray(numbers)
        if z.shape != (atoms,) or z.dtype.kind not in "iu":
            raise InputError(f"numbers: got shape {z.shape} of {z.dtype}; expected ({atoms},) atomic numbers")
        missing = sorted(set(z.tolist()) - set(self._number))
        if missing:
            raise InputError(
                f"species: got atomic numbers {missing}; expected only {sorted(self.species)}, the elements of the "
                "model; take a model that knows these elements"
            )
        return np.array([self._number[k] for k in z.tolist()], dtype=np.int64)


def load(path: str | Path, threads: int | None = None) -> Deployed:
    """Read a deployed network."""
    raise NotImplementedError
