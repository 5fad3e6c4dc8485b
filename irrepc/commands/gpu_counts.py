"""GPU counts: what each launch of a kernel moves and computes, counted from its text, and the least time it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from irrepc.algebra.recipe import Recipe
from irrepc.emit.cuda_module import cuda_launches
from irrepc.emit.cuda_plan import Group, Launch
from irrepc.emit.cuda_steps import Step
from irrepc.emit.cuda_text import visiting
from irrepc.emit.module import Entry, kernels, scheduled_by_index
from irrepc.emit.report import FLOAT, INTEGER
from irrepc.emit.views import gathered, used_inputs
from irrepc.ir.kernel import Axes, Kernel, Operand, Ref

LANES = 32
THREADS = 128
REGISTERS, WARPS, BLOCKS, SHARED = 65_536, 64, 32, 233_472
"""Of one multiprocessor of compute capability 9.0: CUDA C++ Programming Guide, technical specifications."""
SHUFFLES = 5
ADDRESSING = 1.35
"""Instructions for each arithmetic one, loads and addresses among them: counted in machine code."""
REACHED = 0.92
"""Of the memory's rate by specification, what a copy reaches."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device by its data sheet.

    memory  bytes a second of device memory;  cache  the same of the second-level cache, an assumption until measured
    held    bytes that the second-level cache holds;  lanes  float32 instructions a second, a multiply-add being one
    """

    name: str
    memory: float
    cache: float
    held: float
    lanes: float


H100 = Gpu("H100", 3.35e12, 5.5e12, 50e6, 33.5e12)
H200 = Gpu("H200", 4.8e12, 5.5e12, 50e6, 33.5e12)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one launch does.

    memory      bytes that cross to device memory: each operand once, and rows gathered beyond what the cache holds
    cache       bytes that cross from the second-level cache to the multiprocessors
    operations  arithmetic instructions of all lanes together, a multiply-add being one
    """

    launch: Launch
    memory: float
    cache: float
    operations: float

    def seconds(self, gpu: Gpu) -> float:
        """The least time: the slowest of memory, cache and arithmetic."""
        return max(
            self.memory / (REACHED * gpu.memory), self.cache / gpu.cache, ADDRESSING * self.operations / gpu.lanes
        )


def counts(
    recipe: Recipe,
    rows: int,
    sizes: Mapping[str, int],
    extents: Mapping[str, int],
    gpu: Gpu,
    *,
    atomic: bool = False,
) -> tuple[tuple[Counts, ...], ...]:
    """The launches of each order of a kernel in float32, when all outputs are wanted.

    rows   of the loop;  sizes  rows behind each index;  extents  how many channels each axis has
    """
    entry = Entry(recipe.name, recipe)
    return tuple(
        tuple(
            _count(launch, rows, sizes, extents, gpu, atomic)
            for launch in cuda_launches(kernel, blocks).for_everything(atomic=atomic)
        )
        for kernel, blocks in zip(kernels(entry), scheduled_by_index(entry), strict=True)
    )


def warps_at_once(registers: int, shared: int = 0) -> int:
    """How many warps a multiprocessor of compute capability 9.0 holds at a time, of blocks of 128 threads.

    registers  of a thread, given out in steps of eight;  shared  bytes of a block, and one kilobyte that each takes
    """
    each = -(-registers // 8) * 8 * THREADS
    blocks = min(BLOCKS, WARPS * LANES // THREADS, REGISTERS // each)
    if shared:
        blocks = min(blocks, SHARED // (shared + 1024))
    return blocks * THREADS // LANES


def _count(
    launch: Launch, rows: int, sizes: Mapping[str, int], extents: Mapping[str, int], gpu: Gpu, atomic: bool
) -> Counts:
    kernel = launch.kernel
    inputs, order = used_inputs(kernel), visiting(launch)
    indices = {*gathered(inputs, kernel.outputs[0].index), *(() if order is None else (order,))}
    memory, cache = float(INTEGER * rows * len(indices)), 0.0
    for o in (*inputs, *kernel.outputs):
        width = FLOAT * _used_width(o, kernel, extents)
        own = rows if o.index is None else sizes[o.index]
        once = width * (own if o.rows is not None else 1)
        memory += once
        if atomic and o.name in dict(launch.adds):
            # Added at the second-level cache, which holds the sums; they are set to zero before and written in the end.
            memory += 2 * width * sizes[dict(launch.adds)[o.name]] - once
            cache += once
            continue
        if o in kernel.outputs or o.index is None or o.index == order:
            cache += once
            continue
        # Rows read at random: those that the cache does not hold come from memory again.
        cache += width * rows
        memory += max(0.0, width * rows - once) * max(0.0, 1 - gpu.held / once)
    pack = _pack(launch, extents)
    operations = sum(_operations(launch, group, rows, sizes, extents, pack) for group in launch.groups)
    return Counts(launch, memory, cache + INTEGER * rows * len(indices), operations)


def _used_width(o: Operand, kernel: Kernel, extents: Mapping[str, int]) -> int:
    """Numbers of a row that the kernel reads or writes."""
    named = {f for e in kernel.equations for f in (e.target, *(f for t in e.terms for f in t.factors))}
    return sum(prod(extents[a] for a in axes) for i, axes in enumerate(o.components) if Ref(o.name, i) in named)


def _operations(
    launch: Launch, group: Group, rows: int, sizes: Mapping[str, int], extents: Mapping[str, int], pack: int
) -> float:
    """Arithmetic of all lanes for a group of outputs."""
    axes = {Ref(o.name, i): a for o in launch.kernel.operands.values() for i, a in enumerate(o.components)}
    total = 0.0
    for nest in group.nests:
        each = sum(_arithmetic(s, axes, pack) for s in nest.steps)
        if launch.kind == "rows":
            threads = 1.0
        elif launch.kind == "channels":
            serial = [a for a in nest.axes if a not in launch.lanes]
            threads = prod(extents[a] for a in (*launch.lanes, *serial)) / pack
        elif nest.axes:
            threads = LANES * -(-prod(extents[a] for a in nest.axes) // (LANES * pack))
        else:
            threads = LANES
        total += rows * threads * each
    if launch.kind == "warps":
        sums = {s.target for n in group.nests for s in n.steps if s.verb in ("share", "once")}
        sums |= {ref for n in group.nests for ref in n.sums}
        ends = sizes[launch.kernel.outputs[0].index] if launch.kernel.outputs[0].index else rows
        total += ends * LANES * SHUFFLES * len(sums)
    return total


def _arithmetic(step: Step, axes: Mapping[Ref, Axes], pack: int) -> int:
    """Instructions of one statement: multiplications, with which additions go, or additions where they are more."""
    if step.verb == "load":
        return 0
    multiply = sum(max(0, len(t.factors) - 1) + (abs(float(t.coeff)) != 1) for t in step.terms)
    add = len(step.terms) - (0 if step.verb in ("add", "share", "more", "once") else 1)
    parts: Iterable[Ref] = (step.target, *(f for t in step.terms for f in t.factors))
    return max(multiply, add) * (pack if any(axes[f] for f in parts) else 1)


def _pack(launch: Launch, extents: Mapping[str, int]) -> int:
    """Channels of a thread in float32, as the emitted module has it."""
    pack = launch.pack
    while any(extents[a] % pack for a in launch.kernel.channels):
        pack //= 2
    return pack
