"""Arrays: one order of a kernel on CPU tensors, by the serial functions that an emitted module lists in PARTS.

Free-standing: it needs torch and an emitted module, and travels with every generated package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple

import torch

from .operands import Argument, Loop, Signature, Wanted, row_widths


class _Part(NamedTuple):
    """A serial function, ready for some channel extents.

    compute  (first row, last row + 1, arguments)
    pick     takes the arguments from the list of all
    scatter  the index whose rows it runs over; None: the rows of the loop
    start    the place of that index's `start` among the tensors of all indices; 0 without
    made     the numbers of what it computes among the outputs
    places   the places of the same among all arguments
    moved    array elements it touches for each row of the loop
    summed   whether its outputs are sums over the rows
    """

    compute: Callable[..., None]
    pick: Callable[[Sequence[Any]], tuple[Any, ...]]
    scatter: str | None
    start: int
    made: tuple[int, ...]
    places: tuple[int, ...]
    moved: int
    summed: bool


class OnArrays:
    """One order as a function of CPU tensors: outputs are allocated, nothing is copied, only wanted parts run."""

    def __init__(self, module: ModuleType, name: str, s: Signature) -> None:
        self._module, self._name, self._signature = module, name, s
        # llvm takes addresses, numba arrays
        self._handle = torch.Tensor.data_ptr if module.ADDRESSES else _array
        self._blank = (None,) * len(s.outputs)
        self._prepared: dict[tuple[Any, ...], tuple[_Part, ...]] = {}
        if _RUNNERS == []:
            _RUNNERS.append(module.run)

    def __call__(self, wanted: Wanted, loop: Loop, operands: Sequence[Any]) -> list[torch.Tensor | None]:
        """Which outputs; rows and channels; operands -> the outputs, None where not wanted."""
        s, first, counts = self._signature, operands[0], loop.counts
        key = (first.dtype, *loop.extents)
        parts = self._prepared.get(key)
        if parts is None:
            parts = self._prepared[key] = self._prepare(*key)
        widths_in, widths_out = row_widths(s, loop.extents)
        if loop.made is None:
            kept = [t.contiguous() for index in loop.indices for t in index]
            loop.made = kept, [*map(self._handle, kept)]
        # what is made here must live until the kernels have run
        given = [
            t.contiguous() if t is not None else first.new_zeros(_shape(s.inputs[i], counts, widths_in[i]))
            for i, t in enumerate(operands)
        ]
        handles = [*map(self._handle, given), *loop.made[1], *loop.extents, *self._blank]
        outputs: list[torch.Tensor | None] = [*self._blank]
        for part in parts:
            if any([wanted[i] for i in part.made]):
                shapes = [_shape(s.outputs[i], counts, widths_out[i]) for i in part.made]
                made = self._run(part, handles, first, loop, shapes)
                for i, t in zip(part.made, made, strict=True):
                    outputs[i] = t if wanted[i] else None
        return outputs

    def _run(
        self,
        part: _Part,
        handles: list[Any],
        first: torch.Tensor,
        loop: Loop,
        shapes: list[tuple[int, ...]],
    ) -> list[torch.Tensor]:
        """Allocate what a part computes and run it, in pieces where that pays."""
        module, threads = self._module, torch.get_num_threads()
        rows, work = loop.counts[part.scatter], part.moved * loop.counts[None]
        if part.summed:
            cuts = module.cut_rows(rows, module.sums_of(work))
            sums = [first.new_zeros((len(cuts), *shape)) for shape in shapes]
            jobs = []
            for number, cut in enumerate(cuts):
                for place, lines in zip(part.places, sums, strict=True):
                    handles[place] = self._handle(lines[number])
                jobs.append((*cut, *part.pick(handles)))
            _RUNNERS[0](part.compute, jobs, threads)
            return [lines.sum(0) for lines in sums]
        made = [first.new_empty(shape) for shape in shapes]
        for place, t in zip(part.places, made, strict=True):
            handles[place] = self._handle(t)
        pieces = module.pieces_of(work, threads)
        picked = part.pick(handles)
        if pieces == 1:
            part.compute(0, rows, *picked)
        elif part.scatter is None:
            _RUNNERS[0](part.compute, [(*cut, *picked) for cut in module.cut_rows(rows, pieces)], threads)
        else:
            cuts = module.cut_edges(loop.made[0][part.start].numpy(), pieces)
            _RUNNERS[0](part.compute, [(*cut, *picked) for cut in cuts], threads)
        return made

    def _prepare(self, dtype: torch.dtype, *extents: int) -> tuple[_Part, ...]:
        """The parts for these channel extents."""
        s, real = self._signature, str(dtype).removeprefix("torch.")
        operands = {a.name: a for a in (*s.inputs, *s.outputs)}
        fields = [f"{index}.{field}" for index in s.indices for field in ("values", "order", "start")]
        names = [*(a.name for a in s.inputs), *fields, *s.axes, *(o.name for o in s.outputs)]
        places = {name: place for place, name in enumerate(names)}
        numbers = {o.name: number for number, o in enumerate(s.outputs)}
        width = dict(zip(operands, (w for side in row_widths(s, extents) for w in side), strict=True))
        channels = dict(zip(s.axes, extents, strict=True))
        parts = []
        for name, taken, scatter, made in self._module.PARTS[self._name]:
            touched = (operands[a] for a in taken if a in operands and operands[a].rows is not None)
            parts.append(
                _Part(
                    self._module.serial(name, real, len(taken), **channels),
                    itemgetter(*(places[a] for a in taken)),
                    scatter,
                    0 if scatter is None else fields.index(f"{scatter}.start"),
                    tuple(numbers[o] for o in made),
                    tuple(places[o] for o in made),
                    sum(width[a.name] for a in touched),
                    operands[made[0]].rows is None,
                )
            )
        return tuple(parts)


_RUNNERS: list[Callable[..., None]] = []
"""The worker threads of the first module serve every kernel of the process."""


def _shape(a: Argument, counts: dict[str | None, int], width: int) -> tuple[int, ...]:
    return (counts[a.gather], width) if a.rows else (width,)


def _array(t: torch.Tensor) -> Any:
    return t.detach().numpy()
