"""Numba text: a kernel as serial loops over rows, one function for each way its outputs are scattered.

Rows of the scatter index are the outer loop (edges in CSR order), so each output row is written by one thread, the
result does not depend on how many threads there are, and no atomics are needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from irrepc.emit.printer import WIDTH, Constants, assignment, expression, variable
from irrepc.emit.views import Function, Part, gathered, offsets, shape, signature, used_inputs, width, width_of
from irrepc.ir.block import Block, Stage, Statement
from irrepc.ir.kernel import Axes, Kernel, Operand, Ref

_INDENT = "    "


def numba_function(kernel: Kernel, scheduled: tuple[Block, ...]) -> Function:
    """The text of one kernel from its scheduled parts."""
    return Function(
        name=kernel.name,
        signature=", ".join(signature(kernel)),
        arguments=(),
        returns="",
        summary=kernel.doc,
        shapes=(*(shape(o) for o in kernel.inputs), "returns " + "; ".join(shape(o) for o in kernel.outputs)),
        body=tuple(check_lines(kernel)),
        parts=tuple(_part(block, number) for number, block in enumerate(scheduled)),
        result=", ".join(o.name for o in kernel.outputs),
    )


def check_lines(kernel: Kernel) -> list[str]:
    """The beginning of a NumPy function: how many rows there are, and operands of the right type and shape."""
    lines = [f"rows = {_row_count(kernel)}"]
    operands = []
    for o in kernel.inputs:
        rows = "rows" if o.index is None else f"{o.index}.start.size - 1"
        shape_ = f"({width(o)},)" if o.rows is None else f"({rows}, {width(o)})"
        operands.append(f'("{o.name}", {o.name}, {shape_})')
    names = ", ".join(o.name for o in kernel.inputs) + "," * (len(kernel.inputs) == 1)
    call = f'{names} = _operands("{kernel.name}", {", ".join(operands)})'
    if len(call) <= WIDTH:
        return [*lines, call]
    return [*lines, f"{names} = _operands(", f'{_INDENT}"{kernel.name}",', *(f"{_INDENT}{o}," for o in operands), ")"]


def _part(block: Block, number: int) -> Part:
    kernel = block.kernel
    writer = _Writer.of(block)
    scatter, shared = writer.scatter, kernel.outputs[0].rows is None
    outputs = [o.name for o in kernel.outputs]
    gathers = gathered(writer.inputs, scatter)
    csr = [] if scatter is None else [f"{scatter}_order", f"{scatter}_start"]
    passed = [
        *(o.name for o in writer.inputs),
        *(f"{g}.values" for g in gathers),
        *(text.replace("_", ".") for text in csr),
        *kernel.channels,
    ]
    arguments = ["n0", "n1", *(o.name for o in writer.inputs), *gathers, *csr, *kernel.channels, *outputs]
    name = f"_{kernel.name}_{'_'.join(outputs)}"
    rows = "rows" if scatter is None else f"{scatter}.start.size - 1"
    work = f"rows * ({width_of(o for o in (*writer.inputs, *kernel.outputs) if o.rows is not None)})"
    first = kernel.inputs[0].name
    if shared:
        cuts = f"cut_rows(rows, sums_of({work}))"
    elif scatter is None:
        cuts = f"cut_rows(rows, pieces_of({work}, threads))"
    else:
        cuts = f"cut_edges({scatter}.start, pieces_of({work}, threads))"
    allocate = [f"cuts = {cuts}"]
    for o in kernel.outputs:
        size = f"len(cuts), {width(o)}" if shared else f"{rows}, {width(o)}"
        allocate.append(f"{o.name} = np.{'zeros' if shared else 'empty'}(({size}), {first}.dtype)")
    body = tuple(writer.rows(gathers))
    reassociate = shared or any(s.verb == "sum" for stage in block.stages for s in stage.statements)
    takes = (*passed, *outputs)
    return Part(
        name=name,
        arguments=", ".join(arguments),
        takes=takes,
        line=repr((name, takes, scatter, tuple(outputs))),
        first=writer.inputs[0].name,
        fastmath='{"contract", "nsz", "reassoc"}' if reassociate else '{"contract", "nsz"}',
        constants=(*_units(body), *writer.constants.lines("real")),
        body=body,
        allocate=tuple(allocate),
        call=_call(name, passed, outputs, shared),
        finish=tuple(f"{name} = {name}.sum(axis=0)" for name in outputs) if shared else (),
    )


def _call(name: str, passed: list[str], outputs: list[str], shared: bool) -> tuple[str, ...]:
    """Run a serial function on every piece of the rows; sums over the rows have a line for each piece."""
    if shared:
        jobs = ", ".join((*passed, *(f"{o}[i]" for o in outputs)))
        return (f"run({name}, [(*cut, {jobs}) for i, cut in enumerate(cuts)], threads)",)
    return (f"run({name}, [(*cut, {', '.join((*passed, *outputs))}) for cut in cuts], threads)",)


def _units(body: tuple[str, ...]) -> list[str]:
    """The numbers zero and one in the kernel's type, where the body uses them."""
    words = set(re.findall(r"\b(?:zero|one)\b", " ".join(body)))
    return [f"{name} = real({value})" for name, value in (("zero", "0.0"), ("one", "1.0")) if name in words]


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the loops of one block."""

    block: Block
    kernel: Kernel
    inputs: tuple[Operand, ...]
    scatter: str | None
    constants: Constants
    axes: dict[Ref, Axes]
    operands: dict[str, Operand]
    starts: dict[str, tuple[str, ...]]

    @staticmethod
    def of(block: Block) -> _Writer:
        kernel = block.kernel
        operands = kernel.operands
        axes = {Ref(o.name, i): a for o in operands.values() for i, a in enumerate(o.components)}
        inputs = used_inputs(kernel)
        constants = Constants.of((kernel,))
        starts = {o.name: offsets(o) for o in (*kernel.inputs, *kernel.outputs)}
        return _Writer(block, kernel, inputs, kernel.outputs[0].index, constants, axes, operands, starts)

    def rows(self, gathers: tuple[str, ...]) -> list[str]:
        """The loops over rows around the stages."""
        body = [f"{g}_e = {g}[e]" for g in gathers]
        body += self._loads(self.block.stages, channelled=False)
        for stage in self.block.stages:
            body += self._stage(stage)
        stored = {s.target for stage in self.block.stages for s in stage.statements if s.verb == "store"}
        blank: list[str] = []
        for o in self.kernel.outputs:
            if o.rows is not None and any(Ref(o.name, i) not in stored for i in range(o.size)):
                blank += [f"for i in range({width(o)}):", f"{_INDENT}{o.name}[n, i] = zero"]
        if self.scatter is None:
            return ["for n in range(n0, n1):", *_indent([*blank, "e = n", *body])]
        edges = f"for s in range({self.scatter}_start[n], {self.scatter}_start[n + 1]):"
        inner = [*blank, edges, *_indent([f"e = {self.scatter}_order[s]", *body])]
        return ["for n in range(n0, n1):", *_indent(inner)]

    def _stage(self, stage: Stage) -> list[str]:
        statements = [line for s in stage.statements for line in self._statement(s)]
        if not stage.axes:
            return statements
        done = [variable(s.target) for s in stage.statements if s.verb != "let"]
        names = ", ".join(done if len(done) < 4 else [done[0], "...", done[-1]])
        inner = [*self._loads((stage,), channelled=True), *statements]
        for axis in reversed(stage.axes):
            inner = [f"for i_{axis} in range({axis}):", *_indent(inner)]
        sums = [f"{variable(s.target)} = zero" for s in stage.statements if s.verb == "sum"]
        return [f"# for each channel: {names}", *sums, *inner]

    def _statement(self, s: Statement) -> list[str]:
        right = expression(s.terms, self.constants, variable, lambda f: len(self.axes[f]), unit="one")
        operand = self.operands[s.target.operand]
        note = operand.label(s.target.component)
        if s.verb in ("let", "sum"):
            return assignment(variable(s.target), "=" if s.verb == "let" else "+=", right, note)
        left = self._cell(operand, s.target.component)
        return assignment(left, "=" if s.verb == "store" else "+=", right, note)

    def _loads(self, stages: tuple[Stage, ...], *, channelled: bool) -> list[str]:
        """Loads of the input components these stages use: those with channels, or those without."""
        inputs = {o.name: o for o in self.inputs}
        used = {f for stage in stages for s in stage.statements for t in s.terms for f in t.factors}
        lines = []
        for f in sorted(f for f in used if f.operand in inputs and bool(self.axes[f]) == channelled):
            o = inputs[f.operand]
            lines += assignment(variable(f), "=", self._cell(o, f.component), o.label(f.component))
        return lines

    def _cell(self, o: Operand, component: int) -> str:
        """The array element of a component in the current row and channels: x[sender_e, 3 * u + i_u]."""
        flat = ""
        for a in o.components[component]:
            inner = f"({flat})" if " + " in flat else flat
            flat = f"{inner} * {a} + i_{a}" if flat else f"i_{a}"
        column = " + ".join(p for p in (self.starts[o.name][component], flat) if p) or "0"
        if o.rows is None:
            return f"{o.name}[{column}]"
        row = "e" if o.index is None else "n" if o.index == self.scatter else f"{o.index}_e"
        return f"{o.name}[{row}, {column}]"


def _row_count(kernel: Kernel) -> str:
    for o in kernel.inputs:
        if o.rows is not None and o.index is None:
            return f"{o.name}.shape[0]"
    return f"{kernel.indices[0]}.values.size"


def _indent(lines: list[str]) -> list[str]:
    return [_INDENT + line for line in lines]
