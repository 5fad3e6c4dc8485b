"""Torch text: a kernel as unrolled tensor code, differentiable to any order by torch itself.

Every component is a tensor (rows, channels), scalars are (rows, 1), so broadcasting does the loops.  A kernel with two
or more channel axes (a linear map, an outer product) is written with einsum instead.
"""

from __future__ import annotations

from irrepc.emit.printer import Constants, assignment, expression, variable
from irrepc.emit.views import Function, shape, signature, width
from irrepc.errors import KernelError
from irrepc.ir.block import Block
from irrepc.ir.kernel import Axes, Equation, Kernel, Operand, Ref, Term

_LETTERS = "uvwabcdefghijklmnopq"


def torch_function(kernel: Kernel, scheduled: tuple[Block, ...], constants: Constants) -> Function:
    """The text of one kernel from its scheduled parts; `constants` names the constants of the whole module."""
    kind = _Einsum if len(kernel.channels) > 1 else _Broadcast
    used = {f for b in scheduled for e in b.kernel.equations for t in e.terms for f in t.factors}
    loader = kind(kernel, used, constants)
    body = [line for o in kernel.inputs if o.size for line in _load(o, loader)]
    for block in scheduled:
        # Registers of one part may take the names of another's: its outputs are complete by then.
        writer = kind(block.kernel, used, constants)
        for equation in block.kernel.equations:
            body.extend(writer.statement(equation))
        for o in block.kernel.outputs:
            body.extend(_gather_output(o, block.kernel, writer))
    names = [o.name for o in kernel.outputs]
    return Function(
        name=kernel.name,
        signature=", ".join(signature(kernel)),
        arguments=tuple(f"{a}: {_annotation(a, kernel)}" for a in signature(kernel)),
        returns=_returns(kernel),
        summary=kernel.doc,
        shapes=(*(shape(o) for o in kernel.inputs), "returns " + "; ".join(shape(o) for o in kernel.outputs)),
        body=tuple(body),
        parts=(),
        result=", ".join(names),
    )


def _returns(kernel: Kernel) -> str:
    names = ", ".join("torch.Tensor" for _ in kernel.outputs)
    return names if len(kernel.outputs) == 1 else f"tuple[{names}]"


def _annotation(argument: str, kernel: Kernel) -> str:
    if argument in kernel.indices:
        return "Index"
    return "int" if argument in kernel.channels else "torch.Tensor"


class _Broadcast:
    """Statements for kernels with at most one channel axis: plain arithmetic on (rows, channels) tensors."""

    def __init__(self, kernel: Kernel, used: set[Ref], constants: Constants) -> None:
        self.kernel = kernel
        self.constants = constants
        self.used = used
        self.operands = kernel.operands
        self.equations = {e.target: e for e in kernel.equations}
        self.axes = {Ref(o.name, i): a for o in self.operands.values() for i, a in enumerate(o.components)}

    def part_sizes(self, o: Operand) -> str:
        """The argument of split."""
        sizes = [" * ".join(a) if a else "1" for a in o.components]
        if len(set(sizes)) == 1:
            return sizes[0]
        return f"({', '.join(sizes)})"

    def reshape(self, o: Operand) -> list[str]:
        """Nothing: the pieces of a split already broadcast."""
        return []

    def statement(self, e: Equation) -> list[str]:
        """One equation as an assignment."""
        own = self.axes[e.target]
        carried = {a for t in e.terms for f in t.factors for a in self.axes[f]}
        text = expression(e.terms, self.constants, variable, lambda f: len(self.axes[f]))
        if carried - set(own):
            if not all(any(self.axes[f] for f in t.factors) for t in e.terms):
                raise KernelError(f"torch text: {e.target} sums terms with and without channels; expected one kind")
            text = f"({text}).sum(1, keepdim=True)"
        note = self.operands[e.target.operand].label(e.target.component)
        return assignment(variable(e.target), "=", text, note)

    def cat(self, o: Operand, parts: list[str]) -> str:
        """The row of an output, put together again."""
        return parts[0] if len(parts) == 1 else f"torch.cat(({', '.join(parts)}), dim=1)"


