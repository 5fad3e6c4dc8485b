"""Engine: runs a program on the edges of one structure, with NumPy buffers and compiled kernels."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy.kernels import compiled
from irrepc.deploy.program import Program
from irrepc.deploy.room import Room
from irrepc.deploy.steps import RUN, Edges, State

Float = NDArray[np.float64]


class Evaluation(NamedTuple):
    """energies (N,) eV, forces (N, 3) eV/Å, virial (3, 3) eV = dE/dstrain, all float64, atoms as in `Edges`."""

    energies: Float
    forces: Float
    virial: Float


class Engine:
    """A program with its memory; threads: how many share large steps, all cores unless given."""

    def __init__(self, program: Program, threads: int | None = None) -> None:
        self.program, self.threads = program, threads or len(os.sched_getaffinity(0))
        self._parts = compiled(program)
        self._room = Room(program, self._parts)

    def run(self, positions: Float, edges: Edges) -> Evaluation:
        """positions (N, 3) float64 Å, sorted as `edges.species`.

        Raises InputError where an edge is shorter than the program's tables.
        """
        state = State(self.program, self._room, self.threads, positions, edges)
        for step, parts, given in zip(self.program.steps, self._parts, self._room.given, strict=True):
            RUN[type(step)](state, step, parts, given)
        assert state.energies is not None
        return Evaluation(state.energies, state.forces, state.virial)

    def bytes(self) -> int:
        """The memory of all buffers."""
        return self._room.bytes()
