"""Arrangement: the order in which atoms and edges of a structure are evaluated, kept while nothing moves far.

Atoms stand by species, and among those of one species by place, so that neighbours lie near each other in memory.
Edges are searched out to the cutoff and a skin; each evaluation takes those within the cutoff, so that its result does
not depend on when they were searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy.neighbours import Pairs, pairs_within
from irrepc.deploy.steps import Edges

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Arrangement(NamedTuple):
    """What is kept of one structure.

    points, box, periodic, kinds  when edges were searched
    order          (N,) the atom that stands at each place
    place          (N,) where each atom stands
    senders, receivers, by_sender  (W,) places, of all edges out to cutoff and skin; by_sender sorts senders
    offsets        (W, 3) Å, what is added to positions of senders less those of receivers
    reach          (W,) Å², the square of the cutoff of each edge's pair of species
    """

    points: Float
    box: Float
    periodic: Flags
    kinds: Int
    order: Int
    place: Int
    senders: Int
    receivers: Int
    by_sender: Int
    offsets: Float
    reach: Float

    def edges(self, points: Float) -> Edges:
        """The edges within the cutoff for positions (N, 3) in the order of places."""
        vectors = points[self.senders] - points[self.receivers] + self.offsets
        near = np.einsum("ij,ij->i", vectors, vectors) < self.reach
        number = np.cumsum(near) - 1
        kept = np.flatnonzero(near)
        by_sender = self.by_sender[near[self.by_sender]]
        return Edges(
            self.kinds[self.order], self.senders[kept], self.receivers[kept], number[by_sender], self.offsets[kept]
        )

    def holds(self, kinds: Int, points: Float, box: Float, periodic: Flags, skin: float) -> bool:
        """Whether it holds for another structure: the same atoms and cell, none moved by half a skin."""
        if not (
            np.array_equal(kinds, self.kinds)
            and np.array_equal(periodic, self.periodic)
            and np.array_equal(box, self.box)
        ):
            return False
        moved = points - self.points
        return bool(np.einsum("ij,ij->i", moved, moved).max(initial=0.0) < (skin / 2) ** 2)


def arrange(
    kinds: Int, points: Float, box: Float, periodic: Flags, cutoffs: Sequence[float], species: int, skin: float
) -> Arrangement:
    """Search the pairs of a structure and put atoms and edges in order; cutoffs (Å) of all pairs of species, flat."""
    pairs = pairs_within(points, box, periodic, max(cutoffs) + skin)
    return arrange_pairs(kinds, points, box, periodic, pairs, cutoffs, species)


def arrange_pairs(
    kinds: Int,
    points: Float,
    box: Float,
    periodic: Flags,
    pairs: Pairs,
    cutoffs: Sequence[float],
    species: int,
) -> Arrangement:
    """The same with pairs given, in any order."""
    order = np.lexsort((_curve(points, max(cutoffs) / 2), kinds)) if len(points) else np.zeros(0, np.int64)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    receivers, senders = place[pairs.receivers], place[pairs.senders]
    sorting = np.argsort(receivers * np.int64(len(points)) + senders, kind="stable")
    receivers, senders = receivers[sorting], senders[sorting]
    pair = kinds[order][receivers] * species + kinds[order][senders]
    return Arrangement(
        points.copy(),
        box.copy(),
        periodic.copy(),
        kinds.copy(),
        order,
        place,
        senders,
        receivers,
        np.argsort(senders, kind="stable"),
        (pairs.shifts @ box)[sorting],
        np.square(np.asarray(cutoffs))[pair],
    )


def _curve(points: Float, width: float) -> Int:
    """Numbers of cubes of that width along Morton's curve: near on the curve is near in space."""
    bins = np.floor((points - points.min(0)) / width).astype(np.int64).clip(0, 2**20)
    found = np.zeros(len(points), dtype=np.int64)
    for bit in range(20):
        for k in range(3):
            found |= ((bins[:, k] >> bit) & 1) << (3 * bit + k)
    return found
