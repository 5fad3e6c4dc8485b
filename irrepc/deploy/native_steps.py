"""Steps of a program as C: one function for each, over a run of rows, and the calls that run them in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irrepc.deploy.native_constants import Constants
from irrepc.deploy.native_kernels import KernelTexts, NativePart, kernel_of
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
    Place,
    Product,
    Program,
    Readout,
    RowDot,
    Seed,
    Step,
)
from irrepc.emit.llvm_activation import Activation
from irrepc.emit.llvm_matrix import MatrixProduct
from irrepc.errors import BackendError

REAL = {"float32": "float", "float64": "double", "int64": "int64_t"}
BYTES = {"float32": 4, "float64": 8}
ROWS = {"node": "m->n_local", "every": "m->n_total", "edge": "m->n_edges"}


@dataclass(frozen=True, slots=True)
class CStep:
    """A function of C over rows n0 ... n1 - 1."""

    name: str
    comment: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class StepTexts:
    """The C text of a program's steps.

    everywhere  buffers of atoms that depend on nothing but species: known for ghosts without asking
    fresh       buffers whose ghosts have been asked for since they were written
    """

    program: Program
    kernels: KernelTexts
    constants: Constants
    everywhere: frozenset[str]
    steps: list[CStep] = field(default_factory=list)
    externs: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    backward: list[str] = field(default_factory=list)
    geometry: list[str] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    exchanged: list[int] = field(default_factory=list)
    reach: int = 0

    def write(self) -> None:
        """All steps; what comes after the energies is the backward."""
        lines = self.forward
        for step in self.program.steps:
            lines.extend(_WRITE[type(step)](self, step))
            if isinstance(step, Readout):
                lines = self.backward
        if not lines or lines is self.forward:
            raise BackendError("native: got a program without backward steps; expected energies and their derivatives")

    # ── pieces of text ───────────────────────────────────────────────────────────────────────────

    def number(self, buffer: str) -> int:
        """The place of a buffer among all."""
        return next(k for k, b in enumerate(self.program.buffers) if b.name == buffer)

    def kind(self, buffer: str) -> str:
        """The C type of a buffer's numbers."""
        return REAL[self.program.buffers[self.number(buffer)].dtype]

    def width(self, buffer: str) -> int:
        """The columns of a buffer."""
        return self.program.buffers[self.number(buffer)].width

    def rows(self, buffer: str) -> str:
        """What a step that makes this buffer runs over: "node", "every" atom with ghosts, or "edge"."""
        rows = self.program.buffers[self.number(buffer)].rows
        return "every" if buffer in self.everywhere else rows

    def pointer(self, name: str, buffer: str, *, const: bool = True) -> str:
        """The declaration of a pointer to a buffer."""
        kind = self.kind(buffer)
        return f"{'const ' if const else ''}{kind} *{name} = BUFFER({kind}, {self.number(buffer)}); /* {buffer} */"

    def address(self, name: str) -> str:
        """A buffer or a constant as an argument of a kernel."""
        if any(b.name == name for b in self.program.buffers):
            return f"m->buffers[{self.number(name)}]"
        return self.constants.address(name)

    def step(self, comment: str, lines: list[str]) -> str:
        """Keep a function; its name."""
        name = f"step_{len(self.steps)}"
        self.steps.append(CStep(name, comment.replace("*/", ""), tuple(lines)))
        return name

    def run(self, name: str, rows: str, weight: int, start: str = "NULL") -> str:
        """The line that runs a function."""
        return f"run(m, {name}, {ROWS.get(rows, rows)}, {start}, {weight});"

    def pointwise(self, comment: str, inputs: dict[str, Place], y: Place, operator: str, value: str) -> list[str]:
        """y[k] (+)= value for each column k of a place; `value` names the numbers of the inputs."""
        self.fresh.discard(y.buffer)
        body = [self.pointer(f"{name}_row", place.buffer) for name, place in inputs.items()]
        body.append(self.pointer("y_row", y.buffer, const=False))
        body.append("for (int64_t n = n0; n < n1; n++)")
        body.append(f"    for (int64_t k = 0; k < {y.width}; k++) {{")
        body += [f"        double {name} = {self._item(f'{name}_row', place)};" for name, place in inputs.items()]
        body.append(f"        {self._item('y_row', y)} {operator} ({self.kind(y.buffer)})({value});")
        body.append("    }")
        if all(self.kind(p.buffer) == "float" for p in (*inputs.values(), y)):
            body = [line.replace("double ", "float ") for line in body]
        return [self.run(self.step(comment, body), self.rows(y.buffer), y.width * (len(inputs) + 1))]

    def _item(self, pointer: str, place: Place) -> str:
        start = f" + {place.start}" if place.start else ""
        return f"{pointer}[n * {self.width(place.buffer)}{start} + k]"


