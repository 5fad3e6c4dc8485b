"""Sums over channels: kept as vectors, one partial sum in each lane, until a number is needed.

Adding up the lanes of a vector costs as much as eight multiply-adds.  A row of a convolution sums many pairs of
components over its channels (45 at lmax 2, 197 at lmax 3), only to add the sums up with constants for the few
components of d_y.  A combination of sums is the sum of the combinations, so those are formed lane by lane as soon as a
loop is done, while its sums are in registers, and only their vectors are added up, at the end of the row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from irrepc.algebra.surd import ONE, Surd
from irrepc.emit.llvm_writer import Writer, reduction
from irrepc.emit.printer import size
from irrepc.ir.block import Block, Statement
from irrepc.ir.kernel import Ref


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of one row.

    users  where each sum is added up with others, (target, coefficient); empty for sums that are needed as numbers
    wide   partial sums by lanes: of these sums first, then of what adds them up
    """

    users: dict[Ref, tuple[tuple[Ref, Surd], ...]]
    wide: dict[Ref, str] = field(default_factory=dict)

    @staticmethod
    def of(block: Block) -> Sums:
        """Combine lane by lane where that leaves fewer vectors to be added up than there are sums."""
        sums = {s.target for stage in block.stages for s in stage.statements if s.verb == "sum"}
        users: dict[Ref, list[tuple[Ref, Surd]]] = defaultdict(list)
        numbers: set[Ref] = set()
        for stage in block.stages:
            for s in stage.statements:
                for t in s.terms:
                    if not stage.axes and len(t.factors) == 1 and t.factors[0] in sums:
                        users[t.factors[0]].append((s.target, t.coeff))
                    else:
                        numbers.update(f for f in t.factors if f in sums)
        linear = {r: tuple(u) for r, u in users.items() if r not in numbers}
        targets = {target for u in linear.values() for target, _ in u}
        return Sums(linear if len(targets) < len(linear) else {})

    def begin(self, targets: Iterable[Ref]) -> dict[Ref, str]:
        """The vectors from which sums of the next loop go on, zero for others.

        A sum that is only added to another, as it is, goes on from what has been added to that one.
        """
        out = {}
        for target in targets:
            users = self.users.get(target, ())
            if len(users) == 1 and users[0][1] == ONE and users[0][0] in self.wide:
                out[target] = self.wide.pop(users[0][0])
        return out

    def keep(self, w: Writer, target: Ref, places: dict[int, str]) -> None:
        """A loop is done and left the partial sums of `target` at `places`, one for each number of lanes."""
        most = w.lanes[0]
        kind = w.kind(most)
        total = ""
        for lanes, place in places.items():
            part = w.op(f"load {w.kind(lanes)}, ptr {place}")
            total = w.join(total, 1, w.widened(part, lanes), kind)
        if target not in self.users:
            w.scalars[target] = self._reduced(w, total, "0.0", target)
        for user, coeff in self.users.get(target, ()):
            product = total
            if not size(coeff).is_unit:
                product = w.op(f"fmul contract nsz {kind} {w.constant(size(coeff), most)}, {total}")
            self.wide[user] = w.join(self.wide.get(user, ""), coeff.sign, product, kind)

    def total(self, w: Writer, s: Statement) -> str:
        """The right-hand side of a scalar statement, the sums in it added up."""
        rest = tuple(t for t in s.terms if not (len(t.factors) == 1 and t.factors[0] in self.users))
        result = w.total(rest, w.scalars, 1, w.operands[s.target.operand].label(s.target.component)) if rest else "0.0"
        return self._reduced(w, self.wide[s.target], result, s.target) if s.target in self.wide else result

    def _reduced(self, w: Writer, vector: str, start: str, target: Ref) -> str:
        lanes = w.lanes[0]
        call = f"call reassoc nsz {w.real} @{reduction(w.real, lanes)}({w.real} {start}, {w.kind(lanes)} {vector})"
        return w.op(call, "sum", w.operands[target.operand].label(target.component))
