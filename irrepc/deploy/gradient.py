"""Gradient: the backward steps of a program, by one reverse sweep over its forward steps.

Each kind of step has its transposed rule; kernels of the IR have their VJP.  Derivatives go back to the geometry of the
edges, and from there to atoms and strain.  What does not depend on positions gets none.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from irrepc.deploy.program import (
    Activate,
    Add,
    Array,
    Buffer,
    Call,
    Embed,
    Fill,
    Forces,
    Geometry,
    Locate,
    Multiply,
    Place,
    Product,
    Readout,
    RowDot,
    Seed,
    Step,
)
from irrepc.errors import KernelError


def with_backward(
    steps: tuple[Step, ...], buffers: tuple[Buffer, ...], constants: MutableMapping[str, Array]
) -> tuple[tuple[Step, ...], tuple[Buffer, ...]]:
    """Steps and buffers with those of the backward appended; transposed weights are added to the constants."""
    sweep = _Sweep({b.name: b for b in buffers}, constants, _depending(steps))
    for step in reversed(steps):
        _RULES[type(step)](sweep, step)
    return (*steps, *sweep.steps), tuple(sweep.buffers.values())


def reads(step: Step) -> tuple[str, ...]:
    """The buffers and constants a step reads."""
    match step:
        case Geometry():
            return ()
        case Locate(distance=r):
            return (r, step.stretch, step.first)
        case Call(inputs=inputs):
            return tuple(name.partition("+")[0] for name in inputs if name)
        case Product(x=x, y=y):
            return (x.buffer, step.weights, *((y.buffer,) if step.add else ()))
        case Activate(x=x):
            return (x.buffer,)
        case Multiply(x=x, by=by, y=y) | RowDot(x=x, by=by, y=y):
            return (x.buffer, by.buffer, *((y.buffer,) if step.add else ()))
        case Add(x=x, y=y):
            return (x.buffer, y.buffer)
        case Fill():
            return ()
        case Embed(table=table, y=y):
            return (table, *((y.buffer,) if step.add else ()))
        case Readout(x=x):
            return (x.buffer, step.scales, step.shifts)
        case Seed():
            return (step.scales,)
        case Forces():
            return tuple(
                n for n in (step.vector, step.distance, step.direction, step.g_direction, step.g_distance) if n
            )


def writes(step: Step) -> tuple[str, ...]:
    """The buffers a step writes."""
    match step:
        case Geometry():
            return (step.vector, step.distance, step.direction)
        case Locate():
            return (step.place, step.slope)
        case Call(outputs=outputs):
            return tuple(name for name in outputs if name)
        case Activate(y=y, slope=slope):
            return (y.buffer, slope.buffer)
        case Readout(energies=energies):
            return (energies,)
        case Forces():
            return ()
        case _:
            return (step.y.buffer,)


def _depending(steps: tuple[Step, ...]) -> frozenset[str]:
    """The buffers that depend on positions."""
    found: set[str] = set()
    for step in steps:
        if isinstance(step, Geometry) or found.intersection(reads(step)):
            found.update(writes(step))
    return frozenset(found)


@dataclass(slots=True)
class _Sweep:
    """What a reverse sweep has made so far.

    covered  of each gradient buffer the columns that hold something, as disjoint intervals
    """

    buffers: dict[str, Buffer]
    constants: MutableMapping[str, Array]
    depending: frozenset[str]
    steps: list[Step] = field(default_factory=list)
    covered: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def gradient(self, name: str) -> str:
        """The buffer of the derivative by a buffer, declared on first use."""
        own = self.buffers[name]
        made = f"g_{name}"
        if made not in self.buffers:
            self.buffers[made] = Buffer(made, own.rows, own.width, own.dtype)
            self.covered[made] = []
        return made

    def into(self, place: Place) -> tuple[Place, bool] | None:
        """Where the derivative by a place goes and whether it is added there; None: nobody asks for it."""
        if place.buffer not in self.depending:
            return None
        target = Place(self.gradient(place.buffer), place.start, place.width)
        held = self.covered[target.buffer]
        touched = [(a, b) for a, b in held if a < target.stop and target.start < b]
        if not touched:
            held.append((target.start, target.stop))
            return target, False
        missing = _gaps(touched, target.start, target.stop)
        for a, b in missing:
            self.steps.append(Fill(Place(target.buffer, a, b - a)))
            held.append((a, b))
        return target, True

    def of(self, place: Place) -> Place | None:
        """The derivative by a place, complete; None where it is zero."""
        made = f"g_{place.buffer}"
        held = [(a, b) for a, b in self.covered.get(made, []) if a < place.stop and place.start < b]
        if not held:
            return None
        for a, b in _gaps(held, place.start, place.stop):
            self.steps.append(Fill(Place(made, a, b - a)))
            self.covered[made].append((a, b))
        return Place(made, place.start, place.width)

    def whole(self, name: str) -> Place:
        """All columns of a buffer."""
        return Place(name, 0, self.buffers[name].width)

    def transposed(self, name: str) -> str:
        """The constant with its last two axes exchanged."""
        made = f"{name}.T"
        if made not in self.constants:
            array = self.constants[name].swapaxes(-1, -2)
            self.constants[made] = array.copy()
        return made


def _gaps(held: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """What of start ... stop no interval covers."""
    gaps, place = [], start
    for a, b in sorted(held):
        if a > place:
            gaps.append((place, min(a, stop)))
        place = max(place, b)
    if place < stop:
        gaps.append((place, stop))
    return gaps


# ── rules ────────────────────────────────────────────────────────────────────────────────────────


def _readout(sweep: _Sweep, step: Readout) -> None:
    found = sweep.into(step.x)
    if found is not None:
        sweep.steps.append(Seed(found[0], step.scales))


def _product(sweep: _Sweep, step: Product) -> None:
    given, found = sweep.of(step.y), sweep.into(step.x)
    if given is not None and found is not None:
        weights = sweep.transposed(step.weights)
        sweep.steps.append(Product(given, found[0], weights, step.components, step.by_species, found[1]))


def _activate(sweep: _Sweep, step: Activate) -> None:
    given, found = sweep.of(step.y), sweep.into(step.x)
    if given is not None and found is not None:
        sweep.steps.append(Multiply(given, step.slope, found[0], found[1]))


def _multiply(sweep: _Sweep, step: Multiply) -> None:
    given = sweep.of(step.y)
    for own, other in ((step.x, step.by), (step.by, step.x)):
        found = sweep.into(own)
        if given is not None and found is not None:
            sweep.steps.append(Multiply(given, other, found[0], found[1]))


def _add(sweep: _Sweep, step: Add) -> None:
    given, found = sweep.of(step.y), sweep.into(step.x)
    if given is not None and found is not None:
        if not found[1]:
            sweep.steps.append(Fill(found[0]))
        sweep.steps.append(Add(given, found[0]))


def _locate(sweep: _Sweep, step: Locate) -> None:
    given, found = sweep.of(sweep.whole(step.place)), sweep.into(sweep.whole(step.distance))
    if given is not None and found is not None:
        sweep.steps.append(Multiply(given, sweep.whole(step.slope), found[0], found[1]))


def _call(sweep: _Sweep, step: Call) -> None:
    given = [sweep.of(sweep.whole(name)) for name in step.outputs]
    if all(place is None for place in given):
        return
    cotangents = []
    for name, place in zip(step.outputs, given, strict=True):
        if place is None:
            made = sweep.gradient(name)
            sweep.steps.append(Fill(sweep.whole(made)))
        cotangents.append(f"g_{name}")
    outputs, sums = [], []
    for name in step.inputs:
        found = sweep.into(sweep.whole(name)) if name in sweep.depending else None
        if found is None:
            outputs.append("")
        elif not found[1]:
            outputs.append(found[0].buffer)
        else:  # a kernel writes, it does not add
            own = sweep.buffers[name]
            part = f"{found[0].buffer}.{len(sweep.steps)}"
            sweep.buffers[part] = Buffer(part, own.rows, own.width, own.dtype)
            outputs.append(part)
            sums.append(Add(sweep.whole(part), found[0]))
    sweep.steps.append(Call(step.recipe, 1, (*step.inputs, *cotangents), tuple(outputs), step.indices, step.extents))
    sweep.steps.extend(sums)


def _geometry(sweep: _Sweep, step: Geometry) -> None:
    by_direction, by_distance = (
        "" if sweep.of(sweep.whole(name)) is None else f"g_{name}" for name in (step.direction, step.distance)
    )
    sweep.steps.append(Forces(step.vector, step.distance, step.direction, by_direction, by_distance, step.sign))


def _nothing(sweep: _Sweep, step: Step) -> None:
    """What writes constants has no derivative."""


def _refuse(sweep: _Sweep, step: Step) -> None:
    raise KernelError(f"gradient: got the step {type(step).__name__} in a forward program; expected none")


_RULES: dict[type, Callable[[_Sweep, Any], None]] = {
    Readout: _readout,
    Product: _product,
    Activate: _activate,
    Multiply: _multiply,
    Add: _add,
    Locate: _locate,
    Call: _call,
    Geometry: _geometry,
    Embed: _nothing,
    Fill: _nothing,
    RowDot: _refuse,
    Seed: _refuse,
    Forces: _refuse,
}