def named(place: Place) -> str:
    """A place as a reader finds it: buffer[start:stop]."""
    return f"{place.buffer}[{place.start}:{place.stop}]"


# ── one function for each kind of step ───────────────────────────────────────────────────────────


def _geometry(w: StepTexts, step: Geometry) -> list[str]:
    w.geometry += [
        w.pointer("vector", step.vector, const=False),
        w.pointer("distance", step.distance, const=False),
        w.pointer("direction", step.direction, const=False),
        f"const double sign = {step.sign};",
    ]
    return []


def _locate(w: StepTexts, step: Locate) -> list[str]:
    lines = [
        w.pointer("distance", step.distance),
        w.pointer("place", step.place, const=False),
        w.pointer("slope", step.slope, const=False),
        f"const double *stretch = {w.constants.typed(step.stretch)};",
        f"const int64_t *first = {w.constants.typed(step.first)};",
        "for (int64_t e = n0; e < n1; e++) {",
        "    int64_t pair = m->species_of_row[m->receiver.values[e]] * SPECIES + "
        "m->species_of_row[m->sender.values[e]];",
        "    double x = distance[e] * stretch[pair], begin, rate;",
        "    int64_t row, last;",
    ]
    row = 0
    for number, s in enumerate(step.segments):
        test = "" if number == len(step.segments) - 1 else f"if (x < {step.segments[number + 1].begin!r}) "
        lines += [
            f"    {'else ' if number else ''}{test}{{ /* {s.begin} to {s.end} Angstrom, {s.intervals} intervals */",
            f"        begin = {s.begin!r}; rate = {s.intervals / (s.end - s.begin)!r};",
            f"        row = {row}; last = {s.intervals - 1};",
            "    }",
        ]
        row += s.intervals + step.degree
    lines += [
        "    double u = (x - begin) * rate;",
        "    int64_t interval = smaller((int64_t)u, last);",
        f"    place[e] = ({w.kind(step.place)})(u - (double)interval);",
        f"    slope[e] = ({w.kind(step.slope)})(rate * stretch[pair]);",
        "    m->knot[e] = interval + row + first[pair];",
        "}",
    ]
    return [w.run(w.step("where edges lie in the tables", lines), "edge", 32)]


def _call(w: StepTexts, step: Call) -> list[str]:
    kernel = kernel_of(step.recipe, step.order)
    names = dict(zip((o.name for o in (*kernel.inputs, *kernel.outputs)), (*step.inputs, *step.outputs), strict=True))
    asked = dict(zip(kernel.indices, step.indices, strict=True))
    lines = []
    for o in kernel.inputs:
        if o.index is not None and asked[o.index] == "sender":
            lines += _ask_for_ghosts(w, names[o.name])
    wanted = tuple(bool(name) for name in step.outputs) if step.order else ()
    for part in w.kernels.call(step.recipe, step.order, step.extents, wanted):
        declared = f"extern void {part.name}(int64_t, int64_t{', const void *' * len(part.arguments)});"
        if declared not in w.externs:
            w.externs.append(declared)
        lines += _part(w, step, part, names, asked)
    for o in kernel.outputs:
        if names[o.name]:
            w.fresh.discard(names[o.name])
        if o.index is not None and asked[o.index] == "sender" and names[o.name]:
            lines += _exchange(w, names[o.name], "IRREPC_REVERSE")
    return lines


