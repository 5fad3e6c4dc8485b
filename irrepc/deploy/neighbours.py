"""Neighbours: pairs of atoms within a cutoff, periodic images included, in NumPy alone.

All images that may be near are made and sorted by columns and height; each atom looks at a piece of 25 columns, which
are runs of one sorted array.  (vesin, which the layers ask, imports torch where it is installed: that alone takes
longer than the first energy may.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irrepc.errors import InputError

Float = NDArray[np.float64]
Int = NDArray[np.int64]

_THINNEST = 0.1  # Å; a lower cell is a mistake (wrong unit), and would have millions of images


class Pairs(NamedTuple):
    """Directed pairs, each bond twice, sorted by receiver, then sender, then shift.

    receivers (E,) int64 centres; senders (E,) int64 neighbours; shifts (E, 3) int64, cell vectors added to the latter.
    """

    receivers: Int
    senders: Int
    shifts: Int


def check_structure(
    positions: ArrayLike, cell: ArrayLike | None, pbc: bool | Sequence[bool]
) -> tuple[Float, Float, NDArray[np.bool_]]:
    """Positions (N, 3) Å, a cell of three independent vectors and three flags.

    Raises InputError for numbers that are not finite, and for periodic cell vectors that are missing or dependent.
    """
    points = np.ascontiguousarray(positions, dtype=np.float64)
    if points.size == 0:
        points = points.reshape(0, 3)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"positions: got shape {points.shape}; expected (N, 3) Å")
    if not np.isfinite(points.sum()):
        broken = np.flatnonzero(~np.isfinite(points).all(1))
        if len(broken):
            raise InputError(f"positions: got atom {broken[0]} at {points[broken[0]]}; expected finite numbers (Å)")
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), 3).copy()
    if not periodic.any():
        return points, np.eye(3), periodic
    box = np.array(np.zeros((3, 3)) if cell is None else cell, dtype=np.float64)
    if box.shape != (3, 3) or not np.isfinite(box[periodic]).all():
        raise InputError(f"cell: got {box.tolist()}; expected (3, 3) finite numbers (Å), a vector a row")
    lengths = np.linalg.norm(box[periodic], axis=1)
    independent = lengths.min() > 0 and (np.linalg.svd(box[periodic] / lengths[:, None], compute_uv=False).min() > 1e-6)
    if not independent or 1 / np.linalg.norm(np.linalg.pinv(box[periodic]), axis=0).max() < _THINNEST:
        raise InputError(
            f"cell: got {box.tolist()} with pbc {periodic.tolist()}; expected independent vectors and heights of "
            f"{_THINNEST} Å or more along the periodic directions; give the cell in Å or change pbc"
        )
    # vectors of directions that are not periodic mean nothing: take any that complete the others
    box[~periodic] = np.linalg.svd(box[periodic])[2][periodic.sum() :]
    return points, box, periodic


def pairs_within(points: Float, box: Float, periodic: NDArray[np.bool_], cutoff: float) -> Pairs:
    """All pairs nearer than `cutoff` (Å) of what `check_structure` gave; an atom's zero vector to itself is none."""
    if len(points) == 0:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 3), np.int64))
    inverse = np.asarray(np.linalg.inv(box), dtype=np.float64)
    wrapped = np.where(periodic, np.floor(points @ inverse), 0.0)
    at = points - wrapped @ box
    origin, images, steps = _images(at, box, inverse, periodic, cutoff)

    # columns of bins along x and y; along each, atoms are sorted by z: one number orders them all
    low = images.min(0)
    width = cutoff / 2
    column = np.floor((images[:, :2] - low[:2]) / width)
    across = column[:, 1].max() + 5  # neighbouring columns of a border column are empty, not those of another row
    length = images[:, 2].max() - low[2] + 4 * cutoff
    place = ((column[:, 0] + 2) * across + column[:, 1] + 2) * length + (images[:, 2] - low[2])
    order = np.argsort(place, kind="stable")
    line, images, origin, steps = place[order], images[order], origin[order], steps[order]

    around = np.array([dx * across + dy for dx in range(-2, 3) for dy in range(-2, 3)])
    own = np.floor((at[:, :2] - low[:2]) / width)
    base = ((own[:, 0] + 2) * across + own[:, 1] + 2)[:, None] + around
    middle = base * length + (at[:, 2] - low[2])[:, None]
    first = np.searchsorted(line, (middle - cutoff).ravel())
    counts = np.searchsorted(line, (middle + cutoff).ravel(), side="right") - first
    total = int(counts.sum())
    j = np.arange(total) + np.repeat(first - np.cumsum(counts) + counts, counts)
    i = np.repeat(np.arange(len(at)), counts.reshape(len(at), -1).sum(1))
    square = np.zeros(total)
    for k in range(3):
        square += np.square(images[j, k] - at[i, k])
    near = np.flatnonzero(square < cutoff**2)
    i, j = i[near], j[near]
    shift, sender = steps[j], origin[j]
    other = (sender != i) | shift.any(1)
    i, sender, shift = i[other], sender[other], shift[other]
    shift = shift + (wrapped[i] - wrapped[sender]).astype(np.int64)
    lowest = shift.min(0, initial=0)
    extent = shift.max(0, initial=0) - lowest + 1
    a, b, c = (shift - lowest).T
    order = np.argsort((((i * len(at) + sender) * extent[0] + a) * extent[1] + b) * extent[2] + c)
    return Pairs(i[order], sender[order], shift[order])


def _images(
    at: Float, box: Float, inverse: Float, periodic: NDArray[np.bool_], cutoff: float
) -> tuple[Int, Float, Int]:
    """All atoms within the cutoff of the box around the atoms: whose images, where, and by which cell vectors."""
    reach = np.where(periodic, np.ceil(cutoff * np.linalg.norm(inverse, axis=0)), 0).astype(np.int64)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    images = at[None] + (steps @ box)[:, None]
    near = ((images > at.min(0) - cutoff) & (images < at.max(0) + cutoff)).all(2)
    step, origin = np.nonzero(near)
    return origin, images[step, origin], steps[step]
