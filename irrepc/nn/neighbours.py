"""Neighbour lists: which atoms lie within the cutoff of which, with periodic images; the only place that asks vesin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from irrepc.errors import InputError, require
from irrepc.nn.graph import Graph, Index, index_by, index_of, pairs_of

Float = NDArray[np.float64]
Int = NDArray[np.int64]

_CLOSEST = 1e-3  # Å; nearer atoms are a mistake, and |r| has no gradient at zero
_THINNEST = 0.1  # Å; a lower cell is a mistake (wrong unit), and would have millions of images


class NeighbourList(NamedTuple):
    """Directed pairs, each bond twice, sorted by (receiver, sender, shift).

    receivers (E,) int64 centres; senders (E,) int64 neighbours; shifts (E, 3) int64, cell vectors added to the latter.
    """

    receivers: Int
    senders: Int
    shifts: Int


class AtomsLike(Protocol):
    """What is read of an ase.Atoms."""

    @property
    def numbers(self) -> Any: ...
    @property
    def positions(self) -> Any: ...
    @property
    def cell(self) -> Any: ...
    @property
    def pbc(self) -> Any: ...


def neighbours(
    positions: ArrayLike, cell: ArrayLike | None = None, pbc: bool | Sequence[bool] = False, *, cutoff: float
) -> NeighbourList:
    """All pairs nearer than `cutoff` (Å), images of an atom itself included, in any cell however thin or skewed.

    positions (N, 3) Å; cell (3, 3) Å, rows are cell vectors; pbc one flag or three. Atoms may lie outside the cell.
    Raises InputError for numbers that are not finite, a cutoff that is not positive, periodic cell vectors that are
    missing, dependent or too short, and coinciding atoms; MissingExtraError without vesin.
    """
    points, box, periodic = _checked(positions, cell, pbc, cutoff)
    if len(points) == 0:
        return NeighbourList(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
    finder = require("vesin", "ase").NeighborList(cutoff=float(cutoff), full_list=True)
    pairs, shifts, distances = finder.compute(points=points, box=box, periodic=periodic, quantities="PSd")
    pairs, shifts = pairs.astype(np.int64).reshape(-1, 2), shifts.astype(np.int64).reshape(-1, 3)
    if len(distances) and distances.min() < _CLOSEST:
        i, j = pairs[int(distances.argmin())]
        raise InputError(
            f"neighbours: got atoms {i} and {j} at {distances.min():.1e} Å from each other; "
            f"expected {_CLOSEST} Å or more; remove the double"
        )
    order = np.lexsort((*shifts.T[::-1], pairs[:, 1], pairs[:, 0]))
    return NeighbourList(pairs[order, 0], pairs[order, 1], shifts[order])


def species_of(numbers: ArrayLike, known: Sequence[int]) -> Int:
    """Atomic numbers (N,) as positions in `known`, the atomic numbers of a model; (N,) int64.

    Raises InputError naming the elements the model does not know.
    """
    z = np.asarray(numbers, dtype=np.int64).reshape(-1)
    matches: NDArray[np.bool_] = z[:, None] == np.asarray(known, dtype=np.int64)[None, :]
    missing = np.unique(z[~matches.any(1)]).tolist()
    if missing:
        raise InputError(
            f"species: got atomic numbers {missing}; expected only {sorted(known)}, the elements of the model; "
            "take a model that knows these elements"
        )
    return np.asarray(matches.argmax(1), dtype=np.int64)


def graph_of(
    species: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None = None,
    pbc: bool | Sequence[bool] = False,
    *,
    cutoff: float,
    dtype: torch.dtype = torch.float64,
) -> Graph:
    """The graph of one structure: species (N,) integers counting from 0, positions (N, 3) Å, cell (3, 3) Å, cutoff Å.

    The list is made in float64; `dtype` is that of positions, shifts and cell. A cell without any periodic direction
    is dropped. Raises InputError as `neighbours` does, and for species that do not fit positions.
    """
    return _graph(species, positions, cell, pbc, neighbours(positions, cell, pbc, cutoff=cutoff), dtype)


def graph_of_atoms(
    atoms: AtomsLike, *, cutoff: float, species: Sequence[int], dtype: torch.dtype = torch.float64
) -> Graph:
    """The graph of an ase.Atoms; `species` are the atomic numbers a model knows, in its order.

    Raises InputError as `graph_of` and `species_of` do.
    """
    kinds = species_of(atoms.numbers, species)
    return graph_of(kinds, atoms.positions, np.asarray(atoms.cell), atoms.pbc, cutoff=cutoff, dtype=dtype)


class SkinList:
    """A neighbour list with a skin: made out to cutoff + skin and kept while no atom has moved half a skin.

    Each graph holds only the edges within the cutoff itself, so it does not depend on when the list was made. The list
    is made anew when an atom has moved farther, or when the cell, the periodicity or the number of atoms has changed.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if not (np.isfinite(skin) and skin >= 0):
            raise InputError(f"skin: got {skin} Å; expected a finite number >= 0")
        self.cutoff, self.skin, self.made = float(cutoff), float(skin), 0
        self._positions: Float = np.zeros((0, 3))
        self._box: tuple[Float, tuple[bool, ...]] | None = None
        self._wide: Graph | None = None

    def graph(
        self,
        species: ArrayLike,
        positions: ArrayLike,
        cell: ArrayLike | None = None,
        pbc: bool | Sequence[bool] = False,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> Graph:
        """As `graph_of`, in less time where the list still holds."""
        points, _, periodic = _checked(positions, cell, pbc, self.cutoff)
        kinds = _kinds(species, len(points))
        box = np.zeros((3, 3)) if cell is None else np.array(cell, dtype=np.float64)
        key = (box, tuple(periodic.tolist()))
        if self._wide is None or self._outdated(points, key):
            self._wide = graph_of(kinds, points, cell, pbc, cutoff=self.cutoff + self.skin)
            self._positions, self._box = points.copy(), key
            self.made += 1
        wide = self._wide._replace(positions=torch.from_numpy(points.copy()), species=torch.from_numpy(kinds))
        return _within(wide, self.cutoff).to(dtype=dtype)

    def _outdated(self, points: Float, key: tuple[Float, tuple[bool, ...]]) -> bool:
        if self._box is None or self._box[1] != key[1] or not np.array_equal(self._box[0], key[0], equal_nan=True):
            return True
        if points.shape != self._positions.shape:
            return True
        moved = np.square(points - self._positions).sum(1).max(initial=0.0)
        return bool(moved >= (self.skin / 2) ** 2)


def _within(graph: Graph, cutoff: float) -> Graph:
    """The graph without its edges of length >= cutoff; the orders are thinned, not sorted again."""
    centre, neighbour = graph.receivers.values, graph.senders.values
    vectors = graph.positions[neighbour] - graph.positions[centre] + graph.shifts @ graph.cell[0]
    kept = vectors.square().sum(1) < cutoff**2
    number = kept.cumsum(0) - 1
    by_sender = graph.senders.order[kept[graph.senders.order]]
    senders = neighbour[kept]
    start = torch.searchsorted(neighbour[by_sender], torch.arange(graph.num_atoms + 1))
    return graph._replace(
        senders=Index(senders, number[by_sender], start),
        receivers=index_of(centre[kept], graph.num_atoms),
        shifts=graph.shifts[kept],
        pairs=index_by(graph.pairs.values[kept]),
    )


def _graph(
    species: ArrayLike,
    positions: ArrayLike,
    cell: ArrayLike | None,
    pbc: bool | Sequence[bool],
    pairs: NeighbourList,
    dtype: torch.dtype,
) -> Graph:
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    kinds = _kinds(species, len(points))
    senders, receivers, shifts = (torch.from_numpy(a) for a in (pairs.senders, pairs.receivers, pairs.shifts))
    box = np.asarray(cell, dtype=np.float64) if cell is not None and np.any(pbc) else np.zeros((3, 3))
    return Graph(
        torch.from_numpy(points.copy()).to(dtype),
        torch.from_numpy(kinds),
        index_of(senders, len(points)),
        index_of(receivers, len(points)),
        shifts.to(dtype),
        torch.from_numpy(box.copy()).to(dtype).unsqueeze(0),
        torch.zeros(len(points), dtype=torch.int64),
        pairs_of(senders, receivers, shifts, len(points)),
    )


def _kinds(species: ArrayLike, atoms: int) -> Int:
    kinds = np.asarray(species)
    if kinds.shape != (atoms,) or (kinds.size and (kinds.dtype.kind not in "iu" or kinds.min() < 0)):
        raise InputError(
            f"graph_of: got species of shape {kinds.shape} and type {kinds.dtype}; expected ({atoms},) integers >= 0"
        )
    return kinds.astype(np.int64)


def _checked(
    positions: ArrayLike, cell: ArrayLike | None, pbc: bool | Sequence[bool], cutoff: float
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Positions, a cell of three independent vectors and three flags, all checked."""
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"neighbours: got cutoff {cutoff} Å; expected a finite number > 0")
    points = np.ascontiguousarray(positions, dtype=np.float64)
    if points.size == 0:
        points = points.reshape(0, 3)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"neighbours: got positions of shape {points.shape}; expected (N, 3) Å")
    broken = np.flatnonzero(~np.isfinite(points).all(1))
    if len(broken):
        raise InputError(f"neighbours: got atom {broken[0]} at {points[broken[0]]}; expected finite numbers (Å)")
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), 3).copy()
    if not periodic.any():
        return points, np.eye(3), periodic
    box = np.array(np.zeros((3, 3)) if cell is None else cell, dtype=np.float64)
    if box.shape != (3, 3) or not np.isfinite(box[periodic]).all():
        raise InputError(f"neighbours: got cell {box.tolist()}; expected (3, 3) finite numbers (Å), a vector a row")
    # the height of the cell along vector k is one over the length of the k-th dual vector
    lengths = np.linalg.norm(box[periodic], axis=1)
    dual = np.linalg.pinv(box[periodic]) if lengths.min() > 0 else np.full((3, 1), np.inf)
    rank = np.linalg.matrix_rank(box[periodic], tol=1e-6 * lengths.max())
    if rank < periodic.sum() or 1 / np.linalg.norm(dual, axis=0).max() < _THINNEST:
        raise InputError(
            f"neighbours: got cell {box.tolist()} with pbc {periodic.tolist()}; expected independent vectors and "
            f"heights of {_THINNEST} Å or more along the periodic directions; give the cell in Å or change pbc"
        )
    # vectors of directions that are not periodic mean nothing: take any that complete the others
    box[~periodic] = np.linalg.svd(box[periodic])[2][periodic.sum() :]
    return points, box, periodic
