"""LLVM text: a scheduled kernel as explicit-vector LLVM IR, one function for each way its outputs are scattered.

Channels are the vector axis: each channel loop runs over whole vectors first and over the rest after.  Nothing is left
for a vectoriser to find, so compiling is short and the result does not depend on luck.
"""

from __future__ import annotations

from dataclasses import dataclass

from irrepc.emit.llvm_loops import channel_loops, write
from irrepc.emit.llvm_sums import Sums
from irrepc.emit.llvm_writer import LANES, REALS, Writer, reduction
from irrepc.emit.printer import variable
from irrepc.emit.views import count, gathered, used_inputs
from irrepc.ir.block import Block, Stage, Statement
from irrepc.ir.kernel import Operand, Ref

STREAMED = 1 << 21
"""Bytes of an output beyond which its rows are written past the caches: what so large an array leaves in them is of
no use, and memory that is not written by whole lines is read first."""

TABLES = ("knot", "species")
"""Indices into tables, which stay in the caches: a few hundred rows at most. Asking for rows of a spline's tables ahead
costs a quarter of the time of the whole convolution."""


def llvm_function(name: str, block: Block, dtype: str) -> str:
    """The text of one part: `void name(n0, n1, inputs, gathered rows, CSR of the scatter, outputs)`.

    dtype  "float32" or "float64"
    Channel extents are constants @u, @v, ... of the module, which whoever compiles it defines.
    """
    kernel = block.kernel
    w = Writer(kernel, REALS[dtype], LANES[dtype])
    w.operands = kernel.operands
    w.axes = {Ref(o.name, i): a for o in w.operands.values() for i, a in enumerate(o.components)}
    inputs = used_inputs(kernel)
    scatter = kernel.outputs[0].index
    gathers = gathered(inputs, scatter)
    arguments = ["i64 %n0", "i64 %n1"]
    arguments += [f"ptr noalias readonly %{o.name}" for o in inputs]
    arguments += [f"ptr noalias readonly %{g}" for g in gathers]
    if scatter is not None:
        arguments += [f"ptr noalias readonly %{scatter}_{part}" for part in ("order", "start")]
    arguments += [f"ptr noalias %{o.name}" for o in kernel.outputs]
    _rows(w, block, inputs, gathers, scatter)
    head = f"define void @{name}({', '.join(arguments)}) #0 {{"
    extents = [f"  %{a} = load i64, ptr @{a}" for a in kernel.channels]
    return "\n".join([head, "entry:", *extents, *w.slots, *w.lines, "  ret void", "}", ""])


def _rows(w: Writer, block: Block, inputs: tuple[Operand, ...], gathers: tuple[str, ...], scatter: str | None) -> None:
    """The loops over rows around the stages."""
    kernel = w.kernel
    strides = {o.name: w.volume(count(o)) for o in (*inputs, *kernel.outputs)}
    stored = {s.target for stage in block.stages for s in stage.statements if s.verb == "store"}
    blank = tuple(o for o in kernel.outputs if o.rows and any(Ref(o.name, i) not in stored for i in range(o.size)))
    near = {None, *gathers} - set(TABLES)
    fetched = {o.name for o in inputs if o.index in near and o.rows is not None}
    if scatter is None:
        with w.loop("%n0", "%n1", 1, "n") as n:
            _Row(block, inputs, gathers, strides, blank, set(), {}).compute(w, {None: n}, {})
        return
    begin = w.op(f"load i64, ptr {_place(w, f'{scatter}_start', '%n0')}", "begin")
    end = w.op(f"load i64, ptr {_place(w, f'{scatter}_start', '%n1')}", "end")
    own = [o for o in kernel.outputs if o.index is None and any(o.components)]
    buffers = {o.name: _Buffer.of(w, o, w.op(f"sub nsw i64 {end}, {begin}", "rows"), strides[o.name]) for o in own}
    row = _Row(block, inputs, gathers, strides, blank, fetched, buffers)
    with w.loop("%n0", "%n1", 1, "n") as n:
        for o in blank:
            if o.index == scatter:
                _blank(w, _row(w, o, n, strides), strides[o.name])
        first = _place(w, f"{scatter}_start", n)
        start = w.op(f"load i64, ptr {first}", "start")
        stop = w.op(f"load i64, ptr {w.op(f'getelementptr inbounds i64, ptr {first}, i64 1', 'p')}", "stop")
        with w.loop(start, stop, 1, "s") as s:
            e = w.op(f"load i64, ptr {_place(w, f'{scatter}_order', s)}", "e")
            ahead = w.op(f"add nsw i64 {s}, 1", "ahead")
            inside = w.op(f"icmp slt i64 {ahead}, {end}", "inside")
            ahead = w.op(f"select i1 {inside}, i64 {ahead}, i64 {s}", "ahead")
            later = w.op(f"load i64, ptr {_place(w, f'{scatter}_order', ahead)}", "later")
            row.compute(w, {None: e, scatter: n}, {None: later})
    for buffer in buffers.values():
        # What was written past the caches is to be seen by whoever waits for this function.
        with w.when(buffer.streamed):
            w.do("fence seq_cst")


