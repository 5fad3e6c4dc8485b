"""Generate: write a package, and say what was proved, what it costs and how to import it."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from rich import box
from rich.console import Console
from rich.table import Table

from irrepc.commands.produce import Product, produce
from irrepc.commands.write import check_target, write_package
from irrepc.emit.module import ORDERS
from irrepc.emit.plan import Plan
from irrepc.emit.report import CHANNELS, cost_rows, omitted_rows


def generate(planned: Plan, out: Path, console: Console) -> Path:
    """Write the package into out/lmaxL and return that folder.

    Raises OutputError for a folder that cannot be written, ProofError when a derivation is wrong.
    """
    start = perf_counter()
    target = out / planned.name
    check_target(target)
    product = produce(planned, console)
    write_package(product.files, target, console.out)
    show_proofs(product, console)
    show_costs(product, console)
    show_omitted(planned, console)
    size = sum(len(text.encode()) for text in product.files.values())
    seconds = perf_counter() - start
    made = f"{target}: {len(product.files)} files, {size / 1e6:.1f} MB, in {seconds:.1f} s"
    console.out(f"{made}; read {target / 'REPORT.md'}\n{import_line(planned, target)}", highlight=False)
    return target


def show_proofs(product: Product, console: Console) -> None:
    """Each proof in a line."""
    table = Table("proved", "what holds", "identities", box=box.SIMPLE, pad_edge=False)
    table.columns[2].justify = "right"
    for p in product.proofs:
        table.add_row(f"[green]✓[/] {p.name}", p.statement, f"{p.checked:,}")
    console.print(table)


def show_costs(product: Product, console: Console) -> None:
    """The operations of each function; a module of many functions in one line."""
    planned = product.planned
    table = Table("emitted", "mul", "add", "flop", "of VJP", "of its VJP", box=box.SIMPLE, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[3:]:
        column.justify = "right"
    for part in planned.parts:
        rows = cost_rows(product.modules[part.name, planned.backends[0]])
        if len(part.entries) > 2:
            table.add_row(part.name, f"{len(rows)} functions", "", "", "", "")
            continue
        for forward, first, second in zip(*(rows[order::ORDERS] for order in range(ORDERS)), strict=True):
            name, _, mul, add, _, _, flop, _ = forward
            table.add_row(name.strip("`"), mul, add, flop, first[6], second[6])
    console.print(table)
    console.out(f"for each row; flop with {CHANNELS} channels; REPORT.md has more", highlight=False)


def show_omitted(planned: Plan, console: Console) -> None:
    """What is left out, how large it would be and how to ask for it."""
    for name, terms, limit in omitted_rows(planned):
        console.out(
            f"left out {name}: about {terms} terms, more than {planned.limit:,} in one module; "
            f"ask for it with {limit.strip('`')}",
            style="yellow",
            highlight=False,
        )


def import_line(planned: Plan, target: Path) -> str:
    """How Python finds the package from here."""
    layers = ("Convolution", "Linear", "Gate") if planned.part("convolution") else ("SphericalHarmonics",)
    names = ", ".join(layers)
    module = "layers" if "torch" in planned.backends else "clebsch_gordan"
    names = names if module == "layers" else "clebsch_gordan"
    parts = target.parts
    if not target.is_absolute() and all(p.isidentifier() for p in parts):
        return f"from {'.'.join(parts)}.{module} import {names}"
    return f"from {target.name}.{module} import {names}  # with {target.parent} in sys.path"
