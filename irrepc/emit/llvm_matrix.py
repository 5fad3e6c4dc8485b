"""LLVM text of matrix products y[m] (+)= x[m] W for each component m of a block of irreps, tiled over registers.

A tile is some rows times some vectors of columns, and all its sums stay in registers while one loop runs over the
channels of x: for each of them a number of every row is multiplied with a few vectors of W.  W is packed (`Panels`), so
the loop reads it in the order of addresses.  Every sum is added up in the order of the channels of x, whichever tile it
falls into: results depend neither on how rows are cut nor on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from irrepc.emit.llvm_writer import LANES, REALS, Writer
from irrepc.ir.kernel import Kernel

ROWS_IN_CACHE = 96
"""Rows that are multiplied with one panel of W before the next panel's turn: x stays in the second-level cache."""
UNROLLED = 4
"""Channels of x in one turn of the innermost loop."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows, and vectors of 512 bits, whose sums are in registers at once."""

    rows: int
    vectors: int


TILES = {32: Tile(6, 4), 16: Tile(6, 1)}
"""By the number of vector registers: of 512 bits (AVX-512), or of 256 or 128 bits, where a vector takes two or four."""


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """What is multiplied: in each row n of x, `components` runs of `inner` columns give runs of `outer` columns of y.

    x_width, y_width  columns of a row
    x_start, y_start  where the runs begin
    add               whether to add to what y holds
    """

    components: int
    inner: int
    outer: int
    x_width: int
    x_start: int
    y_width: int
    y_start: int
    add: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Columns first ... first + columns - 1 of W; packed, `vectors` vectors for each channel of x, rests are zeros.

    start  where it begins among the packed numbers
    """

    first: int
    columns: int
    vectors: int
    start: int


def panels(inner: int, outer: int, dtype: str, tile: Tile) -> tuple[Panel, ...]:
    """How W (inner, outer) is cut: as many vectors at once as a tile has, the last panel may have fewer."""
    lanes = LANES[dtype][0]
    wide = lanes * tile.vectors
    cut = []
    start = 0
    for first in range(0, outer, wide):
        columns = min(wide, outer - first)
        cut.append(Panel(first, columns, -(-columns // lanes), start))
        start += inner * cut[-1].vectors * lanes
    return tuple(cut)


def packed_size(inner: int, outer: int, dtype: str, tile: Tile) -> int:
    """How many numbers W has when packed."""
    last = panels(inner, outer, dtype, tile)[-1]
    return last.start + inner * last.vectors * LANES[dtype][0]


def llvm_matrix(name: str, product: MatrixProduct, dtype: str, tile: Tile) -> str:
    """The text of `void name(n0, n1, x, packed W, y)` for rows n0 ... n1 - 1 of x and y.

    dtype  "float32" or "float64"
    """
    w = Writer(Kernel(name, (), (), ()), REALS[dtype], LANES[dtype])
    first = w.times("%n0", str(product.components))
    stop = w.times("%n1", str(product.components))
    with w.loop(first, stop, ROWS_IN_CACHE, "block") as begin:
        beyond = w.op(f"add nsw i64 {begin}, {ROWS_IN_CACHE}", "beyond")
        end = w.op(f"call i64 @llvm.smin.i64(i64 {beyond}, i64 {stop})", "end")
        last = w.op(f"sub nsw i64 {end}, 1", "last")
        cut = panels(product.inner, product.outer, dtype, tile)
        whole = [p for p in cut if p.columns == LANES[dtype][0] * tile.vectors]
        if whole:  # one text for all of them
            with w.loop("0", str(len(whole)), 1, "panel") as number:
                first_column = w.times(number, str(whole[0].columns))
                weights = w.times(number, str(product.inner * whole[0].columns))
                with w.loop(begin, end, tile.rows, "row") as row:
                    _tile(w, product, whole[0], tile.rows, row, last, (first_column, weights))
        for panel in cut[len(whole) :]:
            w.comment(f"columns {panel.first} to {panel.first + panel.columns - 1}")
            with w.loop(begin, end, tile.rows, "row") as row:
                _tile(w, product, panel, tile.rows, row, last, (str(panel.first), str(panel.start)))
    head = f"define void @{name}(i64 %n0, i64 %n1, ptr noalias readonly %x, ptr noalias readonly %w, ptr noalias %y)"
    return "\n".join([f"{head} #2 {{", "entry:", *w.slots, *w.lines, "  ret void", "}", ""])


def matrix_head(dtype: str) -> str:
    """What a module with matrix products begins with."""
    kind = f"<{LANES[dtype][0]} x {REALS[dtype]}>"
    bits, short = f"<{LANES[dtype][0]} x i1>", _suffix(dtype)
    return "\n".join(
        [
            "declare i64 @llvm.smin.i64(i64, i64)",
            f"declare {kind} @llvm.masked.load.{short}.p0(ptr, i32 immarg, {bits}, {kind})",
            f"declare void @llvm.masked.store.{short}.p0({kind}, ptr, i32 immarg, {bits})",
            # Where a processor has registers of 512 bits, they are what these tiles are made for.
            'attributes #2 = { nounwind "min-legal-vector-width"="512" }',
            "",
        ]
    )


def _tile(w: Writer, product: MatrixProduct, panel: Panel, rows: int, row: str, last: str, at: tuple[str, str]) -> None:
    """One tile.  Rows behind the last are the last again: the same sums, written to the same place.

    at  where the panel begins, among the columns and among the packed numbers
    """
    column, start = at
    lanes = w.lanes[0]
    kind = w.kind(lanes)
    numbers = [row] + [w.op(f"add nsw i64 {row}, {i}", "r") for i in range(1, rows)]
    numbers[1:] = [w.op(f"call i64 @llvm.smin.i64(i64 {n}, i64 {last})", "r") for n in numbers[1:]]
    sources = [_start(w, "%x", n, product.components, product.inner, product.x_width, product.x_start) for n in numbers]
    targets = [_start(w, "%y", n, product.components, product.outer, product.y_width, product.y_start) for n in numbers]
    targets = [w.op(f"getelementptr inbounds {w.real}, ptr {t}, i64 {column}", "p") for t in targets]
    weights = w.op(f"getelementptr inbounds {w.real}, ptr %w, i64 {start}", "panel")
    sums = [[w.slot(kind, f"sum{i}.{v}") for v in range(panel.vectors)] for i in range(rows)]
    for i in range(rows):
        for v in range(panel.vectors):
            begun = _load(w, _at(w, targets[i], v * lanes), panel, v) if product.add else "zeroinitializer"
            w.do(f"store {kind} {begun}, ptr {sums[i][v]}")
    whole = product.inner - product.inner % UNROLLED
    if whole:
        with w.loop("0", str(whole), UNROLLED, "u") as u:
            for step in range(UNROLLED):
                _channel(w, sources, weights, sums, w.op(f"add nsw i64 {u}, {step}", "u"))
    for left in range(whole, product.inner):
        _channel(w, sources, weights, sums, str(left))
    for i in range(rows):
        for v in range(panel.vectors):
            _store(w, w.op(f"load {kind}, ptr {sums[i][v]}", "sum"), _at(w, targets[i], v * lanes), panel, v)


def _channel(w: Writer, sources: list[str], weights: str, sums: list[list[str]], u: str) -> None:
    """sums[i][v] += x[i, u] W[u, v]."""
    lanes = w.lanes[0]
    kind = w.kind(lanes)
    vectors = len(sums[0])
    line = w.op(f"mul nsw i64 {u}, {vectors * lanes}", "line")
    place = w.op(f"getelementptr inbounds {w.real}, ptr {weights}, i64 {line}", "p")
    row = [w.op(f"load {kind}, ptr {_at(w, place, v * lanes)}, align 64", "w") for v in range(vectors)]
    for source, own in zip(sources, sums, strict=True):
        address = w.op(f"getelementptr inbounds {w.real}, ptr {source}, i64 {u}", "p")
        number = w.splat(w.op(f"load {w.real}, ptr {address}, {w.align}", "x"), lanes)
        for v, slot in enumerate(own):
            before = w.op(f"load {kind}, ptr {slot}", "sum")
            product = w.op(f"fmul contract nsz {kind} {number}, {row[v]}")
            w.do(f"store {kind} {w.op(f'fadd contract nsz {kind} {before}, {product}')}, ptr {slot}")


def _start(w: Writer, array: str, row: str, components: int, run: int, width: int, start: int) -> str:
    """The address of run r mod components of the array's row r / components."""
    if components * run == width:
        place = w.times(row, str(run))
    else:
        n = w.op(f"udiv i64 {row}, {components}", "n") if components > 1 else row
        place = w.times(n, str(width))
        if components > 1:
            m = w.op(f"urem i64 {row}, {components}", "m")
            place = w.plus(place, w.times(m, str(run)))
    return w.op(f"getelementptr inbounds {w.real}, ptr {array}, i64 {w.plus(place, str(start))}", "p")


