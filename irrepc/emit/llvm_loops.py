"""Channel loops: the statements of a stage for many channels at once, the last axis by whole vectors, then the rest."""

from __future__ import annotations

from irrepc.emit.llvm_sums import Sums
from irrepc.emit.llvm_writer import Writer, reduction
from irrepc.emit.printer import variable
from irrepc.ir.block import Stage
from irrepc.ir.kernel import Ref


def channel_loops(w: Writer, stage: Stage, rows: dict[str, str], sums: Sums) -> None:
    """A loop nest over channels: the last axis by vectors, then its rest one by one."""
    *outer, inner = stage.axes
    done = [variable(s.target) for s in stage.statements if s.verb != "let"]
    w.comment(f"for each channel: {', '.join(done if len(done) < 4 else [done[0], '...', done[-1]])}")
    added = [s.target for s in stage.statements if s.verb == "sum"]
    totals = {lanes: {r: w.slot(w.kind(lanes), variable(r)) for r in added} for lanes in w.lanes}
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
                _body(w, stage, rows, {**at, inner: i}, inner, lanes, totals[lanes])
            start = stop

    nest(list(outer), {})
    for target in added:
        sums.keep(w, target, {lanes: places[target] for lanes, places in totals.items()})


def _body(
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
                _fetch(w, f, at, lanes)
            else:
                value[f] = w.splat(w.op(f"load {w.real}, ptr {place}", variable(f), note), lanes)
        operand = w.operands[s.target.operand]
        result = w.total(s.terms, value, lanes, operand.label(s.target.component))
        if s.verb == "let":
            value[s.target] = result
        elif s.verb == "sum":
            write(w, "add", result, totals[s.target], lanes)
        else:
            place = w.element(operand, s.target.component, rows[s.target.operand], at)
            if inner not in w.axes[s.target] and lanes > 1:
                call = f"call reassoc nsz {w.real} @{reduction(w.real, lanes)}"
                result = w.op(f"{call}({w.real} 0.0, {kind} {result})")
                write(w, s.verb, result, place, 1)
            else:
                write(w, s.verb, result, place, lanes)


def _fetch(w: Writer, f: Ref, at: dict[str, str], lanes: int) -> None:
    """Ask for the same channels of a later row to come, once for each component.

    Whole vectors are lines of a cache, nearly: each is asked for once, and requests are spread over the computation.
    """
    if lanes == w.lanes[0] and f.operand in w.later and f not in w.fetched:
        w.fetched.add(f)
        place = w.element(w.operands[f.operand], f.component, w.later[f.operand], at)
        w.do(f"call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")


def write(w: Writer, verb: str, value: str, place: str, lanes: int) -> None:
    """Store a value, or add it to what is there."""
    kind = w.kind(lanes)
    align = f"align {4 if w.real == 'float' else 8}"
    if verb == "add":
        before = w.op(f"load {kind}, ptr {place}, {align}")
        value = w.op(f"fadd contract nsz {kind} {before}, {value}")
    w.do(f"store {kind} {value}, ptr {place}, {align}")
