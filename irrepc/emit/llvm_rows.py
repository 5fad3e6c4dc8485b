"""LLVM text of kernels without channels: rows are the vector axis, a tile of 512 bits of rows at a time.

Harmonics, rotation matrices and products of single irreps have no channels to vectorise over.  The rows of a tile are
turned into one vector for each component (llvm_tiles.py), the statements are straight-line code on these vectors, and
outputs are turned back.  Every row is computed by the same instructions in whichever lane it lies, and rows that do not
fill a tile go through one on the stack, so the result depends neither on how rows are cut nor on where an array begins.

Memory is read and written in the order of addresses, although columns are made and needed group by group: outputs wait
on the stack until the tile is complete, and inputs are touched once beforehand.  Measured beyond the caches (harmonics,
lmax 10): 2 to 2.5 times faster, for whole lines written one after the other are never read, and prefetchers follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from irrepc.emit.llvm_tiles import Group, groups, load_tile, store_tile, to_columns, to_rows, touch_tile
from irrepc.emit.llvm_writer import LANES, REALS, Writer
from irrepc.emit.printer import variable
from irrepc.emit.views import used_inputs
from irrepc.ir.block import Block
from irrepc.ir.kernel import Kernel, Operand, Ref


def is_rowwise(kernel: Kernel) -> bool:
    """True when rows are all there is to vectorise over: no channels, no index, no sum over the rows."""
    return not kernel.channels and not kernel.indices and all(o.rows is not None for o in kernel.outputs)


def llvm_rows(name: str, block: Block, dtype: str) -> str:
    """The text of one part of a rowwise kernel, `void name(n0, n1, inputs, outputs)`, as llvm_function declares it.

    dtype  "float32" or "float64"
    """
    kernel = block.kernel
    lanes = LANES[dtype][0]
    w = Writer(kernel, REALS[dtype], (lanes,), operands=kernel.operands)
    w.axes = {Ref(o.name, i): a for o in w.operands.values() for i, a in enumerate(o.components)}
    inputs = used_inputs(kernel)
    arguments = ["i64 %n0", "i64 %n1"]
    arguments += [f"ptr noalias readonly %{o.name}" for o in inputs]
    arguments += [f"ptr noalias %{o.name}" for o in kernel.outputs]
    with w.loop("%n0", "%n1", lanes, "n") as n:
        _tile(w, block, inputs, n, lanes)
    head = f"define void @{name}({', '.join(arguments)}) #1 {{"
    return "\n".join([head, "entry:", *w.slots, *w.lines, "  ret void", "}", ""])


def _tile(w: Writer, block: Block, inputs: tuple[Operand, ...], n: str, lanes: int) -> None:
    """One tile: in its place in the arrays, or on the stack where rows are missing."""
    own = [o for o in inputs if o.rows is not None]
    outputs = block.kernel.outputs
    left = w.op(f"sub nsw i64 %n1, {n}", "left")
    whole = w.op(f"icmp sge i64 {left}, {lanes}", "whole")
    rows = {o.name: _row(w, o, n) for o in (*own, *outputs)}
    stacked = {o.name: w.slot(f"[{lanes * o.size} x {w.real}]", o.name) for o in (*own, *outputs)}
    places = {k: w.op(f"select i1 {whole}, ptr {rows[k]}, ptr {stacked[k]}", "tile") for k in rows}
    with _unless(w, whole, "in"):
        for o in own:
            size = lanes * o.size * w.bytes
            w.do(f"call void @llvm.memset.p0.i64(ptr {w.align} {stacked[o.name]}, i8 0, i64 {size}, i1 false)")
            _copy(w, stacked[o.name], rows[o.name], left, o)
    for o in own:
        touch_tile(w, places[o.name], o.size)
    columns = _Columns(w, {o.name: o for o in inputs}, places, lanes)
    results = {o.name: _Results(w, o, places[o.name], lanes) for o in outputs}
    for stage in block.stages:
        for s in stage.statements:
            columns.load(f for t in s.terms for f in t.factors)
            value = w.total(s.terms, columns.values, lanes, w.operands[s.target.operand].label(s.target.component))
            if s.verb == "let":
                columns.values[s.target] = value
            else:
                results[s.target.operand].put(s.target.component, value)
    for result in results.values():
        result.finish()
    with _unless(w, whole, "out"):
        for o in outputs:
            _copy(w, rows[o.name], stacked[o.name], left, o)


@dataclass(slots=True)
class _Columns:
    """The values so far, of locals and of inputs; an input is loaded before its first use, its groups are turned so."""

    w: Writer
    inputs: dict[str, Operand]
    places: dict[str, str]
    lanes: int
    values: dict[Ref, str] = field(default_factory=dict)
    rows: dict[str, dict[Group, list[str]]] = field(default_factory=dict)

    def load(self, factors: Iterator[Ref]) -> None:
        """Load what is needed and not there yet."""
        for f in factors:
            if f in self.values:
                continue
            o = self.inputs[f.operand]
            if o.rows is None:
                place = self.w.element(o, f.component, f"%{o.name}", {})
                number = self.w.op(f"load {self.w.real}, ptr {place}", variable(f), o.label(f.component))
                self.values[f] = self.w.splat(number, self.lanes)
                continue
            if o.name not in self.rows:
                self.rows[o.name] = load_tile(self.w, self.places[o.name], o.size, self.lanes)
            group, rows = next((g, rows) for g, rows in self.rows[o.name].items() if f.component < g.stop)
            self.w.comment(f"{o.name}[{group.first}:{group.stop}]")
            columns = to_columns(self.w, group, rows, self.lanes)
            self.values.update((Ref(o.name, group.first + i), column) for i, column in enumerate(columns))


@dataclass(slots=True)
class _Results:
    """The components of an output: columns until their group is complete, then rows until the tile is."""

    w: Writer
    operand: Operand
    place: str
    lanes: int
    columns: dict[int, str] = field(default_factory=dict)
    rows: dict[Group, list[str]] = field(default_factory=dict)

    def put(self, component: int, value: str) -> None:
        """Take a component, and turn its group when that is complete."""
        self.columns[component] = value
        group = next(g for g in groups(self.operand.size, self.lanes) if component < g.stop)
        columns = [self.columns[c] for c in range(group.first, group.stop) if c in self.columns]
        if len(columns) == group.stop - group.first:
            self.w.comment(f"{self.operand.name}[{group.first}:{group.stop}]")
            self.rows[group] = to_rows(self.w, group, columns, self.lanes)

    def finish(self) -> None:
        """Write the tile; components that no statement sets are zero."""
        for component in range(self.operand.size):
            if component not in self.columns:
                self.put(component, "zeroinitializer")
        store_tile(self.w, self.place, self.operand.size, self.rows, self.lanes)


def _row(w: Writer, o: Operand, n: str) -> str:
    return w.op(f"getelementptr inbounds {w.real}, ptr %{o.name}, i64 {w.times(n, str(o.size))}", "row")


def _copy(w: Writer, to: str, source: str, rows: str, o: Operand) -> None:
    """Copy some rows of an operand."""
    count = w.times(rows, str(o.size * w.bytes))
    w.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {w.align} {to}, ptr {w.align} {source}, i64 {count}, i1 false)")


@contextmanager
def _unless(w: Writer, condition: str, hint: str) -> Iterator[None]:
    """What is written inside runs only where the condition is false."""
    label = w.name(hint).removeprefix("%")
    w.do(f"br i1 {condition}, label %{label}.end, label %{label}")
    w.lines.append(f"{label}:")
    yield
    w.do(f"br label %{label}.end")
    w.lines.append(f"{label}.end:")
