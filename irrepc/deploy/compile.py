"""Compile: a trained network -> a program that evaluates it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from irrepc.deploy.accuracy import difference, random_structures
from irrepc.deploy.builder import Builder, Tabulation
from irrepc.deploy.deployed import Deployed
from irrepc.deploy.gradient import with_backward
from irrepc.deploy.mace import build_mace, mace_radials
from irrepc.deploy.memory import with_slots, without_dead
from irrepc.deploy.nequip import build_nequip, build_sevennet, nequip_radials, sevennet_radials
from irrepc.deploy.program import Program
from irrepc.deploy.tables import Float, Radial, refine
from irrepc.errors import InputError
from irrepc.models.mace import MACE
from irrepc.models.nequip import NequIP
from irrepc.models.sevennet import SevenNet


class Way(NamedTuple):
    """How a kind of network becomes a program."""

    build: Callable[[Any, Tabulation, str], Builder]
    radials: Callable[[Any], list[Radial]]


WAYS: dict[type[nn.Module], Way] = {
    NequIP: Way(build_nequip, nequip_radials),
    SevenNet: Way(build_sevennet, sevennet_radials),
    MACE: Way(build_mace, mace_radials),
}
DEGREE = 5
CLOSEST = 0.5  # Å; nearer than any bond
BREAKS = (0.8, 1.2, 2.0)  # Å; radial functions are wilder at short distances, and have intervals for it
COLUMNS = 96  # of each table, by which intervals are chosen; all are measured at the end
MARGIN = 2.0
"""The stated bound is that many times the largest error found."""
ATTEMPTS = 5


def deploy(model: nn.Module, *, accuracy: float = 1e-6, dtype: str = "float32", closest: float = CLOSEST) -> Program:
    """The program of a trained network, with tables so fine that forces are right.

    accuracy  eV/Å, of the tables: MARGIN times the largest error found in float64 on random structures of the
              network's elements is less; rounding of float32 comes on top and is stated beside it
    dtype     of the arithmetic, "float32" or "float64"
    closest   Å; where tables begin: nearer atoms are an error
    Raises InputError for a network that has no builder, and where the accuracy cannot be had.
    """
    exact: Any = copy.deepcopy(model).double().requires_grad_(False).eval()
    structures = random_structures(exact.species, 8, seed=0, closest=closest)
    tolerance, found = accuracy, None
    for _ in range(ATTEMPTS):
        program = compile_network(exact, tolerance=tolerance, dtype="float64", closest=closest)
        found = difference(Deployed(program), exact, structures)
        if found.force * MARGIN <= accuracy:
            break
        tolerance *= 0.5 * accuracy / (found.force * MARGIN)
    else:
        raise InputError(f"deploy: got forces wrong by {found} with the finest tables; expected {accuracy:g} eV/Å")
    stated: dict[str, object] = {
        "force_bound": found.force * MARGIN,
        "force_error": found.force,
        "energy_error_per_atom": found.energy,
        "largest_force": found.largest,
        "structures": f"{len(structures)} random packings of 12 atoms, seed 0",
    }
    if dtype != "float64":
        program = compile_network(exact, tolerance=tolerance, dtype=dtype, closest=closest)
        rounded = difference(Deployed(program), exact, structures)
        stated |= {f"force_error_{dtype}": rounded.force, f"energy_error_per_atom_{dtype}": rounded.energy}
    return replace(program, metadata={**program.metadata, **stated})


def compile_network(
    model: nn.Module, *, tolerance: float = 1e-6, dtype: str = "float64", closest: float = CLOSEST
) -> Program:
    """The program of a network whose tables have derivatives right to `tolerance`, relative to the largest.

    Raises InputError for a network that has no builder.
    """
    way = _way(model)
    exact: Any = copy.deepcopy(model).double().requires_grad_(False)
    breaks = sorted({closest, *(b for b in BREAKS if closest < b < exact.cutoff), float(exact.cutoff)})
    if getattr(exact.config, "envelope", "") == "xplor":  # a kink: splines on both sides meet there
        breaks = sorted({*breaks, float(exact.config.cutoff_on)})
    segments = refine([_thinned(f) for f in way.radials(exact)], breaks, DEGREE, tolerance)
    tabulation = Tabulation(segments, DEGREE)
    builder = way.build(exact, tabulation, dtype)
    steps, buffers = with_backward(tuple(builder.steps), tuple(builder.buffers), builder.constants)
    steps = without_dead(steps)
    cutoffs = getattr(exact.config, "cutoffs", ()) or (exact.cutoff,) * len(exact.species) ** 2
    return Program(
        steps,
        with_slots(steps, buffers),
        builder.constants,
        dtype,
        tuple(exact.species),
        float(exact.cutoff),
        tuple(float(c) for c in cutoffs),
        closest,
        {
            "network": type(model).__name__,
            "table_rows": tabulation.rows,
            "table_error": tabulation.error,
            "table_slope_error": tabulation.slope_error,
        },
    )


def _way(model: nn.Module) -> Way:
    way = WAYS.get(type(model))
    if way is None:
        known = ", ".join(kind.__name__ for kind in WAYS)
        raise InputError(f"deploy: got a {type(model).__name__}; expected one of {known}; use the network itself")
    return way


def _thinned(function: Radial) -> Radial:
    """A function with some of its columns."""

    def values(x: Float) -> Float:
        found = function(x)
        return found[:, :: max(1, found.shape[1] // COLUMNS)]

    return values
