"""LLVM text of tables: the code that finds places, the loops over rows and channels, a function for each look.

%places holds an address for every place: those of operands are set for each row, the others once.
"""

from __future__ import annotations

from irrepc.emit.llvm_table import Look, Run, Table, sums
from irrepc.emit.llvm_writer import Writer, reduction
from irrepc.ir.block import Stage

WIDE = 4
"""Vectors of channels that a step of a table works on at once: its places are looked up once for all of them."""


def prepare(w: Writer, table: Table) -> None:
    """Once in a call: where components begin in a row, and the places of everything else."""
    starts, kinds = table.starts, table.kinds
    w.slots.append(f"  %places = alloca [{starts['end']} x ptr]")
    w.slots.append(f"  %offsets = alloca [{starts['numbers']} x i64]")
    w.slots.append(f"  %extents = alloca [{max(1, len(kinds))} x i64]")
    numbers = starts["rows"] - starts["numbers"]
    w.slots.append(f"  %numbers = alloca [{numbers} x {w.real}], align 64")
    wide = WIDE * w.lanes[0]
    partial = starts["end"] - starts["sums"]
    w.slots.append(f"  %sums = alloca [{max(1, partial * wide)} x {w.real}], align 64")
    for i, axes in enumerate(kinds):
        w.do(f"store i64 {w.volume({axes: 1})}, ptr {_at(w, 'i64', '%extents', str(i))}")
    for o in table.operands:
        total = w.slot("i64", "total")
        w.do(f"store i64 0, ptr {total}")
        with w.loop("0", str(o.size), 1, "k") as k:
            number = w.plus(k, str(starts[o.name]))
            before = w.op(f"load i64, ptr {total}")
            w.do(f"store i64 {before}, ptr {_at(w, 'i64', '%offsets', number)}")
            kind = _number(w, f"@{table.name}.kinds", number)
            extent = w.op(f"load i64, ptr {_at(w, 'i64', '%extents', kind)}")
            w.do(f"store i64 {w.plus(before, extent)}, ptr {total}")
    # As many channels as all axes have together hold any of them; every row begins on a cache line.
    channels = "0"
    for a in w.kernel.channels:
        channels = w.plus(channels, f"%{a}")
    wider = w.plus(channels, str(wide - 1))
    width = w.op(f"and i64 {wider}, {-wide}", "width")
    count = starts["sums"] - starts["rows"]
    rows = w.op(f"alloca {w.real}, i64 {w.times(width, str(count))}, align 64", "rows")
    w.do(f"store {w.real} 1.0, ptr %numbers")
    with w.loop("0", width, 1, "k") as k:
        w.do(f"store {w.real} 1.0, ptr {_at(w, w.real, rows, k)}")
    for first, size, base, stride in (
        ("numbers", numbers, "%numbers", "1"),
        ("rows", count, rows, width),
        ("sums", partial, "%sums", str(wide)),
    ):
        with w.loop("0", str(size), 1, "k") as k:
            place = _at(w, w.real, base, w.times(k, stride))
            w.do(f"store ptr {place}, ptr {_at(w, 'ptr', '%places', w.plus(k, str(starts[first])))}")


def compute(w: Writer, table: Table, rows: dict[str, str]) -> None:
    """One row of the loop: the places of its operands, then stage after stage."""
    for o in table.operands:
        with w.loop("0", str(o.size), 1, "k") as k:
            number = w.plus(k, str(table.starts[o.name]))
            offset = w.op(f"load i64, ptr {_at(w, 'i64', '%offsets', number)}")
            w.do(f"store ptr {_at(w, w.real, rows[o.name], offset)}, ptr {_at(w, 'ptr', '%places', number)}")
    done = 0
    for stage, runs in zip(table.block.stages, table.runs, strict=True):
        if stage.axes:
            done = _loops(w, table, stage, runs, done)
        else:
            for run in runs:
                _call(w, table, run, "0", 1)


def _loops(w: Writer, table: Table, stage: Stage, runs: tuple[Run, ...], done: int) -> int:
    """Channels by four vectors, by one, by fewer; then the sums over them."""
    (axis,) = stage.axes
    wide, count = WIDE * w.lanes[0], len(sums(stage))
    if count:
        size = count * wide * w.bytes
        w.do(f"call void @llvm.memset.p0.i64(ptr align 64 %sums, i8 0, i64 {size}, i1 false)")
    start = "0"
    for lanes in (wide, *w.lanes):
        stop = f"%{axis}" if lanes == 1 else w.op(f"and i64 %{axis}, {-lanes}", "whole")
        with w.loop(start, stop, lanes, axis) as i:
            for run in runs:
                _call(w, table, run, i, lanes)
        start = stop
    if count:
        with w.loop("0", str(count), 1, "k") as k:
            place = _at(w, w.real, "%sums", w.times(k, str(wide)))
            number = _number(w, f"@{table.name}.summed", w.plus(k, str(done)))
            total = _reduced(w, w.op(f"load {w.kind(wide)}, ptr {place}, align 64"), wide)
            w.do(f"store {w.real} {total}, ptr {_place(w, number)}")
    return done + count


