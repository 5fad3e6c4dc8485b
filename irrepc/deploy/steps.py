"""Steps: how each kind of step is done, by compiled kernels where there are any, else by NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy import workers
from irrepc.deploy.kernels import Part
from irrepc.deploy.program import (
    Activate,
    Add,
    Call,
    Embed,
    Fill,
    Forces,
    Geometry,
    Locate,
    Multiply,
    Place,
    Product,
    Program,
    Readout,
    RowDot,
    Seed,
    Step,
)
from irrepc.deploy.room import Given, Matrix, Room
from irrepc.errors import InputError

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Parts = Sequence[Part]


@dataclass(frozen=True, slots=True)
class Edges:
    """Directed edges of N atoms sorted by species; edges sorted by receiver.

    species    (N,) int64, ascending
    senders, receivers  (E,) int64
    by_sender  (E,) int64, the edges in the order of their senders, stable
    offsets    (E, 3) float64 Å, what is added to positions[senders] - positions[receivers]
    """

    species: Int
    senders: Int
    receivers: Int
    by_sender: Int
    offsets: Float


class State:
    """One evaluation: counts, indices, results."""

    def __init__(self, program: Program, room: Room, threads: int, positions: Float, edges: Edges) -> None:
        self.program, self.room, self.threads = program, room, threads
        self.positions, self.edges = positions, edges
        self.counts = {"node": len(positions), "edge": len(edges.senders)}
        room.grow(*self.counts.values())
        species = len(program.species)
        bounds = np.searchsorted(edges.species, np.arange(species + 1))
        self.segments = [(z, int(a), int(b)) for z, (a, b) in enumerate(itertools.pairwise(bounds)) if b > a]
        self.starts: dict[str, Int] = {}
        for name, values, order, rows in (
            ("receiver", edges.receivers, np.arange(len(edges.receivers)), len(positions)),
            ("sender", edges.senders, edges.by_sender, len(positions)),
            ("species", edges.species, np.arange(len(positions)), species),
        ):
            start = self.starts[f"@{name}"] = np.zeros(rows + 1, dtype=np.int64)
            np.cumsum(np.bincount(values, minlength=rows), out=start[1:])
            room.keep(name, values, order, start)
        self.energies: Float | None = None
        self.forces = np.zeros((len(positions), 3))
        self.virial = np.zeros((3, 3))

    def whole(self, name: str) -> Matrix:
        """The rows of a buffer that are in use."""
        return self.room.matrix(name)[: self.counts[self.room.rows_of(name)]]

    def at(self, place: Place) -> Matrix:
        """Columns of a buffer."""
        return self.whole(place.buffer)[:, place.start : place.stop]


def _geometry(state: State, step: Geometry, parts: Parts, given: Given) -> None:
    edges, x = state.edges, state.positions
    vector, distance = state.whole(step.vector), state.whole(step.distance)
    np.subtract(x[edges.senders], x[edges.receivers], out=vector)
    vector += edges.offsets
    if step.sign < 0:
        np.negative(vector, out=vector)
    np.sqrt(np.einsum("ij,ij->i", vector, vector), out=distance[:, 0])
    closest = state.program.closest
    if len(distance) and not distance.min() >= closest:
        e = int(distance.argmin())
        raise InputError(
            f"positions: got atoms at {distance[e, 0]:.4f} Å from each other; expected {closest} Å or more, where the "
            "tables of the deployed model begin; check the structure, or deploy with tables that begin earlier"
        )
    np.divide(vector, distance, out=state.whole(step.direction), casting="same_kind")


def _locate(state: State, step: Locate, parts: Parts, given: Given) -> None:
    x = state.whole(step.distance)[:, 0]
    stretch, first = state.room.matrix(step.stretch), state.room.matrix(step.first)
    pair: Any = 0
    if not state.room.alike:
        kinds, edges = state.edges.species, state.edges
        pair = kinds[edges.receivers] * len(state.program.species) + kinds[edges.senders]
    x = x * stretch[pair]
    where = np.searchsorted([s.begin for s in step.segments[1:]], x, side="right")
    begins, rates, rows = (np.array(column) for column in zip(*_columns(step), strict=True))
    rate = rates[where]
    u = (x - begins[where]) * rate
    last = np.array([s.intervals - 1 for s in step.segments])[where]
    knot = np.minimum(u.astype(np.int64), last)
    state.whole(step.place)[:, 0] = u - knot
    state.whole(step.slope)[:, 0] = rate * stretch[pair]
    values = knot + rows[where] + first[pair]
    state.room.keep("knot", values)  # only read through


def _columns(step: Locate) -> list[tuple[float, float, int]]:
    """Begin, intervals per Å and first row of each segment."""
    found, row = [], 0
    for s in step.segments:
        found.append((s.begin, s.intervals / (s.end - s.begin), row))
        row += s.intervals + step.degree
    return found


def _call(state: State, step: Call, parts: Parts, given: Given) -> None:
    threads = state.threads
    for part, at in zip(parts, given, strict=True):
        if part.rows.startswith("@"):
            start = state.starts[part.rows]
            pieces = workers.pieces_of(part.weight * state.counts["edge"], threads)
            if pieces > 1:
                workers.run(part.compute, [(*cut, *at) for cut in workers.cut_edges(start, pieces)], threads)
            else:
                part.compute(0, len(start) - 1, *at)
        else:
            _run_rows(part, at, state.counts[part.rows], threads)


def _activate(state: State, step: Activate, parts: Parts, given: Given) -> None:
    _run_rows(parts[0], given[0], state.counts[parts[0].rows], state.threads)


def _run_rows(part: Part, at: tuple[int, ...], count: int, threads: int) -> None:
    pieces = workers.pieces_of(part.weight * count, threads)
    if pieces > 1:
        workers.run(part.compute, [(*cut, *at) for cut in workers.cut_rows(0, count, pieces)], threads)
    else:
        part.compute(0, count, *at)


def _product(state: State, step: Product, parts: Parts, given: Given) -> None:
    (part,), ((x, _, y),) = parts, given
    weights, count, threads = state.room.packed(step.weights), state.counts[part.rows], state.threads
    if not step.by_species:
        _run_rows(part, (x, weights[0], y), count, threads)
        return
    pieces = workers.pieces_of(part.weight * count, threads)
    if pieces == 1:
        for z, first, last in state.segments:
            part.compute(first, last, x, weights[z], y)
        return
    jobs = [
        (n0, n1, x, weights[z], y)
        for z, first, last in state.segments
        for n0, n1 in workers.cut_rows(first, last, max(1, pieces * (last - first) // count))
    ]
    workers.run(part.compute, jobs, threads)


def _multiply(state: State, step: Multiply, parts: Parts, given: Given) -> None:
    y = state.at(step.y)
    if step.add:
        y += state.at(step.x) * state.at(step.by)
    else:
        np.multiply(state.at(step.x), state.at(step.by), out=y)


def _row_dot(state: State, step: RowDot, parts: Parts, given: Given) -> None:
    dot = np.einsum("ij,ij->i", state.at(step.x), state.at(step.by))
    y = state.at(step.y)[:, 0]
    if step.add:
        y += dot
    else:
        y[:] = dot


def _add(state: State, step: Add, parts: Parts, given: Given) -> None:
    y = state.at(step.y)
    y += state.at(step.x)


def _fill(state: State, step: Fill, parts: Parts, given: Given) -> None:
    state.at(step.y)[:] = step.value


def _embed(state: State, step: Embed, parts: Parts, given: Given) -> None:
    table, y = state.room.matrix(step.table), state.at(step.y)
    for z, a, b in state.segments:
        if step.add:
            y[a:b] += table[z]
        else:
            y[a:b] = table[z]


def _readout(state: State, step: Readout, parts: Parts, given: Given) -> None:
    matrix, species = state.room.matrix, state.edges.species
    energies = state.whole(step.energies)[:, 0]
    energies[:] = matrix(step.scales)[species] * state.at(step.x)[:, 0] + matrix(step.shifts)[species]
    state.energies = energies.copy()


def _seed(state: State, step: Seed, parts: Parts, given: Given) -> None:
    state.at(step.y)[:, 0] = state.room.matrix(step.scales)[state.edges.species]


def _forces(state: State, step: Forces, parts: Parts, given: Given) -> None:
    """The chain from directions and distances to atoms and strain, in float64."""
    edges = state.edges
    vector, distance = state.whole(step.vector), state.whole(step.distance)
    unit = vector / distance
    g = np.zeros_like(vector)
    if step.g_direction:
        by_direction = state.whole(step.g_direction).astype(np.float64)
        along = np.einsum("ij,ij->i", unit, by_direction)[:, None]
        g += (by_direction - unit * along) / distance
    if step.g_distance:
        g += unit * state.whole(step.g_distance)
    state.virial = vector.T @ g
    state.virial = (state.virial + state.virial.T) / 2
    if step.sign < 0:
        np.negative(g, out=g)
    atoms = state.counts["node"]
    for k in range(3):
        column = np.ascontiguousarray(g[:, k])
        state.forces[:, k] = np.bincount(edges.receivers, column, atoms) - np.bincount(edges.senders, column, atoms)


RUN: dict[type[Step], Callable[[State, Any, Parts, Given], None]] = {
    Call: _call,
    Geometry: _geometry,
    Locate: _locate,
    Product: _product,
    Activate: _activate,
    Multiply: _multiply,
    RowDot: _row_dot,
    Add: _add,
    Fill: _fill,
    Embed: _embed,
    Readout: _readout,
    Seed: _seed,
    Forces: _forces,
}
