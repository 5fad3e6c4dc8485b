"""Report: REPORT.md, what was derived, proved and emitted, and the bound that memory and arithmetic set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from irrepc.algebra.conventions import DEFAULT
from irrepc.emit.costs import COLUMNS, CostLine
from irrepc.emit.module import Entry, Module, kernels
from irrepc.emit.plan import Part, Plan
from irrepc.emit.tables import sparsity
from irrepc.emit.templates import render
from irrepc.frontend.proof import Proof
from irrepc.ir.kernel import Operand

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
        derived=[_derived(part) for part in planned.parts],
        omitted=omitted_rows(planned),
        limit=f"{planned.limit:,}",
        proofs=[proof_row(p) for p in proofs],
        sparsity_total=_sparsity_total(couplings),
        sparsity=[(", ".join(map(str, t)), str(n), str(of), f"{n / of:.0%}") for t, n, of in couplings],
        cost_columns=COLUMNS,
        costs=[row for p in planned.parts for b in planned.backends for row in cost_rows(modules[p.name, b].costs, b)],
        roofline=[row for p in planned.parts for row in _roofline(p, modules[p.name, planned.backends[0]])],
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


def cost_rows(costs: Iterable[CostLine], backend: str) -> list[tuple[str, ...]]:
    """The cost table of one module."""
    return [
        (
            c.function,
            str(c.order),
            backend,
            ", ".join(c.outputs),
            ", ".join(("row", *c.axes)),
            *map(str, c.numbers),
        )
        for c in costs
    ]


def _derived(part: Part) -> tuple[str, ...]:
    """Module, functions, terms, recipe (of the first entry when there are many)."""
    terms = sum(k.size for entry in part.entries for k in kernels(entry))
    recipes = [f"`{entry.recipe}`" for entry in part.entries]
    text = recipes[0] if len(recipes) == 1 else f"{recipes[0]} and {len(recipes) - 1} more"
    return (part.name, str(3 * len(part.entries)), f"{terms:,}", text)


def _sparsity_total(couplings: tuple[tuple[tuple[int, int, int], int, int], ...]) -> str:
    filled, whole = sum(n for _, n, _ in couplings), sum(of for _, _, of in couplings)
    if not whole:
        return "Left out, as the table of couplings is."
    return f"{filled:,} of {whole:,} couplings with l1 <= l2 <= l3 are not zero: {filled / whole:.0%}."


def _roofline(part: Part, module: Module) -> list[tuple[str, ...]]:
    """Bytes, operations and their ratio for each order of each entry."""
    rows: list[tuple[str, ...]] = []
    flops: dict[str, int] = {}
    for c in module.costs:
        flops[c.function] = flops.get(c.function, 0) + (c.cost.mul + c.cost.add) * CHANNELS ** len(c.axes)
    for entry in part.entries:
        for order, kernel in enumerate(kernels(entry)):
            operands = (*kernel.inputs, *kernel.outputs)
            own = FLOAT * sum(_row_width(o) for o in operands if o.rows is not None and o.index is None)
            own += INTEGER * len(kernel.indices)
            node = FLOAT * sum(_row_width(o) for o in operands if o.index is not None)
            flop = flops[kernel.name]
            intensity = flop / (own + node / NEIGHBOURS)
            rows.append((kernel.name, str(order), f"{own:,}", f"{node:,}", f"{flop:,}", f"{intensity:.1f}"))
    return rows


def _row_width(o: Operand) -> int:
    return sum(int(CHANNELS ** len(axes)) for axes in o.components)
