"""LLVM text: a scheduled kernel as explicit-vector LLVM IR, one function for each way its outputs are scattered.

Channels are the vector axis: each channel loop runs over whole vectors first and over the rest after.  Nothing is left
for a vectoriser to find, so compiling is short and the result does not depend on luck.
"""

from __future__ import annotations

from irrepc.emit.llvm_writer import LANES, REALS, Writer, reduction
from irrepc.emit.printer import variable
from irrepc.emit.views import count, gathered, used_inputs
from irrepc.ir.block import Block, Stage, Statement
from irrepc.ir.kernel import Operand, Ref


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
    with w.loop("%n0", "%n1", 1, "n") as n:
        for o in kernel.outputs:
            if o.rows is not None and any(Ref(o.name, i) not in stored for i in range(o.size)):
                _blank(w, _row(w, o, n, strides), strides[o.name])
        if scatter is None:
            _edge(w, block, inputs, gathers, {None: n}, strides)
            return
        first = w.op(f"getelementptr inbounds i64, ptr %{scatter}_start, i64 {n}", "p")
        start = w.op(f"load i64, ptr {first}", "start")
        last = w.op(f"getelementptr inbounds i64, ptr {first}, i64 1", "p")
        stop = w.op(f"load i64, ptr {last}", "stop")
        with w.loop(start, stop, 1, "s") as s:
            place = w.op(f"getelementptr inbounds i64, ptr %{scatter}_order, i64 {s}", "p")
            e = w.op(f"load i64, ptr {place}", "e")
            _edge(w, block, inputs, gathers, {None: e, scatter: n}, strides)


def _row(w: Writer, o: Operand, row: str, strides: dict[str, str]) -> str:
    """The address of a row."""
    return w.op(f"getelementptr inbounds {w.real}, ptr %{o.name}, i64 {w.times(row, strides[o.name])}", "row")


def _blank(w: Writer, row: str, width: str) -> None:
    bytes_ = w.times(width, "4" if w.real == "float" else "8")
    w.do(f"call void @llvm.memset.p0.i64(ptr align 4 {row}, i8 0, i64 {bytes_}, i1 false)")


def _edge(
    w: Writer,
    block: Block,
    inputs: tuple[Operand, ...],
    gathers: tuple[str, ...],
    at: dict[str | None, str],
    strides: dict[str, str],
) -> None:
    """One row of the loop: its row numbers, its scalars, its stages."""
    for g in gathers:
        place = w.op(f"getelementptr inbounds i64, ptr %{g}, i64 {at[None]}", "p")
        at[g] = w.op(f"load i64, ptr {place}", g)
    rows = {
        o.name: f"%{o.name}" if o.rows is None else _row(w, o, at[o.index], strides)
        for o in (*inputs, *w.kernel.outputs)
    }
    scalars = _used(block.stages, w, channelled=False)
    for f in scalars:
        place = w.element(w.operands[f.operand], f.component, rows[f.operand], {})
        w.scalars[f] = w.op(f"load {w.real}, ptr {place}", variable(f), w.operands[f.operand].label(f.component))
    for stage in block.stages:
        if stage.axes:
            _channel_loops(w, stage, rows)
        else:
            for s in stage.statements:
                _scalar_statement(w, s, rows)


def _used(stages: tuple[Stage, ...], w: Writer, *, channelled: bool) -> list[Ref]:
    """The input components that some stages read, with channels or without."""
    inputs = {o.name for o in w.kernel.inputs}
    used = {f for stage in stages for s in stage.statements for t in s.terms for f in t.factors}
    return sorted(f for f in used if f.operand in inputs and bool(w.axes[f]) == channelled)


def _scalar_statement(w: Writer, s: Statement, rows: dict[str, str]) -> None:
    result = w.total(s.terms, w.scalars, 1, w.operands[s.target.operand].label(s.target.component))
    if s.verb == "let":
        w.scalars[s.target] = result
        return
    place = w.element(w.operands[s.target.operand], s.target.component, rows[s.target.operand], {})
    _write(w, s.verb, result, place, 1)


def _write(w: Writer, verb: str, value: str, place: str, lanes: int) -> None:
    kind = w.kind(lanes)
    align = f"align {4 if w.real == 'float' else 8}"
    if verb == "add":
        before = w.op(f"load {kind}, ptr {place}, {align}")
        value = w.op(f"fadd contract nsz {kind} {before}, {value}")
    w.do(f"store {kind} {value}, ptr {place}, {align}")


