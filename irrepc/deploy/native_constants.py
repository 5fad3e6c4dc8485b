"""Constants of a shared library: weights and tables as one block of bytes, each at an offset that the C text names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irrepc.deploy.program import Array
from irrepc.emit.llvm_matrix import Tile
from irrepc.runtime.object_code import packed

LINE = 64
"""Each constant begins at a line of the caches."""
TYPES = {"float32": "float", "float64": "double", "int64": "int64_t"}


@dataclass(slots=True)
class Constants:
    """Those that have been asked for, in the order of their first use."""

    arrays: Mapping[str, Array]
    tile: Tile
    pieces: list[bytes] = field(default_factory=list)
    offsets: dict[tuple[str, bool], int] = field(default_factory=dict)
    size: int = 0

    def address(self, name: str) -> str:
        """C code for a constant as it is; "name+2": from its row 2 on."""
        whole, _, row = name.partition("+")
        array = self.arrays[whole]
        offset = self._offset(whole, np.ascontiguousarray(array), as_panels=False)
        if row:
            offset += int(row) * array.strides[0]
        return f"CONSTANT({TYPES[array.dtype.name]}, {offset}) /* {name} */"

    def typed(self, name: str) -> str:
        """C code for a constant, to be indexed."""
        return self.address(name).split(" /*")[0]

    def packed(self, name: str) -> str:
        """C code for the packed matrix; for matrices of species, of the species z."""
        array = self.arrays[name]
        kind = TYPES[array.dtype.name]
        if array.ndim == 2:
            return f"CONSTANT({kind}, {self._offset(name, packed(array, self.tile), as_panels=True)})"
        matrices = np.stack([packed(np.ascontiguousarray(matrix), self.tile) for matrix in array])
        size = matrices.shape[1]
        return f"CONSTANT({kind}, {self._offset(name, matrices, as_panels=True)}) + z * {size}"

    def _offset(self, name: str, array: NDArray[Any], *, as_panels: bool) -> int:
        key = (name, as_panels)
        if key not in self.offsets:
            self.offsets[key] = self.size
            data = array.tobytes()
            self.pieces.append(data + bytes(-len(data) % LINE))
            self.size += len(self.pieces[-1])
        return self.offsets[key]

    def block(self) -> bytes:
        """All of them."""
        return b"".join(self.pieces)
