"""Room: the memory of a program, buffers, constants and indices, and the addresses its kernels take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy.kernels import Part
from irrepc.deploy.memory import slot_sizes
from irrepc.deploy.program import INDICES, Call, Locate, Product, Program
from irrepc.runtime.object_code import Processor, packed

Int = NDArray[np.int64]
Matrix = NDArray[Any]
Given = tuple[tuple[int, ...], ...]
"""The addresses that each part of a step takes."""


class RowNumbers(NamedTuple):
    """An index as kernels read it: values, the order that sorts them, and where each row begins in it."""

    values: Int
    order: Int
    start: Int


class Room:
    """Grows to the largest structure and is kept; addresses change only when it grows.

    given  of each step the addresses that its parts take
    alike  whether all pairs of species read the same tables at the same places, as in most networks
    """

    def __init__(self, program: Program, parts: Sequence[Sequence[Part]]) -> None:
        self._program, self._parts = program, parts
        self._constants = {name: np.ascontiguousarray(array) for name, array in program.constants.items()}
        self._kinds = {b.name: b for b in program.buffers}
        self._packed = {
            step.weights: _packed(self._constants[step.weights]) for step in program.steps if isinstance(step, Product)
        }
        located = [self._constants[n] for s in program.steps if isinstance(s, Locate) for n in (s.stretch, s.first)]
        self.alike = all(bool((array == array[0]).all()) for array in located)
        self._packed_at = {name: [w.ctypes.data for w in arrays] for name, arrays in self._packed.items()}
        self._capacity = {"node": 0, "edge": 0}
        self._memory: dict[int, Matrix] = {}
        self._matrices: dict[str, Matrix] = {}
        self._indices: dict[str, RowNumbers] = {}
        self.given: list[Given] = []

    def bytes(self) -> int:
        """The memory of all buffers."""
        return sum(m.nbytes for m in self._memory.values())

    def grow(self, nodes: int, edges: int) -> None:
        """Make room for so many atoms and edges; buffers keep their addresses while there is room."""
        counts = {"node": nodes, "edge": edges}
        if all(counts[rows] <= self._capacity[rows] for rows in counts) and self._matrices:
            return
        for rows, count in counts.items():
            if count > self._capacity[rows]:  # a little more: edges come and go in dynamics
                self._capacity[rows] = count if rows == "node" else count + count // 8 + 64
        self._memory = {
            slot: aligned(self._capacity[rows] * size)
            for slot, (rows, size) in slot_sizes(self._program.buffers).items()
        }
        self._matrices = dict(self._constants)
        for b in self._program.buffers:
            count, kind = self._capacity[b.rows], np.dtype(b.dtype)
            flat = self._memory[b.slot][: count * b.width * kind.itemsize].view(kind)
            self._matrices[b.name] = flat.reshape(count, b.width)
        addresses: dict[str, int] = {name: m.__array_interface__["data"][0] for name, m in self._matrices.items()}
        for step in self._program.steps:  # tables from a later row on
            for name in step.inputs if isinstance(step, Call) else ():
                whole, _, row = name.partition("+")
                if row:
                    addresses[name] = addresses[whole] + int(row) * self._matrices[whole].strides[0]
        self._indices = {name: self._index_room(name) for name in INDICES}
        for name, index in self._indices.items():
            for field, values in zip(index._fields, index, strict=True):
                addresses[f"@{name}.{field}"] = values.ctypes.data
        self.given = [
            tuple(tuple(addresses[a] if a else 0 for a in part.arguments) for part in parts) for parts in self._parts
        ]

    def _index_room(self, name: str) -> RowNumbers:
        """Room for an index, where it stays as long as the buffers do."""
        rows = len(self._program.species) if name == "species" else self._capacity["node"]
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
