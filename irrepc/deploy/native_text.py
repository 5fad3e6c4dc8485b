"""Text of a program's steps as C: what the writers of all kinds of steps share."""

from __future__ import annotations

from dataclasses import dataclass, field

from irrepc.deploy.native_constants import Constants
from irrepc.deploy.native_kernels import KernelTexts
from irrepc.deploy.program import Place, Program

REAL = {"float32": "float", "float64": "double", "int64": "int64_t"}
BYTES = {"float32": 4, "float64": 8}
ROWS = {"node": "m->n_local", "every": "m->n_total", "edge": "m->n_edges"}


@dataclass(frozen=True, slots=True)
class CStep:
    """A function of C over rows n0 ... n1 - 1."""

    name: str
    comment: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class StepTexts:
    """The C text of a program's steps.

    everywhere  buffers of atoms that depend on nothing but species: known for ghosts without asking
    fresh       buffers whose ghosts have been asked for since they were written
    """

    program: Program
    kernels: KernelTexts
    constants: Constants
    everywhere: frozenset[str]
    steps: list[CStep] = field(default_factory=list)
    externs: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    backward: list[str] = field(default_factory=list)
    geometry: list[str] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    exchanged: list[int] = field(default_factory=list)
    reach: int = 0

    # ── pieces of text ───────────────────────────────────────────────────────────────────────────

    def number(self, buffer: str) -> int:
        """The place of a buffer among all."""
        return next(k for k, b in enumerate(self.program.buffers) if b.name == buffer)

    def kind(self, buffer: str) -> str:
        """The C type of a buffer's numbers."""
        return REAL[self.program.buffers[self.number(buffer)].dtype]

    def width(self, buffer: str) -> int:
        """The columns of a buffer."""
        return self.program.buffers[self.number(buffer)].width

    def rows(self, buffer: str) -> str:
        """What a step that makes this buffer runs over: "node", "every" atom with ghosts, or "edge"."""
        rows = self.program.buffers[self.number(buffer)].rows
        return "every" if buffer in self.everywhere else rows

    def pointer(self, name: str, buffer: str, *, const: bool = True) -> str:
        """The declaration of a pointer to a buffer."""
        kind = self.kind(buffer)
        return f"{'const ' if const else ''}{kind} *{name} = BUFFER({kind}, {self.number(buffer)}); /* {buffer} */"

    def address(self, name: str) -> str:
        """A buffer or a constant as an argument of a kernel."""
        if any(b.name == name for b in self.program.buffers):
            return f"m->buffers[{self.number(name)}]"
        return self.constants.address(name)

    def step(self, comment: str, lines: list[str]) -> str:
        """Keep a function; its name."""
        name = f"step_{len(self.steps)}"
        self.steps.append(CStep(name, comment.replace("*/", ""), tuple(lines)))
        return name

    def declare(self, line: str) -> None:
        """Declare a function of object code, once."""
        if line not in self.externs:
            self.externs.append(line)

    def run(self, name: str, rows: str, weight: int, start: str = "NULL") -> str:
        """The line that runs a function."""
        return f"run(m, {name}, {ROWS.get(rows, rows)}, {start}, {weight});"

    def pointwise(self, comment: str, inputs: dict[str, Place], y: Place, operator: str, value: str) -> list[str]:
        """y[k] (+)= value for each column k of a place; `value` names the numbers of the inputs."""
        self.fresh.discard(y.buffer)
        body = [self.pointer(f"{name}_row", place.buffer) for name, place in inputs.items()]
        body.append(self.pointer("y_row", y.buffer, const=False))
        body.append("for (int64_t n = n0; n < n1; n++)")
        body.append(f"    for (int64_t k = 0; k < {y.width}; k++) {{")
        body += [f"        double {name} = {self.item(f'{name}_row', place)};" for name, place in inputs.items()]
        body.append(f"        {self.item('y_row', y)} {operator} ({self.kind(y.buffer)})({value});")
        body.append("    }")
        if all(self.kind(p.buffer) == "float" for p in (*inputs.values(), y)):
            body = [line.replace("double ", "float ") for line in body]
        return [self.run(self.step(comment, body), self.rows(y.buffer), y.width * (len(inputs) + 1))]

    def item(self, pointer: str, place: Place) -> str:
        """C code for column k of a place in row n."""
        start = f" + {place.start}" if place.start else ""
        return f"{pointer}[n * {self.width(place.buffer)}{start} + k]"


def named(place: Place) -> str:
    """A place as a reader finds it: buffer[start:stop]."""
    return f"{place.buffer}[{place.start}:{place.stop}]"
