"""Writer: instructions of LLVM IR, line by line: loops, addresses, sums of terms.

Loop counters and accumulators are stack slots; LLVM's mem2reg turns them into registers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from irrepc.algebra.surd import ONE, Surd
from irrepc.emit.printer import size
from irrepc.emit.views import counts_before
from irrepc.ir.kernel import Axes, Kernel, Operand, Ref, Term

REALS = {"float32": "float", "float64": "double"}
LANES = {"float32": (16, 4, 1), "float64": (8, 2, 1)}
"""Channels at a time: 512 bits (one AVX-512 register, two of AVX2, four of NEON), then 128, then one by one.

LLVM splits what the machine has not.  The number of channels is a constant when a kernel is compiled, so loops that
would never run cost nothing.
"""


@dataclass(slots=True)
class Writer:
    """Writes one function."""

    kernel: Kernel
    real: str
    lanes: tuple[int, ...]
    lines: list[str] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    counter: int = 0
    scalars: dict[Ref, str] = field(default_factory=dict)
    axes: dict[Ref, Axes] = field(default_factory=dict)
    operands: dict[str, Operand] = field(default_factory=dict)
    offsets: dict[tuple[str, int], str] = field(default_factory=dict)
    before: dict[str, list[dict[Axes, int]]] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    fetched: set[Ref] = field(default_factory=set)

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

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """if (condition) { ... }."""
        self.counter += 1
        label = f"if.{self.counter}"
        self.do(f"br i1 {condition}, label %{label}.then, label %{label}.end")
        self.lines.append(f"{label}.then:")
        yield
        self.do(f"br label %{label}.end")
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

    def offset(self, o: Operand, component: int) -> str:
        """Where a component begins in a row; computed once, on entry."""
        known = self.offsets.get((o.name, component))
        if known is None:
            if o.name not in self.before:
                self.before[o.name] = counts_before(o)
            body, self.lines = self.lines, self.slots
            known = self.volume(self.before[o.name][component])
            self.lines = body
            self.offsets[o.name, component] = known
        return known

    def element(self, o: Operand, component: int, row: str, at: dict[str, str]) -> str:
        """The address of a component at the channels `at`, from the address of its row."""
        flat = "0"
        for a in o.components[component]:
            flat = self.plus(self.times(flat, f"%{a}"), at[a])
        place = self.plus(self.offset(o, component), flat)
        return self.op(f"getelementptr inbounds {self.real}, ptr {row}, i64 {place}", "p")

    @property
    def bytes(self) -> int:
        """The size of a number."""
        return 4 if self.real == "float" else 8

    @property
    def align(self) -> str:
        """Numbers are aligned to their own size, nothing more is known of an array."""
        return f"align {self.bytes}"

    # ── numbers ──────────────────────────────────────────────────────────────────────────────────

    def kind(self, lanes: int) -> str:
        """The type of a value: a number, or a vector of channels."""
        return self.real if lanes == 1 else f"<{lanes} x {self.real}>"

    def constant(self, value: Surd, lanes: int) -> str:
        """A literal in every lane."""
        return self.splat(self.bits(value), lanes, str(value))

    def bits(self, value: Surd) -> str:
        """A literal, rounded once."""
        number = float(value)
        if self.real == "float":
            number = struct.unpack("f", struct.pack("f", number))[0]
        bits = struct.unpack("<Q", struct.pack("<d", number))[0]
        return f"0x{bits:016X}"

    def splat(self, value: str, lanes: int, note: str = "") -> str:
        """A number in every lane."""
        if lanes == 1:
            return value
        kind = self.kind(lanes)
        one = self.op(f"insertelement {kind} poison, {self.real} {value}, i64 0", "v", note)
        return self.op(f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer", "v")

    def widened(self, value: str, lanes: int) -> str:
        """The lanes of a value, and zeros up to the most lanes there are."""
        most = self.lanes[0]
        if lanes == most:
            return value
        if lanes == 1:
            return self.op(f"insertelement {self.kind(most)} zeroinitializer, {self.real} {value}, i64 0", "v")
        kind, order = self.kind(lanes), ", ".join(f"i32 {min(i, lanes)}" for i in range(most))
        return self.op(f"shufflevector {kind} {value}, {kind} zeroinitializer, <{most} x i32> <{order}>", "v")

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


def reduction(real: str, lanes: int) -> str:
    """The intrinsic that adds up a vector."""
    return f"llvm.vector.reduce.fadd.v{lanes}f{32 if real == 'float' else 64}"
