"""Bench: harmonics and convolution, value and derivatives, every backend against the roofline and installed peers."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from time import perf_counter

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from irrepc.algebra.recipe import HarmonicsRecipe, ProductRecipe, Recipe
from irrepc.commands.bench_peers import Contender, convolution_peers, harmonics_peers
from irrepc.emit.module import BACKENDS, Entry, compose
from irrepc.emit.plan import plan
from irrepc.emit.report import FLOAT, INTEGER, NEIGHBOURS
from irrepc.errors import KernelError
from irrepc.ir.kernel import Axes
from irrepc.nn.graph import Index, index_of
from irrepc.runtime.load import load

PHASES = ("value", "value, VJP", "value, VJP, its VJP")
PATIENCE = 15.0
"""Seconds for the rounds of one phase of all contenders together."""
TOLERANCE = 2e-5
"""Of float32, relative to the largest value."""
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "30000000000", "MALLOC_TOP_PAD_": "268435456"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine does at best, measured here: bytes copied and float32 operations in a second."""

    bandwidth: float
    flops: float


def bench(
    degrees: tuple[int, ...], edges: int, channels: int, threads: int | None, repeats: int, console: Console
) -> None:
    """Print a table for each object and degree: medians of alternated rounds, ratios to floor and fastest peer.

    Raises KernelError when a contender computes something else.
    """
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    machine = measure()
    console.out(
        f"{torch.get_num_threads()} threads, {edges:,} edges, {channels} channels, float32; this machine copies "
        f"{machine.bandwidth / 1e9:.0f} GB/s and computes {machine.flops / 1e9:.0f} Gflop/s",
        highlight=False,
    )
    if any(name not in os.environ for name in ALLOCATOR):
        tuned = " ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
        console.out(f"peers gain up to 1.9x from an allocator that keeps freed memory: {tuned}", highlight=False)
    for lmax in degrees:
        recipe = HarmonicsRecipe(lmax)
        generator = torch.Generator().manual_seed(lmax)
        r = torch.nn.functional.normalize(torch.randn(edges, 3, generator=generator), dim=1)
        ours = [_ours(b, recipe, (r,), (), ()) for b in BACKENDS]
        floors = floor_seconds(recipe, edges, 0, channels, machine)
        compete(f"harmonics to degree {lmax}", [*ours, *harmonics_peers(lmax, r)], floors, repeats, console)
        convolution = plan(lmax, limit=10**9).part("convolution")
        if convolution is None:
            continue
        product = convolution.entries[0].recipe
        if not isinstance(product, ProductRecipe):
            continue
        nodes = max(1, edges // NEIGHBOURS)
        inputs, senders, receivers = convolution_inputs(product, lmax, edges, nodes, channels)
        indices = (index_of(senders, nodes), index_of(receivers, nodes))
        ours = [_ours(b, product, inputs, indices, (channels,)) for b in BACKENDS]
        peers = convolution_peers(product, inputs, senders, receivers, nodes, channels)
        floors = floor_seconds(product, edges, nodes, channels, machine)
        compete(f"convolution to degree {lmax}, {nodes:,} nodes", [*ours, *peers], floors, repeats, console)


def compete(
    title: str, contenders: list[Contender], floors: tuple[float, ...], repeats: int, console: Console
) -> None:
    """Compare the results, time every phase in alternated rounds, print the medians."""
    reference = results(contenders[0], 1)
    for contender in contenders[1:]:
        compare_results(title, contenders[0], reference, contender)
    table = Table(title, "floor", *(c.name for c in contenders), box=box.SIMPLE, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for phase, floor in enumerate(floors):
        times = time_phase(phase, contenders, repeats)
        best = min((t for t, c in zip(times, contenders, strict=True) if c.is_peer and t), default=0.0)
        table.add_row(f"{PHASES[phase]} [ms]", f"{1e3 * floor:.2f}", *(f"{1e3 * t:.2f}" if t else "-" for t in times))
        table.add_row("  over the floor", "", *(f"{t / floor:.1f}" if t else "" for t in times))
        faster = [f"{best / t:.1f}" if t and best else "" for t in times]
        table.add_row("  faster than the best peer", "", *faster, end_section=True)
    console.print(table)


def time_phase(phase: int, contenders: list[Contender], repeats: int) -> list[float]:
    """The median seconds of each contender, 0 for one that has no such derivative; rounds are alternated.

    There are fewer rounds where they would take longer than PATIENCE, but three at least.
    """
    able = [i for i, c in enumerate(contenders) if c.orders > phase]
    for i in able:
        results(contenders[i], phase)  # compiles
    once = sum(_seconds(contenders[i], phase) for i in able)
    seconds: dict[int, list[float]] = {i: [] for i in able}
    for _ in range(max(3, min(repeats, int(PATIENCE / once)))):
        for i in able:
            seconds[i].append(_seconds(contenders[i], phase))
    return [statistics.median(seconds[i]) if i in seconds else 0.0 for i in range(len(contenders))]


def results(contender: Contender, phase: int) -> tuple[Tensor, ...]:
    """Run a phase; what it computes: the value; the gradients; the gradients of the gradients."""
    if phase == 0:
        with torch.no_grad():
            return (contender.run(*contender.inputs),)
    inputs = tuple(t.detach().requires_grad_() for t in contender.inputs)
    value = contender.run(*inputs)
    cotangent = torch.ones_like(value, requires_grad=phase == 2)
    gradients = torch.autograd.grad(value, inputs, cotangent, create_graph=phase == 2)
    if phase == 1:
        return (value, *gradients)
    # harmonics to degree 1 are linear: their second derivative depends on the cotangent only
    ones = [torch.ones_like(g) for g in gradients]
    return torch.autograd.grad(gradients, (*inputs, cotangent), ones, allow_unused=True)


def measure() -> Machine:
    """Copy an array larger than the caches and multiply matrices; the best of some rounds."""
    source, target = torch.rand(2**25), torch.empty(2**25)
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    copy = min(_clock(lambda: target.copy_(source)) for _ in range(5))
    multiply = min(_clock(lambda: a @ b) for _ in range(5))
    return Machine(2 * 4 * source.numel() / copy, 2 * 1024**3 / multiply)


def floor_seconds(recipe: Recipe, rows: int, nodes: int, channels: int, machine: Machine) -> tuple[float, ...]:
    """The least time of each phase: every operand moved once, the operations of the kernels at the machine's best."""
    module = compose(f"{recipe.name}.", (Entry(recipe.name, recipe),), "torch", "irrepc bench")
    total, floors = 0.0, []
    for moved in module.traffic:
        size = FLOAT * (rows * _count(moved.row, channels) + nodes * _count(moved.node, channels))
        size += INTEGER * rows * moved.indices
        lines = [c for c in module.costs if c.order == moved.order]
        flop = rows * sum((c.cost.mul + c.cost.add) * channels ** len(c.axes) for c in lines)
        total += max(size / machine.bandwidth, flop / machine.flops)
        floors.append(total)
    return tuple(floors)


def convolution_inputs(
    recipe: ProductRecipe, lmax: int, edges: int, nodes: int, channels: int
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Features, harmonics, weights, and the senders and receivers of random edges sorted by receiver."""
    generator = torch.Generator().manual_seed(lmax)
    x = torch.randn(nodes, sum(b.irrep.dim for b in recipe.left) * channels, generator=generator)
    y = torch.randn(edges, sum(b.irrep.dim for b in recipe.right), generator=generator)
    w = torch.randn(edges, len(recipe.paths) * channels, generator=generator)
    senders = torch.randint(nodes, (edges,), generator=generator)
    receivers = torch.randint(nodes, (edges,), generator=generator).sort().values
    return (x, y, w), senders, receivers


def _ours(
    backend: str, recipe: Recipe, inputs: tuple[Tensor, ...], indices: tuple[Index, ...], extents: tuple[int, ...]
) -> Contender:
    kernel = load(recipe, backend)
    return Contender(f"{backend}", lambda *tensors: kernel(*tensors, *indices, *extents), inputs, len(PHASES))


def compare_results(title: str, first: Contender, reference: tuple[Tensor, ...], other: Contender) -> None:
    """Compare values and gradients, each brought to our order of components.

    Raises KernelError when they differ by more than TOLERANCE.
    """
    computed = results(other, min(1, other.orders - 1))
    for got, wanted, restore in zip(computed, reference, other.restore or (None,) * len(computed), strict=False):
        plain = got if restore is None else restore(got)
        error = float((plain - wanted).detach().abs().max() / wanted.detach().abs().max())
        if not error < TOLERANCE:
            raise KernelError(
                f"bench {title}: got results of {other.name} that differ from {first.name} by {error:.1e} of their "
                f"size; expected less than {TOLERANCE:.0e}"
            )


def _seconds(contender: Contender, phase: int) -> float:
    return _clock(lambda: results(contender, phase))


def _clock(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def _count(counts: tuple[tuple[Axes, int], ...], channels: int) -> int:
    return sum(n * prod(channels for _ in axes) for axes, n in counts)
