"""CUDA text: a launch as one __global__ function of C++ without headers.

REAL, PACK and the channel extents are macros which whoever compiles the text defines; so one text serves both
precisions and every width, and in the machine code all strides are constants.
"""

from __future__ import annotations

from irrepc.algebra.surd import ONE
from irrepc.emit.cuda_plan import Group, Launch
from irrepc.emit.cuda_steps import Nest, Step
from irrepc.emit.printer import WIDTH, Constants, assignment, expression, variable
from irrepc.emit.views import gathered, offsets, product_text, used_inputs, width
from irrepc.ir.kernel import Axes, Ref

TILE = 32
"""Components that a warp lays down in shared memory at a time, to write them row after row."""
_INDENT = "    "
_ROWS = "const long long* __restrict__ "


def launch_text(launch: Launch) -> tuple[str, ...]:
    """The lines of a launch's function, between guards so that one kernel can be compiled at a time."""
    return tuple(_Writer(launch).function())


def arguments(launch: Launch) -> tuple[tuple[str, str], ...]:
    """The arguments of a launch in order, (type, name) each.

    sender_of is the values of an Index, receiver_order and receiver_start its other fields; rows is how many rows
    there are to sum or to compute, pieces in how many parts the rows of each sum are cut.
    """
    inputs, scatter = used_inputs(launch.kernel), launch.kernel.outputs[0].index
    out = [("const REAL* __restrict__ ", o.name) for o in inputs]
    out += [(_ROWS, f"{g}_of") for g in dict.fromkeys((*gathered(inputs, scatter), *(i for _, i in launch.adds)))]
    order = visiting(launch)
    if order is not None:
        out.append((_ROWS, f"{order}_order"))
    if scatter is not None:
        out.append((_ROWS, f"{scatter}_start"))
    out += [("REAL* __restrict__ ", o.name) for o in launch.kernel.outputs]
    out += [("const long long ", "rows")]
    if is_sum(launch):
        out += [("const long long ", "pieces")]
    return tuple(out)


def is_sum(launch: Launch) -> bool:
    """Whether the outputs are sums over rows."""
    return launch.kernel.outputs[0].index is not None or launch.kernel.outputs[0].rows is None


def visiting(launch: Launch) -> str | None:
    """The index in whose order rows are visited: that of the sums, else the one through which most numbers are read.

    Threads next to each other then read the same rows of that operand.
    """
    if is_sum(launch):
        return launch.kernel.outputs[0].index
    sizes: dict[str, int] = {}
    for o in used_inputs(launch.kernel):
        if o.index is not None:
            sizes[o.index] = sizes.get(o.index, 0) + o.size
    return max(sizes, key=lambda name: sizes[name], default=None)


def is_staged(launch: Launch) -> bool:
    """Whether lanes hand over what they computed, so that neighbours write neighbouring numbers.

    A lane that writes a row by itself touches a sector of 32 bytes for each number, and a cache that writes through
    passes every one of them on: for rows of W numbers a warp sends 32 W sectors in place of 4 W in float32.
    """
    if launch.kind != "rows" or is_sum(launch) or visiting(launch) is not None:
        return False
    return any(len(run) > 1 for group in launch.groups for run in _runs(group))


