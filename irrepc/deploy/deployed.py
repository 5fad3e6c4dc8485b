"""Deployed: a compiled network, asked for energies, forces and stress; it needs NumPy and llvmlite, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irrepc.deploy.arrangement import Arrangement, arrange, arrange_pairs
from irrepc.deploy.engine import Engine
from irrepc.deploy.file import read_program
from irrepc.deploy.neighbours import Pairs, check_structure
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
    """A deployed network, ready to run; `irrepc.deploy.load` makes it from a file.

    threads  of its kernels, all cores unless given; results do not depend on it
    skin     Å: neighbours are searched anew only after an atom has moved half of it, or cell or elements have changed;
             results do not depend on it
    """

    def __init__(self, program: Program, threads: int | None = None, skin: float = 0.5) -> None:
        if not (np.isfinite(skin) and skin >= 0):
            raise InputError(f"skin: got {skin} Å; expected a finite number >= 0")
        self.program, self.engine, self.skin = program, Engine(program, threads), float(skin)
        self.species, self.cutoff = program.species, program.cutoff
        self.searches = 0
        self._numbers = np.full(max(program.species) + 1, -1, dtype=np.int64)
        self._numbers[list(program.species)] = np.arange(len(program.species))
        self._kept: Arrangement | None = None

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
        kept = self._kept
        if kept is None or not kept.holds(kinds, points, box, periodic, self.skin):
            limits, count = self.program.cutoffs, len(self.species)
            kept = self._kept = arrange(kinds, points, box, periodic, limits, count, self.skin)
            self.searches += 1
        return self._run(kept, points)

    def evaluate_pairs(
        self,
        numbers: ArrayLike,
        positions: ArrayLike,
        pairs: Pairs,
        cell: ArrayLike | None = None,
        pbc: bool | Sequence[bool] = False,
    ) -> Result:
        """The same with directed pairs given, each bond twice, in any order; those beyond the cutoff are left out."""
        points, box, periodic = check_structure(positions, cell, pbc)
        kinds = self.kinds(numbers, len(points))
        limits, count = self.program.cutoffs, len(self.species)
        return self._run(arrange_pairs(kinds, points, box, periodic, pairs, limits, count), points)

    def kinds(self, numbers: ArrayLike, atoms: int) -> Int:
        """Atomic numbers (N,) as numbers of the network's species.

        Raises InputError naming the elements it does not know.
        """
        z = np.asarray(numbers)
        if z.shape != (atoms,) or (atoms and z.dtype.kind not in "iu"):
            raise InputError(f"numbers: got shape {z.shape} of {z.dtype}; expected ({atoms},) atomic numbers")
        inside = (z >= 0) & (z < len(self._numbers))
        kinds: Int = np.where(inside, self._numbers[np.where(inside, z, 0).astype(np.int64)], -1)
        if atoms and kinds.min() < 0:
            missing = np.unique(z[kinds < 0]).tolist()
            raise InputError(
                f"species: got atomic numbers {missing}; expected only {sorted(self.species)}, the elements of the "
                "model; take a model that knows these elements"
            )
        return kinds

    def _run(self, kept: Arrangement, points: Float) -> Result:
        at = points[kept.order]
        found = self.engine.run(at, kept.edges(at))
        volume = abs(np.linalg.det(kept.box))
        stress = found.virial / volume if kept.periodic.all() else None
        energies = found.energies[kept.place]
        return Result(float(found.energies.sum()), energies, found.forces[kept.place], stress)


def load(path: str | Path, threads: int | None = None, skin: float = 0.5) -> Deployed:
    """Read a deployed network that `irrepc deploy` wrote; threads and skin as `Deployed` takes them.

    Raises FileNotFoundError, or InputError for a file that is cut short, altered, newer, or no deployed network.
    """
    return Deployed(read_program(path), threads, skin)
