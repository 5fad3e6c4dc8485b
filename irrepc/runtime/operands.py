"""Operands: what an emitted kernel takes and gives, read from its SPEC, and the refusal of anything else.

Free-standing: it needs torch alone and travels with every generated package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import torch

REALS = (torch.float32, torch.float64)
Runs = tuple[tuple[int, tuple[str, ...]], ...]
Wanted = Sequence[bool]
Order = Callable[[Wanted, Sequence[Any]], Sequence[Any]]
"""One order of a kernel: (which outputs, operands then three tensors for each index then extents) -> outputs.

An output that is not wanted is None. A cotangent that is absent, which means zero, is None.
"""


class Argument(NamedTuple):
    """An operand as SPEC writes it: name, row axis (None: shared), gather, ((components, channel axes), ...)."""

    name: str
    rows: str | None
    gather: str | None
    runs: Runs


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """What one order of a kernel takes and gives; the last `cotangents` of its inputs may be absent."""

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    indices: tuple[str, ...]
    axes: tuple[str, ...]
    cotangents: int = 0


def signature(spec: Sequence[Any]) -> Signature:
    """Read an entry of SPEC."""
    inputs, outputs, indices, axes = spec
    return Signature(tuple(Argument(*a) for a in inputs), tuple(Argument(*a) for a in outputs), indices, axes)


def derivative(s: Signature) -> Signature:
    """The signature of the VJP: cotangents of the outputs come in, gradients of the inputs go out."""
    cotangents = tuple(o._replace(name=f"g_{o.name}") for o in s.outputs)
    gradients = tuple(i._replace(name=f"d_{i.name}") for i in s.inputs)
    return Signature(s.inputs + cotangents, gradients, s.indices, s.axes, len(cotangents))


def widths(argument: Argument, axes: tuple[str, ...], extents: Sequence[int]) -> int:
    """The length of a row: Σ components · Π channel extents."""
    known = dict(zip(axes, extents, strict=True))
    total = 0
    for count, names in argument.runs:
        for name in names:
            count = count * known[name]
        total = total + count
    return total


@lru_cache(maxsize=4096)
def row_widths(s: Signature, extents: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The widths of all inputs and of all outputs."""
    return tuple(widths(a, s.axes, extents) for a in s.inputs), tuple(widths(a, s.axes, extents) for a in s.outputs)


def separate(s: Signature, arguments: Sequence[Any]) -> tuple[Sequence[Any], list[Sequence[Any]], Sequence[Any]]:
    """Operands, (values, order, start) for each index, channel extents."""
    n = len(s.inputs)
    m = n + 3 * len(s.indices)
    return arguments[:n], [arguments[i : i + 3] for i in range(n, m, 3)], arguments[m:]


def row_counts(s: Signature, operands: Sequence[Any], indices: Sequence[Any]) -> dict[str | None, Any]:
    """How many rows there are: of the loop (key None), and behind each index."""
    if indices:
        counts: dict[str | None, Any] = {None: indices[0][0].size(0)}
        for name, index in zip(s.indices, indices, strict=True):
            counts[name] = index[2].size(0) - 1
        return counts
    own = (t.size(0) for a, t in zip(s.inputs, operands, strict=True) if a.rows is not None and t is not None)
    return {None: next(own)}


def shape_of(a: Argument, s: Signature, counts: dict[str | None, Any], extents: Sequence[Any]) -> tuple[Any, ...]:
    """(rows, width), or (width,) of a shared operand; the extents may be symbols."""
    width = widths(a, s.axes, extents)
    return (width,) if a.rows is None else (counts[a.gather], width)


def check_operands(
    name: str,
    s: Signature,
    operands: Sequence[torch.Tensor | None],
    indices: Sequence[Any],
    extents: Sequence[int],
    device: str | None,
) -> None:
    """Refuse operands and indices of another dtype, device or shape than the kernel computes with.

    device  the type of device the kernel computes on; None for any
    Raises TypeError for a wrong number of arguments or dtype, ValueError for a wrong device or shape.
    """
    counted = (len(operands), len(indices), len(extents)) == (len(s.inputs), len(s.indices), len(s.axes))
    if not counted or operands[0] is None:
        expected = ", ".join((*(a.name for a in s.inputs), *s.indices, *s.axes))
        raise TypeError(f"{name}: got {len(operands) + len(indices) + len(extents)} arguments; expected {expected}")
    if not _fit(s, operands, indices, tuple(extents), device):
        _refuse(name, s, operands, indices, tuple(extents), device)


_HERE: dict[str | None, attrgetter[bool]] = {"cpu": attrgetter("is_cpu"), "cuda": attrgetter("is_cuda")}


def _fit(
    s: Signature, operands: Sequence[Any], indices: Sequence[Any], extents: tuple[int, ...], device: str | None
) -> bool:
    """Whether nothing is to be refused, found fast: small kernels take a few microseconds."""
    dtype = operands[0].dtype
    here = _HERE.get(device)
    if dtype not in REALS or here is None:
        return False
    counts = row_counts(s, operands, indices)
    inputs, _ = row_widths(s, extents)
    for (_, rows, gather, _), t, width in zip(s.inputs, operands, inputs, strict=True):
        if t is None:
            continue
        if t.dtype is not dtype or not here(t) or t.shape != ((counts[gather], width) if rows else (width,)):
            return False
    loop = counts[None]
    for values, order, start in indices:
        if not (here(values) and here(order) and here(start)) or values.size(0) != loop or order.size(0) != loop:
            return False
        if values.dtype is not torch.int64 or order.dtype is not torch.int64 or start.dtype is not torch.int64:
            return False
    return True


def _refuse(
    name: str,
    s: Signature,
    operands: Sequence[Any],
    indices: Sequence[Any],
    extents: tuple[int, ...],
    device: str | None,
) -> None:
    """Raise the error that says what is wrong, if anything is."""
    dtype, place = operands[0].dtype, operands[0].device
    counts = row_counts(s, operands, indices)
    for a, t in zip(s.inputs, operands, strict=True):
        if t is None:
            continue
        label, rows, gather, _ = a
        width = widths(a, s.axes, extents)
        if t.dtype not in REALS or t.dtype != dtype:
            raise TypeError(f"{name}: got {label} of {t.dtype}; expected float32 or float64, the same for all")
        if t.device != place:
            raise ValueError(f"{name}: got {label} on {t.device}; expected {place} for all operands")
        if t.shape != ((counts[gather], width) if rows else (width,)):
            shape = f"({rows} = {counts[gather]}, {width})" if rows else f"({width},)"
            raise ValueError(f"{name}: got {label} of shape {tuple(t.shape)}; expected {shape}")
    if device is not None and place.type != device:
        raise ValueError(
            f"{name}: got {s.inputs[0].name} on {place}; expected a {device.upper()} tensor for this backend; "
            "choose backend='torch' for other devices"
        )
    for label, index in zip(s.indices, indices, strict=True):
        for t in index:
            if t.dtype != torch.int64 or t.device != place:
                raise TypeError(f"{name}: got index {label} of {t.dtype} on {t.device}; expected int64 on {place}")
        rows_given = {t.size(0) for t in index[:2]}
        if rows_given != {counts[None]}:
            raise ValueError(f"{name}: got index {label} of {rows_given} rows; expected {counts[None]}")