def _at(w: Writer, place: str, offset: int) -> str:
    return w.op(f"getelementptr inbounds {w.real}, ptr {place}, i64 {offset}", "p") if offset else place


def _mask(w: Writer, panel: Panel, v: int) -> str:
    """The lanes of a panel's vector that are columns; empty when all are."""
    lanes = w.lanes[0]
    left = panel.columns - v * lanes
    return "" if left >= lanes else f"<{', '.join(f'i1 {int(i < left)}' for i in range(lanes))}>"


def _load(w: Writer, place: str, panel: Panel, v: int) -> str:
    kind, mask = w.kind(w.lanes[0]), _mask(w, panel, v)
    if not mask:
        return w.op(f"load {kind}, ptr {place}, {w.align}", "y")
    bits = f"<{w.lanes[0]} x i1> {mask}"
    call = f"call {kind} @llvm.masked.load.{_short(w)}.p0(ptr {place}, i32 {w.bytes}, {bits}, {kind} zeroinitializer)"
    return w.op(call, "y")


def _store(w: Writer, value: str, place: str, panel: Panel, v: int) -> None:
    kind, mask = w.kind(w.lanes[0]), _mask(w, panel, v)
    if not mask:
        w.do(f"store {kind} {value}, ptr {place}, {w.align}")
        return
    bits = f"<{w.lanes[0]} x i1> {mask}"
    w.do(f"call void @llvm.masked.store.{_short(w)}.p0({kind} {value}, ptr {place}, i32 {w.bytes}, {bits})")


def _short(w: Writer) -> str:
    return f"v{w.lanes[0]}f{8 * w.bytes}"


def _suffix(dtype: str) -> str:
    return f"v{LANES[dtype][0]}f{dtype.removeprefix('float')}"
