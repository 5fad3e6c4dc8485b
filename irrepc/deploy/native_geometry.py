"""Geometry as C: edge vectors, places in tables, and the way back from edges to forces and virials."""

from __future__ import annotations

from irrepc.deploy.native_text import StepTexts
from irrepc.deploy.program import Forces, Geometry, Locate


def write_geometry(w: StepTexts, step: Geometry) -> list[str]:
    w.geometry += [
        w.pointer("vector", step.vector, const=False),
        w.pointer("distance", step.distance, const=False),
        w.pointer("direction", step.direction, const=False),
        f"const double sign = {step.sign};",
    ]
    return []


def write_locate(w: StepTexts, step: Locate) -> list[str]:
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


def write_forces(w: StepTexts, step: Forces) -> list[str]:
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
