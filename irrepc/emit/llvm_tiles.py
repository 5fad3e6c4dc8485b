"""Tiles: rows of numbers in memory <-> one vector for each column, by shuffles written out.

A tile is as many rows as a vector has lanes.  Its columns are cut into groups as wide as a vector; the last group, when
it is narrower, is taken together with the beginning of the next row, so that a row of a group is always one load or one
store.  Stores go in the order of addresses: what one spills over, the next row overwrites.  Only in the last row the
last group is taken in pieces, for what follows a tile is not its own.

Transposing is done inside the 128-bit blocks of the vectors, where shuffles are cheap on every machine, and by moving
whole blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from irrepc.emit.llvm_writer import Writer

LINE = 64
"""Bytes of a cache line, and of a vector: a tile of n columns is n lines long."""
BLOCKS = 4
"""128-bit blocks in a vector."""
NARROW = 3
"""Rows up to this width are taken as one run of numbers."""


@dataclass(frozen=True, slots=True)
class Group:
    """The columns first ... stop - 1, taken as the `size` columns before `stop`; size 0: the whole tile as one run."""

    first: int
    stop: int
    size: int


def groups(width: int, lanes: int) -> tuple[Group, ...]:
    """Cut the columns of a tile, in order."""
    if width <= NARROW:
        return (Group(0, width, 0),)
    rest = width % lanes
    size = next(n for n in (lanes // 4, lanes // 2, lanes) if n >= rest)
    ragged = (Group(width - rest, width, size),) if rest else ()
    return (*(Group(first, first + lanes, lanes) for first in range(0, width - rest, lanes)), *ragged)


def touch_tile(w: Writer, place: str, width: int) -> None:
    """Read one number of each cache line of the tile that begins at `place`, in the order of addresses.

    The loads of a group stride from row to row and LLVM moves them to their uses: no prefetcher follows those.
    """
    if width <= NARROW:
        return
    for line in range(width):
        w.op(f"load volatile {w.real}, ptr {_at(w, place, line * LINE // w.bytes)}", "touch")


def load_tile(w: Writer, place: str, width: int, lanes: int) -> dict[Group, list[str]]:
    """The rows of each group of the tile that begins at `place`, read in the order of addresses."""
    rows: dict[Group, list[str]] = {group: [] for group in groups(width, lanes)}
    if width <= NARROW:
        return {group: [w.op(f"load {w.kind(width * lanes)}, ptr {place}, {w.align}")] for group in rows}
    for row in range(lanes):
        for group, vectors in rows.items():
            vectors.append(_load_row(w, place, width, group, row, lanes))
    return rows


def store_tile(w: Writer, place: str, width: int, rows: dict[Group, list[str]], lanes: int) -> None:
    """Write the rows of each group to the tile that begins at `place`, in the order of addresses."""
    if width <= NARROW:
        ((run,),) = rows.values()
        w.do(f"store {w.kind(width * lanes)} {run}, ptr {place}, {w.align}")
        return
    for row in range(lanes):
        for group in groups(width, lanes):
            _store_row(w, place, width, group, row, rows[group][row], lanes)


def to_columns(w: Writer, group: Group, rows: Sequence[str], lanes: int) -> list[str]:
    """One vector for each column of a group, from its rows."""
    if not group.size:
        width = group.stop
        return [_shuffle(w, rows[0], "poison", width * lanes, range(c, width * lanes, width)) for c in range(width)]
    block = lanes // BLOCKS
    gathered = [_blocks_of_rows(w, rows[i::block], group.size // block, block) for i in range(block)]
    inside = (_turn_inside(w, vectors, lanes) for vectors in zip(*gathered, strict=True))
    return list(chain.from_iterable(inside))[: group.stop - group.first]


def to_rows(w: Writer, group: Group, columns: Sequence[str], lanes: int) -> list[str]:
    """One vector for each row of a group, from its columns."""
    if not group.size:
        run, count = columns[0], lanes
        for column in columns[1:]:
            wider = _shuffle(w, column, "poison", lanes, [*range(lanes), *[-1] * (count - lanes)])
            run, count = _shuffle(w, run, wider, count, range(count + lanes)), count + lanes
        return [_shuffle(w, run, "poison", count, [c + i for i in range(lanes) for c in range(0, count, lanes)])]
    block = lanes // BLOCKS
    padded = [*columns, *["poison"] * (group.size - len(columns))]
    inside = [_turn_inside(w, padded[i : i + block], lanes) for i in range(0, group.size, block)]
    rows = [""] * lanes
    for i, vectors in enumerate(zip(*inside, strict=True)):
        rows[i::block] = _rows_of_blocks(w, vectors, block)
    return rows


def _turn_inside(w: Writer, vectors: Sequence[str], lanes: int) -> list[str]:
    """Inside each block, lane i of vector j <-> lane j of vector i."""
    if len(vectors) == 2:
        return _interleave(w, vectors[0], vectors[1], 1, lanes)
    (low0, high0), (low1, high1) = (_interleave(w, vectors[i], vectors[i + 1], 1, lanes) for i in (0, 2))
    return [*_interleave(w, low0, low1, 2, lanes), *_interleave(w, high0, high1, 2, lanes)]


def _interleave(w: Writer, a: str, b: str, run: int, lanes: int) -> list[str]:
    """In each block runs of a and b in turn: from the lower halves of their blocks, and from the upper."""
    block = lanes // BLOCKS
    out = []
    for half in (0, block // 2):
        starts = [first + half + k for first in range(0, lanes, block) for k in range(0, block // 2, run)]
        mask = [start + source + i for start in starts for source in (0, lanes) for i in range(run)]
        out.append(_shuffle(w, a, b, lanes, mask))
    return out


def _rows_of_blocks(w: Writer, vectors: Sequence[str], block: int) -> list[str]:
    """Row i is block i of every vector."""
    if len(vectors) == BLOCKS:
        return _turn_blocks(w, vectors, block)
    a, b = (*vectors, "poison")[:2]
    return [_pick(w, a, b, BLOCKS, [i, BLOCKS + i][: len(vectors)], block) for i in range(BLOCKS)]


def _blocks_of_rows(w: Writer, rows: Sequence[str], count: int, block: int) -> list[str]:
    """Vector j is block j of four rows of `count` blocks."""
    if count == BLOCKS:
        return _turn_blocks(w, rows, block)
    halves = [_pick(w, rows[i], rows[i + 1], count, range(2 * count), block) for i in (0, 2)]
    return [_pick(w, halves[0], halves[1], 2 * count, range(j, 4 * count, count), block) for j in range(count)]


def _turn_blocks(w: Writer, vectors: Sequence[str], block: int) -> list[str]:
    """Block i of vector j <-> block j of vector i, for four vectors of four blocks."""
    a, b, c, d = vectors
    out = []
    for halves in ((0, 1, 4, 5), (2, 3, 6, 7)):
        upper, lower = _pick(w, a, b, BLOCKS, halves, block), _pick(w, c, d, BLOCKS, halves, block)
        out += [_pick(w, upper, lower, BLOCKS, range(i, 8, 2), block) for i in (0, 1)]
    return out


def _pick(w: Writer, a: str, b: str, count: int, blocks: Iterable[int], block: int) -> str:
    """Some blocks of two vectors of `count` blocks."""
    return _shuffle(w, a, b, count * block, [k * block + i for k in blocks for i in range(block)])


def _shuffle(w: Writer, a: str, b: str, lanes: int, mask: Iterable[int]) -> str:
    """Some lanes of two vectors; -1 is any lane."""
    kind = w.kind(lanes)
    lanes_ = [f"i32 {i}" if i >= 0 else "i32 poison" for i in mask]
    return w.op(f"shufflevector {kind} {a}, {kind} {b}, <{len(lanes_)} x i32> <{', '.join(lanes_)}>", "v")


def _load_row(w: Writer, place: str, width: int, group: Group, row: int, lanes: int) -> str:
    kind = w.kind(group.size)
    if row + 1 < lanes or group.stop - group.first == group.size:
        return w.op(f"load {kind}, ptr {_at(w, place, row * width + group.first)}, {w.align}")
    vector = "poison"
    for first, count in _pieces(group):
        piece = w.op(f"load {w.kind(count)}, ptr {_at(w, place, row * width + first)}, {w.align}")
        lane = first - group.first
        if count == 1:
            vector = w.op(f"insertelement {kind} {vector}, {w.real} {piece}, i64 {lane}", "v")
            continue
        here = range(lane, lane + count)
        wider = _shuffle(w, piece, "poison", count, [i - lane if i in here else -1 for i in range(group.size)])
        vector = _shuffle(w, vector, wider, group.size, [i + group.size * (i in here) for i in range(group.size)])
    return vector


def _store_row(w: Writer, place: str, width: int, group: Group, row: int, vector: str, lanes: int) -> None:
    kind = w.kind(group.size)
    if row + 1 < lanes or group.stop - group.first == group.size:
        w.do(f"store {kind} {vector}, ptr {_at(w, place, row * width + group.first)}, {w.align}")
        return
    for first, count in _pieces(group):
        lane = first - group.first
        if count == 1:
            piece = w.op(f"extractelement {kind} {vector}, i64 {lane}")
        else:
            piece = _shuffle(w, vector, "poison", group.size, range(lane, lane + count))
        w.do(f"store {w.kind(count)} {piece}, ptr {_at(w, place, row * width + first)}, {w.align}")


def _pieces(group: Group) -> list[tuple[int, int]]:
    """(first, count) of runs of 1, 2, 4, ... columns that make up a group."""
    out = []
    first = group.first
    for bit in reversed(range((group.stop - group.first).bit_length())):
        if (group.stop - group.first) >> bit & 1:
            out.append((first, 1 << bit))
            first += 1 << bit
    return out


def _at(w: Writer, place: str, offset: int) -> str:
    return w.op(f"getelementptr inbounds {w.real}, ptr {place}, i64 {offset}", "p")