class _Einsum(_Broadcast):
    """Statements for kernels with several channel axes: one einsum for each term."""

    def __init__(self, kernel: Kernel, used: set[Ref], constants: Constants) -> None:
        super().__init__(kernel, used, constants)
        self.letters = dict(zip(kernel.channels, _LETTERS, strict=False))

    def reshape(self, o: Operand) -> list[str]:
        """Give each component its own axes: a scalar loses its channel dimension, a product of axes is unflattened."""
        lines = []
        for i, axes in enumerate(o.components):
            name = variable(Ref(o.name, i))
            if Ref(o.name, i) not in self.used:
                continue
            if not axes:
                lines.append(f"{name} = {name}.squeeze(-1)")
            elif len(axes) > 1:
                lines.append(f"{name} = {name}.unflatten(-1, ({', '.join(axes)}))")
        return lines

    def statement(self, e: Equation) -> list[str]:
        own = self.axes[e.target]
        rows = self.operands[e.target.operand].rows is not None
        text = expression(
            [Term(t.coeff, (Ref(self._einsum(t, own, rows), 0),) if t.factors else ()) for t in e.terms],
            self.constants,
            lambda f: f.operand,
            lambda f: 0,
        )
        note = self.operands[e.target.operand].label(e.target.component)
        return assignment(variable(e.target), "=", text, note)

    def _einsum(self, t: Term, own: Axes, rows: bool) -> str:
        subscripts = [self._subscript(f) for f in t.factors]
        result = ("r" if rows else "") + "".join(self.letters[a] for a in own)
        if subscripts == [result]:
            return variable(t.factors[0])
        return f'torch.einsum("{",".join(subscripts)}->{result}", {", ".join(variable(f) for f in t.factors)})'

    def _subscript(self, f: Ref) -> str:
        rows = self.operands[f.operand].rows is not None
        return ("r" if rows else "") + "".join(self.letters[a] for a in self.axes[f])

    def cat(self, o: Operand, parts: list[str]) -> str:
        start = 0 if o.rows is None else 1
        flat = [
            f"{p}.flatten({start})" if len(a) > 1 else p if a else f"{p}.unsqueeze(-1)"
            for p, a in zip(parts, o.components, strict=True)
        ]
        return flat[0] if len(flat) == 1 else f"torch.cat(({', '.join(flat)}), dim={start})"


def _load(o: Operand, writer: _Broadcast) -> list[str]:
    """The components of an input; those that nothing uses are called _."""
    names = [variable(ref) if ref in writer.used else "_" for ref in (Ref(o.name, i) for i in range(o.size))]
    if not set(names) - {"_"}:
        return []
    source = o.name if o.index is None else f"{o.name}.index_select(0, {o.index}.values)"
    if o.size == 1:
        return [f"{names[0]} = {source}", *writer.reshape(o)]
    dim = 0 if o.rows is None else 1
    return [
        *assignment(", ".join(names), "=", f"{source}.split({writer.part_sizes(o)}, dim={dim})"),
        *writer.reshape(o),
    ]


def _gather_output(o: Operand, kernel: Kernel, writer: _Broadcast) -> list[str]:
    """Fill what has no equation, put the components side by side, then scatter or sum."""
    lines = []
    parts = []
    for i, axes in enumerate(o.components):
        ref = Ref(o.name, i)
        name = variable(ref)
        if ref not in writer.equations or not _is_full(ref, writer):
            extent = axes if isinstance(writer, _Einsum) else (" * ".join(axes) or "1",)
            size = ", ".join((*(() if o.rows is None and isinstance(writer, _Einsum) else (_rows(kernel),)), *extent))
            blank = f"{kernel.inputs[0].name}.new_zeros(({size},))"
            lines.append(f"{name} = {name} + {blank}" if ref in writer.equations else f"{name} = {blank}")
        parts.append(name)
    if not parts:
        lines.append(f"{o.name} = {kernel.inputs[0].name}.new_zeros(({_rows(kernel)}, 0))")
        return lines
    row = writer.cat(o, parts)
    if o.index is not None:
        lines.append(f"{o.name} = {row}")
        zeros = f"{o.name}.new_zeros(({o.index}.start.size(0) - 1, {width(o)}))"
        lines.append(f"{o.name} = {zeros}.index_add(0, {o.index}.values, {o.name})")
    elif o.rows is None and not isinstance(writer, _Einsum):
        lines.append(f"{o.name} = {row}.sum(0)")
    else:
        lines.append(f"{o.name} = {row}")
    return lines


def _is_full(ref: Ref, writer: _Broadcast) -> bool:
    """True when some term of the equation carries the rows and all the channels of its target."""
    factors = [f for t in writer.equations[ref].terms for f in t.factors]
    rows = any(writer.operands[f.operand].rows is not None for f in factors)
    return rows and {a for f in factors for a in writer.axes[f]} >= set(writer.axes[ref])


def _rows(kernel: Kernel) -> str:
    for o in kernel.inputs:
        if o.rows is not None and o.index is None:
            return f"{o.name}.size(0)"
    return f"{kernel.indices[0]}.values.size(0)"
