"""The Python side of the cuda backend: functions that allocate outputs on the device and launch kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from irrepc.emit.cuda_plan import Launch, launches
from irrepc.emit.cuda_text import arguments, is_staged, launch_text, names
from irrepc.emit.numba_text import check_lines
from irrepc.emit.printer import WIDTH
from irrepc.emit.templates import render
from irrepc.emit.views import Function, Part, shape, signature, used_inputs, width
from irrepc.ir.block import Block
from irrepc.ir.kernel import Kernel, Operand, Ref

TEMPLATE = "cuda/kernels.cu.jinja"


@dataclass(frozen=True, slots=True)
class KernelText:
    """One __global__ function for the template: what stands above it, and its lines."""

    notes: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LaunchedPart:
    """The outputs that share a scatter index, and the launches that compute them: none where all are zero."""

    outputs: tuple[Operand, ...]
    launches: tuple[Launch, ...]


def cuda_parts(kernel: Kernel, scheduled: tuple[Block, ...]) -> tuple[LaunchedPart, ...]:
    """The launches of each part of a kernel."""
    return tuple(LaunchedPart(b.kernel.outputs, launches(b.kernel, kernel.name)) for b in scheduled)


def cuda_function(kernel: Kernel, parts: tuple[LaunchedPart, ...]) -> Function:
    """The function of a kernel: it checks operands, allocates outputs, launches, and adds up what came in pieces.

    Where outputs come in several parts, those run of which some output is wanted.
    """
    # What NumPy calls the size of a row of numbers is an entry of the shape in torch.
    body = [line.replace(".size", ".shape[0]") for line in check_lines(kernel)]
    texts = [_part(kernel, part) for part in parts]
    if len(parts) > 1:
        body.append(f"{' = '.join(o.name for o in kernel.outputs)} = None")
        texts = [_when_wanted(kernel, part, text) for part, text in zip(parts, texts, strict=True)]
    return Function(
        name=kernel.name,
        signature=", ".join(signature(kernel)),
        arguments=(),
        returns="",
        summary=kernel.doc,
        shapes=(*(shape(o) for o in kernel.inputs), "returns " + "; ".join(shape(o) for o in kernel.outputs)),
        body=tuple(body),
        parts=tuple(texts),
        result=", ".join(o.name for o in kernel.outputs),
    )


def cuda_table(launched: Iterable[Launch]) -> list[str]:
    """The lines of KERNELS: groups, channels a thread, the axes of the threads (None: warps) and all axes."""
    lines = []
    for launch in launched:
        lanes = None if launch.kind == "warps" else launch.lanes
        values = f"{len(launch.groups)}, {launch.pack}, {lanes!r}, {launch.kernel.channels!r}"
        lines.append(f'"{launch.name}": Threads({values}),'.replace("'", '"'))
    return lines


def cuda_text(launched: tuple[Launch, ...], banner: list[str]) -> str:
    """The text of all kernels of a module."""
    axes = dict.fromkeys(a for launch in launched for a in launch.kernel.channels)
    return render(
        TEMPLATE,
        banner=["//" + line.removeprefix("#") for line in banner],
        extents=[a.upper() for a in axes],
        channels=bool(axes),
        indexed=any(launch.kernel.outputs[0].index is not None for launch in launched),
        staged=any(is_staged(launch) for launch in launched),
        warps=any(launch.kind == "warps" for launch in launched),
        kernels=[KernelText(_notes(launch), launch_text(launch)) for launch in launched],
    )


def _notes(launch: Launch) -> tuple[str, ...]:
    """What a kernel computes, and how."""
    done = ", ".join(
        names(tuple(r for g in launch.groups for r in g.outputs if r.operand == o.name)) for o in launch.kernel.outputs
    )
    lanes = " and ".join(launch.lanes)
    how = {
        "rows": "one thread for each row" + (", written by all lanes of a warp together" if is_staged(launch) else ""),
        "channels": f"one thread for each row and PACK channels {lanes}",
        "warps": "one warp for each row; its lanes walk over the channels and are added up at the end",
    }[launch.kind]
    groups = f"; {len(launch.groups)} groups of outputs side by side" if len(launch.groups) > 1 else ""
    return (f"{done}: {how}{groups}.",)


def _part(kernel: Kernel, part: LaunchedPart) -> Part:
    """Allocation and launches of the outputs that share a scatter index, and the pieces of sums added up."""
    done = {r for launch in part.launches for g in launch.groups for r in g.outputs}
    first, some = kernel.inputs[0].name, part.outputs[0]
    allocate, total = [], "rows"
    if some.rows is None or some.index is not None:
        sums, entries = ("1", "rows")
        if some.index is not None:
            sums, entries = f"{some.index}.start.shape[0] - 1", f"{some.index}.order.shape[0]"
        allocate = [f"sums = {sums}", f"pieces = _pieces(sums, {entries})"]
        total = "sums * pieces"
    for o in part.outputs:
        # Components that nothing adds to are zero.
        fill = "empty" if all(Ref(o.name, i) in done for i in range(o.size)) else "zeros"
        allocate.append(f"{o.name} = {first}.new_{fill}(({total}, {width(o)}))")
    finish = []
    if total != "rows":
        whole = "{0}.sum(0)" if some.rows is None else "_whole({0}, pieces)"
        finish = [f"{o.name} = {whole.format(o.name)}" for o in part.outputs]
    calls = [line for launch in part.launches for line in _call(launch, total)]
    read = tuple(dict.fromkeys(o.name for launch in part.launches for o in used_inputs(launch.kernel)))
    made = tuple(o.name for o in part.outputs)
    line = repr((f"{kernel.name}_{'_'.join(made)}", read, some.index, made))
    return Part("", "", read, line, first, "", (), (), (*allocate, *calls), (), tuple(finish))


def _when_wanted(kernel: Kernel, part: LaunchedPart, text: Part) -> Part:
    """The part under the condition that some output of it is wanted."""
    condition = " or ".join(f"wanted[{kernel.outputs.index(o)}]" for o in part.outputs)
    lines = (f"if wanted is None or {condition}:", *(f"    {line}" for line in (*text.allocate, *text.finish)))
    return replace(text, allocate=lines, finish=())


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
