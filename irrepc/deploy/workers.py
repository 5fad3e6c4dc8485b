"""Workers: rows cut into pieces, and a few threads that compute them; the results are the same for any number."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from os import getpid
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

Job = tuple[Any, ...]
Compute = Callable[..., None]
WORTH_THREADS = 2**19
"""How much work, in numbers touched or multiplications / 8, before several threads share it."""


def pieces_of(work: int, threads: int) -> int:
    """Into how many pieces rows are cut: four for each thread, or one."""
    return 4 * threads if threads > 1 and work >= WORTH_THREADS else 1


def cut_rows(first: int, last: int, pieces: int) -> list[tuple[int, int]]:
    """Rows first ... last - 1 in equal pieces."""
    rows = last - first
    return _cuts([first + rows * i // pieces for i in range(pieces + 1)])


def cut_edges(start: NDArray[np.int64], pieces: int) -> list[tuple[int, int]]:
    """CSR rows in pieces of equally many edges."""
    inner = np.searchsorted(start, [start[-1] * i // pieces for i in range(1, pieces)])
    return _cuts([0, *np.minimum(inner, start.size - 1).tolist(), start.size - 1])


def _cuts(rows: Sequence[int]) -> list[tuple[int, int]]:
    return [(n0, n1) for n0, n1 in itertools.pairwise(rows) if n1 > n0]


def run(compute: Compute, jobs: Sequence[Job], threads: int) -> None:
    """Call a function that runs without Python's lock with each of the jobs, which write to different places.

    The calling thread takes part, job by job, so that a thread which comes late costs nothing.
    """
    count = min(threads, len(jobs))
    if count < 2:
        for job in jobs:
            compute(*job)
        return
    todo, done = deque(jobs), SimpleQueue[Exception | None]()
    for number in range(1, count):
        _worker(getpid(), number)
        _calls(getpid()).put((compute, todo, done))
    _take(compute, todo, done)
    for error in [done.get() for _ in jobs]:
        if error is not None:
            raise error


def _take(compute: Compute, todo: deque[Job], done: SimpleQueue[Exception | None]) -> None:
    """Do jobs until none is left."""
    while True:
        try:
            job = todo.popleft()
        except IndexError:
            return
        try:
            compute(*job)
            done.put(None)
        except Exception as error:
            done.put(error)


@cache
def _calls(process: int) -> SimpleQueue[Any]:
    """What the workers of this process wait for; a forked child has its own."""
    return SimpleQueue()


@cache
def _worker(process: int, number: int) -> Thread:
    """A thread that helps with any call; it ends with the process."""
    thread = Thread(target=_wait, args=(_calls(process),), daemon=True)
    thread.start()
    return thread


def _wait(calls: SimpleQueue[Any]) -> None:
    while True:
        _take(*calls.get())
