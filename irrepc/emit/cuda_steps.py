"""CUDA steps: a scheduled block -> the statements of one thread, each value read or computed just before its first use.

A processor with many threads hides the wait for memory behind other threads, of which there are the more the fewer
registers each one holds; so the order of statements keeps few values alive, and `registers` estimates how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from irrepc.algebra.surd import ONE
from irrepc.ir.block import Block, Stage, Statement
from irrepc.ir.kernel import Axes, Kernel, Ref, Term

SHORT = 4
"""Parts of an output up to which they are written as one sum; a longer one is added up part by part."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a thread.

    load   an input component is read
    let    a register, defined once
    sum    what this lane's channels bring to a sum over channels, kept until the lanes are added up
    share  the same, added to the lane's share of an output
    start  a register that the following steps add more to
    more   added to such a register
    once   added to an output by the first lane alone: the same number in all lanes
    add    added to the accumulator of an output
    store  written to an output
    """

    verb: str
    target: Ref
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Nest:
    """Steps inside the same loops over channels; axes () is outside of any.  `sums` are added up across lanes after."""

    axes: Axes
    steps: tuple[Step, ...]
    sums: tuple[Ref, ...] = ()


def lay_out(block: Block) -> tuple[Nest, ...]:
    """The nests of a block in order.

    A sum over channels that outputs need linearly is never completed in a register: each lane adds its part to its
    share of the outputs, which are far fewer, and these are summed across the lanes once.
    """
    kernel = block.kernel
    axes = {Ref(o.name, i): a for o in kernel.operands.values() for i, a in enumerate(o.components)}
    runs = _runs(block.stages)
    sums = {s.target for stage in runs for s in stage.statements if s.verb == "sum"}
    scalars = {s.target: s for stage in runs if not stage.axes for s in stage.statements if s.verb == "let"}
    endings = [s for stage in runs if not stage.axes for s in stage.statements if s.verb != "let"]
    shared, late = _shares(sums, scalars, endings, runs)
    writer = _Layout(kernel, axes, scalars, shared, sums - set(shared))
    nests = [writer.nest(stage) for stage in runs if stage.axes]
    if nests:
        late = [replace(s, verb="once" if s.verb == "add" else s.verb) for s in late]
    if late:
        nests.append(writer.nest(Stage((), tuple(late))))
    return tuple(nests)


def registers(nests: tuple[Nest, ...], axes: dict[Ref, Axes], channel: int = 2, scalar: int = 1) -> int:
    """The most registers that values occupy at a time, at so many for each value with channels and without.

    Accumulators of outputs live throughout, any other value from its definition to its last use.
    """
    weight = {ref: channel if a else scalar for ref, a in axes.items()}
    lasting = {s.target for nest in nests for s in nest.steps if s.verb in ("add", "share", "once")}
    lasting |= {ref for nest in nests for ref in nest.sums}
    base = sum(weight[ref] for ref in lasting)
    peak = base
    for nest in nests:
        uses: dict[Ref, list[int]] = {}
        for i, s in enumerate(nest.steps):
            for f in {f for t in s.terms for f in t.factors}:
                uses.setdefault(f, []).append(i)
        # What is read for one statement alone can be read term by term.
        passing = {s.target for s in nest.steps if s.verb == "load" and len(uses[s.target]) == 1}
        ending: dict[int, int] = {}
        for ref, steps in uses.items():
            if ref not in lasting and ref not in passing:
                ending[steps[-1]] = ending.get(steps[-1], 0) + weight[ref]
        live = base
        for i, s in enumerate(nest.steps):
            if s.verb in ("load", "let", "start", "sum") and s.target not in lasting and s.target not in passing:
                live += weight[s.target]
                peak = max(peak, live)
            live -= ending.get(i, 0)
    return peak


def _runs(stages: Iterable[Stage]) -> list[Stage]:
    """The stages with neighbours in the same loops made one, up to where scalar code or a finished sum is needed."""
    out: list[Stage] = []
    run: dict[Axes, list[Statement]] = {}
    summed: set[Ref] = set()
    for stage in (*stages, Stage((), ())):
        if not stage.axes or any(f in summed for s in stage.statements for t in s.terms for f in t.factors):
            out += [Stage(axes, tuple(statements)) for axes, statements in run.items()]
            run, summed = {}, set()
        if not stage.axes:
            out += [stage] if stage.statements else []
            continue
        known = run.setdefault(stage.axes, [])
        targets = {s.target for s in known if s.verb == "let"}
        known += [s for s in stage.statements if s.verb != "let" or s.target not in targets]
        summed |= {s.target for s in stage.statements if s.verb == "sum"}
    return out


def _shares(
    sums: set[Ref], scalars: dict[Ref, Statement], endings: list[Statement], stages: list[Stage]
) -> tuple[dict[Ref, list[Statement]], list[Statement]]:
    """Which sums go straight into shares of outputs, as {sum: what is added to them}, and the endings that are left."""
    busy = {f for s in scalars.values() for t in s.terms for f in t.factors if f in sums}
    busy |= {f for g in stages if g.axes for s in g.statements for t in s.terms for f in t.factors if f in sums}
    busy |= {f for s in endings for t in s.terms if sum(f in sums for f in t.factors) > 1 for f in t.factors}
    shared: dict[Ref, list[Statement]] = {}
    late = []
    for s in endings:
        rest: list[Term] = []
        for t in s.terms:
            for part in (f for f in t.factors if f in sums and f not in busy):
                shared.setdefault(part, []).append(Statement("share", s.target, (t,)))
                break
            else:
                rest.append(t)
        if len(rest) == len(s.terms):
            late.append(s)
        elif rest:
            late.append(Statement("once", s.target, tuple(rest)))
    return shared, late


class _Layout:
    """Puts loads, scalars and registers in front of their first use."""

    def __init__(
        self,
        kernel: Kernel,
        axes: dict[Ref, Axes],
        scalars: dict[Ref, Statement],
        shared: dict[Ref, list[Statement]],
        early: set[Ref],
    ) -> None:
        self.inputs = {o.name for o in kernel.inputs}
        self.axes, self.scalars, self.shared, self.early = axes, scalars, shared, early

    def nest(self, stage: Stage) -> Nest:
        """The steps of one loop nest."""
        lets = {s.target: s for s in stage.statements if s.verb == "let"} | self.scalars
        leaves = self._leaves(lets)
        roots = [piece for s in stage.statements if s.verb != "let" for piece in _pieces(s, leaves)]
        steps: list[Step] = []
        known: set[Ref] = set(self.early)

        def need(terms: tuple[Term, ...]) -> None:
            for f in dict.fromkeys(f for t in terms for f in t.factors):
                if f in known:
                    continue
                known.add(f)
                if f.operand in self.inputs:
                    steps.append(Step("load", f))
                else:
                    define("let", f, lets[f].terms)

        def define(verb: str, target: Ref, terms: tuple[Term, ...]) -> None:
            pieces = _pieces(Statement("add", target, terms), leaves)
            if len(pieces) <= SHORT or verb == "sum" or not stage.axes:
                need(terms)
                steps.append(Step(verb, target, terms))
                return
            for i, piece in enumerate(_ordered(pieces, leaves)):
                need(piece.terms)
                steps.append(Step("more" if i else "start", target, piece.terms))
            if verb == "store":
                known.add(target)
                steps.append(Step(verb, target, (Term(ONE, (target,)),)))

        for s in _joined(_ordered(roots, leaves)):
            if s.verb == "store":
                define(s.verb, s.target, s.terms)
                continue
            need(s.terms)
            verb = s.verb
            if verb == "add" and not self.axes[s.target] and stage.axes:
                verb = "share"
            steps.append(Step(verb, s.target, s.terms))
            for follower in self.shared.get(s.target, ()) if s.verb == "sum" else ():
                need(tuple(Term(t.coeff, tuple(f for f in t.factors if f != s.target)) for t in follower.terms))
                steps.append(Step("share", follower.target, follower.terms))
        return Nest(stage.axes, tuple(steps), tuple(s.target for s in roots if s.target in self.early))

    def _leaves(self, lets: dict[Ref, Statement]) -> Callable[[Iterable[Term]], int]:
        """A function from terms to the values with channels that they are made of in the end, one bit for each."""
        bits: dict[Ref, int] = {}

        def leaf(ref: Ref) -> int:
            if ref not in bits:
                bits[ref] = leaves(lets[ref].terms) if ref in lets else 1 << len(bits) if self.axes[ref] else 0
            return bits[ref]

        def leaves(terms: Iterable[Term]) -> int:
            return reduce(or_, (leaf(f) for t in terms for f in t.factors), 0)

        return leaves


Leaves = Callable[[Iterable[Term]], int]


def _pieces(s: Statement, leaves: Leaves) -> list[Statement]:
    """A sum into an accumulator, cut into terms that are made of different values and need not wait for each other."""
    if s.verb != "add":
        return [s]
    alike: dict[int, list[Term]] = {}
    for t in s.terms:
        alike.setdefault(leaves((t,)), []).append(t)
    return [replace(s, terms=tuple(terms)) for terms in alike.values()]


def _ordered(roots: list[Statement], leaves: Leaves) -> list[Statement]:
    """The roots so that each one brings as few new values with channels as can be; a draw goes to the first."""
    wanted = [leaves(s.terms) for s in roots]
    out, loaded, left = [], 0, list(range(len(roots)))
    while left:
        best = min(left, key=lambda i: ((wanted[i] & ~loaded).bit_count(), i))
        left.remove(best)
        loaded |= wanted[best]
        out.append(roots[best])
    return out


def _joined(roots: list[Statement]) -> list[Statement]:
    """Neighbours that add to the same accumulator as one."""
    out: list[Statement] = []
    for s in roots:
        if out and s.verb == "add" and out[-1].verb == "add" and out[-1].target == s.target:
            out[-1] = replace(s, terms=out[-1].terms + s.terms)
        else:
            out.append(s)
    return out
