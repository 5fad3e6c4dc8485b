"""Bench: kernels with value and derivatives, every backend against the roofline and against peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from irrepc.commands.bench_cases import (
    BACKENDS,
    contraction_case,
    convolution_case,
    harmonics_case,
    rotations_case,
)
from irrepc.commands.bench_foreign import Environment, ForeignPeer, contraction_peer, convolution_peer
from irrepc.commands.bench_memory import peak_memory
from irrepc.commands.bench_peers import convolution_peers, harmonics_peers, rotations_peers
from irrepc.commands.bench_timing import (
    PHASES,
    Contends,
    Machine,
    check_equal,
    floor_seconds,
    measure,
    median,
    time_phase,
)
from irrepc.emit.report import NEIGHBOURS
from irrepc.runtime.memory import keep_freed_memory

OBJECTS = ("harmonics", "rotations", "convolution", "contraction")


@dataclass(frozen=True, slots=True)
class Request:
    """What to time.

    objects     of OBJECTS
    degrees     lmax of each
    irreps      features of the convolution; () for `channels` channels of every degree up to lmax
    peers       the Python of another environment, with cuequivariance-torch and mace-torch; None without
    compiled    also torch.compile, slow to compile
    memory      also the peak memory of the convolution, each contender in a process of its own
    as_shipped  leave the allocator alone, else it keeps freed memory, here and for all peers
    """

    objects: tuple[str, ...]
    degrees: tuple[int, ...]
    irreps: tuple[str, ...]
    edges: tuple[int, ...]
    channels: tuple[int, ...]
    threads: int
    repeats: int
    peers: Path | None
    compiled: bool
    memory: bool
    as_shipped: bool


def bench(request: Request, console: Console) -> None:
    """Print a table for each case: medians of alternated rounds, ratios to floor and fastest peer.

    Raises KernelError when a contender computes something else.
    """
    torch.set_num_threads(request.threads)
    machine = measure()
    console.out(
        f"{request.threads} threads, float32; this machine copies {machine.bandwidth / 1e9:.0f} GB/s and computes "
        f"{machine.flops / 1e9:.0f} Gflop/s",
        highlight=False,
    )
    kept = not request.as_shipped and keep_freed_memory()
    allocator = "freed memory is kept, which makes peers up to 1.9x faster" if kept else "the allocator is as shipped"
    console.out(f"{allocator}; medians of alternated rounds, and the least", highlight=False)
    for edges in request.edges:
        for lmax in request.degrees:
            for what in request.objects:
                _RUN[what](request, lmax, edges, machine, console)


def _harmonics(request: Request, lmax: int, edges: int, machine: Machine, console: Console) -> None:
    case = harmonics_case(lmax, edges)
    floors = floor_seconds(case.recipe, case.rows, case.nodes, case.extents, machine)
    compete(case.title, [*case.contenders(), *harmonics_peers(lmax, case)], floors, request.repeats, console)


def _rotations(request: Request, lmax: int, edges: int, machine: Machine, console: Console) -> None:
    case = rotations_case(lmax, edges)
    floors = floor_seconds(case.recipe, case.rows, case.nodes, case.extents, machine)
    compete(case.title, [*case.contenders(), *rotations_peers(lmax, case)], floors, request.repeats, console)


def _convolution(request: Request, lmax: int, edges: int, machine: Machine, console: Console) -> None:
    uniform = ("+".join(f"{c}x{l}{'eo'[l % 2]}" for l in range(lmax + 1)) for c in request.channels)
    for irreps in request.irreps or tuple(uniform):
        case, graph = convolution_case(irreps, lmax, edges)
        peers: list[Contends] = [*convolution_peers(irreps, lmax, case, graph, compiled=request.compiled)]
        if request.peers:
            peers.append(convolution_peer(Environment(request.peers, request.as_shipped), irreps, lmax, case, graph))
        floors = floor_seconds(case.recipe, case.rows, case.nodes, case.extents, machine)
        compete(case.title, [*case.contenders(), *peers], floors, request.repeats, console)
        _close(peers)
        if request.memory:
            names = [*BACKENDS, *(p.name for p in peers if not isinstance(p, ForeignPeer))]
            table = Table("peak memory of value and VJP", *names, box=box.SIMPLE, pad_edge=False)
            sizes = [peak_memory(name, irreps, lmax, edges, request.threads) for name in names]
            table.add_row("beyond the operands, MB", *(f"{s / 1e6:.0f}" for s in sizes))
            console.print(table)


def _contraction(request: Request, lmax: int, edges: int, machine: Machine, console: Console) -> None:
    for channels in request.channels:
        rows = max(1, edges // NEIGHBOURS)
        case, layers, species = contraction_case(lmax, min(1, lmax), channels, rows)
        peers: list[Contends] = []
        if request.peers:
            peers.append(contraction_peer(Environment(request.peers, request.as_shipped), layers, species, case))
        floors = floor_seconds(case.recipe, case.rows, case.nodes, case.extents, machine)
        compete(case.title, [*case.contenders(), *peers], floors, request.repeats, console)
        _close(peers)


_RUN = {"harmonics": _harmonics, "rotations": _rotations, "convolution": _convolution, "contraction": _contraction}


def compete(
    title: str, contenders: Sequence[Contends], floors: tuple[float, ...], repeats: int, console: Console
) -> None:
    """Compare the results, time every phase in alternated rounds, print medians, spread and ratios."""
    check_equal(title, list(contenders))
    table = Table(title, "floor", *(c.name for c in contenders), box=box.SIMPLE, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for phase, floor in enumerate(floors):
        rounds = time_phase(phase, list(contenders), repeats)
        times = [median(r) for r in rounds]
        best = min((t for t, c in zip(times, contenders, strict=True) if c.is_peer and t), default=0.0)
        table.add_row(f"{PHASES[phase]}, ms", f"{1e3 * floor:.2f}", *(f"{1e3 * t:.2f}" if t else "-" for t in times))
        table.add_row("  least", "", *(f"{1e3 * min(r):.2f}" if r else "" for r in rounds))
        table.add_row("  over the floor", "", *(f"{t / floor:.1f}" if t else "" for t in times))
        faster = [f"{best / t:.1f}" if t and best else "" for t in times]
        table.add_row("  faster than the best peer", "", *faster, end_section=True)
    console.print(table)


def _close(peers: Sequence[Contends]) -> None:
    for peer in peers:
        if isinstance(peer, ForeignPeer):
            peer.close()
