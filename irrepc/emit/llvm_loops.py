"""Channel loops: the statements of a stage for many channels at once, the last axis by whole vectors, then the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

from irrepc.emit.llvm_sums import Sums
from irrepc.emit.llvm_writer import Writer, reduction
from irrepc.emit.printer import variable
from irrepc.ir.block import Stage, Statement
from irrepc.ir.kernel import Ref


def channel_loops(w: Writer, stage: Stage, rows: dict[str, str], sums: Sums) -> None:
    """A loop nest over channels: the last axis by vectors, then its rest one by one."""
    *outer, inner = stage.axes
    done = [variable(s.target) for s in stage.statements if s.verb != "let"]
    w.comment(f"for each channel: {', '.join(done if len(done) < 4 else [done[0], '...', done[-1]])}")
    added = [s.target for s in stage.statements if s.verb == "sum"]
    totals = {lanes: {r: w.slot(w.kind(lanes), variable(r)) for r in added} for lanes in w.lanes}
    begun = {w.lanes[0]: sums.begin(added)}
    for lanes, places in totals.items():
        for target, place in places.items():
            start = begun.get(lanes, {}).get(target, "0.0" if lanes == 1 else "zeroinitializer")
            w.do(f"store {w.kind(lanes)} {start}, ptr {place}")

    def nest(axes: list[str], at: dict[str, str]) -> None:
        if axes:
            with w.loop("0", f"%{axes[0]}", 1, axes[0]) as i:
                nest(axes[1:], {**at, axes[0]: i})
            return
        start = "0"
        for lanes in w.lanes:
            stop = f"%{inner}" if lanes == 1 else w.op(f"and i64 %{inner}, {-lanes}", "whole")
            with w.loop(start, stop, lanes, inner) as i:
                _Body(w, stage, rows, {**at, inner: i}, inner, lanes, totals[lanes]).write()
            start = stop

    nest(list(outer), {})
    for target in added:
        sums.keep(w, target, {lanes: places[target] for lanes, places in totals.items()})


@dataclass(slots=True)
class _Body:
    """The statements of a stage for `lanes` channels at once; `value` holds what is loaded or computed."""

    w: Writer
    stage: Stage
    rows: dict[str, str]
    at: dict[str, str]
    inner: str
    lanes: int
    totals: dict[Ref, str]
    value: dict[Ref, str] = field(default_factory=dict)

    def write(self) -> None:
        """Statement by statement; what is read is loaded before its first use."""
        w = self.w
        for s in self.stage.statements:
            for f in sorted({f for t in s.terms for f in t.factors if f not in self.value}):
                self.value[f] = self.load(f)
            note = w.operands[s.target.operand].label(s.target.component)
            result = w.total(s.terms, self.value, self.lanes, note)
            if s.verb == "let":
                self.value[s.target] = result
            else:
                self.finish(s, result)

    def load(self, f: Ref) -> str:
        """An input, or a scalar of the row, in every lane that it is the same for."""
        w = self.w
        if f in w.scalars and not w.axes[f]:
            return w.splat(w.scalars[f], self.lanes)
        o = w.operands[f.operand]
        place, note = w.element(o, f.component, self.rows[f.operand], self.at), o.label(f.component)
        if self.inner not in w.axes[f]:
            return w.splat(w.op(f"load {w.real}, ptr {place}", variable(f), note), self.lanes)
        value = w.op(f"load {w.kind(self.lanes)}, ptr {place}, align {w.bytes}", variable(f), note)
        self.fetch(f, 0)
        return value

    def fetch(self, f: Ref, purpose: int) -> None:
        """Ask for the same of a later row, once in all loops: a whole vector is a line of the caches.

        purpose  0 to be read, 1 to be written
        """
        w = self.w
        if self.lanes == w.lanes[0] and f.operand in w.later and f not in w.fetched:
            w.fetched.add(f)
            later = w.element(w.operands[f.operand], f.component, w.later[f.operand], self.at)
            w.do(f"call void @llvm.prefetch.p0(ptr {later}, i32 {purpose}, i32 3, i32 1)")

    def finish(self, s: Statement, result: str) -> None:
        """Store a sum, or add it to where it is collected."""
        w, lanes = self.w, self.lanes
        if s.verb == "sum":
            write(w, "add", result, self.totals[s.target], lanes)
            return
        place = w.element(w.operands[s.target.operand], s.target.component, self.rows[s.target.operand], self.at)
        if self.inner not in w.axes[s.target] and lanes > 1:
            call = f"call reassoc nsz {w.real} @{reduction(w.real, lanes)}"
            result, lanes = w.op(f"{call}({w.real} 0.0, {w.kind(lanes)} {result})"), 1
        self.fetch(s.target, 1)
        write(w, s.verb, result, place, lanes)


def write(w: Writer, verb: str, value: str, place: str, lanes: int) -> None:
    """Store a value, or add it to what is there."""
    kind = w.kind(lanes)
    align = f"align {w.bytes}"
    if verb == "add":
        before = w.op(f"load {kind}, ptr {place}, {align}")
        value = w.op(f"fadd contract nsz {kind} {before}, {value}")
    w.do(f"store {kind} {value}, ptr {place}, {align}")