def _part(w: StepTexts, step: Call, part: NativePart, names: dict[str, str], asked: dict[str, str]) -> list[str]:
    arguments = []
    for name in part.arguments:
        index, dot, entry = name.partition(".")
        arguments.append(_index(asked[index], entry) if dot else w.address(names[name]))
    first, *rest = [f"{part.name}(n0, n1", *arguments]
    body = [first + ",", *(f"    {a}," for a in rest)]
    body[-1] = body[-1][:-1] + ");"
    into = ", ".join(names[o] for o in part.outputs)
    function = w.step(f"{'derivative of ' if step.order else ''}{step.recipe}; to {into}", body)
    if part.scatter is not None:
        index = asked[part.scatter]
        if index not in ("receiver", "sender"):
            raise BackendError(f"native: got a kernel that scatters through {index!r}; expected receiver or sender")
        rows = "node" if index == "receiver" else "every"
        return [w.run(function, rows, part.weight, f"m->{index}.start")]
    known = {b.name: b for b in w.program.buffers}
    by_edge = set(step.indices) - {"species"} or any(
        names[n] in known and known[names[n]].rows == "edge" for n in part.arguments if "." not in n
    )
    return [w.run(function, "edge" if by_edge else w.rows(names[part.outputs[0]]), part.weight)]


def _index(index: str, entry: str) -> str:
    if index in ("sender", "receiver"):
        return f"m->{index}.{entry}"
    if entry != "values" or index not in ("knot", "species"):
        raise BackendError(
            f"native: got the index {index}.{entry}; expected sender, receiver, or values of knot, species"
        )
    return {"knot": "m->knot", "species": "m->species_of_row"}[index]


def _ask_for_ghosts(w: StepTexts, buffer: str) -> list[str]:
    """An exchange where the rows of ghosts are needed and not known."""
    if buffer in w.everywhere or buffer in w.fresh or all(b.name != buffer for b in w.program.buffers):
        return []
    w.fresh.add(buffer)
    return _exchange(w, buffer, "IRREPC_FORWARD")


def _exchange(w: StepTexts, buffer: str, direction: str) -> list[str]:
    width, kind = w.width(buffer), w.program.buffers[w.number(buffer)].dtype
    w.exchanged.append(width)
    w.reach += direction == "IRREPC_FORWARD"
    ask = f"exchange(m, m->buffers[{w.number(buffer)}], {BYTES[kind]}, {width}, {direction})"
    return [f"if ((failed = {ask})) /* {buffer} */", "    return failed;"]


def _product(w: StepTexts, step: Product) -> list[str]:
    w.fresh.discard(step.y.buffer)
    weights = w.program.constants[step.weights]
    inner, outer = weights.shape[-2:]
    x_width, y_width = w.width(step.x.buffer), w.width(step.y.buffer)
    product = MatrixProduct(step.components, inner, outer, x_width, step.x.start, y_width, step.y.start, step.add)
    name = w.kernels.product(product)
    declared = f"extern void {name}(int64_t, int64_t, const void *, const void *, void *);"
    if declared not in w.externs:
        w.externs.append(declared)
    x, y = w.address(step.x.buffer), w.address(step.y.buffer)
    rows = w.rows(step.y.buffer)
    sign = "+=" if step.add else "="
    comment = f"{named(step.y)} {sign} {named(step.x)} {step.weights}, {inner} x {outer}"
    if not step.by_species:
        lines = [f"{name}(n0, n1, {x}, {w.constants.packed(step.weights)}, {y});"]
    else:
        lines = ["for (int z = 0; z < SPECIES; z++) {"]
        for segments in ("local_segments", "ghost_segments")[: 2 if rows == "every" else 1]:
            lines += [
                "    {",
                f"        int64_t begin = larger(n0, m->{segments}[z]), end = smaller(n1, m->{segments}[z + 1]);",
                "        if (begin < end)",
                f"            {name}(begin, end, {x}, {w.constants.packed(step.weights)}, {y});",
                "    }",
            ]
        lines.append("}")
        comment += " of each species"
    return [w.run(w.step(comment, lines), rows, step.components * (inner + outer) * 4)]


