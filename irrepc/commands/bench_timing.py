"""Timing: contenders in alternated rounds, equal results first, against the least time this machine could take."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor

from irrepc.algebra.recipe import Recipe
from irrepc.emit.module import Entry, compose
from irrepc.emit.report import FLOAT, INTEGER
from irrepc.errors import KernelError
from irrepc.ir.kernel import Axes

PHASES = ("value", "value, VJP", "value, VJP, its VJP")
PATIENCE = 15.0
"""Seconds for the rounds of one phase of all contenders together."""
TOLERANCE = 2e-5
"""Of float32, relative to the largest value."""
Restore = Callable[[Tensor], Tensor]


class Contends(Protocol):
    """What takes part: in this process or in another one.

    orders     how many phases it has: 1 value, 2 with VJP, 3 with the VJP of that
    tolerance  by how much it may differ from the first, of the largest value
    """

    @property
    def name(self) -> str: ...

    @property
    def orders(self) -> int: ...

    @property
    def is_peer(self) -> bool: ...

    @property
    def tolerance(self) -> float: ...

    def results(self) -> tuple[Tensor, ...]:
        """The value and, where there is a VJP, the gradients, in our order of components."""

    def seconds(self, phase: int) -> float:
        """Run a phase once."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that can be timed in this process.

    run      inputs -> value
    restore  for the value and each gradient, how to bring it into our order of components; () when it is
    """

    name: str
    run: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    orders: int
    restore: tuple[Restore, ...] = ()
    is_peer: bool = False
    tolerance: float = TOLERANCE

    def results(self) -> tuple[Tensor, ...]:
        """The value and, where there is a VJP, the gradients, in our order of components."""
        computed = evaluate(self.run, self.inputs, min(1, self.orders - 1))
        if not self.restore:
            return computed
        return tuple(restore(t.detach()) for restore, t in zip(self.restore, computed, strict=True))

    def seconds(self, phase: int) -> float:
        """Run a phase once."""
        return clock(lambda: evaluate(self.run, self.inputs, phase))


def evaluate(run: Callable[..., Tensor], inputs: tuple[Tensor, ...], phase: int) -> tuple[Tensor, ...]:
    """Run a phase; what it computes: the value; also the gradients; the gradients of the gradients."""
    if phase == 0:
        with torch.no_grad():
            return (run(*inputs),)
    inputs = tuple(t.detach().requires_grad_() for t in inputs)
    value = run(*inputs)
    cotangent = torch.ones_like(value, requires_grad=phase == 2)
    gradients = torch.autograd.grad(value, inputs, cotangent, create_graph=phase == 2)
    if phase == 1:
        return (value, *gradients)
    # harmonics to degree 1 are linear: their second derivative depends on the cotangent only
    ones = [torch.ones_like(g) for g in gradients]
    return torch.autograd.grad(gradients, (*inputs, cotangent), ones, allow_unused=True)


def check_equal(title: str, contenders: list[Contends]) -> None:
    """Raise KernelError unless all compute what the first one does: value and gradients."""
    reference = contenders[0].results()
    for contender in contenders[1:]:
        for got, wanted in zip(contender.results(), reference, strict=False):
            error = float((got - wanted).detach().abs().max() / wanted.detach().abs().max())
            if not error < contender.tolerance:
                raise KernelError(
                    f"bench {title}: got results of {contender.name} that differ from {contenders[0].name} by "
                    f"{error:.1e} of their size; expected less than {contender.tolerance:.0e}"
                )


def time_phase(phase: int, contenders: list[Contends], repeats: int) -> list[list[float]]:
    """Seconds of each round of each contender, none for one without such a derivative; rounds are alternated.

    There are fewer rounds where they would take longer than PATIENCE, but three at least.
    """
    able = [i for i, c in enumerate(contenders) if c.orders > phase]
    for i in able:
        contenders[i].seconds(phase)  # compiles
    once = sum(contenders[i].seconds(phase) for i in able)
    rounds: list[list[float]] = [[] for _ in contenders]
    for _ in range(max(3, min(repeats, int(PATIENCE / once)))):
        for i in able:
            rounds[i].append(contenders[i].seconds(phase))
    return rounds


def median(rounds: list[float]) -> float:
    """The median, 0 of nothing."""
    return statistics.median(rounds) if rounds else 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine does at best, measured here: bytes copied and float32 operations in a second."""

    bandwidth: float
    flops: float


def measure() -> Machine:
    """Copy an array larger than the caches and multiply matrices; the best of some rounds."""
    source, target = torch.rand(2**25), torch.empty(2**25)
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    copy = min(clock(lambda: target.copy_(source)) for _ in range(5))
    multiply = min(clock(lambda: a @ b) for _ in range(5))
    return Machine(2 * 4 * source.numel() / copy, 2 * 1024**3 / multiply)


def floor_seconds(
    recipe: Recipe, rows: int, nodes: int, extents: dict[str, int], machine: Machine
) -> tuple[float, ...]:
    """The least time of each phase: every operand moved once, the operations of the kernels at the machine's best.

    rows, nodes  rows of the loop, and rows behind its indices
    extents      how many channels each axis has
    """
    module = compose(f"{recipe.name}.", (Entry(recipe.name, recipe),), "torch", "irrepc bench")
    total, floors = 0.0, []
    for moved in module.traffic:
        size = FLOAT * (rows * _count(moved.row, extents) + nodes * _count(moved.node, extents))
        size += INTEGER * rows * moved.indices
        lines = [c for c in module.costs if c.order == moved.order]
        flop = rows * sum((c.cost.mul + c.cost.add) * prod(extents[a] for a in c.axes) for c in lines)
        total += max(size / machine.bandwidth, flop / machine.flops)
        floors.append(total)
    return tuple(floors)


def clock(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    run()
    return perf_counter() - start


def _count(counts: tuple[tuple[Axes, int], ...], extents: dict[str, int]) -> int:
    return sum(n * prod(extents[a] for a in axes) for axes, n in counts)
