"""Which frames stand in which batch, on which process: a function of the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from irrepc.errors import InputError
from irrepc.train.batches import Labelled, join
from irrepc.train.cache import FrameSet

Int = NDArray[np.int64]

_WINDOW = 32  # batches among which frames are exchanged, so that batches cost alike and yet are drawn at random
_IN_MEMORY = 1 << 29  # bytes of graphs that are kept; sets larger than that are read from their files again
_EDGE_BYTES, _ATOM_BYTES = 60, 120  # of a graph, about


def batches_of(loads: Int, size: int, *, seed: int, epoch: int, parts: int = 1) -> list[Int]:
    """Every frame once, in batches of `size` or a little less, drawn at random and then levelled.

    loads (frames,): what each costs (edges). Among 32 batches at a time the heaviest frames are dealt out first, each
    to the batch that has least so far, so that steps take alike. No batch has fewer frames than `parts`.
    """
    if len(loads) < parts:
        raise InputError(f"batches: got {len(loads)} frames for {parts} processes; expected one for each at least")
    drawn = np.random.default_rng((seed, epoch)).permutation(len(loads))
    count = max(-(-len(loads) // size), 1)
    while len(loads) // count < parts:
        count -= 1
    batches: list[Int] = []
    pieces = np.array_split(drawn, count)
    for window in np.array_split(np.arange(count), -(-count // _WINDOW)):
        exchanged = [pieces[k] for k in window]
        batches += dealt(np.concatenate(exchanged), loads, [len(piece) for piece in exchanged])
    return batches


def dealt(frames: Int, loads: Int, sizes: Sequence[int]) -> list[Int]:
    """The frames in groups of these sizes and of loads as equal as dealing from the heaviest on makes them.

    The order in a group is that of `frames`. Frames of one load go in turn, so random groups stay random.
    """
    groups: list[list[int]] = [[] for _ in sizes]
    filled, heavy = np.zeros(len(sizes)), loads[frames]
    room = np.array(sizes)
    for place in np.argsort(-heavy, kind="stable"):
        # what a group would weigh if its free places were filled with average frames: full groups take no more
        free = np.flatnonzero(room)
        target = int(free[np.argmin(filled[free] / np.array(sizes)[free])])
        groups[target].append(int(place))
        filled[target] += heavy[place]
        room[target] -= 1
    return [frames[np.sort(np.array(group, dtype=np.int64))] for group in groups]


def split_batch(batch: Int, loads: Int, parts: int) -> list[Int]:
    """One batch for several processes: numbers of frames that differ by one at most, and loads as equal as can be."""
    if parts == 1:
        return [batch]
    return dealt(batch, loads, [len(piece) for piece in np.array_split(batch, parts)])


class Graphs(Dataset[Labelled]):
    """The frames of a set as labelled graphs for a model; a set that is small enough is kept in memory."""

    def __init__(self, frames: FrameSet, chosen: Int, species: tuple[int, ...], dtype: torch.dtype) -> None:
        self.frames, self.chosen, self.species, self.dtype = frames, chosen, species, dtype
        rows = _EDGE_BYTES * frames.loads[chosen].sum() + _ATOM_BYTES * frames.sizes[chosen].sum()
        self.kept: dict[int, Labelled] | None = {} if rows < _IN_MEMORY else None

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Labelled:
        if self.kept is None:
            return self.frames.labelled(int(self.chosen[index]), self.species, self.dtype)
        if index not in self.kept:
            self.kept[index] = self.frames.labelled(int(self.chosen[index]), self.species, self.dtype)
        return self.kept[index]

    @property
    def loads(self) -> Int:
        """(frames,) edges of each."""
        return self.frames.loads[self.chosen]


class Batches:
    """Batches of one process, epoch after epoch; it knows how many it has given, and goes on from there.

    plan     epoch -> the batches of all processes, equally many in every epoch
    part     of `parts`, which of the processes this one is
    workers  processes that prepare batches; 0: this one does. They are forked and touch no kernel
    """

    def __init__(
        self, graphs: Graphs, plan: Callable[[int], list[Int]], *, part: int = 0, parts: int = 1, workers: int = 0
    ) -> None:
        self.graphs, self.plan, self.part, self.parts, self.workers = graphs, plan, part, parts, workers
        self.count, self.given = len(plan(0)), 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Labelled]:
        # nothing happens before the first batch is asked for, so that a state may be loaded after iter()
        epoch, done = divmod(self.given, self.count)
        loads = self.graphs.loads
        mine = [split_batch(batch, loads, self.parts)[self.part] for batch in self.plan(epoch)[done:]]
        prepared: Any = (
            DataLoader(
                self.graphs, batch_sampler=_Listed(mine), collate_fn=join, num_workers=self.workers, prefetch_factor=4
            )
            if self.workers
            else (join([self.graphs[int(i)] for i in batch]) for batch in mine)
        )
        for batch in prepared:
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches were given."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after so many."""
        self.given = int(state["given"])


class _Listed(torch.utils.data.Sampler[list[int]]):
    """Batches that are already drawn."""

    def __init__(self, batches: list[Int]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.batches)
