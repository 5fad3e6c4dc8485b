"""Kernels: the calls, products and activations of a program as machine code, kept on disk, without torch.

Code is made once for each program and processor; a later process reads it together with the list of what each function
takes, and derives nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import llvmlite.binding as llvm

from irrepc.deploy.program import Activate, Buffer, Call, Place, Product, Program, Step
from irrepc.deploy.text import written
from irrepc.emit.sources import source_digest
from irrepc.errors import BackendError
from irrepc.runtime.cache import CACHE_VARIABLE, cache_folder
from irrepc.runtime.object_code import Processor, function, object_code

if TYPE_CHECKING:
    from irrepc.deploy.native_kernels import KernelTexts

MULTIPLICATIONS = 8
"""So many of a product take as long as touching one number."""


class Part(NamedTuple):
    """A serial function of a step: compute(first row, last row + 1, addresses).

    arguments  buffers and constants by name, and fields of indices as "@sender.values"; of a product x, "" for its
               weights, and y
    rows       "node" or "edge", what it runs over, or the index whose rows it does: "@sender"
    weight     what it costs for each atom or edge, in numbers touched
    """

    compute: Callable[..., None]
    arguments: tuple[str, ...]
    rows: str
    weight: int


def compiled(program: Program) -> tuple[tuple[Part, ...], ...]:
    """For each step its functions; none for steps that NumPy does.

    Raises BackendError where the cache cannot be written.
    """
    processor = Processor.native()
    described = json.dumps(written([program.dtype, program.steps, program.buffers]))
    version = str(llvm.llvm_version_info)
    key = sha256("\0".join((described, source_digest(), processor.name, processor.features, version)).encode())
    folder = cache_folder() / "deployed" / key.hexdigest()[:24]
    code, names = folder / "code.o", folder / "functions.json"
    if not names.exists():
        import filelock

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / ".lock", timeout=600):
                if not names.exists():
                    texts, listed = _texts(program)
                    objects = [(_defined(text), object_code(text, processor)) for text in texts]
                    _write(code, b"".join(o for _, o in objects))
                    sizes = [(name, len(o)) for name, o in objects]
                    _write(names, json.dumps({"objects": sizes, "steps": listed}).encode())
        except OSError as error:
            raise BackendError(
                f"cache: got {error}; expected to write {folder}; set {CACHE_VARIABLE} to a folder you can write"
            ) from error
    return _read(code, names)


def _read(code: Path, names: Path) -> tuple[tuple[Part, ...], ...]:
    listed = json.loads(names.read_text(encoding="utf-8"))
    counts = {name: len(arguments) for step in listed["steps"] for name, arguments, *_ in step}
    whole, found, start = code.read_bytes(), {}, 0
    for name, size in listed["objects"]:
        found[name] = function(whole[start : start + size], name, counts[name])
        start += size
    return tuple(
        tuple(Part(found[name], tuple(arguments), rows, weight) for name, arguments, rows, weight in step)
        for step in listed["steps"]
    )


def _defined(text: str) -> str:
    """The name of the one function that a text defines."""
    (name,) = re.findall(r"^define void @(\w+)\(", text, re.MULTILINE)
    return str(name)


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    temporary = file.with_suffix(f".{getpid()}")
    temporary.write_bytes(content)
    temporary.replace(file)


Listed = tuple[str, tuple[str, ...], str, int]


def _texts(program: Program) -> tuple[list[str], list[list[Listed]]]:
    """The LLVM text of all functions, and for each step (name, arguments, rows, weight) of its own."""
    # what derives and writes is imported when there is something to derive
    from irrepc.deploy.native_kernels import KernelTexts

    texts = KernelTexts.empty(program.dtype, Processor.native().tile)
    buffers = {b.name: b for b in program.buffers}
    listed = [_functions_of(step, texts, buffers) for step in program.steps]
    return texts.texts, listed


def _functions_of(step: Step, texts: KernelTexts, buffers: dict[str, Buffer]) -> list[Listed]:
    from irrepc.emit.llvm_activation import Activation
    from irrepc.emit.llvm_matrix import MatrixProduct

    def columns(place: Place) -> tuple[int, int]:
        return buffers[place.buffer].width, place.start

    match step:
        case Call():
            return _functions_of_call(step, texts, buffers)
        case Product(x, y, _, components, _, add):
            inner, outer = x.width // components, y.width // components
            name = texts.product(MatrixProduct(components, inner, outer, *columns(x), *columns(y), add))
            weight = components * inner * outer // MULTIPLICATIONS
            return [(name, (x.buffer, "", y.buffer), buffers[y.buffer].rows, weight)]
        case Activate(x, y, slope, function, gain):
            name = texts.activation(Activation(function, gain, x.width, *columns(x), *columns(y), *columns(slope)))
            return [(name, (x.buffer, y.buffer, slope.buffer), buffers[y.buffer].rows, 8 * x.width)]
        case _:
            return []


def _functions_of_call(step: Call, texts: KernelTexts, buffers: dict[str, Buffer]) -> list[Listed]:
    from irrepc.deploy.native_kernels import kernel_of

    kernel = kernel_of(step.recipe, 0)
    operands: tuple[str, ...] = tuple(o.name for o in (*kernel.inputs, *kernel.outputs))
    wanted = (True,) * len(kernel.inputs)
    if step.order:
        wanted = tuple(bool(o) for o in step.outputs)
        inputs, outputs = [o.name for o in kernel.inputs], [o.name for o in kernel.outputs]
        operands = (*inputs, *(f"g_{o}" for o in outputs), *(f"d_{i}" for i in inputs))
    names = dict(zip(operands, (*step.inputs, *step.outputs), strict=True))
    indices = dict(zip(kernel.indices, step.indices, strict=True))
    for own, asked in indices.items():
        names |= {f"{own}.{field}": f"@{asked}.{field}" for field in ("values", "order", "start")}
    over = next(buffers[n].rows for n in step.inputs if n in buffers)
    rows = "edge" if {"sender", "receiver", "knot"} & set(step.indices) else over
    return [
        (p.name, tuple(names[a] for a in p.arguments), f"@{indices[p.scatter]}" if p.scatter else rows, p.weight)
        for p in texts.call(step.recipe, step.order, step.extents, wanted)
    ]