class _Writer:
    """Writes one launch."""

    def __init__(self, launch: Launch) -> None:
        kernel = launch.kernel
        self.launch, self.kernel, self.kind = launch, kernel, launch.kind
        self.constants = Constants.of((kernel,))
        self.constants.signed.setdefault(ONE, ("", 1))  # a register that is stored
        self.operands = kernel.operands
        self.axes = {Ref(o.name, i): a for o in self.operands.values() for i, a in enumerate(o.components)}
        self.starts = {o.name: offsets(o) for o in (*kernel.inputs, *kernel.outputs)}
        self.scatter, self.is_sum, self.visiting = kernel.outputs[0].index, is_sum(launch), visiting(launch)
        own = [o.rows for o in (*kernel.inputs, *kernel.outputs) if o.rows is not None and o.index is None]
        self.row = own[0] if own else "edge"
        # The channel axis along which a thread has PACK neighbours, where values are Channels.
        self.vector = launch.lanes[-1] if launch.lanes else ""
        self.adds = dict(launch.adds)
        self.staged = is_staged(launch)
        self.runs = {ref: run for group in launch.groups for run in _runs(group) for ref in run} if self.staged else {}

    def function(self) -> list[str]:
        """The text of the launch."""
        groups = self.launch.groups
        *most, last = (f"{kind}{name}" for kind, name in arguments(self.launch))
        lines = [f'extern "C" __global__ void BOUNDS {self.launch.name}(']
        lines += _indent([*(f"{p}," for p in most), f"{last})"])
        lines.append("{")
        lines += _indent([f"const REAL {line.replace('  #', ';  //')}" for line in self.constants.lines("REAL")])
        if self.staged:
            longest = max(len(run) for run in self.runs.values()) | 1
            lines.append(f"{_INDENT}__shared__ REAL tiles[THREADS / 32][32 * {longest}];")
        lines += _indent(self._place())
        if len(groups) == 1:
            lines += _indent(self._group(groups[0]))
        else:
            lines.append(f"{_INDENT}switch (warp % {len(groups)}) {{")
            for number, group in enumerate(groups):
                lines.append(f"{_INDENT}case {number}: {{  // {names(group.outputs)}")
                lines += _indent(_indent([*self._group(group), "return;"]))
                lines.append(f"{_INDENT}}}")
            lines.append(f"{_INDENT}}}")
        return [f"#ifdef WITH_{self.launch.name}", *lines, "}", "#endif"]

    def _place(self) -> list[str]:
        """Which row of the outputs and which channels a thread has; groups lie side by side, warp by warp."""
        count = len(self.launch.groups)
        lines = ["const long long warp = blockIdx.x * (THREADS / 32LL) + threadIdx.x / 32;"]
        tile = "warp" if count == 1 else f"warp / {count}"
        if self.kind == "warps":
            lines += ["const int lane = threadIdx.x % 32;", f"const long long place = {tile};"]
        elif self.staged:
            lines += ["const int lane = threadIdx.x % 32;", "REAL* const tile = tiles[threadIdx.x / 32];"]
            lines += [f"const long long left = rows - {tile if count == 1 else f'({tile})'} * 32;"]
            lines += ["if (left <= 0) return;", "// Lanes beyond the last row compute it again, and write nothing."]
            return [*lines, "const long long place = rows - left + (lane < left ? lane : left - 1);"]
        elif self.kind == "rows":
            tile = tile if count == 1 else f"({tile})"
            lines.append(f"const long long place = {tile} * 32 + threadIdx.x % 32;")
        else:
            tile = tile if count == 1 else f"({tile})"
            extent = product_text(tuple(a.upper() for a in self.launch.lanes))
            lines.append(f"const long long thread = {tile} * 32 + threadIdx.x % 32;")
            lines.append(f"const long long place = thread / ({extent} / PACK);")
            lines += _counters(self.launch.lanes, f"const int {{}} = thread % ({extent} / PACK) * PACK;")
        bound = "rows * pieces" if self.scatter else "pieces" if self.is_sum else "rows"
        return [*lines, f"if (place >= {bound}) return;"]

    def _group(self, group: Group) -> list[str]:
        """What a thread does for a group: accumulators, the loop over rows, what is left to write."""
        steps = [s for nest in group.nests for s in nest.steps]
        adding = sorted({s.target for s in steps if s.verb in ("add", "share", "once")})
        used = {f.operand for s in steps for t in s.terms for f in t.factors if f.operand != s.target.operand}
        used |= {s.target.operand for s in steps if s.verb == "store"} | {t.operand for t in adding}
        # A warp walks over channels: what has none is read again in each turn, see templates/cuda.
        kept = used - self._scalars() if self.kind == "warps" else used
        inside = [*self._pointers(kept), *(line for nest in group.nests for line in self._nest(nest, group.nests))]
        accumulators = _declare("Channels", [t for t in adding if self.axes[t]])
        accumulators += _declare("REAL", [t for t in adding if not self.axes[t]])
        return [*accumulators, *self._walk(inside), *self._ending(adding)]

    def _walk(self, inside: list[str]) -> list[str]:
        """The rows of a sum one after the other, or the one row that a thread computes."""
        row = self.row
        if self.scatter is not None:
            here = self.scatter
            return [
                f"const long long {here} = pieces == 1 ? place : place / pieces;",
                f"long long step = {here}_start[{here}], end = {here}_start[{here} + 1];",
                "if (pieces > 1) cut(step, end, place % pieces, pieces);",
                "for (; step < end; ++step) {",
                *_indent([f"const long long {row} = {here}_order[step];", *inside]),
                "}",
            ]
        if self.is_sum:
            begin, end = "rows * place / pieces", "rows * (place + 1) / pieces"
            return [f"for (long long {row} = {begin}; {row} < {end}; ++{row}) {{", *_indent(inside), "}"]
        at = "place" if self.visiting is None else f"{self.visiting}_order[place]"
        return [f"const long long {row} = {at};", *inside]

    def _scalars(self) -> set[str]:
        """The inputs that hold components without channels."""
        return {o.name for o in self.kernel.inputs if () in o.components}

    def _pointers(self, used: set[str], again: str = "") -> list[str]:
        """Where the rows of inputs begin, and of outputs when they are written once for each row."""
        lines = []
        for o in (*used_inputs(self.kernel), *(() if self.is_sum or self.staged else self.kernel.outputs)):
            if o.rows is None or o.name not in used:
                continue
            row = self.row if o.index is None else o.index if o.index == self.scatter else f"{o.index}_of[{self.row}]"
            row = f"chosen({row}, {self.adds[o.name]}_of[{row}])" if o.name in self.adds else row
            const = "const " if o in self.kernel.inputs else ""
            lines.append(f"{const}REAL* {o.name}_row = {o.name} + {row} * {_grouped(width(o))}{again};")
        return lines

    def _nest(self, nest: Nest, nests: tuple[Nest, ...]) -> list[str]:
        """The loops over channels around the steps."""
        lines = _declare("REAL", list(nest.sums))
        if self.kind == "warps":
            self.vector = nest.axes[-1] if nest.axes else ""
            body = [line for s in nest.steps for line in self._step(s, nest)]
            read = {s.target.operand for s in nest.steps if s.verb == "load"} & self._scalars()
            body = self._pointers(read, " + nothing()" if nest.axes else "") + body
            if not nest.axes:
                return ["{", *_indent([*lines, *body]), "}"] if read else [*lines, *body]
            extent = product_text(tuple(a.upper() for a in nest.axes))
            counters = _counters(nest.axes, f"for (int {{0}} = lane * PACK; {{0}} < {extent}; {{0}} += 32 * PACK) {{{{")
            lines += [counters[0], *_indent([*counters[1:], *body]), "}"]
            return [*lines, *(f"{variable(t)} = warp_sum({variable(t)});" for t in nest.sums)]
        body = [line for s in nest.steps for line in self._step(s, nest)]
        serial = [a for a in nest.axes if a not in self.launch.lanes]
        for a in reversed(serial):
            body = [f"for (int i_{a} = 0; i_{a} < {a.upper()}; ++i_{a}) {{", *_indent(body), "}"]
        return ["{", *_indent(body), "}"] if len(nests) > 1 and not serial else body

    def _step(self, s: Step, nest: Nest) -> list[str]:
        """One statement."""
        operand = self.operands[s.target.operand]
        note, name = operand.label(s.target.component), variable(s.target)
        kind = "Channels" if self.vector and self.vector in self.axes[s.target] else "REAL"
        if s.verb == "load":
            return _statement(f"const {kind} {name}", "=", self._load(s.target), note)
        right = expression(s.terms, self.constants, variable, lambda f: len(self.axes[f]), unit="REAL(1)")
        looped = self.kind == "warps" and bool(nest.axes)
        match s.verb:
            case "let":
                return _statement(f"const {kind} {name}", "=", right, note)
            case "sum" if s.target in nest.sums:
                return _statement(name, "+=", f"total({right})", note)
            case "sum":
                return _statement(f"const REAL {name}", "=", f"total({right})", note)
            case "share" if looped and any(self.vector in self.axes[f] for t in s.terms for f in t.factors):
                return _statement(name, "+=", f"total({right})", note)
            case "start":
                return _statement(f"{kind} {name}", "=", right, note)
            case "add" | "share" | "more":
                return _statement(name, "+=", right, note)
            case "once":
                return _statement("if (lane == 0) " + name, "+=", right, note)
        if self.axes[s.target]:
            return [f"{self._store(s.target)}, {right});{_comment(note)}"]
        if self.staged:
            run = self.runs[s.target]
            place = f"tile[lane * {len(run) | 1} + {run.index(s.target)}]"
            lines = _statement(place, "=", right, note)
            return [*lines, self._hand_over(run)] if s.target == run[-1] else lines
        first = "if (lane == 0) " if self.kind == "warps" else ""
        return _statement(f"{first}{self._cell(s.target, '[]')}", "=", right, note)

    def _store(self, target: Ref) -> str:
        """The beginning of a call that writes channels."""
        return f"{'bring' if target.operand in self.adds else 'store'}({self._cell(target)}"

    def _hand_over(self, run: tuple[Ref, ...]) -> str:
        """The warp writes a run of components of its rows."""
        o = self.operands[run[0].operand]
        column = self.starts[o.name][run[0].component].upper()
        start = f"{o.name} + (rows - left) * {_grouped(width(o))}" + (f" + {column}" if column not in ("", "0") else "")
        return f"write_rows<{len(run)}>(tile, {start}, {width(o).upper()}, lane, left);"

    def _ending(self, adding: list[Ref]) -> list[str]:
        """Sums across the warp, and accumulators written."""
        if not adding:
            return []
        lines = []
        for o in self.kernel.outputs if self.is_sum else ():
            if any(t.operand == o.name for t in adding):
                lines.append(f"REAL* {o.name}_row = {o.name} + place * {_grouped(width(o))};")
        if self.kind == "channels":
            return [*lines, *(f"{self._store(t)}, {variable(t)});" for t in adding)]
        writes = [f"{self._cell(t, '[]')} = {variable(t)};" for t in adding]
        if self.kind == "rows":
            return [*lines, *writes]
        totals = [f"{variable(t)} = warp_sum({variable(t)});" for t in adding]
        return [*lines, *totals, "if (lane == 0) {", *_indent(writes), "}"]

    def _load(self, ref: Ref) -> str:
        axes = self.axes[ref]
        if not self.vector or self.vector not in axes:
            return self._cell(ref, "[]")
        if axes[-1] == self.vector:
            return f"load({self._cell(ref)})"
        stride = product_text(tuple(a.upper() for a in axes[axes.index(self.vector) + 1 :]))
        return f"load({self._cell(ref)}, {stride})"

    def _cell(self, ref: Ref, brackets: str = "") -> str:
        """Where a component of the current row and channels lies: x_row + 3 * U + i_u, or x_row[3 * U + i_u]."""
        o = self.operands[ref.operand]
        flat = ""
        for a in o.components[ref.component]:
            inner = f"({flat})" if " + " in flat else flat
            flat = f"{inner} * {a.upper()} + i_{a}" if flat else f"i_{a}"
        column = " + ".join(p for p in (self.starts[o.name][ref.component].upper(), flat) if p) or "0"
        base = o.name if o.rows is None and not (self.is_sum and o in self.kernel.outputs) else f"{o.name}_row"
        if brackets:
            return f"{base}[{column}]"
        return base if column == "0" else f"{base} + {column}"


