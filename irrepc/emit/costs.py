"""Costs: what a kernel's text does for each row and channel, as lines for banners, reports and manifests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from irrepc.ir.block import Block, Cost
from irrepc.ir.kernel import Axes, Kernel

COLUMNS = ("mul", "add", "load", "store")


@dataclass(frozen=True, slots=True)
class CostLine:
    """The cost of one loop nest: `axes` () once for each row, ("u",) for each channel u of it.

    function  the emitted function, for instance convolution_vjp
    order     0 forward, 1 VJP, 2 VJP of the VJP
    outputs   the outputs that are computed together
    """

    function: str
    order: int
    outputs: tuple[str, ...]
    axes: Axes
    cost: Cost

    @property
    def numbers(self) -> tuple[int, ...]:
        """In the order of COLUMNS."""
        return (self.cost.mul, self.cost.add, self.cost.load, self.cost.store)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one order of a kernel reads and writes for a row, and how many terms it has before any pass.

    row      (channel axes, components) of operands that belong to the row
    node     the same of operands that are read or added to through an index
    indices  row numbers read
    """

    function: str
    order: int
    terms: int
    row: tuple[tuple[Axes, int], ...]
    node: tuple[tuple[Axes, int], ...]
    indices: int


def traffic(kernel: Kernel, order: int) -> Traffic:
    """Count the operands of a kernel."""
    row: dict[Axes, int] = {}
    node: dict[Axes, int] = {}
    for o in (*kernel.inputs, *kernel.outputs):
        if o.rows is not None:
            total = row if o.index is None else node
            for axes in o.components:
                total[axes] = total.get(axes, 0) + 1
    return Traffic(kernel.name, order, kernel.size, tuple(row.items()), tuple(node.items()), len(kernel.indices))


def cost_lines(function: str, order: int, blocks: Iterable[Block]) -> tuple[CostLine, ...]:
    """One line for each loop nest of each block."""
    return tuple(
        CostLine(function, order, tuple(o.name for o in block.kernel.outputs), axes, cost)
        for block in blocks
        for axes, cost in block.cost.items()
    )


def cost_table(lines: Iterable[CostLine]) -> tuple[str, ...]:
    """The lines under a heading, in columns."""
    rows = [(f"{c.function} ({', '.join(c.outputs)})", _where(c.axes), c.numbers) for c in lines]
    first = max((len(name) for name, _, _ in rows), default=0)
    second = max((len(where) for _, where, _ in rows), default=0)
    return (
        f"{'':{first}} {'':{second}} " + " ".join(f"{c:>6}" for c in COLUMNS),
        *(f"{name:{first}} {where:{second}} " + " ".join(f"{n:6}" for n in numbers) for name, where, numbers in rows),
    )


def _where(axes: Axes) -> str:
    return "per row and " + ", ".join(axes) if axes else "per row"
