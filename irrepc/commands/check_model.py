"""Check of a saved network: its symmetries, its forces and its backends, measured on atoms at random places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from irrepc.errors import InputError
from irrepc.interop.sources import load_model
from irrepc.models.equiformer import Equiformer
from irrepc.models.equiformer_v2 import EquiformerV2
from irrepc.models.esen import ESEN, DirectESEN
from irrepc.models.mace import MACE
from irrepc.models.nequip import NequIP
from irrepc.models.potential import DirectForces, predict
from irrepc.models.sevennet import SevenNet
from irrepc.models.tfn import TFN
from irrepc.models.tfn_tasks import TFNEnergy
from irrepc.nn.graph import Graph
from irrepc.nn.neighbours import graph_of, species_of
from irrepc.nn.s2_grid import S2Grid
from irrepc.train.symmetry import RotationError, random_operations, symmetry_error

OnGrids = ESEN | DirectESEN | EquiformerV2
Potentials = NequIP | SevenNet | MACE | TFNEnergy | Equiformer | OnGrids

ATOMS = 10
OPERATIONS = 6
EXACT = 1e-9
"""Of the root mean square force, float64: below, a difference is rounding."""
STEP = 1e-4
"""Å, of the finite difference."""
SLOPE = 1e-5
"""Of the root mean square force: what a finite difference of that step may be off, by curvature and by rounding."""
FINE = (1, 2, 4)
"""By how much grids on the sphere are made finer, from 2(lmax + 1) rings on, to show what their error is worth."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was looked at, what was found, and whether it is as the network promises."""

    name: str
    result: str
    holds: bool = True


def check_model(file: Path, console: Console) -> bool:
    """Print what the network of a file (any that `irrepc.load_model` reads) is and keeps; True when it keeps all.

    Everything is computed in float64, whatever the weights were saved in. A network with a grid on the sphere promises
    no exact symmetry: its error is printed, with that of finer grids.
    Raises FileNotFoundError, or InputError for a file that is none of those or holds no potential.
    """
    model = load_model(file, "auto", dtype=torch.float64)
    if isinstance(model, TFN):
        raise InputError(f"check: got {file} with a {type(model).__name__}, which gives features; expected a potential")
    model.eval().requires_grad_(False)
    holds = True
    for line in _lines(model, file):
        console.out(f"  {line.name:10} {line.result}", highlight=False, style=None if line.holds else "red")
        holds &= line.holds
    return holds


def random_graph(species: tuple[int, ...], cutoff: float, atoms: int, seed: int) -> Graph:
    """Atoms at random places of a sphere: some neighbours for each, no two closer than 1 Å or a third of the cutoff.

    The first two lie along the polar axis of the harmonics. No pair is so near the cutoff that a small step crosses it.
    """
    generator = np.random.default_rng(seed)
    apart, near = max(1.0, cutoff / 3), 10 * STEP
    while True:
        places = [np.zeros(3), np.array([0.0, 1.05 * apart, 0.0])]
        while len(places) < atoms:
            place = generator.normal(size=3) * 1.5 * apart
            if min(np.linalg.norm(place - other) for other in places) > apart:
                places.append(place)
        points = np.array(places)
        lengths = np.linalg.norm(points[:, None] - points[None], axis=2)
        if not (np.abs(lengths - cutoff) < near).any():
            break
    numbers = generator.choice(species, size=atoms)
    return graph_of(species_of(numbers, species), points, cutoff=cutoff)


def _lines(model: Potentials, file: Path) -> Iterator[Line]:
    graph = random_graph(model.species, model.cutoff, ATOMS, seed=0)
    found = predict(model, graph)
    scale = float(found.forces.square().mean().sqrt())
    count = sum(p.numel() for p in model.parameters())
    known = ", ".join(str(z) for z in model.species[:8]) + (", ..." if len(model.species) > 8 else "")
    yield Line("network", f"{type(model).__name__}, {count:,} weights, Z = {known}, cutoff {model.cutoff:g} Å")
    yield Line(
        "structure",
        f"{graph.num_atoms} atoms, {graph.num_edges} edges, root mean square force {scale:.2e} eV/Å; errors below are "
        "relative to it",
        bool(torch.isfinite(found.forces).all()) and scale > 0,
    )
    on_grids = isinstance(model, OnGrids) and any(isinstance(module, S2Grid) for module in model.modules())
    turned, mirrored = (symmetry_error(model, graph, _operations(inverted)) for inverted in (False, True))
    exact = turned.forces <= EXACT * scale
    yield Line("rotation", _said(turned, scale, "" if exact or on_grids else "; expected rounding"), exact or on_grids)
    kept = mirrored.forces <= EXACT * scale
    yield Line("reflection", _said(mirrored, scale, "" if kept or on_grids else ": no symmetry of this network"))
    if isinstance(model, OnGrids) and on_grids:
        for rings, error in _finer(model, graph):
            yield Line("  grid", f"{rings} rings: {error:.1e}")
    if isinstance(model, DirectForces):
        yield Line("forces", "of a head: no gradient of the energy, and dynamics does not keep it")
    else:
        error = _slope_error(model, graph, found.forces) / scale
        yield Line("forces", f"the gradient of the energy to {error:.1e}", error <= SLOPE)
    other = predict(load_model(file, "torch", dtype=torch.float64).eval(), graph).forces
    error = float((other - found.forces).abs().max()) / scale
    yield Line("backends", f"auto against torch {error:.1e}", error <= EXACT)
    single = predict(load_model(file, "auto", dtype=torch.float32).eval(), graph.to(dtype=torch.float32)).forces
    yield Line("float32", f"against float64 {float((single.double() - found.forces).abs().max()) / scale:.1e}")


def _operations(inverted: bool) -> tuple[NDArray[np.float64], ...]:
    """Rotations, or rotations with an inversion."""
    return random_operations(2 * OPERATIONS, seed=1)[int(inverted) :: 2]


def _said(error: RotationError, scale: float, more: str) -> str:
    exact = " (rounding)" if error.forces <= EXACT * scale else ""
    return f"energy {error.energy:.1e} eV, forces {error.forces / scale:.1e}{exact}{more}"


def _finer(model: OnGrids, graph: Graph) -> Iterator[tuple[int, float]]:
    """Rings of a grid and the error of rotations with it, relative to the root mean square force; the same weights."""
    state = model.state_dict()
    for factor in FINE:
        rings = 2 * (model.config.lmax + 1) * factor
        if isinstance(model, EquiformerV2):
            finer: OnGrids = EquiformerV2(replace(model.config, grid=rings), dtype=torch.float64)
        else:
            finer = type(model)(replace(model.config, grid=rings), dtype=torch.float64)
        finer.load_state_dict(state)
        error = symmetry_error(finer.eval().requires_grad_(False), graph, _operations(False))
        yield rings, error.forces / error.force_scale


def _slope_error(model: Potentials, graph: Graph, forces: torch.Tensor) -> float:
    """The largest |F·d + dE/ds| over some directions d of unit length, eV/Å."""
    generator = torch.Generator().manual_seed(2)
    worst = 0.0
    for _ in range(3):
        d = torch.randn(graph.positions.shape, generator=generator, dtype=torch.float64)
        d /= d.norm()
        ends = [model(graph._replace(positions=graph.positions + step * d)).sum() for step in (STEP, -STEP)]
        worst = max(worst, float(((ends[0] - ends[1]) / (2 * STEP) + (forces * d).sum()).abs()))
    return worst
