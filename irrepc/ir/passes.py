"""Passes: kernel -> kernel rewrites that keep the meaning exactly and lower the cost.

  merge   locals with the same right-hand side become one; what no output needs is dropped; definition order
  hoist   sums of scalars are moved out of the channel loops, and sums over channels are done once
  factor  common factors are taken out: w·(M1·x1 + M2·x2)
  share   products of two factors that occur again are computed once

The one that matters for speed is hoist: along an edge, M[i, k] = Σ_j C[i, j, k]·y[j] is a scalar, so the channel loop
holds one multiply-add for each (i, k) and no coupling constants.  In the derivative with respect to y the same
pass sums over the channels first: S[i, k] = Σ_u w·x[i]·g[k], then d_y[j] = Σ_ik C[i, j, k]·S[i, k].
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from irrepc.algebra.surd import ONE, Surd
from irrepc.ir.kernel import Axes, Equation, Kernel, Operand, Ref, Term, collect

Monomial = tuple[Ref, ...]
Polynomial = dict[Monomial, Surd]
Items = tuple[tuple[Monomial, Surd], ...]
Kind = tuple[Ref, tuple[str, ...]]
"""A factor and the operands that it multiplies."""


@dataclass(slots=True)
class _Draft:
    """A kernel under rewriting: equations as mutable maps and the locals added so far."""

    kernel: Kernel
    equations: dict[Ref, Polynomial]
    axes: dict[Ref, Axes]
    family: str
    added: list[tuple[Axes, str]]
    known: dict[tuple[tuple[Monomial, Surd], ...], Ref]

    def axes_of(self, factors: Monomial) -> Axes:
        """The channel axes that a product carries, in order of appearance."""
        return tuple(dict.fromkeys(a for f in factors for a in self.axes[f]))

    def local(self, polynomial: Polynomial, axes: Axes, label: str) -> tuple[Ref, int]:
        """A local equal to ±polynomial (the same one for equal polynomials) and the sign."""
        items = tuple(sorted(polynomial.items()))
        sign = 1 if items[0][1].sign > 0 else -1
        if sign < 0:
            items = tuple((m, -c) for m, c in items)
        if items not in self.known:
            ref = Ref(self.family, len(self.added))
            self.added.append((axes, label))
            self.axes[ref] = axes
            self.known[items] = ref
            self.equations[ref] = dict(items)
        return self.known[items], sign

    def finish(self) -> Kernel:
        """The kernel again, locals in definition order."""
        family = Operand(
            self.family, tuple(a for a, _ in self.added), _row(self.kernel), labels=tuple(t for _, t in self.added)
        )
        extra = (family,) if self.added else ()
        equations = tuple(
            Equation(t, tuple(Term(c, f) for f, c in sorted(p.items()))) for t, p in self.equations.items()
        )
        return merge(replace(self.kernel, equations=equations, locals=self.kernel.locals + extra))


def _draft(kernel: Kernel, letter: str) -> _Draft:
    names = set(kernel.operands)
    family = letter
    while family in names:
        family += letter
    axes = {Ref(o.name, i): a for o in kernel.operands.values() for i, a in enumerate(o.components)}
    equations = {e.target: {t.factors: t.coeff for t in e.terms} for e in kernel.equations}
    return _Draft(kernel, equations, axes, family, [], {})


def _row(kernel: Kernel) -> str:
    own = [o.rows for o in (*kernel.inputs, *kernel.outputs) if o.rows is not None and o.index is None]
    indexed = [o.index for o in (*kernel.inputs, *kernel.outputs) if o.index is not None]
    return own[0] if own else ("edge" if indexed else "row")


def merge(kernel: Kernel) -> Kernel:
    """Equal locals become one, locals that no output needs are dropped, each local stands before its first use."""
    outputs = {o.name for o in kernel.outputs}
    polynomials = {e.target: e.terms for e in kernel.equations}
    axes = {Ref(o.name, i): a for o in kernel.locals for i, a in enumerate(o.components)}
    same: dict[Ref, Ref] = {}
    known: dict[tuple[Axes, tuple[Term, ...]], Ref] = {}
    done: list[Equation] = []

    def visit(root: Ref) -> None:
        stack = [(root, False)]
        while stack:
            target, ready = stack.pop()
            if target in same:
                continue
            if not ready:
                stack.append((target, True))
                needed = (f for t in polynomials[target] for f in t.factors if f in polynomials and f not in same)
                stack.extend((f, False) for f in reversed(list(needed)))
                continue
            terms = polynomials[target]
            if not _is_collected(terms) or any(same.get(f, f) is not f for t in terms for f in t.factors):
                rewritten = collect((target, Term(t.coeff, tuple([same.get(f, f) for f in t.factors]))) for t in terms)
                terms = rewritten[0].terms if rewritten else ()
            is_local = target.operand not in outputs
            alias = _alias(terms, axes.get(target)) if is_local else None
            if alias is not None and axes.get(alias, axes[target]) == axes[target] and alias in axes:
                same[target] = alias
                continue
            key = (axes.get(target, ()), terms)
            if is_local and key in known:
                same[target] = known[key]
                continue
            if is_local:
                known[key] = target
            same[target] = target
            if terms:
                done.append(Equation(target, terms))

    for equation in kernel.equations:
        if equation.target.operand in outputs:
            visit(equation.target)
    used = {e.target.operand for e in done}
    return replace(kernel, equations=tuple(done), locals=tuple(o for o in kernel.locals if o.name in used))


def _is_collected(terms: tuple[Term, ...]) -> bool:
    """True when the monomials rise strictly and no coefficient is zero: there is nothing to add up."""
    return all(t.coeff for t in terms) and all(a.factors < b.factors for a, b in pairwise(terms))


def _alias(terms: tuple[Term, ...], axes: Axes | None) -> Ref | None:
    """The single factor a local merely repeats, if that is all it does."""
    if axes is None or len(terms) != 1 or len(terms[0].factors) != 1 or terms[0].coeff != ONE:
        return None
    return terms[0].factors[0]


def hoist(kernel: Kernel) -> Kernel:
    """Move scalar sums out of the channel loops and do each sum over channels once."""
    draft = _draft(kernel, "m")
    sums: dict[Monomial, list[tuple[Ref, Monomial, Surd]]] = {}
    for target, polynomial in list(draft.equations.items()):
        own = draft.axes[target]
        groups: dict[Monomial, Polynomial] = {}
        kept: Polynomial = {}
        for factors, coeff in polynomial.items():
            channelled = tuple(f for f in factors if draft.axes[f])
            scalars = tuple(f for f in factors if not draft.axes[f])
            if not channelled:
                kept[factors] = coeff
            elif not own:
                sums.setdefault(channelled, []).append((target, scalars, coeff))
            elif set(draft.axes_of(channelled)) <= set(own):
                groups.setdefault(channelled, {})[scalars] = coeff
            else:
                kept[factors] = coeff
        for channelled, scalars_sum in groups.items():
            if _is_plain(scalars_sum):
                ((scalars, coeff),) = scalars_sum.items()
                _add(kept, (*scalars, *channelled), coeff)
                continue
            ref, sign = draft.local(scalars_sum, (), _story(draft, channelled, target))
            _add(kept, (ref, *channelled), ONE if sign > 0 else -ONE)
        draft.equations[target] = kept
    _sum_once(draft, sums)
    return draft.finish()


def _is_plain(scalars: Polynomial) -> bool:
    """True when there is nothing to gain by naming the scalar: a number, or ± one scalar."""
    if len(scalars) != 1:
        return False
    ((factors, coeff),) = scalars.items()
    return not factors or (len(factors) == 1 and coeff in (ONE, -ONE))


def _sum_once(draft: _Draft, sums: dict[Monomial, list[tuple[Ref, Monomial, Surd]]]) -> None:
    """Sum the channel monomials that run over the same axes and are used alike into one local.

    Its users become sums of scalars.  Products of different sums that have channels stay apart: each belongs into the
    loop that makes the sum, and one local for all of them (d_h[k] = Σ_p a_w[p]·c_k[p]) would be one loop of everything.
    """
    sums_with_channels = {Ref(o.name, i) for o in draft.kernel.locals for i, a in enumerate(o.components) if a}
    alike: dict[tuple[frozenset[str], Monomial, tuple[tuple[Ref, Monomial, Surd], ...]], Polynomial] = {}
    for monomial, uses in sums.items():
        uses = sorted(uses, key=lambda u: (u[0], u[1]))
        negative = uses[0][2].sign < 0
        key = tuple((t, s, -c) for t, s, c in uses) if negative else tuple(uses)
        axes = frozenset(draft.axes_of(monomial))
        made = tuple(f for f in monomial if f in sums_with_channels)
        alike.setdefault((axes, made, key), {})[monomial] = -ONE if negative else ONE
    for (_, _, uses_key), polynomial in alike.items():
        label = " · ".join(filter(None, (_label(draft, f) for f in next(iter(polynomial)))))
        ref, sign = draft.local(polynomial, (), f"summed over channels: {label}" if label else "summed over channels")
        for target, scalars, coeff in uses_key:
            _add(draft.equations[target], (ref, *scalars), coeff if sign > 0 else -coeff)


def factor(kernel: Kernel) -> Kernel:
    """Take out common factors, where that is cheaper than sharing the product of the factor and what it multiplies.

    Where a factor leaves a sum that other factors leave too (z = w·g + v·h in Σ_i x[i]·z[i], M·x in two targets),
    that one is taken, and the sum is computed once.
    """
    draft = _draft(kernel, "t")
    popular = _popular(draft)
    plans: dict[Ref, list[tuple[Ref, Polynomial, Kind]]] = {}
    partners: dict[Kind, list[Monomial]] = defaultdict(list)
    uses: Counter[Kind] = Counter()
    for target, polynomial in draft.equations.items():
        plan = plans[target] = []
        rest = dict(polynomial)
        while len(rest) > 1:
            best = _best_factor(rest, draft, popular)
            if best is None:
                break
            inner = {_without(m, best): c for m, c in rest.items() if best in m}
            rest = {m: c for m, c in rest.items() if best not in m}
            multiplied = [tuple(f for f in m if draft.axes[f]) or m for m in inner]
            kind = best, tuple(sorted({f.operand for m in multiplied for f in m}))
            plan.append((best, inner, kind))
            if popular[_signless(inner)] < 2:
                partners[kind].extend(multiplied)
                uses[kind] += 1
    for target, plan in plans.items():
        for common, inner, kind in plan:
            if popular[_signless(inner)] < 2 and _products(partners[kind]) < uses[kind]:
                continue
            for monomial in inner:
                del draft.equations[target][tuple(sorted((*monomial, common)))]
            ref, sign = draft.local(inner, _inner_axes(draft, inner), "")
            _add(draft.equations[target], (common, ref), ONE if sign > 0 else -ONE)
    return draft.finish()


def _popular(draft: _Draft) -> Counter[Items]:
    """How often each sum of two terms or more is what a common factor leaves behind."""
    found: Counter[Items] = Counter()
    for polynomial in draft.equations.values():
        inner: dict[Ref, Polynomial] = defaultdict(dict)
        for monomial, coeff in polynomial.items():
            for f in set(monomial):
                if len(monomial) > 1:
                    inner[f][_without(monomial, f)] = coeff
        found.update(_signless(p) for p in inner.values() if len(p) > 1)
    return found


def _signless(polynomial: Polynomial) -> Items:
    """The polynomial or its negative, whichever begins with a positive coefficient."""
    items = tuple(sorted(polynomial.items()))
    return items if items[0][1].sign > 0 else tuple((m, -c) for m, c in items)


def _products(multiplied: list[Monomial]) -> int:
    """How many products of a factor replace taking it out: with the monomials, or with one side of all of them."""
    sides = {operand for m in multiplied[:1] for operand, _ in m}
    distinct = [{f for m in multiplied for f in m if f.operand == side} for side in sides]
    covering = [len(refs) for refs in distinct if all(any(f in refs for f in m) for m in multiplied)]
    return min((*covering, len(set(multiplied))))


def _inner_axes(draft: _Draft, polynomial: Polynomial) -> Axes:
    return tuple(dict.fromkeys(a for m in polynomial for a in draft.axes_of(m)))


def _best_factor(polynomial: Polynomial, draft: _Draft, popular: Counter[Items]) -> Ref | None:
    """The factor of several terms that saves most per term: multiplications by it, and a sum shared with others."""
    inner: dict[Ref, Polynomial] = defaultdict(dict)
    for monomial, coeff in polynomial.items():
        for f in set(monomial):
            if len(monomial) > 1:
                inner[f][_without(monomial, f)] = coeff
    ranked = []
    for f, left in inner.items():
        if len(left) > 1:
            shared = popular[_signless(left)]
            cost = sum(max(1, len(m) - 1) for m in left)
            saved = len(left) - 1 + (cost * (1 - 1 / shared) if shared > 1 else 0)
            # A factor with channels is worth more than a scalar; a draw goes to the first by name.
            ranked.append((-saved / len(left), not draft.axes[f], f))
    return min(ranked)[2] if ranked else None


def _without(monomial: Monomial, factor: Ref) -> Monomial:
    i = monomial.index(factor)
    return monomial[:i] + monomial[i + 1 :]


def share(kernel: Kernel) -> Kernel:
    """Compute once each product of two factors that occurs in several terms, most frequent first."""
    draft = _draft(kernel, "p")
    where: dict[Monomial, set[tuple[Ref, Monomial]]] = defaultdict(set)
    for target, polynomial in draft.equations.items():
        for monomial in polynomial:
            for pair in _pairs(monomial):
                where[pair].add((target, monomial))
    buckets: dict[int, set[Monomial]] = defaultdict(set)
    for pair, places in where.items():
        buckets[len(places)].add(pair)
    top = max(buckets, default=0)
    while top > 1:
        if not buckets[top]:
            top -= 1
            continue
        pair = min(buckets[top])
        buckets[top].discard(pair)
        places = where[pair]
        if len(places) != top:
            buckets[len(places)].add(pair)
            continue
        label = " · ".join(filter(None, (_label(draft, f) for f in pair)))
        ref, _ = draft.local({pair: ONE}, draft.axes_of(pair), label)
        for target, monomial in sorted(places):
            new = tuple(sorted((*_without(_without(monomial, pair[0]), pair[1]), ref)))
            for old_pair in _pairs(monomial):
                where[old_pair].discard((target, monomial))
                if old_pair != pair:
                    buckets[len(where[old_pair])].add(old_pair)
            coeff = draft.equations[target].pop(monomial)
            _add(draft.equations[target], new, coeff)
            for new_pair in _pairs(new):
                where[new_pair].add((target, new))
                buckets[len(where[new_pair])].add(new_pair)
                top = max(top, len(where[new_pair]))
        where[pair] = set()
    return draft.finish()


def _pairs(monomial: Monomial) -> set[Monomial]:
    return {(monomial[i], monomial[j]) for i in range(len(monomial)) for j in range(i + 1, len(monomial))}


def _add(polynomial: Polynomial, factors: Monomial, coeff: Surd) -> None:
    key = tuple(sorted(factors))
    polynomial[key] = polynomial[key] + coeff if key in polynomial else coeff


def _label(draft: _Draft, ref: Ref) -> str:
    operand = draft.kernel.operands.get(ref.operand)
    return operand.label(ref.component) if operand is not None else ""


def _story(draft: _Draft, channelled: Monomial, target: Ref) -> str:
    """For the reader: which components this coefficient couples."""
    sources = [t for t in (_label(draft, f) for f in channelled) if "m=" in t]
    return f"{' · '.join(sources)} → {_label(draft, target)}" if sources else ""


PASSES: tuple[Callable[[Kernel], Kernel], ...] = (merge, hoist, factor, share)


def optimise(kernel: Kernel) -> Kernel:
    """All passes in order."""
    for rewrite in PASSES:
        kernel = rewrite(kernel)
    return kernel