def _runs(group: Group) -> list[tuple[Ref, ...]]:
    """What a group stores, in order, cut into neighbouring components of an operand."""
    runs: list[list[Ref]] = []
    for ref in (s.target for nest in group.nests for s in nest.steps if s.verb == "store"):
        last = runs[-1][-1] if runs and len(runs[-1]) < TILE else None
        if last is not None and (ref.operand, ref.component) == (last.operand, last.component + 1):
            runs[-1].append(ref)
        else:
            runs.append([ref])
    return [tuple(run) for run in runs]


def _counters(axes: Axes, start: str) -> list[str]:
    """The channel numbers of a thread from one counter over all axes: i_u, or i_u and i_v from `channel`."""
    if len(axes) == 1:
        return [start.format(f"i_{axes[0]}")]
    lines, inner = [], ""
    for a in reversed(axes):
        outer = f"channel / ({inner})" if " " in inner else f"channel / {inner}" if inner else "channel"
        lines.append(f"const int i_{a} = {outer}{f' % {a.upper()}' if a != axes[0] else ''};")
        inner = f"{a.upper()} * {inner}" if inner else a.upper()
    return [start.format("channel"), *reversed(lines)]


def _statement(left: str, operator: str, right: str, note: str) -> list[str]:
    """`left operator right;  // note`, over several lines where it is too long."""
    lines = assignment(left, operator, right)
    lines[-1] += ";"
    if not note:
        return lines
    if len(lines) == 1 and len(lines[0]) + len(note) + 5 <= WIDTH:
        return [lines[0] + _comment(note)]
    return [f"// {note}", *lines]


def _declare(kind: str, targets: list[Ref]) -> list[str]:
    """Accumulators, set to zero."""
    lines: list[str] = []
    for t in targets:
        name = f"{variable(t)} = 0"
        if lines and len(lines[-1]) + len(name) + 3 <= WIDTH - 3 * len(_INDENT):
            lines[-1] = f"{lines[-1][:-1]}, {name};"
        else:
            lines.append(f"{kind} {name};")
    return lines


def names(refs: tuple[Ref, ...]) -> str:
    """For the reader: a few components, or the first and the last."""
    return f"{refs[0]} ... {refs[-1]}" if len(refs) > 3 else ", ".join(map(str, refs))


def _comment(note: str) -> str:
    return f"  // {note}" if note else ""


def _grouped(text: str) -> str:
    return f"({text.upper()})" if " " in text else text.upper()


def _indent(lines: list[str]) -> list[str]:
    return [_INDENT + line for line in lines]
