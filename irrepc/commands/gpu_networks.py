"""GPU networks: energy and forces of whole networks on crystals of many sizes, call by call and as one graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import nn

from irrepc.commands.gpu_clock import Timing, Work
from irrepc.commands.gpu_report import Measured, Row
from irrepc.errors import KernelError
from irrepc.models.mace import MACE, MACEConfig
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.models.potential import energy_and_forces
from irrepc.nn.graph import Graph, graph_from_edges

SPACING, REACH = 3.615, 4.6
"""Å: the cubic cell of copper, and a radius with 42 neighbours inside it that shaking does not change."""
SHAKEN = 0.02
CELLS = {1_000: 6, 10_000: 14, 100_000: 29}
"""Cells along each side for about so many atoms, four in each cell."""
BACKENDS = ("cuda", "cuda-atomic", "torch")
TOLERANCE = 1e-3
"""Of forces in float32 after several layers, of the largest one."""
NETWORKS: dict[str, Callable[[str], nn.Module]] = {
    "NequIP, 4 layers, lmax 2, 32 features": lambda backend: NequIP(
        NequIPConfig((29,), cutoff=REACH, parity=False, avg_num_neighbors=42.0), backend
    ),
    "MACE, 2 layers, lmax 3, 128 channels": lambda backend: MACE(
        MACEConfig((29,), cutoff=REACH, channels=128, avg_num_neighbors=42.0), backend
    ),
}


def crystal(cells: int, device: torch.device) -> Graph:
    """Copper, shaken a little: 4·cells³ atoms with 42 neighbours each, float32, periodic.

    Neighbours are those of the crystal at rest; each direction needs three cells at least for the nearest image to be
    the only one.
    """
    sites = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])  # in halves of the cell
    grid = torch.cartesian_prod(*(torch.arange(cells),) * 3)
    places = (2 * grid[:, None, :] + sites).reshape(-1, 3)
    number = torch.full((2 * cells,) * 3, -1)
    number[tuple(places.T)] = torch.arange(len(places))
    most = int(2 * REACH / SPACING) + 1
    offsets = [
        d
        for d in itertools.product(range(-most, most + 1), repeat=3)
        if 0 < sum(c * c for c in d) * (SPACING / 2) ** 2 < REACH**2 and sum(d) % 2 == 0
    ]
    senders, shifts = [], []
    for offset in offsets:
        moved = places + torch.tensor(offset)
        shift = torch.div(moved, 2 * cells, rounding_mode="floor")
        senders.append(number[tuple((moved - 2 * cells * shift).T)])
        shifts.append(shift)
    generator = torch.Generator().manual_seed(0)
    positions = places * (SPACING / 2) + SHAKEN * torch.randn(places.shape, generator=generator)
    receivers = torch.arange(len(places)).repeat(len(offsets))
    cell = cells * SPACING * torch.eye(3)
    graph = graph_from_edges(
        positions,
        torch.zeros(len(places), dtype=torch.int64),
        torch.cat(senders),
        receivers,
        shifts=torch.cat(shifts),
        cell=cell,
    )
    return graph.to(device)


def measure_networks(
    atoms: int, repeats: int, timer: Callable[[list[Work], int], Timing], device: torch.device
) -> Iterator[Measured]:
    """Every network at about so many atoms, by each backend; forces are compared on a small crystal first.

    Raises KernelError where they differ.
    """
    small, large = crystal(3, device), crystal(CELLS[atoms], device)
    for name, make in NETWORKS.items():
        forces, timings = [], []
        for backend in BACKENDS:
            model = make(backend).to(device).requires_grad_(False)
            forces.append(energy_and_forces(model, small).forces)
            timings.append(_time(model, large, repeats, timer))
            del model
        for backend, found in zip(BACKENDS, forces, strict=True):
            error = float((found - forces[-1]).abs().max() / forces[-1].abs().max())
            if not error < TOLERANCE:
                raise KernelError(
                    f"{name}: got forces by {backend} that differ from those by {BACKENDS[-1]} by {error:.1e} of the "
                    f"largest; expected less than {TOLERANCE:.0e}"
                )
        title = f"{name}: {large.num_atoms:,} atoms, {large.num_edges:,} edges"
        row = Row("energy + forces", 0.0, 0.0, 0.0, tuple(timings))
        yield Measured(title, tuple(f"irrepc {b}" for b in BACKENDS), (row,))


def _time(model: nn.Module, graph: Graph, repeats: int, timer: Callable[[list[Work], int], Timing]) -> Timing | str:
    try:
        return timer([lambda: energy_and_forces(model, graph)], repeats)
    except torch.OutOfMemoryError:
        return "out of memory"
