"""Replay: energy and forces of graphs of the same shape by one CUDA graph, without the launches of hundreds of kernels.

A network launches some hundreds of kernels for a step, each of which costs the processor some microseconds; below some
thousand atoms that is all the time there is.  Recorded once, all of them start with one call:

    replay = Replay(model, graph)
    for positions in trajectory:
        found = replay(graph._replace(positions=positions))

Atoms and edges must keep their number: neighbours made with a skin do for many steps; then a new Replay is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.models.potential import Prediction, energy_and_forces
from irrepc.nn.graph import Graph

WARM = 3
"""Calls before the recording: kernels are compiled and loaded in the first, and memory is there from the second on."""
Work = Callable[[], Prediction]


def record(work: Work) -> tuple[Prediction, Callable[[], None]]:
    """Run work that reads and writes the same memory each time, and record it: what it gives, and how to run it again.

    Raises RuntimeError where something in it cannot be recorded, such as a number read back from the device.
    """
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = work()
    return found, graph.replay


class Replay:
    """Energy and forces of a model, recorded for graphs like the one given; no stress, and nothing to differentiate.

    model   Graph -> energies of atoms (N,), its weights frozen: they are read where they lie, so changes in place count
    graph   on a CUDA device; what it holds is copied
    record  work -> what it gives, and how to run it again
    """

    def __init__(
        self,
        model: Callable[[Graph], Tensor],
        graph: Graph,
        record: Callable[[Work], tuple[Prediction, Callable[[], None]]] = record,
    ) -> None:
        self._graph = _copied(graph)
        self._found, self._again = record(lambda: energy_and_forces(model, self._graph))

    def __call__(self, graph: Graph) -> Prediction:
        """As `energy_and_forces`; raises InputError for a graph of another shape, dtype or device."""
        for kept, new in zip(_tensors(self._graph), _tensors(graph), strict=True):
            if (kept.shape, kept.dtype, kept.device) != (new.shape, new.dtype, new.device):
                raise InputError(
                    f"Replay: got {tuple(new.shape)} of {new.dtype} on {new.device}; expected {tuple(kept.shape)} of "
                    f"{kept.dtype} on {kept.device}, as in the graph that was recorded; do: make a new Replay"
                )
        with torch.no_grad():
            for kept, new in zip(_tensors(self._graph), _tensors(graph), strict=True):
                kept.copy_(new)
        self._again()
        return Prediction(*(None if t is None else t.clone() for t in self._found))  # type: ignore[arg-type]


def _tensors(fields: tuple[Any, ...]) -> Iterator[Tensor]:
    for field in fields:
        if isinstance(field, Tensor):
            yield field
        else:
            yield from _tensors(field)


def _copied(fields: Any) -> Any:
    """The same NamedTuple of tensors and NamedTuples in memory of its own."""
    if isinstance(fields, Tensor):
        return fields.detach().clone()
    return type(fields)(*map(_copied, fields))
