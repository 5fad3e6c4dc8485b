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

REALS, INTEGER = (torch.float32, torch.float64), torch.int64
Runs = tuple[tuple[int, tuple[str, ...]], ...]
Wanted = Sequence[bool]


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


class Loop:
    """What a kernel runs over.

    indices  (values, order, start) of each index
    extents  how many channels each axis has
    counts   how many rows there are: of the loop (key None), and behind each index
    made     what an implementation has made of the indices and keeps for the derivatives
    """

    __slots__ = ("counts", "extents", "indices", "made")

    def __init__(
        self, s: Signature, operands: Sequence[Any], indices: Sequence[Any], extents: Sequence[Any]
    ) -> None:
        self.indices, self.extents, self.made = indices, tuple(extents), None
        if indices:
            counts: dict[str | None, Any] = {None: indices[0][0].shape[0]}
            for name, index in zip(s.indices, indices, strict=True):
                counts[name] = index[2].shape[0] - 1
            self.counts = counts
        elif s.inputs[0].rows is not None:
            self.counts = {None: operands[0].shape[0]}
        else:
            own = (t for a, t in zip(s.inputs, operands, strict=True) if a.rows is not None and t is not None)
            self.counts = {None: next(own).shape[0]}

    counts: dict[str | None, Any]
    made: Any


Order = Callable[[Wanted, Loop, Sequence[Any]], Sequence[Any]]
"""One order of a kernel: (which outputs, rows and channels, operands) -> outputs.

An output that is not wanted is None. A cotangent that is absent, which means zero, is None.
"""


def separate(s: Signature, arguments: Sequence[Any]) -> tuple[Sequence[Any], Loop]:
    """What an operator is given, operands, the three tensors of each index, extents, as an order takes it."""
    n = len(s.inputs)
    m = n + 3 * len(s.indices)
    operands = arguments[:n]
    return operands, Loop(s, operands, [arguments[i : i + 3] for i in range(n, m, 3)], arguments[m:])


def shape_of(a: Argument, s: Signature, loop: Loop) -> tuple[Any, ...]:
    """(rows, width), or (width,) of a shared operand; rows and width may be symbols."""
    width = widths(a, s.axes, loop.extents)
    return (width,) if a.rows is None else (loop.counts[a.gather], width)


def check_operands(name: str, s: Signature, operands: Sequence[Any], loop: Loop, device: str | None) -> None:
    """Refuse operands and indices of another dtype, device or shape than the kernel computes with.

    device  the type of device the kernel computes on; None for any
    Raises TypeError for a wrong dtype, ValueError for a wrong device or shape.
    """
    if not _fit(s, operands, loop, device):
        _refuse(name, s, operands, loop, device)


_HERE: dict[str | None, attrgetter[bool]] = {"cpu": attrgetter("is_cpu"), "cuda": attrgetter("is_cuda")}


def _fit(s: Signature, operands: Sequence[Any], loop: Loop, device: str | None) -> bool:
    """Whether nothing is to be refused, found fast: small kernels take a few microseconds."""
    dtype, here, counts = operands[0].dtype, _HERE.get(device), loop.counts
    if dtype not in REALS or here is None:
        return False
    widths_in, _ = row_widths(s, loop.extents)
    for (_, rows, gather, _), t, width in zip(s.inputs, operands, widths_in, strict=True):
        if t is None:
            continue
        if t.dtype is not dtype or not here(t) or t.shape != ((counts[gather], width) if rows else (width,)):
            return False
    size = (counts[None],)
    for values, order, start in loop.indices:
        if values.dtype is not INTEGER or order.dtype is not INTEGER or start.dtype is not INTEGER:
            return False
        if not (here(values) and here(order) and here(start)) or values.shape != size or order.shape != size:
            return False
    return True


def _refuse(name: str, s: Signature, operands: Sequence[Any], loop: Loop, device: str | None) -> None:
    """Raise the error that says what is wrong, if anything is."""
    dtype, place = operands[0].dtype, operands[0].device
    for a, t in zip(s.inputs, operands, strict=True):
        if t is None:
            continue
        if t.dtype not in REALS or t.dtype != dtype:
            raise TypeError(f"{name}: got {a.name} of {t.dtype}; expected float32 or float64, the same for all")
        if t.device != place:
            raise ValueError(f"{name}: got {a.name} on {t.device}; expected {place} for all operands")
        expected = shape_of(a, s, loop)
        if t.shape != expected:
            shape = f"({a.rows} = {expected[0]}, {expected[1]})" if a.rows else f"({expected[0]},)"
            raise ValueError(f"{name}: got {a.name} of shape {tuple(t.shape)}; expected {shape}")
    if device is not None and place.type != device:
        raise ValueError(
            f"{name}: got {s.inputs[0].name} on {place}; expected a {device.upper()} tensor for this backend; "
            "choose backend='torch' for other devices"
        )
    for label, index in zip(s.indices, loop.indices, strict=True):
        for field, t in zip(("values", "order", "start"), index, strict=True):
            if t.dtype != INTEGER or t.device != place:
                raise TypeError(f"{name}: got {label}.{field} of {t.dtype} on {t.device}; expected int64 on {place}")
            if field != "start" and t.shape != (loop.counts[None],):
                raise ValueError(
                    f"{name}: got {label}.{field} of shape {tuple(t.shape)}; expected ({loop.counts[None]},)"
                )
