"""Clock: how long work takes on a CUDA device, called from Python and replayed from a CUDA graph."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROUND = 10.0
"""Milliseconds of one measurement: events resolve a microsecond, so this is ample."""
WARM = 3
FLUSH = 60_000_000
"""Bytes of inputs, at least, that are cycled through, so that no call finds its own in the cache."""

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """Median milliseconds of one call.

    graph   replayed from a CUDA graph: the kernels alone; None where it cannot be captured, and `reason` says why
    python  called from Python: what launches cost comes on top where the kernels are short
    """

    graph: float | None
    python: float
    reason: str = ""

    @property
    def best(self) -> float:
        """The shorter one."""
        return self.python if self.graph is None else min(self.graph, self.python)


def time_work(works: Sequence[Work], repeats: int) -> Timing:
    """Time the same work on several copies of its inputs, which are taken in turn.

    Raises torch.OutOfMemoryError when it does not fit.
    """
    for work in works:
        for _ in range(WARM):
            work()
    torch.cuda.synchronize()
    python = median_time(works, repeats)
    try:
        graphs = [capture(work) for work in works]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.synchronize()
        return Timing(None, python, str(error).splitlines()[0])
    return Timing(median_time([graph.replay for graph in graphs], repeats), python)


def capture(work: Work) -> torch.cuda.CUDAGraph:
    """Record work that has run before; what it returns stays in the graph's memory."""
    side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def median_time(works: Sequence[Work], repeats: int) -> float:
    """Milliseconds of one call, by events, the median of some rounds."""
    once = max(_round(works, len(works)), 1e-3)
    calls = len(works) * math.ceil(ROUND / (once * len(works)))
    return statistics.median(_round(works, calls) for _ in range(repeats))


def _round(works: Sequence[Work], calls: int) -> float:
    start: Any
    end: Any
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for call in range(calls):
        works[call % len(works)]()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / calls


def copies(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The tensors and as many copies as it takes to exceed the second-level cache; one where they do by themselves."""
    cache = torch.cuda.get_device_properties(tensors[0].device).L2_cache_size
    size = sum(t.numel() * t.element_size() for t in tensors)
    count = math.ceil(max(FLUSH, cache) / size)
    return [tensors, *(tuple(t.detach().clone() for t in tensors) for _ in range(count - 1))]