def _channel_loops(w: Writer, stage: Stage, rows: dict[str, str]) -> None:
    """A loop nest over channels: the last axis by vectors, then its rest one by one."""
    *outer, inner = stage.axes
    done = [variable(s.target) for s in stage.statements if s.verb != "let"]
    w.comment(f"for each channel: {', '.join(done if len(done) < 4 else [done[0], '...', done[-1]])}")
    sums = [s.target for s in stage.statements if s.verb == "sum"]
    totals = {lanes: {r: w.slot(w.kind(lanes), variable(r)) for r in sums} for lanes in w.lanes}
    for lanes, places in totals.items():
        for place in places.values():
            w.do(f"store {w.kind(lanes)} {'0.0' if lanes == 1 else 'zeroinitializer'}, ptr {place}")

    def nest(axes: list[str], at: dict[str, str]) -> None:
        if axes:
            with w.loop("0", f"%{axes[0]}", 1, axes[0]) as i:
                nest(axes[1:], {**at, axes[0]: i})
            return
        start = "0"
        for lanes in w.lanes:
            stop = f"%{inner}" if lanes == 1 else w.op(f"and i64 %{inner}, {-lanes}", "whole")
            with w.loop(start, stop, lanes, inner) as i:
                _channel_body(w, stage, rows, {**at, inner: i}, inner, lanes, totals[lanes])
            start = stop

    nest(list(outer), {})
    for target in sums:
        total = w.op(f"load {w.real}, ptr {totals[1][target]}")
        for lanes in (n for n in w.lanes if n > 1):
            kind = w.kind(lanes)
            vector = w.op(f"load {kind}, ptr {totals[lanes][target]}")
            call = f"call reassoc nsz {w.real} @{reduction(w.real, lanes)}({w.real} {total}, {kind} {vector})"
            total = w.op(call, variable(target), w.operands[target.operand].label(target.component))
        w.scalars[target] = total


def _channel_body(
    w: Writer,
    stage: Stage,
    rows: dict[str, str],
    at: dict[str, str],
    inner: str,
    lanes: int,
    totals: dict[Ref, str],
) -> None:
    """The statements of a stage for `lanes` channels at once."""
    kind = w.kind(lanes)
    align = f"align {4 if w.real == 'float' else 8}"
    value: dict[Ref, str] = {}
    for s in stage.statements:
        for f in sorted({f for t in s.terms for f in t.factors}):
            if f in value:
                continue
            if f in w.scalars and not w.axes[f]:
                value[f] = w.splat(w.scalars[f], lanes)
                continue
            place = w.element(w.operands[f.operand], f.component, rows[f.operand], at)
            note = w.operands[f.operand].label(f.component)
            if inner in w.axes[f]:
                value[f] = w.op(f"load {kind}, ptr {place}, {align}", variable(f), note)
            else:
                value[f] = w.splat(w.op(f"load {w.real}, ptr {place}", variable(f), note), lanes)
        operand = w.operands[s.target.operand]
        result = w.total(s.terms, value, lanes, operand.label(s.target.component))
        if s.verb == "let":
            value[s.target] = result
        elif s.verb == "sum":
            _write(w, "add", result, totals[s.target], lanes)
        else:
            place = w.element(operand, s.target.component, rows[s.target.operand], at)
            if inner not in w.axes[s.target] and lanes > 1:
                call = f"call reassoc nsz {w.real} @{reduction(w.real, lanes)}"
                result = w.op(f"{call}({w.real} 0.0, {kind} {result})")
                _write(w, s.verb, result, place, 1)
            else:
                _write(w, s.verb, result, place, lanes)


def llvm_head(dtype: str) -> str:
    """What every module of IR begins with: the intrinsics that kernels call."""
    real = REALS[dtype]
    vectors = (n for n in LANES[dtype] if n > 1)
    return "\n".join(
        [
            "; The channel extents are constants of the module: add, for instance, @u = internal constant i64 64",
            "declare void @llvm.memset.p0.i64(ptr writeonly, i8, i64, i1 immarg)",
            "declare void @llvm.memcpy.p0.p0.i64(ptr writeonly, ptr readonly, i64, i1 immarg)",
            *(f"declare {real} @{reduction(real, n)}({real}, <{n} x {real}>)" for n in vectors),
            "attributes #0 = { nounwind }",
            # Vectors that are kept on the stack shall not straddle cache lines.
            "attributes #1 = { nounwind alignstack=64 }",
            "",
        ]
    )
