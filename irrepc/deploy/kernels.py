"""Kernels: the calls, products and activations of a program as machine code, kept on disk, without torch.

Code is made once for each program and processor; a later process reads it together with the list of what each function
takes, and derives nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import llvmlite.binding as llvm

from irrepc.deploy.program import Activate, Call, Place, Product, Program, Step
from irrepc.deploy.text import written
from irrepc.emit.sources import source_digest
from irrepc.errors import BackendError
from irrepc.runtime.object_code import Processor, functions, object_code
from irrepc.runtime.store import CACHE_VARIABLE, cache_folder, write_bytes_atomically


class Part(NamedTuple):
    """A serial function of a step: compute(first row, last row + 1, addresses).

    arguments  names of the call's operands, and fields of indices as "sender.values"; empty for other steps
    scatter    the index whose rows it runs over; empty: the rows of the loop
    outputs    the operands it makes
    weight     what it costs for each row of the loop, in numbers touched
    """

    compute: Callable[..., None]
    arguments: tuple[str, ...]
    scatter: str
    outputs: tuple[str, ...]
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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(folder / ".lock", timeout=600):
                if not names.exists():
                    texts, listed = _texts(program, processor)
                    write_bytes_atomically(code, object_code(texts, processor))
                    write_bytes_atomically(names, json.dumps(listed).encode())
        except OSError as error:
            raise BackendError(
                f"cache: got {error}; expected to write {folder}; set {CACHE_VARIABLE} to a folder you can write"
            ) from error
    return _read(code, names)


def _read(code: Path, names: Path) -> tuple[tuple[Part, ...], ...]:
    listed = json.loads(names.read_text(encoding="utf-8"))
    counts = {name: len(arguments) for step in listed for name, arguments, *_ in step}
    found = functions(code.read_bytes(), counts)
    return tuple(
        tuple(
            Part(found[name], tuple(arguments), scatter, tuple(outputs), weight)
            for name, arguments, scatter, outputs, weight in step
        )
        for step in listed
    )


Listed = list[list[tuple[str, Sequence[str], str, Sequence[str], int]]]


def _texts(program: Program, processor: Processor) -> tuple[str, Listed]:
    """The LLVM text of all functions, and for each step (name, arguments, scatter, outputs, weight) of its own."""
    # what derives and writes is imported when there is something to derive
    from irrepc.deploy.native_kernels import KernelTexts

    texts = KernelTexts.empty(program.dtype, processor.tile)
    widths = {b.name: b.width for b in program.buffers}
    listed: Listed = []
    for step in program.steps:
        listed.append(_functions_of(step, texts, widths))
    return texts.joined(), listed


def _functions_of(step: Step, texts: Any, widths: dict[str, int]) -> list[Any]:
    from irrepc.emit.llvm_activation import Activation
    from irrepc.emit.llvm_matrix import MatrixProduct

    def columns(place: Place) -> tuple[int, int]:
        return widths[place.buffer], place.start

    match step:
        case Call(recipe, order, inputs, outputs, _, extents):
            wanted = tuple(bool(o) for o in outputs)
            parts = texts.call(recipe, order, extents, wanted if order else (True,) * len(inputs))
            return [(p.name, p.arguments, p.scatter or "", p.outputs, p.weight) for p in parts]
        case Product(x, y, _, components, _, add):
            inner, outer = x.width // components, y.width // components
            name = texts.product(MatrixProduct(components, inner, outer, *columns(x), *columns(y), add))
            return [(name, ("x", "w", "y"), "", ("y",), components * inner * outer // 8)]
        case Activate(x, y, slope, function, gain):
            places = (*columns(x), *columns(y), *columns(slope))
            name = texts.activation(Activation(function, gain, x.width, *places))
            return [(name, ("x", "y", "slope"), "", ("y", "slope"), 8 * x.width)]
        case _:
            return []
