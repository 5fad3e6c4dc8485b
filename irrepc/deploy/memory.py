"""Memory: steps that nobody needs are dropped, and buffers that are never needed at once share their memory."""

from __future__ import annotations

from dataclasses import replace

from irrepc.deploy.gradient import reads, writes
from irrepc.deploy.program import Buffer, Forces, Readout, Step

_SIZES = {"float32": 4, "float64": 8}


def without_dead(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps that energies, forces and virial depend on."""
    needed: set[str] = set()
    kept: list[Step] = []
    for step in reversed(steps):
        if isinstance(step, Forces | Readout) or needed.intersection(writes(step)):
            needed.update(reads(step))
            kept.append(step)
    return tuple(reversed(kept))


def with_slots(steps: tuple[Step, ...], buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
    """The buffers that the steps use, each with the number of its slot.

    Buffers are placed in order of their first use, each into the free slot of the same rows whose size fits best.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        for name in (*reads(step), *writes(step)):
            first.setdefault(name, number)
            last[name] = number
        if isinstance(step, Readout):
            last[step.energies] = len(steps)
    known = {b.name: b for b in buffers}
    used = sorted((name for name in first if name in known), key=lambda name: first[name])
    rows: list[str] = []
    sizes: list[int] = []
    busy: list[int] = []  # the last step of what each slot holds
    placed = []
    for name in used:
        b = known[name]
        size = b.width * _SIZES[b.dtype]
        free = [k for k, until in enumerate(busy) if until < first[name] and rows[k] == b.rows]
        fitting = min(free, key=lambda k: (max(size - sizes[k], 0), sizes[k]), default=None)
        if fitting is None:
            fitting = len(sizes)
            rows.append(b.rows)
            sizes.append(0)
            busy.append(0)
        sizes[fitting] = max(sizes[fitting], size)
        busy[fitting] = last[name]
        placed.append(replace(b, slot=fitting))
    return tuple(placed)


def slot_sizes(buffers: tuple[Buffer, ...]) -> dict[int, tuple[str, int]]:
    """Of each slot its rows and the bytes of one of them."""
    found: dict[int, tuple[str, int]] = {}
    for b in buffers:
        size = b.width * _SIZES[b.dtype]
        found[b.slot] = (b.rows, max(size, found.get(b.slot, ("", 0))[1]))
    return found
