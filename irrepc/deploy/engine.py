"""Engine: runs a program on the pairs of one structure, with NumPy buffers and compiled kernels."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy import kernels, workers
from irrepc.deploy.memory import slot_sizes
from irrepc.deploy.program import (
    INDICES,
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
from irrepc.errors import InputError
from irrepc.runtime.object_code import Processor, packed

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Matrix = NDArray[Any]
Parts = Sequence[kernels.Part]
Given = tuple[tuple[int, ...], ...]
"""The addresses that each part of a step takes."""


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


class RowNumbers(NamedTuple):
    """An index as kernels read it: values, the order that sorts them, and where each row begins in it."""

    values: Int
    order: Int
    start: Int


class Evaluation(NamedTuple):
    """energies (N,) eV, forces (N, 3) eV/Å, virial (3, 3) eV = dE/dstrain, all float64, atoms as in `Edges`."""

    energies: Float
    forces: Float
    virial: Float


class Engine:
    """A program with its memory, which grows to the largest structure and is kept.

    threads  how many the kernels use; NumPy's own products use those of its library
    """

    def __init__(self, program: Program, threads: int | None = None) -> None:
        self.program = program
        self.threads = threads or len(os.sched_getaffinity(0))
        self._constants = {name: np.ascontiguousarray(array) for name, array in program.constants.items()}
        self._kinds = {b.name: b for b in program.buffers}
        self._parts = kernels.compiled(program)
        self._packed = {
            step.weights: _packed(self._constants[step.weights]) for step in program.steps if isinstance(step, Product)
        }
        # most models know no difference between pairs of species
        located = [self._constants[n] for s in program.steps if isinstance(s, Locate) for n in (s.stretch, s.first)]
        self.alike = all(bool((array == array[0]).all()) for array in located)
        self._packed_at = {name: [w.ctypes.data for w in arrays] for name, arrays in self._packed.items()}
        self._capacity = {"node": 0, "edge": 0}
        self._memory: dict[int, Matrix] = {}
        self._matrices: dict[str, Matrix] = {}
        self._addresses: dict[str, int] = {}
        self._indices: dict[str, RowNumbers] = {}
        self._given: list[tuple[tuple[int, ...], ...]] = []

    def run(self, positions: Float, edges: Edges) -> Evaluation:
        """positions (N, 3) float64 Å, sorted as `edges.species`.

        Raises InputError where an edge is shorter than the program's tables.
        """
        state = _State(self, positions, edges)
        for step, parts, given in zip(self.program.steps, self._parts, self._given, strict=True):
            _RUN[type(step)](state, step, parts, given)
        assert state.energies is not None
        return Evaluation(state.energies, state.forces, state.virial)

    def bytes(self) -> int:
        """The memory of all buffers."""
        return sum(m.nbytes for m in self._memory.values())

    def room(self, nodes: int, edges: int) -> None:
        """Make room for so many atoms and edges; buffers keep their addresses while there is room."""
        counts = {"node": nodes, "edge": edges}
        if all(counts[rows] <= self._capacity[rows] for rows in counts) and self._matrices:
            return
        for rows, count in counts.items():
            if count > self._capacity[rows]:  # a little more: edges come and go in dynamics
                self._capacity[rows] = count if rows == "node" else count + count // 8 + 64
        self._memory = {
            slot: aligned(self._capacity[rows] * size)
            for slot, (rows, size) in slot_sizes(self.program.buffers).items()
        }
        self._matrices = dict(self._constants)
        for b in self.program.buffers:
            count, kind = self._capacity[b.rows], np.dtype(b.dtype)
            flat = self._memory[b.slot][: count * b.width * kind.itemsize].view(kind)
            self._matrices[b.name] = flat.reshape(count, b.width)
        self._addresses = {name: m.__array_interface__["data"][0] for name, m in self._matrices.items()}
        for step in self.program.steps:  # tables from a later row on
            for name in step.inputs if isinstance(step, Call) else ():
                whole, _, row = name.partition("+")
                if row:
                    self._addresses[name] = self._addresses[whole] + int(row) * self._matrices[whole].strides[0]
        self._indices = {name: self._index_room(name) for name in INDICES}
        for name, index in self._indices.items():
            for field, values in zip(index._fields, index, strict=True):
                self._addresses[f"@{name}.{field}"] = values.ctypes.data
        self._given = [
            tuple(tuple(self._addresses[a] if a else 0 for a in part.arguments) for part in parts)
            for parts in self._parts
        ]

    def _index_room(self, name: str) -> RowNumbers:
        """Room for an index, where it stays as long as the buffers do."""
        rows = len(self.program.species) if name == "species" else self._capacity["node"]
        values = self._capacity["node" if name == "species" else "edge"]
        return RowNumbers(*(np.zeros(size, dtype=np.int64) for size in (values, values, rows + 1)))

    def keep(self, name: str, values: Int, order: Int | None = None, start: Int | None = None) -> None:
        """Put an index where kernels read it."""
        room = self._indices[name]
        for into, given in zip(room, (values, order, start), strict=True):
            if given is not None:
                into[: len(given)] = given

    def matrix(self, name: str) -> Matrix:
        """A buffer with all its rows, or a constant."""
        return self._matrices[name]

    def rows_of(self, name: str) -> str:
        """What the rows of a buffer are."""
        return self._kinds[name].rows

    def packed(self, name: str) -> list[int]:
        """Where the weights of a product begin as its kernel reads them: of all atoms, or of each species."""
        return self._packed_at[name]


def aligned(size: int) -> Matrix:
    """So many bytes or a few more, whole lines of the caches, from the beginning of one on."""
    size = -(-size // 64) * 64  # a slot may hold numbers of 8 bytes whose count the bytes of all rows do not divide
    spare = np.empty(size + 64, dtype=np.uint8)
    first = -spare.ctypes.data % 64
    return spare[first : first + size]


def _packed(weights: Matrix) -> tuple[Matrix, ...]:
    tile = Processor.native().tile
    return tuple(packed(w, tile) for w in (weights if weights.ndim == 3 else weights[None]))


class _State:
    """One evaluation: counts, indices, results."""

    def __init__(self, engine: Engine, positions: Float, edges: Edges) -> None:
        self.engine, self.positions, self.edges = engine, positions, edges
        self.counts = {"node": len(positions), "edge": len(edges.senders)}
        engine.room(*self.counts.values())
        species = len(engine.program.species)
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
            engine.keep(name, values, order, start)
        self.energies: Float | None = None
        self.forces = np.zeros((len(positions), 3))
        self.virial = np.zeros((3, 3))

    def whole(self, name: str) -> Matrix:
        """The rows of a buffer that are in use."""
        return self.engine.matrix(name)[: self.counts[self.engine.rows_of(name)]]

    def at(self, place: Place) -> Matrix:
        """Columns of a buffer."""
        return self.whole(place.buffer)[:, place.start : place.stop]


# ── steps ────────────────────────────────────────────────────────────────────────────────────────


def _geometry(state: _State, step: Geometry, parts: Parts, given: Given) -> None:
    edges, x = state.edges, state.positions
    vector, distance = state.whole(step.vector), state.whole(step.distance)
    np.subtract(x[edges.senders], x[edges.receivers], out=vector)
    vector += edges.offsets
    if step.sign < 0:
        np.negative(vector, out=vector)
    np.sqrt(np.einsum("ij,ij->i", vector, vector), out=distance[:, 0])
    closest = state.engine.program.closest
    if len(distance) and not distance.min() >= closest:
        e = int(distance.argmin())
        raise InputError(
            f"positions: got atoms at {distance[e, 0]:.4f} Å from each other; expected {closest} Å or more, where the "
            "tables of the deployed model begin; check the structure, or deploy with tables that begin earlier"
        )
    np.divide(vector, distance, out=state.whole(step.direction), casting="same_kind")


def _locate(state: _State, step: Locate, parts: Parts, given: Given) -> None:
    x = state.whole(step.distance)[:, 0]
    stretch, first = state.engine.matrix(step.stretch), state.engine.matrix(step.first)
    pair: Any = 0
    if not state.engine.alike:
        kinds, edges = state.edges.species, state.edges
        pair = kinds[edges.receivers] * len(state.engine.program.species) + kinds[edges.senders]
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
    state.engine.keep("knot", values)  # only read through


def _columns(step: Locate) -> list[tuple[float, float, int]]:
    """Begin, intervals per Å and first row of each segment."""
    found, row = [], 0
    for s in step.segments:
        found.append((s.begin, s.intervals / (s.end - s.begin), row))
        row += s.intervals + step.degree
    return found


def _call(state: _State, step: Call, parts: Parts, given: Given) -> None:
    threads = state.engine.threads
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


def _activate(state: _State, step: Activate, parts: Parts, given: Given) -> None:
    _run_rows(parts[0], given[0], state.counts[parts[0].rows], state.engine.threads)


def _run_rows(part: kernels.Part, at: tuple[int, ...], count: int, threads: int) -> None:
    pieces = workers.pieces_of(part.weight * count, threads)
    if pieces > 1:
        workers.run(part.compute, [(*cut, *at) for cut in workers.cut_rows(0, count, pieces)], threads)
    else:
        part.compute(0, count, *at)


def _product(state: _State, step: Product, parts: Parts, given: Given) -> None:
    (part,), ((x, _, y),) = parts, given
    weights, count, threads = state.engine.packed(step.weights), state.counts[part.rows], state.engine.threads
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


def _multiply(state: _State, step: Multiply, parts: Parts, given: Given) -> None:
    y = state.at(step.y)
    if step.add:
        y += state.at(step.x) * state.at(step.by)
    else:
        np.multiply(state.at(step.x), state.at(step.by), out=y)


def _row_dot(state: _State, step: RowDot, parts: Parts, given: Given) -> None:
    dot = np.einsum("ij,ij->i", state.at(step.x), state.at(step.by))
    y = state.at(step.y)[:, 0]
    if step.add:
        y += dot
    else:
        y[:] = dot


def _add(state: _State, step: Add, parts: Parts, given: Given) -> None:
    y = state.at(step.y)
    y += state.at(step.x)


def _fill(state: _State, step: Fill, parts: Parts, given: Given) -> None:
    state.at(step.y)[:] = step.value


def _embed(state: _State, step: Embed, parts: Parts, given: Given) -> None:
    table, y = state.engine.matrix(step.table), state.at(step.y)
    for z, a, b in state.segments:
        if step.add:
            y[a:b] += table[z]
        else:
            y[a:b] = table[z]


def _readout(state: _State, step: Readout, parts: Parts, given: Given) -> None:
    matrix, species = state.engine.matrix, state.edges.species
    energies = state.whole(step.energies)[:, 0]
    energies[:] = matrix(step.scales)[species] * state.at(step.x)[:, 0] + matrix(step.shifts)[species]
    state.energies = energies.copy()


def _seed(state: _State, step: Seed, parts: Parts, given: Given) -> None:
    state.at(step.y)[:, 0] = state.engine.matrix(step.scales)[state.edges.species]


def _forces(state: _State, step: Forces, parts: Parts, given: Given) -> None:
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


_RUN: dict[type[Step], Callable[[_State, Any, Parts, Given], None]] = {
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