def _activate(w: StepTexts, step: Activate) -> list[str]:
    w.fresh.discard(step.y.buffer)
    runs = [v for p in (step.x, step.y, step.slope) for v in (w.width(p.buffer), p.start)]
    name = w.kernels.activation(Activation(step.function, step.gain, step.x.width, *runs))
    declared = f"extern void {name}(int64_t, int64_t, const void *, void *, void *);"
    if declared not in w.externs:
        w.externs.append(declared)
    given = ", ".join(w.address(p.buffer) for p in (step.x, step.y, step.slope))
    comment = f"{named(step.y)} = {step.gain:.6g} {step.function}({named(step.x)}), slope in {named(step.slope)}"
    function = w.step(comment, [f"{name}(n0, n1, {given});"])
    return [w.run(function, w.rows(step.y.buffer), 16 * step.x.width)]


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
        f"        sum += {w._item('x_row', step.x)} * {w._item('by_row', step.by)};",
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


def _forces(w: StepTexts, step: Forces) -> list[str]:
    """By edges, then for each atom over the edges that lead to it and those that leave it."""
    lines = [w.pointer("vector", step.vector), w.pointer("distance", step.distance)]
    given = {"by_direction": step.g_direction, "by_distance": step.g_distance}
    lines += [w.pointer(name, buffer) for name, buffer in given.items() if buffer]
    lines += [
        "for (int64_t e = n0; e < n1; e++) {",
        "    const double *v = vector + 3 * e, r = distance[e];",
        "    double *g = m->gradient + 3 * e;",
    ]
    if step.g_direction:
        lines += [
            "    const double b[3] = {by_direction[3 * e], by_direction[3 * e + 1], by_direction[3 * e + 2]};",
            "    const double along = (v[0] * b[0] + v[1] * b[1] + v[2] * b[2]) / (r * r);",
            "    for (int k = 0; k < 3; k++)",
            "        g[k] = (b[k] - along * v[k]) / r;",
        ]
    else:
        lines.append("    g[0] = g[1] = g[2] = 0.0;")
    if step.g_distance:
        lines += ["    for (int k = 0; k < 3; k++)", "        g[k] += by_distance[e] / r * v[k];"]
    lines.append("}")
    edges = w.step("dE/dvector of each edge, eV/Angstrom", lines)
    lines = [
        f"const double sign = {step.sign};",
        w.pointer("vector", step.vector),
        "for (int64_t n = n0; n < n1; n++) {",
        "    double f[3] = {0}, s[6] = {0};",
        "    if (n < m->n_local)",
        "        for (int64_t e = m->receiver.start[n]; e < m->receiver.start[n + 1]; e++) {",
        "            const double *v = vector + 3 * e, *g = m->gradient + 3 * e;",
        "            for (int k = 0; k < 3; k++) {",
        "                f[k] += sign * g[k];",
        "                s[k] += v[k] * g[k];",
        "            }",
        "            s[3] += 0.5 * (v[0] * g[1] + v[1] * g[0]);",
        "            s[4] += 0.5 * (v[0] * g[2] + v[2] * g[0]);",
        "            s[5] += 0.5 * (v[1] * g[2] + v[2] * g[1]);",
        "        }",
        "    for (int64_t p = m->sender.start[n]; p < m->sender.start[n + 1]; p++)",
        "        for (int k = 0; k < 3; k++)",
        "            f[k] -= sign * m->gradient[3 * m->sender.order[p] + k];",
        "    for (int k = 0; k < 3; k++)",
        "        if (m->forces)",
        "            m->forces[3 * m->atom[n] + k] = f[k];",
        "    for (int k = 0; k < 6; k++) {",
        "        m->atom_virials[6 * n + k] = s[k];",
        "        if (m->virials && n < m->n_local)",
        "            m->virials[6 * m->atom[n] + k] = s[k];",
        "    }",
        "}",
    ]
    atoms = w.step("forces and virials of atoms", lines)
    return [w.run(edges, "edge", 16), w.run(atoms, "every", 12, "m->sender.start")]


_WRITE: dict[type[Step], Callable[[StepTexts, Any], list[str]]] = {
    Geometry: _geometry,
    Locate: _locate,
    Call: _call,
    Product: _product,
    Activate: _activate,
    Multiply: _multiply,
    RowDot: _row_dot,
    Add: _add,
    Fill: _fill,
    Embed: _embed,
    Readout: _readout,
    Seed: _seed,
    Forces: _forces,
}
