"""LLVM text: a scheduled kernel as explicit-vector LLVM IR, one function for each way its outputs are scattered.

Channels are the vector axis: each channel loop runs over `lanes` channels at a time and then over the rest one by
one.  Nothing is left for a vectoriser to find, so compiling is short and the result does not depend on luck.
Loop counters and accumulators are stack slots; LLVM's mem2reg turns them into registers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from irrepc.algebra.surd import ONE, Surd
from irrepc.emit.printer import size, variable
from irrepc.emit.views import count
from irrepc.ir.block import Block, Stage, Statement
from irrepc.ir.kernel import Axes, Kernel, Operand, Ref, Term

REALS = {"float32": "float", "float64": "double"}
LANES = {"float32": 16, "float64": 8}
"""512 bits: one AVX-512 register, two of AVX2, four of NEON; LLVM splits what the machine has not."""


@dataclass(slots=True)
class _Writer:
    """Writes one function."""

    kernel: Kernel
    real: str
    lanes: int
    lines: list[str] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    counter: int = 0
    scalars: dict[Ref, str] = field(default_factory=dict)
    axes: dict[Ref, Axes] = field(default_factory=dict)
    operands: dict[str, Operand] = field(default_factory=dict)

    # ── lines ────────────────────────────────────────────────────────────────────────────────────

    def name(self, hint: str = "t") -> str:
        """A fresh register."""
        self.counter += 1
        return f"%{hint}.{self.counter}"

    def op(self, text: str, hint: str = "t", note: str = "") -> str:
        """Append `register = text` and return the register."""
        register = self.name(hint)
        self.lines.append(f"  {register} = {text}" + (f"  ; {note}" if note else ""))
        return register

    def do(self, text: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {text}")

    def comment(self, text: str) -> None:
        """Append a comment line."""
        self.lines.append(f"  ; {text}")

    def slot(self, kind: str, hint: str) -> str:
        """A stack slot, allocated on entry."""
        register = self.name(hint)
        self.slots.append(f"  {register} = alloca {kind}")
        return register

    @contextmanager
    def loop(self, start: str, stop: str, step: int, hint: str) -> Iterator[str]:
        """for (i = start; i < stop; i += step); yields i."""
        self.counter += 1
        label = f"{hint}.{self.counter}"
        place = self.slot("i64", hint)
        self.do(f"store i64 {start}, ptr {place}")
        self.do(f"br label %{label}.test")
        self.lines.append(f"{label}.test:")
        i = self.op(f"load i64, ptr {place}", hint)
        again = self.op(f"icmp slt i64 {i}, {stop}", "again")
        self.do(f"br i1 {again}, label %{label}.body, label %{label}.end")
        self.lines.append(f"{label}.body:")
        yield i
        following = self.op(f"add nsw i64 {i}, {step}", hint)
        self.do(f"store i64 {following}, ptr {place}")
        self.do(f"br label %{label}.test")
        self.lines.append(f"{label}.end:")

    # ── integers and addresses ───────────────────────────────────────────────────────────────────

    def times(self, a: str, b: str) -> str:
        """a · b, folded where one is a literal 0 or 1."""
        if "0" in (a, b):
            return "0"
        if a == "1" or b == "1":
            return b if a == "1" else a
        return self.op(f"mul nsw i64 {a}, {b}", "i")

    def plus(self, a: str, b: str) -> str:
        """a + b, folded where one is a literal 0."""
        if "0" in (a, b):
            return b if a == "0" else a
        return self.op(f"add nsw i64 {a}, {b}", "i")

    def volume(self, components: dict[Axes, int]) -> str:
        """Σ n · Π extents."""
        total = "0"
        for axes, n in components.items():
            product = str(n)
            for a in axes:
                product = self.times(product, f"%{a}")
            total = self.plus(total, product)
        return total

    def element(self, o: Operand, component: int, row: str, at: dict[str, str]) -> str:
        """The address of a component at the channels `at`, from the address of its row."""
        before = Operand(o.name, o.components[:component])
        flat = "0"
        for a in o.components[component]:
            flat = self.plus(self.times(flat, f"%{a}"), at[a])
        place = self.plus(self.volume(count(before)), flat)
        return self.op(f"getelementptr inbounds {self.real}, ptr {row}, i64 {place}", "p")

    # ── numbers ──────────────────────────────────────────────────────────────────────────────────

    def kind(self, lanes: int) -> str:
        """The type of a value: a number, or a vector of channels."""
        return self.real if lanes == 1 else f"<{lanes} x {self.real}>"

    def constant(self, value: Surd, lanes: int) -> str:
        """A literal, rounded once."""
        number = float(value)
        if self.real == "float":
            number = struct.unpack("f", struct.pack("f", number))[0]
        bits = struct.unpack("<Q", struct.pack("<d", number))[0]
        return self.splat(f"0x{bits:016X}", lanes)

    def splat(self, value: str, lanes: int) -> str:
        """A number in every lane."""
        if lanes == 1:
            return value
        kind = self.kind(lanes)
        one = self.op(f"insertelement {kind} poison, {self.real} {value}, i64 0", "v")
        return self.op(f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer", "v")

    def total(self, terms: tuple[Term, ...], value: dict[Ref, str], lanes: int, note: str) -> str:
        """Σ terms, those with the same |coefficient| taken together; multiply-adds are left to contraction."""
        kind = self.kind(lanes)
        groups: dict[Surd, list[Term]] = {}
        for t in terms:
            groups.setdefault(size(t.coeff), []).append(t)
        result = ""
        for absolute, group in groups.items():
            lead = group[0].coeff.sign if absolute != ONE else 1
            inner = "" if absolute != ONE else result
            for t in group:
                inner = self.accumulate(inner, t.coeff.sign * lead, t.factors, value, lanes)
            if absolute == ONE:
                result = inner
                continue
            literal = self.constant(absolute, lanes)
            scaled = self.op(f"fmul contract nsz {kind} {literal}, {inner}", note=str(absolute))
            result = self.join(result, lead, scaled, kind)
        if not note:
            return result
        self.lines[-1] += f"  ; {note}"
        return result

    def accumulate(self, before: str, sign: int, factors: tuple[Ref, ...], value: dict[Ref, str], lanes: int) -> str:
        """before ± Π factors."""
        kind = self.kind(lanes)
        if not factors:
            return self.join(before, sign, self.constant(ONE, lanes), kind)
        ordered = sorted(factors, key=lambda f: (len(self.axes[f]), f))
        product = value[ordered[0]]
        for f in ordered[1:]:
            product = self.op(f"fmul contract nsz {kind} {product}, {value[f]}")
        return self.join(before, sign, product, kind)

    def join(self, before: str, sign: int, value: str, kind: str) -> str:
        """before ± value; an empty `before` is nothing."""
        if before:
            return self.op(f"{'fadd' if sign > 0 else 'fsub'} contract nsz {kind} {before}, {value}")
        return value if sign > 0 else self.op(f"fneg {kind} {value}")


def llvm_function(name: str, block: Block, dtype: str, lanes: int | None = None) -> str:
    """The text of one part: `void name(n0, n1, inputs, gathered rows, CSR of the scatter, extents, outputs)`.

    dtype  "float32" or "float64"
    lanes  channels per vector; default LANES[dtype]
    """
    kernel = block.kernel
    w = _Writer(kernel, REALS[dtype], lanes or LANES[dtype])
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
    arguments += [f"i64 %{a}" for a in kernel.channels]
    arguments += [f"ptr noalias %{o.name}" for o in kernel.outputs]
    _rows(w, block, inputs, gathers, scatter)
    head = f"define void @{name}({', '.join(arguments)}) #0 {{"
    return "\n".join([head, "entry:", *w.slots, *w.lines, "  ret void", "}", ""])


def used_inputs(kernel: Kernel) -> tuple[Operand, ...]:
    """The inputs that some equation reads (the first one when none does)."""
    used = {f.operand for e in kernel.equations for t in e.terms for f in t.factors}
    return tuple(o for o in kernel.inputs if o.name in used) or kernel.inputs[:1]


def gathered(inputs: tuple[Operand, ...], scatter: str | None) -> tuple[str, ...]:
    """The indices through which inputs are read, other than the one of the scatter."""
    return tuple(dict.fromkeys(o.index for o in inputs if o.index is not None and o.index != scatter))


def _rows(w: _Writer, block: Block, inputs: tuple[Operand, ...], gathers: tuple[str, ...], scatter: str | None) -> None:
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


def _row(w: _Writer, o: Operand, row: str, strides: dict[str, str]) -> str:
    """The address of a row."""
    return w.op(f"getelementptr inbounds {w.real}, ptr %{o.name}, i64 {w.times(row, strides[o.name])}", "row")


def _blank(w: _Writer, row: str, width: str) -> None:
    bytes_ = w.times(width, "4" if w.real == "float" else "8")
    w.do(f"call void @llvm.memset.p0.i64(ptr align 4 {row}, i8 0, i64 {bytes_}, i1 false)")


def _edge(
    w: _Writer,
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


def _used(stages: tuple[Stage, ...], w: _Writer, *, channelled: bool) -> list[Ref]:
    """The input components that some stages read, with channels or without."""
    inputs = {o.name for o in w.kernel.inputs}
    used = {f for stage in stages for s in stage.statements for t in s.terms for f in t.factors}
    return sorted(f for f in used if f.operand in inputs and bool(w.axes[f]) == channelled)


def _scalar_statement(w: _Writer, s: Statement, rows: dict[str, str]) -> None:
    result = w.total(s.terms, w.scalars, 1, w.operands[s.target.operand].label(s.target.component))
    if s.verb == "let":
        w.scalars[s.target] = result
        return
    place = w.element(w.operands[s.target.operand], s.target.component, rows[s.target.operand], {})
    _write(w, s.verb, result, place, 1)


def _write(w: _Writer, verb: str, value: str, place: str, lanes: int) -> None:
    kind = w.kind(lanes)
    align = f"align {4 if w.real == 'float' else 8}"
    if verb == "add":
        before = w.op(f"load {kind}, ptr {place}, {align}")
        value = w.op(f"fadd contract nsz {kind} {before}, {value}")
    w.do(f"store {kind} {value}, ptr {place}, {align}")


def _channel_loops(w: _Writer, stage: Stage, rows: dict[str, str]) -> None:
    """A loop nest over channels: the last axis by vectors, then its rest one by one."""
    *outer, inner = stage.axes
    done = [variable(s.target) for s in stage.statements if s.verb != "let"]
    w.comment(f"for each channel: {', '.join(done if len(done) < 4 else [done[0], '...', done[-1]])}")
    totals = {s.target: w.slot(w.kind(w.lanes), variable(s.target)) for s in stage.statements if s.verb == "sum"}
    rests = {target: w.slot(w.real, variable(target)) for target in totals}
    for target, place in totals.items():
        w.do(f"store {w.kind(w.lanes)} zeroinitializer, ptr {place}")
        w.do(f"store {w.real} 0.0, ptr {rests[target]}")
    whole = w.op(f"and i64 %{inner}, {-w.lanes}", "whole")

    def nest(axes: list[str], at: dict[str, str]) -> None:
        if axes:
            with w.loop("0", f"%{axes[0]}", 1, axes[0]) as i:
                nest(axes[1:], {**at, axes[0]: i})
            return
        with w.loop("0", whole, w.lanes, inner) as i:
            _channel_body(w, stage, rows, {**at, inner: i}, inner, w.lanes, totals)
        with w.loop(whole, f"%{inner}", 1, inner) as i:
            _channel_body(w, stage, rows, {**at, inner: i}, inner, 1, rests)

    nest(list(outer), {})
    kind = w.kind(w.lanes)
    for target, place in totals.items():
        vector = w.op(f"load {kind}, ptr {place}")
        rest = w.op(f"load {w.real}, ptr {rests[target]}")
        call = f"call reassoc nsz {w.real} @{_reduce(w.real, w.lanes)}({w.real} {rest}, {kind} {vector})"
        w.scalars[target] = w.op(call, variable(target), w.operands[target.operand].label(target.component))


def _channel_body(
    w: _Writer,
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
                call = f"call reassoc nsz {w.real} @{_reduce(w.real, lanes)}"
                result = w.op(f"{call}({w.real} 0.0, {kind} {result})")
                _write(w, s.verb, result, place, 1)
            else:
                _write(w, s.verb, result, place, lanes)


def llvm_head(dtype: str) -> str:
    """What every module of IR begins with: the intrinsics that kernels call."""
    real, lanes = REALS[dtype], LANES[dtype]
    return "\n".join(
        [
            "declare void @llvm.memset.p0.i64(ptr writeonly, i8, i64, i1 immarg)",
            f"declare {real} @{_reduce(real, lanes)}({real}, <{lanes} x {real}>)",
            "attributes #0 = { nounwind }",
            "",
        ]
    )


def _reduce(real: str, lanes: int) -> str:
    """The intrinsic that adds up a vector."""
    return f"llvm.vector.reduce.fadd.v{lanes}f{32 if real == 'float' else 64}"