def _call(w: Writer, table: Table, run: Run, i: str, lanes: int) -> None:
    """All statements of a run, for the channels i, i + 1, ... i + lanes - 1."""
    statement, _, _ = run.first
    numbers = (statement, statement + len(run.statements), run.shift, i)
    given = ", ".join(f"i64 {n}" for n in numbers)
    w.do(f"call void {run.look.function(table.name, lanes)}(ptr %places, {given})")


def functions(w: Writer, table: Table) -> str:
    """The functions that are called."""
    used: dict[tuple[Look, int], None] = {}
    for stage, runs in zip(table.block.stages, table.runs, strict=True):
        sizes = (WIDE * w.lanes[0], *w.lanes) if stage.axes else (1,)
        used |= {(run.look, lanes): None for run in runs for lanes in sizes}
    return "\n".join(_function(Writer(w.kernel, w.real, w.lanes), table.name, *key) for key in used)


def _function(w: Writer, name: str, look: Look, lanes: int) -> str:
    """The statements `first` to `stop` for `lanes` channels; shift is that of a run."""
    kind = w.kind(lanes)
    with w.loop("%first", "%stop", 1, "s") as s:
        result = _sum(w, name, look, s, lanes)
        target = _place(w, _number(w, f"@{name}.targets", s))
        if look.verb == "total":
            result, kind = _reduced(w, result, lanes), w.real
        elif look.verb != "sum" and look.rows:
            target = _at(w, w.real, target, "%i")
        if look.verb in ("add", "sum", "total"):
            result = w.join(w.op(f"load {kind}, ptr {target}, {w.align}"), 1, result, kind)
        w.do(f"store {kind} {result}, ptr {target}, {w.align}")
    head = f"define internal void {look.function(name, lanes)}"
    head += "(ptr noalias %places, i64 %first, i64 %stop, i64 %shift, i64 %i) #0 {"
    return "\n".join([head, "entry:", *w.slots, *w.lines, "  ret void", "}", ""])


def _sum(w: Writer, name: str, look: Look, s: str, lanes: int) -> str:
    """The right-hand side of statement s."""
    kind, place = w.kind(lanes), w.slot(w.kind(lanes), "acc")
    first = _number(w, f"@{name}.ends", s)
    last = _number(w, f"@{name}.ends", w.plus(s, "1"))
    w.do(f"store {kind} {'0.0' if lanes == 1 else 'zeroinitializer'}, ptr {place}")
    with w.loop(first, last, 1, "t") as t:
        product = _product(w, name, look, t, lanes)
        before = w.op(f"load {kind}, ptr {place}")
        w.do(f"store {kind} {w.join(before, 1, product, kind)}, ptr {place}")
    return w.op(f"load {kind}, ptr {place}")


def _product(w: Writer, name: str, look: Look, t: str, lanes: int) -> str:
    """A term: its coefficient, numbers and rows of channels multiplied."""
    number = w.op(f"add nsw i64 {w.times(t, str(look.scalars + look.rows))}, %shift", "f")
    read = [
        _place(w, _number(w, f"@{name}.factors", w.plus(number, str(n))))
        for n in range(look.scalars + look.rows)
    ]
    numbers = [w.op(f"load {w.real}, ptr {p}", "n") for p in read[: look.scalars]]
    if not look.plain or not read:
        numbers.append(w.op(f"load {w.real}, ptr {_at(w, w.real, f'@{name}.coefficients', t)}", "c"))
    kind = w.kind(lanes)
    rows = [w.op(f"load {kind}, ptr {_at(w, w.real, p, '%i')}, {w.align}", "r") for p in read[look.scalars :]]
    values = ([w.splat(_times(w, numbers, w.real), lanes)] if numbers else []) + rows
    return _times(w, values, kind)


def _times(w: Writer, values: list[str], kind: str) -> str:
    """The product of some values."""
    product, *others = values
    for other in others:
        product = w.op(f"fmul contract nsz {kind} {product}, {other}")
    return product


def _at(w: Writer, kind: str, base: str, i: str) -> str:
    """The address of an element."""
    return w.op(f"getelementptr inbounds {kind}, ptr {base}, i64 {i}", "p")


def _number(w: Writer, table: str, i: str) -> str:
    """An entry of a table of numbers."""
    entry = w.op(f"load i32, ptr {_at(w, 'i32', table, i)}", "n")
    return w.op(f"zext i32 {entry} to i64", "n")


def _place(w: Writer, number: str) -> str:
    """The address that a place has now."""
    return w.op(f"load ptr, ptr {_at(w, 'ptr', '%places', number)}", "at")


def _reduced(w: Writer, vector: str, lanes: int) -> str:
    """The sum of the lanes of a vector."""
    if lanes == 1:
        return vector
    return w.op(f"call reassoc nsz {w.real} @{reduction(w.real, lanes)}({w.real} 0.0, {w.kind(lanes)} {vector})")
