"""The Python side of the cuda backend: functions that allocate outputs on the device and launch kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irrepc.emit.cuda_plan import Launch
from irrepc.emit.cuda_text import arguments, cuda_function, is_sum, names
from irrepc.emit.numba_text import check_lines
from irrepc.emit.printer import WIDTH
from irrepc.emit.templates import render
from irrepc.emit.views import Function, Part, shape, signature, used_inputs, width
from irrepc.ir.kernel import Kernel, Ref

TEMPLATE = "cuda/kernels.cu.jinja"


@dataclass(frozen=True, slots=True)
class KernelText:
    """One __global__ function for the template: what stands above it, and its lines."""

    notes: tuple[str, ...]
    lines: tuple[str, ...]


def cuda_functions(kernel: Kernel, planned: tuple[tuple[Launch, ...], ...]) -> Function:
    """The function of a kernel: it checks operands, allocates outputs, launches, and adds up what came in pieces.

    Where several parts make the outputs, those run of which some output is wanted.
    """
    # What NumPy calls the size of a row of numbers is an entry of the shape in torch.
    body = [line.replace(".size", ".shape[0]") for line in check_lines(kernel)]
    groups = [group for group in planned if group]
    parts = [_part(kernel, group) for group in groups]
    if len(parts) > 1:
        body.append(f"{' = '.join(o.name for o in kernel.outputs)} = None")
        parts = [_when_wanted(part, _made(kernel, group)) for part, group in zip(parts, groups, strict=True)]
    return Function(
        name=kernel.name,
        signature=", ".join(signature(kernel)),
        arguments=(),
        returns="",
        summary=kernel.doc,
        shapes=(*(shape(o) for o in kernel.inputs), "returns " + "; ".join(shape(o) for o in kernel.outputs)),
        body=tuple(body),
        parts=tuple(parts),
        result=", ".join(o.name for o in kernel.outputs),
    )


def cuda_table(planned: tuple[Launch, ...]) -> list[str]:
    """The lines of KERNELS: groups, channels a thread, the axes of the threads (None: warps) and all axes."""
    lines = []
    for launch in planned:
        lanes = None if launch.kind == "warps" else launch.lanes
        values = f"{len(launch.groups)}, {launch.pack}, {lanes!r}, {launch.kernel.channels!r}"
        lines.append(f'"{launch.name}": Threads({values}),'.replace("'", '"'))
    return lines


def cuda_text(planned: tuple[Launch, ...], banner: list[str]) -> str:
    """The text of all kernels of a module."""
    axes = dict.fromkeys(a for launch in planned for a in launch.kernel.channels)
    return render(
        TEMPLATE,
        banner=["//" + line.removeprefix("#") for line in banner],
        extents=", ".join(a.upper() for a in axes),
        channels=bool(axes),
        warps=any(launch.kind == "warps" for launch in planned),
        kernels=[KernelText(_notes(launch), cuda_function(launch)) for launch in planned],
    )


def _notes(launch: Launch) -> tuple[str, ...]:
    """What a kernel computes, and how."""
    done = ", ".join(
        names(tuple(r for g in launch.groups for r in g.outputs if r.operand == o.name)) for o in launch.kernel.outputs
    )
    lanes = " and ".join(launch.lanes)
    how = {
        "rows": "one thread for each row",
        "channels": f"one thread for each row and PACK channels {lanes}",
        "warps": "one warp for each row; its lanes walk over the channels and are added up at the end",
    }[launch.kind]
    groups = f"; {len(launch.groups)} groups of outputs side by side" if len(launch.groups) > 1 else ""
    return (f"{done}: {how}{groups}.",)


def _part(kernel: Kernel, planned: tuple[Launch, ...]) -> Part:
    """Allocation and launches of the outputs that share a scatter index."""
    outputs = {o.name: o for launch in planned for o in launch.kernel.outputs}
    done = {r for launch in planned for g in launch.groups for r in g.outputs}
    first = kernel.inputs[0].name
    index = next(iter(outputs.values())).index
    pieces = is_sum(planned[0])
    allocate = []
    if pieces:
        sums, entries = (f"{index}.start.shape[0] - 1", f"{index}.order.shape[0]") if index else ("1", "rows")
        allocate = [f"sums = {sums}", f"pieces = _pieces(sums, {entries})"]
    total = "sums * pieces" if pieces else "rows"
    for o in kernel.outputs:
        if o.name in outputs:
            # Components that nothing adds to are zero.
            fill = "empty" if all(Ref(o.name, i) in done for i in range(o.size)) else "zeros"
            allocate.append(f"{o.name} = {first}.new_{fill}(({total}, {width(o)}))")
    for launch in planned:
        allocate += _call(launch, total)
    finish = []
    if pieces:
        finish = [f"{n} = {n}.sum(0)" if o.rows is None else f"{n} = _whole({n}, pieces)" for n, o in outputs.items()]
    read = tuple(dict.fromkeys(o.name for launch in planned for o in used_inputs(launch.kernel)))
    line = repr((f"_{kernel.name}_{'_'.join(outputs)}", read, index, tuple(_made(kernel, planned))))
    return Part(
        name="", arguments="", takes=read, line=line, first=first, fastmath="", constants=(), body=(),
        allocate=tuple(allocate), call=(), finish=tuple(finish),
    )


def _made(kernel: Kernel, planned: tuple[Launch, ...]) -> dict[str, int]:
    """What launches compute: outputs and their numbers."""
    names = {o.name for launch in planned for o in launch.kernel.outputs}
    return {o.name: number for number, o in enumerate(kernel.outputs) if o.name in names}


def _when_wanted(part: Part, made: dict[str, int]) -> Part:
    """The part under a condition."""
    condition = " or ".join(f"wanted[{number}]" for number in made.values())
    lines = (f"if wanted is None or {condition}:", *(f"    {line}" for line in (*part.allocate, *part.finish)))
    return replace(part, allocate=lines, finish=())


def _call(launch: Launch, total: str) -> list[str]:
    """The launch, as the emitted text writes it."""
    passed = []
    for _, name in arguments(launch):
        base, _, field = name.rpartition("_")
        if base in launch.kernel.indices and field in ("of", "order", "start"):
            passed.append(f"{base}.{'values' if field == 'of' else field}")
        else:
            passed.append("sums" if name == "rows" and launch.kernel.outputs[0].index else name)
    extents = "".join(f", {a}={a}" for a in launch.kernel.channels)
    head, tail = f'_launch("{launch.name}", {total}, ', f"({', '.join(passed)}){extents})"
    if len(head + tail) <= WIDTH:
        return [head + tail]
    lines, current = [head.rstrip()], f"    ({passed[0]},"
    for name in passed[1:]:
        if len(current) + len(name) + 2 > WIDTH - 8:
            lines.append(current)
            current = "    "
        current += f" {name},"
    return [*lines, f"{current[:-1]}){extents})"]