def _place(w: Writer, array: str, i: str) -> str:
    """The address of an element of an array of row numbers."""
    return w.op(f"getelementptr inbounds i64, ptr %{array}, i64 {i}", "p")


def _row(w: Writer, o: Operand, row: str, strides: dict[str, str]) -> str:
    """The address of a row."""
    return w.op(f"getelementptr inbounds {w.real}, ptr %{o.name}, i64 {w.times(row, strides[o.name])}", "row")


def _blank(w: Writer, row: str, width: str) -> None:
    bytes_ = w.times(width, str(w.bytes))
    w.do(f"call void @llvm.memset.p0.i64(ptr align 4 {row}, i8 0, i64 {bytes_}, i1 false)")


@dataclass(frozen=True, slots=True)
class _Buffer:
    """A row of an output on the stack, from where it leaves as a whole: address, bytes, and whether it is used."""

    place: str
    bytes: str
    streamed: str

    @staticmethod
    def of(w: Writer, o: Operand, rows: str, width: str) -> _Buffer:
        bytes_ = w.times(width, str(w.bytes))
        place = w.op(f"alloca i8, i64 {bytes_}, align 64", o.name)
        total = w.times(rows, bytes_)
        return _Buffer(place, bytes_, w.op(f"icmp sgt i64 {total}, {STREAMED}", "streamed"))

    def leave(self, w: Writer, row: str) -> None:
        """Write the row."""
        with w.when(self.streamed):
            w.do(f"call void @stream(ptr {row}, ptr {self.place}, i64 {self.bytes})")


@dataclass(frozen=True, slots=True)
class _Row:
    """What is done for one row of the loop."""

    block: Block
    inputs: tuple[Operand, ...]
    gathers: tuple[str, ...]
    strides: dict[str, str]
    blank: tuple[Operand, ...]
    fetched: set[str]
    buffers: dict[str, _Buffer]

    def compute(self, w: Writer, at: dict[str | None, str], later: dict[str | None, str]) -> None:
        """Row numbers, scalars, stages; `at` this row, `later` one to be fetched; both grow by the gathered rows."""
        for g in self.gathers:
            at[g] = w.op(f"load i64, ptr {_place(w, g, at[None])}", g)
            if later:
                later[g] = w.op(f"load i64, ptr {_place(w, g, later[None])}", "later")
        operands = (*self.inputs, *w.kernel.outputs)
        rows = {o.name: f"%{o.name}" if o.rows is None else _row(w, o, at[o.index], self.strides) for o in operands}
        whole = {name: rows[name] for name in self.buffers}
        w.later = {o.name: _row(w, o, later[o.index], self.strides) for o in self.inputs if o.name in self.fetched}
        for name, b in self.buffers.items():
            row = _row(w, w.operands[name], later[None], self.strides)
            w.later[name] = w.op(f"select i1 {b.streamed}, ptr {b.place}, ptr {row}", "later")
            rows[name] = w.op(f"select i1 {b.streamed}, ptr {b.place}, ptr {rows[name]}", name)
        for o in self.blank:
            if o.index is None:
                _blank(w, rows[o.name], self.strides[o.name])
        for f in _used(self.block.stages, w, channelled=False):
            place = w.element(w.operands[f.operand], f.component, rows[f.operand], {})
            w.scalars[f] = w.op(f"load {w.real}, ptr {place}", variable(f), w.operands[f.operand].label(f.component))
        sums = Sums.of(self.block)
        for stage in self.block.stages:
            if stage.axes:
                channel_loops(w, stage, rows, sums)
            else:
                for s in stage.statements:
                    _scalar_statement(w, s, rows, sums)
        for name, b in self.buffers.items():
            b.leave(w, whole[name])


