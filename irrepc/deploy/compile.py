"""Compile: a trained network -> a program that evaluates it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

from torch import nn

from irrepc.deploy.builder import Builder, Tabulation
from irrepc.deploy.gradient import with_backward
from irrepc.deploy.mace import build_mace
from irrepc.deploy.memory import with_slots, without_dead
from irrepc.deploy.nequip import build_nequip, build_sevennet
from irrepc.deploy.program import Program, Segment
from irrepc.errors import InputError
from irrepc.models.mace import MACE
from irrepc.models.nequip import NequIP
from irrepc.models.sevennet import SevenNet

BUILDERS: dict[type[nn.Module], Callable[[Any, Tabulation, str], Builder]] = {
    NequIP: build_nequip,
    SevenNet: build_sevennet,
    MACE: build_mace,
}
DEGREE = 5
CLOSEST = 0.4  # Å; nearer than any bond


def compile_network(
    model: nn.Module, *, dtype: str = "float32", intervals: int = 128, degree: int = DEGREE, closest: float = CLOSEST
) -> Program:
    """The program of a trained network.

    dtype      of the arithmetic, "float32" or "float64"
    intervals  of the tables
    closest    Å; where they begin: nearer atoms are an error
    Raises InputError for a network that has no builder.
    """
    build = BUILDERS.get(type(model))
    if build is None:
        known = ", ".join(kind.__name__ for kind in BUILDERS)
        raise InputError(f"deploy: got a {type(model).__name__}; expected one of {known}")
    exact: Any = copy.deepcopy(model).double().requires_grad_(False)
    tabulation = Tabulation(segments_of(exact, intervals, closest), degree)
    builder = build(exact, tabulation, dtype)
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
        {"network": type(model).__name__, "table_error": tabulation.error, "table_slope_error": tabulation.slope_error},
    )


def segments_of(model: Any, intervals: int, closest: float) -> tuple[Segment, ...]:
    """Where tables of a network have knots: an envelope with a kink gets two splines that meet there."""
    breaks = [closest, float(model.cutoff)]
    if getattr(model.config, "envelope", "") == "xplor":
        breaks.insert(1, float(model.config.cutoff_on))
    total = breaks[-1] - breaks[0]
    return tuple(Segment(a, b, max(8, round(intervals * (b - a) / total))) for a, b in itertools.pairwise(breaks))
