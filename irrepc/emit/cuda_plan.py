"""CUDA plan: an optimised part of a kernel -> launches, and in each launch groups of outputs that fit the registers.

What a thread does is decided by the outputs it computes:

  rows      no channels anywhere: one thread for each row (harmonics, rotations)
  channels  outputs with channels: one thread for each row and PACK neighbouring channels; it walks the row's edges
            with its sums in registers, and loops over the channel axes that are summed over
  warps     outputs that need a sum over all channels: one warp for each row; lanes walk the channels, and what they
            have summed is added up across the warp at the end, in a fixed order

No two threads write the same number, so there are no atomics and results do not depend on the order of execution;
cuda_merge says where the user may choose otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from irrepc.emit.cuda_steps import Nest, lay_out, registers
from irrepc.errors import KernelError
from irrepc.ir.block import schedule
from irrepc.ir.kernel import Axes, Kernel, Ref
from irrepc.ir.passes import merge

WHOLE = 10**9
"""No limit on the length of a loop: what a thread needs stays in its registers, and groups see to it that it fits."""
WANTED = {"rows": 130, "channels": 90, "warps": 78}
"""Registers of values up to which outputs are taken together: about 128 registers of a thread, 16 warps at a time."""


@dataclass(frozen=True, slots=True)
class Group:
    """Components of the outputs that the same threads compute, the statements, and the estimate of registers."""

    outputs: tuple[Ref, ...]
    nests: tuple[Nest, ...]
    registers: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One __global__ function.

    kind    "rows", "channels" or "warps"
    lanes   the channel axes over which threads are spread
    pack    channels for each thread in float32, a power of two; in float64 it is one
    kernel  the part restricted to the outputs of this launch
    adds    (output, index): its rows are added up to those of the index, by the launch itself with the macro ATOMIC
    """

    name: str
    kind: str
    lanes: Axes
    pack: int
    kernel: Kernel
    groups: tuple[Group, ...]
    adds: tuple[tuple[str, str], ...] = ()


def launches(part: Kernel, name: str, adds: tuple[tuple[str, str], ...] = ()) -> tuple[Launch, ...]:
    """The launches of an optimised part that scatters through one index; components without an equation are not named.

    name  of the emitted function; that of a launch has the names of its outputs behind it
    adds  as those of a launch
    Raises KernelError for an output with channels that needs a sum over channels first and is summed over rows.
    """
    axes = {Ref(o.name, i): a for o in part.operands.values() for i, a in enumerate(o.components)}
    kinds = _kinds(part, axes)
    used = [(key, o) for key, refs in kinds.items() for o in dict.fromkeys(r.operand for r in refs)]
    out = []
    for (kind, lanes), components in kinds.items():
        kernel = _restrict(part, components)
        groups = _groups(kernel, components, axes, WANTED[kind])
        words = [name, *(o.name for o in kernel.outputs)]
        if any(o.name == other and key != (kind, lanes) for key, other in used for o in kernel.outputs):
            words += lanes or (kind,)
        added = tuple(pair for pair in adds if pair[0] in {o.name for o in kernel.outputs})
        out.append(Launch("_".join(words), kind, lanes, _pack(kind, kernel, groups), kernel, groups, added))
    return tuple(out)


def _kinds(part: Kernel, axes: dict[Ref, Axes]) -> dict[tuple[str, Axes], list[Ref]]:
    """The output components by the kind of launch that computes them, and its lanes."""
    facts = _facts(part, axes)
    outputs = {o.name for o in part.outputs}
    targets = [e.target for e in part.equations if e.target.operand in outputs]
    own_row = part.outputs[0].rows is not None and part.outputs[0].index is None
    # Where a warp walks over the channels of a row anyway, it computes what the row has for each channel too.
    walked = own_row and any(not axes[t] and facts[t].channelled for t in targets)
    kinds: dict[tuple[str, Axes], list[Ref]] = {}
    for t in targets:
        direct = own_row and facts[t].nest == set(axes[t])
        if not facts[t].channelled:
            key: tuple[str, Axes] = ("rows", ())
        elif not axes[t] or (direct and (walked or facts[t].summed)):
            key = ("warps", ())
        elif not facts[t].summed:
            key = ("channels", axes[t])
        else:
            raise KernelError(
                f"{part.name}: got {t}, a sum over rows or channels of sums over channels; expected one of these sums "
                "in a CUDA kernel; do: cut the kernel in two, or choose backend='torch'"
            )
        kinds.setdefault(key, []).append(t)
    return kinds


@dataclass(slots=True)
class _Facts:
    """Of an output component: the axes its terms run over, whether any value has channels, or is a sum over them."""

    nest: set[str]
    channelled: bool
    summed: bool


def _facts(part: Kernel, axes: dict[Ref, Axes]) -> dict[Ref, _Facts]:
    """What the equations say of every target."""
    facts: dict[Ref, _Facts] = {}
    for e in part.equations:
        factors = {f for t in e.terms for f in t.factors}
        nest = {a for f in (e.target, *factors) for a in axes[f]}
        below = [facts[f] for f in factors if f in facts]
        summed = any(b.summed for b in below) or any(facts[f].nest and not axes[f] for f in factors if f in facts)
        facts[e.target] = _Facts(nest, bool(nest) or any(b.channelled for b in below), summed)
    return facts


def _restrict(kernel: Kernel, components: Iterable[Ref]) -> Kernel:
    """The kernel with these components of its outputs only."""
    kept = set(components)
    names = {c.operand for c in kept}
    outputs = {o.name for o in kernel.outputs}
    return merge(
        replace(
            kernel,
            outputs=tuple(o for o in kernel.outputs if o.name in names),
            equations=tuple(e for e in kernel.equations if e.target.operand not in outputs or e.target in kept),
        )
    )


def _groups(kernel: Kernel, components: list[Ref], axes: dict[Ref, Axes], wanted: int) -> tuple[Group, ...]:
    """Neighbouring components together, as many as the registers hold; one at least."""

    def group(refs: list[Ref]) -> Group:
        nests = lay_out(schedule(_restrict(kernel, refs), WHOLE))
        return Group(tuple(refs), nests, registers(nests, axes))

    whole = group(components)
    if whole.registers <= wanted:
        return (whole,)
    out = []
    rest = list(components)
    while rest:
        # In longer and longer steps until the group is too large, then in shorter and shorter ones: little is tried.
        fits, step, growing = group(rest[:1]), 1, True
        while step and len(fits.outputs) < len(rest):
            tried = group(rest[: len(fits.outputs) + step])
            growing = growing and tried.registers <= wanted
            fits = tried if tried.registers <= wanted else fits
            step = 2 * step if growing else step // 2
        out.append(fits)
        rest = rest[len(fits.outputs) :]
    return tuple(out)


def _pack(kind: str, kernel: Kernel, groups: tuple[Group, ...]) -> int:
    """Four channels a thread where registers are few, else two; one where they are all taken, or rows are unaligned."""
    unaligned = any(len(set(map(bool, o.components))) > 1 for o in (*kernel.inputs, *kernel.outputs))
    most = max(g.registers for g in groups)
    if kind == "rows" or unaligned or most > 2 * WANTED[kind]:
        return 1
    return 4 if 2 * most <= WANTED[kind] else 2
