"""Calls, products and activations as C: functions of LLVM run on rows, and what is exchanged with other processes."""

from __future__ import annotations

from irrepc.deploy.native_kernels import NativePart, kernel_of
from irrepc.deploy.native_text import BYTES, StepTexts, named
from irrepc.deploy.program import Activate, Call, Product
from irrepc.emit.llvm_activation import Activation
from irrepc.emit.llvm_matrix import MatrixProduct
from irrepc.errors import BackendError


def write_call(w: StepTexts, step: Call) -> list[str]:
    kernel = kernel_of(step.recipe, step.order)
    names = dict(zip((o.name for o in (*kernel.inputs, *kernel.outputs)), (*step.inputs, *step.outputs), strict=True))
    asked = dict(zip(kernel.indices, step.indices, strict=True))
    lines = []
    for o in kernel.inputs:
        if o.index is not None and asked[o.index] == "sender":
            lines += _ask_for_ghosts(w, names[o.name])
    wanted = tuple(bool(name) for name in step.outputs) if step.order else ()
    for part in w.kernels.call(step.recipe, step.order, step.extents, wanted):
        w.declare(f"extern void {part.name}(int64_t, int64_t{', const void *' * len(part.arguments)});")
        lines += _part(w, step, part, names, asked)
    for o in kernel.outputs:
        if names[o.name]:
            w.fresh.discard(names[o.name])
        if o.index is not None and asked[o.index] == "sender" and names[o.name]:
            lines += _exchange(w, names[o.name], "IRREPC_REVERSE")
    return lines


def write_product(w: StepTexts, step: Product) -> list[str]:
    w.fresh.discard(step.y.buffer)
    weights = w.program.constants[step.weights]
    inner, outer = weights.shape[-2:]
    x_width, y_width = w.width(step.x.buffer), w.width(step.y.buffer)
    product = MatrixProduct(step.components, inner, outer, x_width, step.x.start, y_width, step.y.start, step.add)
    name = w.kernels.product(product)
    w.declare(f"extern void {name}(int64_t, int64_t, const void *, const void *, void *);")
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


def write_activate(w: StepTexts, step: Activate) -> list[str]:
    w.fresh.discard(step.y.buffer)
    runs = [v for p in (step.x, step.y, step.slope) for v in (w.width(p.buffer), p.start)]
    name = w.kernels.activation(Activation(step.function, step.gain, step.x.width, *runs))
    w.declare(f"extern void {name}(int64_t, int64_t, const void *, void *, void *);")
    given = ", ".join(w.address(p.buffer) for p in (step.x, step.y, step.slope))
    comment = f"{named(step.y)} = {step.gain:.6g} {step.function}({named(step.x)}), slope in {named(step.slope)}"
    function = w.step(comment, [f"{name}(n0, n1, {given});"])
    return [w.run(function, w.rows(step.y.buffer), 16 * step.x.width)]


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