def _used(stages: tuple[Stage, ...], w: Writer, *, channelled: bool) -> list[Ref]:
    """The input components that some stages read, with channels or without."""
    inputs = {o.name for o in w.kernel.inputs}
    used = {f for stage in stages for s in stage.statements for t in s.terms for f in t.factors}
    return sorted(f for f in used if f.operand in inputs and bool(w.axes[f]) == channelled)


def _scalar_statement(w: Writer, s: Statement, rows: dict[str, str], sums: Sums) -> None:
    result = sums.total(w, s)
    if s.verb == "let":
        w.scalars[s.target] = result
        return
    place = w.element(w.operands[s.target.operand], s.target.component, rows[s.target.operand], {})
    write(w, s.verb, result, place, 1)


STREAM = """\
; copies a row past the caches: by whole lines, what is left before and behind them in the ordinary way
define internal void @stream(ptr noalias %to, ptr noalias readonly %from, i64 %bytes) {
entry:
  %address = ptrtoint ptr %to to i64
  %negative = sub i64 0, %address
  %gap = and i64 %negative, 63
  %head = call i64 @llvm.umin.i64(i64 %gap, i64 %bytes)
  %rest = sub i64 %bytes, %head
  %whole = and i64 %rest, -64
  %lines = add i64 %head, %whole
  %tail = sub i64 %bytes, %lines
  %even = icmp eq i64 %whole, %bytes
  br i1 %even, label %test, label %ends
ends:
  %to.tail = getelementptr inbounds i8, ptr %to, i64 %lines
  %from.tail = getelementptr inbounds i8, ptr %from, i64 %lines
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %head, i1 false)
  call void @llvm.memcpy.p0.p0.i64(ptr %to.tail, ptr %from.tail, i64 %tail, i1 false)
  br label %test
test:
  %i = phi i64 [ %head, %entry ], [ %head, %ends ], [ %next, %line ]
  %more = icmp slt i64 %i, %lines
  br i1 %more, label %line, label %done
line:
  %to.i = getelementptr inbounds i8, ptr %to, i64 %i
  %from.i = getelementptr inbounds i8, ptr %from, i64 %i
  %v = load <16 x float>, ptr %from.i, align 4
  store <16 x float> %v, ptr %to.i, align 64, !nontemporal !0
  %next = add nsw i64 %i, 64
  br label %test
done:
  ret void
}
!0 = !{i32 1}"""


def llvm_head(dtype: str) -> str:
    """What every module of IR begins with: the intrinsics that kernels call."""
    real = REALS[dtype]
    vectors = (n for n in LANES[dtype] if n > 1)
    return "\n".join(
        [
            "; The channel extents are constants of the module: add, for instance, @u = internal constant i64 64",
            "declare void @llvm.memset.p0.i64(ptr writeonly, i8, i64, i1 immarg)",
            "declare void @llvm.memcpy.p0.p0.i64(ptr writeonly, ptr readonly, i64, i1 immarg)",
            "declare void @llvm.prefetch.p0(ptr readonly, i32 immarg, i32 immarg, i32 immarg)",
            *(f"declare {real} @{reduction(real, n)}({real}, <{n} x {real}>)" for n in vectors),
            "declare i64 @llvm.umin.i64(i64, i64)",
            STREAM,
            "attributes #0 = { nounwind }",
            # Vectors that are kept on the stack shall not straddle cache lines.
            "attributes #1 = { nounwind alignstack=64 }",
            "",
        ]
    )
