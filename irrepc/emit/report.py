"""Report: REPORT.md, what was derived, proved and emitted, and the bound that memory and arithmetic set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from irrepc.algebra.conventions import DEFAULT
from irrepc.emit.costs import CostLine
from irrepc.emit.module import Module
from irrepc.emit.plan import Part, Plan
from irrepc.emit.tables import sparsity
from irrepc.emit.templates import render
from irrepc.frontend.proof import Proof
from irrepc.ir.kernel import Axes

CHANNELS = 64
NEIGHBOURS = 24
FLOAT, INTEGER = 4, 8
"""Bytes of a float32 and of a row number."""

Modules = Mapping[tuple[str, str], Module]


def report_text(planned: Plan, modules: Modules, proofs: tuple[Proof, ...]) -> str:
    """The text of REPORT.md."""
    couplings = sparsity(planned.lmax) if planned.tables else ()
    return render(
        "package/report.md.jinja",
        name=planned.name,
        command=planned.command,
        conventions=conventions(),
        derived=[_derived(p, modules[p.name, planned.backends[0]]) for p in planned.parts],
        omitted=omitted_rows(planned),
        limit=f"{planned.limit:,}",
        proofs=[proof_row(p) for p in proofs],
        sparsity_total=_sparsity_total(couplings),
        sparsity=[(", ".join(map(str, t)), str(n), str(of), f"{n / of:.0%}") for t, n, of in couplings],
        costs=[row for p in planned.parts for row in cost_rows(modules[p.name, planned.backends[0]])],
        backend=planned.backends[0],
        channels=CHANNELS,
        neighbours=NEIGHBOURS,
    )


def conventions() -> tuple[str, ...]:
    """The conventions, one thing in each line."""
    return tuple(line.strip() for line in DEFAULT.describe().split(";"))


def omitted_rows(planned: Plan) -> list[tuple[str, str, str]]:
    """Part, estimated terms and what to ask for."""
    return [(p.name, f"{p.terms:,}", f"`--limit {p.terms}`") for p in planned.omitted]


def proof_row(p: Proof) -> tuple[str, str, str, str]:
    """Name, statement, degree, number of identities."""
    return (p.name, p.statement, str(p.lmax), f"{p.checked:,}")


def _derived(part: Part, module: Module) -> tuple[str, ...]:
    """Module, functions, terms, recipe (of the first entry when there are many)."""
    terms = sum(t.terms for t in module.traffic)
    recipes = [f"`{entry.recipe}`" for entry in part.entries]
    text = recipes[0] if len(recipes) == 1 else f"{recipes[0]} and {len(recipes) - 1} more"
    return (part.name, str(len(module.traffic)), f"{terms:,}", text)


def _sparsity_total(couplings: tuple[tuple[tuple[int, int, int], int, int], ...]) -> str:
    filled, whole = sum(n for _, n, _ in couplings), sum(of for _, _, of in couplings)
    if not whole:
        return "Left out, as the table of couplings is."
    return f"{filled:,} of {whole:,} couplings with l1 <= l2 <= l3 are not zero: {filled / whole:.0%}."


def cost_rows(module: Module) -> list[tuple[str, ...]]:
    """Function, order, multiplications, additions, bytes of the row, bytes through indices, flop, flop/byte."""
    by_function: dict[str, list[CostLine]] = {}
    for c in module.costs:
        by_function.setdefault(c.function, []).append(c)
    rows: list[tuple[str, ...]] = []
    for t in module.traffic:
        # a derivative that vanishes, as that of Y_00, has no line
        lines = by_function.get(t.function, [])
        mul = [(c.axes, c.cost.mul) for c in lines]
        add = [(c.axes, c.cost.add) for c in lines]
        own = FLOAT * _total(t.row) + INTEGER * t.indices
        node = FLOAT * _total(t.node)
        flop = _total((*mul, *add))
        sizes = (f"{n:,}" for n in (own, node, flop))
        intensity = flop / (own + node / NEIGHBOURS)
        rows.append((f"`{t.function}`", str(t.order), per_channel(mul), per_channel(add), *sizes, f"{intensity:.1f}"))
    return rows


def _total(counts: Iterable[tuple[Axes, int]]) -> int:
    """The number for CHANNELS channels."""
    return sum(n * int(CHANNELS ** len(axes)) for axes, n in counts)


def per_channel(counts: Iterable[tuple[Axes, int]]) -> str:
    """Operations of one row as a polynomial in the numbers of channels: 40 + 100·u."""
    total: dict[Axes, int] = {}
    for axes, n in counts:
        total[axes] = total.get(axes, 0) + n
    return " + ".join("·".join((str(n), *axes)) for axes, n in total.items() if n) or "0"
