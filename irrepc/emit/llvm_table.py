"""LLVM text of long kernels: what they compute stands in constant tables, and short loops go through the tables.

Unrolled code grows with the number of terms, and so does the time to compile it.  Beyond UNROLLED terms a block is
printed as data instead: every number or row of channels that it reads or writes has a place, numbered once, and a
statement is a line of a table: the place of its target and, for each term, a coefficient and the places of its factors.
Statements of a stage that look alike (how they end, how many scalars and how many rows of channels a term multiplies)
form a run, and one small function serves all runs of that look.  Derivatives need nothing of their own: they are blocks
like any other (llvm_table_code.py).

Measured (AVX-512, one thread, a convolution of lmax 5 with 64 channels): an edge takes 14 µs (unrolled 6) for the
value and 59 µs (17) for the VJP; compiling takes 0.14 s (1.0) and 0.6 s (2.7).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from irrepc.algebra.surd import ONE
from irrepc.emit.llvm_writer import Writer
from irrepc.ir.block import Block, Stage, Statement
from irrepc.ir.kernel import Axes, Operand, Ref, Term

UNROLLED = 24_000
"""Terms of one function that are still unrolled: about ten seconds of compilation, and half a megabyte of code."""


def is_long(block: Block) -> bool:
    """True when a block is to be a table; loops over two axes at once (dense linear maps) are short and never are."""
    terms = sum(len(s.terms) for stage in block.stages for s in stage.statements)
    return terms > UNROLLED and all(len(stage.axes) < 2 for stage in block.stages)


class Look(NamedTuple):
    """What statements have in common that one loop can serve.

    verb     "let", "store", "add" or "sum"; "total": added up over the channels, then to a number of an output
    scalars  how many numbers a term multiplies, beside its coefficient
    rows     how many rows of channels it multiplies; none in scalar code
    plain    whether all coefficients are 1
    """

    verb: str
    scalars: int
    rows: int
    plain: bool

    def function(self, name: str, lanes: int) -> str:
        """The name of the function that serves it."""
        return f"@{name}.{self.verb}.{self.scalars}.{self.rows}.{'plain' if self.plain else 'scaled'}.{lanes}"


@dataclass(frozen=True, slots=True)
class Run:
    """Statements of one stage that look alike.

    first  number of the first statement, of the first term, and of its first factor in the tables
    """

    look: Look
    statements: tuple[Statement, ...]
    first: tuple[int, int, int]

    @property
    def shift(self) -> int:
        """The first factor of term t stands at t · (factors of a term) + shift."""
        _, term, factor = self.first
        return factor - term * (self.look.scalars + self.look.rows)


@dataclass(slots=True)
class Table:
    """The places of a block and what it computes as runs of alike statements.

    places  of every input and output component and every scalar register
    held    for each stage the places of what lives in its loop only: registers with channels, then partial sums
    starts  the first place of each operand, of "numbers", "rows" and "sums"; "end"
    """

    name: str
    block: Block
    operands: tuple[Operand, ...]
    axes: dict[Ref, Axes]
    places: dict[Ref, int] = field(default_factory=dict)
    held: list[dict[Ref, int]] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)
    runs: list[tuple[Run, ...]] = field(default_factory=list)

    @staticmethod
    def of(name: str, block: Block, operands: tuple[Operand, ...]) -> Table:
        """Number the places and the runs. operands: the inputs that are used, and the outputs."""
        axes = {Ref(o.name, i): a for o in block.kernel.operands.values() for i, a in enumerate(o.components)}
        table = Table(name, block, operands, axes)
        table._number()
        table._collect()
        return table

    def _number(self) -> None:
        """Places, in order of addresses; registers with channels and partial sums are those of one stage at a time."""
        count = 0
        for o in self.operands:
            self.starts[o.name] = count
            self.places |= {Ref(o.name, i): count + i for i in range(o.size)}
            count += o.size
        locals_ = [s for stage in self.block.stages for s in stage.statements if s.target not in self.places]
        numbers = dict.fromkeys(s.target for s in locals_ if not self.axes[s.target])
        self.starts["numbers"] = count  # the first is 1
        self.places |= {r: count + 1 + i for i, r in enumerate(numbers)}
        count += 1 + len(numbers)
        self.starts["rows"] = count  # the first is all 1
        rows = [[s.target for s in stage.statements if s.verb == "let" and stage.axes] for stage in self.block.stages]
        self.starts["sums"] = start = count + 1 + max(map(len, rows), default=0)
        self.held = [{r: count + 1 + i for i, r in enumerate(here)} for here in rows]
        for here, stage in zip(self.held, self.block.stages, strict=True):
            here |= {r: start + i for i, r in enumerate(sums(stage))}
        self.starts["end"] = start + max((len(sums(stage)) for stage in self.block.stages), default=0)

    def _collect(self) -> None:
        """Runs, stage by stage: definitions first, then by what they look like."""
        statements = terms = factors = 0
        for stage in self.block.stages:
            levels: dict[Ref, int] = {}
            looks: list[tuple[int, Look]] = []
            for s in stage.statements:
                level = max((levels[f] + 1 for t in s.terms for f in t.factors if f in levels), default=0)
                if s.verb == "let":
                    levels[s.target] = level
                looks.append((level, self._look(stage, s)))
            order = sorted(range(len(looks)), key=looks.__getitem__)
            runs = []
            for (_, look), numbers in groupby(order, key=looks.__getitem__):
                chosen = tuple(stage.statements[i] for i in numbers)
                runs.append(Run(look, chosen, (statements, terms, factors)))
                n = sum(len(s.terms) for s in chosen)
                statements, terms = statements + len(chosen), terms + n
                factors += n * (look.scalars + look.rows)
            self.runs.append(tuple(runs))

    def _look(self, stage: Stage, s: Statement) -> Look:
        """What a statement looks like: its longest terms count."""
        rows = max(sum(bool(self.axes[f]) for f in t.factors) for t in s.terms)
        scalars = max(sum(not self.axes[f] for f in t.factors) for t in s.terms)
        verb = "total" if s.verb == "add" and stage.axes and not self.axes[s.target] else s.verb
        return Look(verb, scalars, max(rows, len(stage.axes)), all(t.coeff == ONE for t in s.terms))

    def constants(self, w: Writer) -> str:
        """The tables, as constants that stand before the function; a comment names each target."""
        targets: list[str] = []
        ends = ["i32 0"]
        coefficients: list[str] = []
        factors: list[str] = []
        summed: list[str] = []
        terms = 0
        for stage, runs, held in zip(self.block.stages, self.runs, self.held, strict=True):
            places = self.places | held
            summed += [f"i32 {self.places[r]}" for r in sums(stage)]
            for run in runs:
                for s in run.statements:
                    terms += len(s.terms)
                    label = w.operands[s.target.operand].label(s.target.component)
                    note = f"  ; {s.target} {label}".rstrip()
                    targets.append(f"i32 {places[s.target]},{note}")
                    ends.append(f"i32 {terms}")
                    coefficients.append(" ".join(f"{w.real} {w.bits(t.coeff)}," for t in s.terms) + note)
                    factors.append(" ".join(f"i32 {p}," for t in s.terms for p in self._factors(run, t, places)) + note)
        kinds = [f"i32 {self.kinds.index(a)}" for o in self.operands for a in o.components]
        return "\n".join(
            (
                _constant(f"{self.name}.kinds", "i32", len(kinds), kinds),
                _constant(f"{self.name}.targets", "i32", len(targets), targets),
                _constant(f"{self.name}.ends", "i32", len(ends), ends),
                _constant(f"{self.name}.coefficients", w.real, terms, coefficients),
                _constant(f"{self.name}.factors", "i32", self._count_of_factors, factors),
                _constant(f"{self.name}.summed", "i32", len(summed), summed),
            )
        )

    def _factors(self, run: Run, t: Term, places: dict[Ref, int]) -> Iterator[int]:
        """The places of a term's factors, numbers first, filled up with ones."""
        numbers = [places[f] for f in t.factors if not self.axes[f]]
        rows = [places[f] for f in t.factors if self.axes[f]]
        yield from (*numbers, *[self.starts["numbers"]] * (run.look.scalars - len(numbers)))
        yield from (*rows, *[self.starts["rows"]] * (run.look.rows - len(rows)))

    @property
    def _count_of_factors(self) -> int:
        return sum(
            len(s.terms) * (run.look.scalars + run.look.rows)
            for runs in self.runs
            for run in runs
            for s in run.statements
        )

    @property
    def kinds(self) -> list[Axes]:
        """The channel axes that components carry, each once."""
        return list(dict.fromkeys(a for o in self.operands for a in o.components))


def sums(stage: Stage) -> list[Ref]:
    """What a stage sums over its channels into registers."""
    return [s.target for s in stage.statements if s.verb == "sum"]


def _constant(name: str, kind: str, count: int, entries: list[str]) -> str:
    """A constant array; entries end in a comma and a comment, or in nothing."""
    if not count:
        return f"@{name} = internal constant [0 x {kind}] zeroinitializer"
    lines = [e if "," in e.partition(";")[0] else f"{e}," for e in entries]
    value, mark, note = lines[-1].partition(";")
    lines[-1] = value.rstrip().removesuffix(",") + (f"  {mark}{note}" if mark else "")
    return "\n".join((f"@{name} = internal constant [{count} x {kind}] [", *(f"  {line}" for line in lines), "]"))
