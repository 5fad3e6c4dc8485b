"""Steps of a program as C: one function for each, over a run of rows, and the calls that run them in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from irrepc.deploy.native_calls import write_activate, write_call, write_product
from irrepc.deploy.native_geometry import write_forces, write_geometry, write_locate
from irrepc.deploy.native_text import StepTexts, named
from irrepc.deploy.program import (
    Activate,
    Add,
    Call,
    Embed,
    Fill,
    Forces,
    Geometry,
    Locate,
    Multiply,
    Product,
    Readout,
    RowDot,
    Seed,
    Step,
)
from irrepc.errors import BackendError


def write_steps(w: StepTexts) -> None:
    """All steps of the program; what comes after the energies is the backward.

    Raises BackendError for a program without derivatives, and for a kind of step that has no C text.
    """
    lines = w.forward
    for step in w.program.steps:
        write = _WRITE.get(type(step))
        if write is None:
            known = ", ".join(kind.__name__ for kind in _WRITE)
            raise BackendError(f"native: got a step {type(step).__name__}; expected {known}; use the deployed file")
        lines.extend(write(w, step))
        if isinstance(step, Readout):
            lines = w.backward
    if not w.backward:
        raise BackendError("native: got a program without backward steps; expected energies and their derivatives")


def _multiply(w: StepTexts, step: Multiply) -> list[str]:
    sign = "+=" if step.add else "="
    comment = f"{named(step.y)} {sign} {named(step.x)} · {named(step.by)}"
    return w.pointwise(comment, {"x": step.x, "by": step.by}, step.y, sign, "x * by")


def _row_dot(w: StepTexts, step: RowDot) -> list[str]:
    w.fresh.discard(step.y.buffer)
    kind = "float" if {w.kind(p.buffer) for p in (step.x, step.by)} == {"float"} else "double"
    lines = [
        w.pointer("x_row", step.x.buffer),
        w.pointer("by_row", step.by.buffer),
        w.pointer("y_row", step.y.buffer, const=False),
        "for (int64_t n = n0; n < n1; n++) {",
        f"    {kind} sum = 0;",
        f"    for (int64_t k = 0; k < {step.x.width}; k++)",
        f"        sum += {w.item('x_row', step.x)} * {w.item('by_row', step.by)};",
        f"    y_row[n * {w.width(step.y.buffer)} + {step.y.start}] {'+=' if step.add else '='} "
        f"({w.kind(step.y.buffer)})sum;",
        "}",
    ]
    function = w.step(f"{named(step.y)} = Σ {named(step.x)} · {named(step.by)}", lines)
    return [w.run(function, w.rows(step.y.buffer), 2 * step.x.width)]


def _add(w: StepTexts, step: Add) -> list[str]:
    return w.pointwise(f"{named(step.y)} += {named(step.x)}", {"x": step.x}, step.y, "+=", "x")


def _fill(w: StepTexts, step: Fill) -> list[str]:
    return w.pointwise(f"{named(step.y)} = {step.value}", {}, step.y, "=", repr(float(step.value)))


def _embed(w: StepTexts, step: Embed) -> list[str]:
    sign = "+=" if step.add else "="
    width = w.program.constants[step.table].reshape(len(w.program.species), -1).shape[1]
    value = f"{w.constants.typed(step.table)}[m->species_of_row[n] * {width} + k]"
    return w.pointwise(f"{named(step.y)} {sign} {step.table} of each species", {}, step.y, sign, value)


def _readout(w: StepTexts, step: Readout) -> list[str]:
    lines = [
        w.pointer("x_row", step.x.buffer),
        f"const double *scales = {w.constants.typed(step.scales)}, *shifts = {w.constants.typed(step.shifts)};",
        "if (m->energies)",
        "    for (int64_t n = n0; n < n1; n++) {",
        "        int64_t z = m->species_of_row[n];",
        f"        double x = x_row[n * {w.width(step.x.buffer)} + {step.x.start}];",
        "        m->energies[m->atom[n]] = scales[z] * x + shifts[z];",
        "    }",
    ]
    return [w.run(w.step("energies of atoms, eV", lines), "node", 4)]


def _seed(w: StepTexts, step: Seed) -> list[str]:
    value = f"{w.constants.typed(step.scales)}[m->species_of_row[n]]"
    return w.pointwise(f"{named(step.y)} = {step.scales} of each species", {}, step.y, "=", value)


_WRITE: dict[type[Step], Callable[[StepTexts, Any], list[str]]] = {
    Geometry: write_geometry,
    Locate: write_locate,
    Forces: write_forces,
    Call: write_call,
    Product: write_product,
    Activate: write_activate,
    Multiply: _multiply,
    RowDot: _row_dot,
    Add: _add,
    Fill: _fill,
    Embed: _embed,
    Readout: _readout,
    Seed: _seed,
}
