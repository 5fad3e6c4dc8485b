"""Costs: what a kernel's text does for each row and channel, as lines for banners, reports and manifests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from irrepc.ir.block import Block, Cost
from irrepc.ir.kernel import Axes

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
