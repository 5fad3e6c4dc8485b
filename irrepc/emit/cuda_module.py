"""The Python side of the cuda backend: functions that allocate outputs on the device and launch kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from irrepc.emit.cuda_merge import SUFFIX, Together, together
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


@dataclass(frozen=True, slots=True)
class LaunchedTogether:
    """What is computed together, see cuda_merge: its launches, and for each output that is added up its sum."""

    made: Together
    launches: tuple[Launch, ...]
    sums: tuple[LaunchedPart, ...]


@dataclass(frozen=True, slots=True)
class Launched:
    """All launches of a kernel: part by part, and those that stand in for several parts at once."""

    parts: tuple[LaunchedPart, ...]
    together: LaunchedTogether | None

    def for_everything(self, *, atomic: bool) -> tuple[Launch, ...]:
        """Those that run when all outputs are wanted, in order."""
        if self.together is None or not (atomic or self.together.made.always):
            return tuple(launch for part in self.parts for launch in part.launches)
        sums = () if atomic else tuple(launch for s in self.together.sums for launch in s.launches)
        stood_in = {frozenset(outputs) for outputs in self.together.made.parts}
        rest = (part for part in self.parts if frozenset(part.outputs) not in stood_in)
        return (*self.together.launches, *sums, *(launch for part in rest for launch in part.launches))

    @property
    def launches(self) -> tuple[Launch, ...]:
        """Each of them once."""
        out = [launch for part in self.parts for launch in part.launches]
        if self.together is not None:
            out += self.together.launches
            if self.together.made.always:
                out += [launch for s in self.together.sums for launch in s.launches]
        return tuple(out)


def cuda_launches(kernel: Kernel, scheduled: tuple[Block, ...]) -> Launched:
    """The launches of a kernel; scheduled are its parts."""
    parts = tuple(LaunchedPart(b.kernel.outputs, launches(b.kernel, kernel.name)) for b in scheduled)
    made = together(kernel)
    if made is None:
        return Launched(parts, None)
    sums = tuple(LaunchedPart(k.outputs, launches(k, k.name)) for k in made.sums)
    whole = launches(made.block.kernel, f"{kernel.name}_together", made.adds)
    return Launched(parts, LaunchedTogether(made, whole, sums))


def cuda_function(kernel: Kernel, launched: Launched) -> Function:
    """The function of a kernel: it checks operands, allocates outputs, launches, and adds up what came in pieces.

    Where outputs come in several parts, those run of which some output is wanted.
    """
    parts = launched.parts
    # What NumPy calls the size of a row of numbers is an entry of the shape in torch.
    body = [line.replace(".size", ".shape[0]") for line in check_lines(kernel)]
    texts = [_part(kernel, part) for part in parts]
    if len(parts) > 1:
        body.append(f"{' = '.join(o.name for o in kernel.outputs)} = None")
        stood_in = () if launched.together is None else launched.together.made.parts
        texts = [_when_wanted(kernel, part, text, stood_in) for part, text in zip(parts, texts, strict=True)]
    if launched.together is not None:
        body += _together(kernel, launched.together)
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
    """The lines of KERNELS: groups, channels a thread, the axes of the threads (None: warps), all axes, adds or not."""
    lines = []
    for launch in launched:
        lanes = None if launch.kind == "warps" else launch.lanes
        values = f"{len(launch.groups)}, {launch.pack}, {lanes!r}, {launch.kernel.channels!r}, {bool(launch.adds)}"
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
        adds=any(launch.adds for launch in launched),
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


def _part(kernel: Kernel, part: LaunchedPart, like: str = "") -> Part:
    """Allocation and launches of the outputs that share a scatter index, and the pieces of sums added up.

    like  the tensor whose kind outputs have; the first input unless given
    """
    done = {r for launch in part.launches for g in launch.groups for r in g.outputs}
    first, some = like or kernel.inputs[0].name, part.outputs[0]
    allocate, total = [], "rows"
    if some.rows is None or some.index is not None:
        sums, entries = ("1", "rows")
        if some.index is not None:
            sums, entries = f"{some.index}.start.shape[0] - 1", f"{some.index}.order.shape[0]"
        allocate = [f"sums = {sums}", f"pieces = _pieces(sums, {entries})"]
        total = "sums * pieces"
    for o in part.outputs:
        allocate.append(f"{o.name} = {first}.new_{_fill(o, done)}(({total}, {width(o)}))")
    finish = []
    if total != "rows":
        whole = "{0}.sum(0)" if some.rows is None else "_whole({0}, pieces)"
        finish = [f"{o.name} = {whole.format(o.name)}" for o in part.outputs]
    calls = [line for launch in part.launches for line in _call(launch, total)]
    read = tuple(dict.fromkeys(o.name for launch in part.launches for o in used_inputs(launch.kernel)))
    made = tuple(o.name for o in part.outputs)
    line = repr((f"{kernel.name}_{'_'.join(made)}", read, some.index, made))
    return Part("", "", read, line, first, "", (), (), (*allocate, *calls), (), tuple(finish))


def _when_wanted(kernel: Kernel, part: LaunchedPart, text: Part, stood_in: tuple[tuple[Operand, ...], ...]) -> Part:
    """The part under the condition that some output of it is wanted, and was not computed with others already."""
    condition = _wanted(kernel, part.outputs)
    if frozenset(part.outputs) in {frozenset(outputs) for outputs in stood_in}:
        condition = f"not together and (wanted is None or {condition})"
    else:
        condition = f"wanted is None or {condition}"
    lines = (f"if {condition}:", *_indent([*text.allocate, *text.finish]))
    return replace(text, allocate=lines, finish=())


def _wanted(kernel: Kernel, outputs: Iterable[Operand]) -> str:
    return " or ".join(f"wanted[{kernel.outputs.index(o)}]" for o in outputs)


def _together(kernel: Kernel, launched: LaunchedTogether) -> list[str]:
    """What is computed together, where something of the own rows and something that is added up are wanted."""
    made, first = launched.made, kernel.inputs[0].name
    *scattered, own = made.parts
    atomic, in_order, finish = [], [], []
    for part in launched.sums:
        (o,) = part.outputs
        atomic.append(f"{o.name} = {o.name}{SUFFIX} = {first}.new_zeros(({o.index}.start.shape[0] - 1, {width(o)}))")
        in_order.append(f"{o.name}{SUFFIX} = {first}.new_empty((rows, {width(o)}))")
        text = _part(made.sums[launched.sums.index(part)], part, first)
        finish += [*text.allocate, *text.finish]
    done = {r for launch in launched.launches for g in launch.groups for r in g.outputs}
    lines = ["if atomic:", *_indent(atomic), "else:", *_indent(in_order)] if made.always else atomic
    for o in own:
        lines.append(f"{o.name} = {first}.new_{_fill(o, done)}((rows, {width(o)}))")
    lines += [line for launch in launched.launches for line in _call(launch, "rows")]
    if made.always:
        lines += ["if not atomic:", *_indent(finish)]
    summed = _wanted(kernel, (o for outputs in scattered for o in outputs))
    condition = f"wanted is None or ({summed}) and ({_wanted(kernel, own)})"
    if not made.always:
        condition = f"atomic and ({condition})"
    return [f"together = {condition}", "if together:", *_indent(lines)]


def _fill(o: Operand, done: set[Ref]) -> str:
    """Components that nothing adds to are zero."""
    return "empty" if all(Ref(o.name, i) in done for i in range(o.size)) else "zeros"


def _indent(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _call(launch: Launch, total: str) -> list[str]:
    """The launch, as the emitted text writes it."""
    passed = []
    for _, name in arguments(launch):
        base, _, field = name.rpartition("_")
        indices = {*launch.kernel.indices, *(index for _, index in launch.adds)}
        if base in indices and field in ("of", "order", "start"):
            passed.append(f"{base}.{'values' if field == 'of' else field}")
        else:
            passed.append("sums" if name == "rows" and launch.kernel.outputs[0].index else name)
    extents = (", atomic" if launch.adds else "") + "".join(f", {a}={a}" for a in launch.kernel.channels)
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
