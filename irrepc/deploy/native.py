"""Native: a program as one shared library with a C interface, its header beside it; neither Python nor torch inside."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from irrepc.deploy.gradient import reads, writes
from irrepc.deploy.memory import slot_sizes
from irrepc.deploy.native_constants import Constants
from irrepc.deploy.native_kernels import KernelTexts
from irrepc.deploy.native_steps import write_steps
from irrepc.deploy.native_text import StepTexts
from irrepc.deploy.program import Geometry, Program
from irrepc.emit.templates import render
from irrepc.errors import BackendError
from irrepc.runtime.object_code import Processor, object_code

HEADER = "irrepc_model.h"
FLAGS = ("-std=c11", "-O2", "-ftree-vectorize", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-pthread")
CONSTANTS = """\
    .section .rodata
    .balign 64
    .globl irrepc_constants
    .hidden irrepc_constants
irrepc_constants:
    .incbin "constants.bin"
    .section .note.GNU-stack,"",%progbits
"""
"""The assembler text that puts the constants into the library; 64 is the alignment the kernels count on."""
EXPORTS = "{ global: irrepc_model_*; local: *; };\n"
"""What the linker lets the library show: the interface, no kernels, so that two libraries do not meet."""


def write_library(program: Program, library: Path, *, cpu: str = "native", compiler: str = "cc") -> tuple[Path, Path]:
    """Write `library` (".so") and its header beside it; returns both paths.

    cpu       "native", or a processor by its name ("x86-64-v3", "znver3"): the library runs there and on later ones
    compiler  the C compiler that builds and links
    Raises BackendError without a C compiler, for a processor that is not known, and on another system than Linux.
    """
    check_compiler(compiler)
    processor = Processor.of(cpu)
    text, kernels, constants = library_texts(program, processor)
    header = library.with_name(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / HEADER).write_text(header_text(), encoding="utf-8")
        (here / "model.c").write_text(text, encoding="utf-8")
        (here / "constants.S").write_text(CONSTANTS, encoding="utf-8")
        (here / "constants.bin").write_bytes(constants)
        (here / "exports.map").write_text(EXPORTS, encoding="utf-8")
        objects = []
        for number, kernel in enumerate(kernels):
            objects.append(f"kernel_{number}.o")
            (here / objects[-1]).write_bytes(object_code(kernel, processor))
        sources = ("model.c", "constants.S", *objects)
        shared = ("-shared", "-Wl,--version-script=exports.map", "-o", "model.so")
        compile_c([compiler, *FLAGS, f"-march={cpu}", *shared, *sources, "-lm"], here)
        library.parent.mkdir(parents=True, exist_ok=True)
        # A process that has the old library open keeps it: the new one is another file under the same name.
        for source, place in ((here / "model.so", library), (here / HEADER, header)):
            beside = place.with_name(f".{place.name}.new")
            shutil.copyfile(source, beside)
            beside.replace(place)
    return library, header


def library_texts(program: Program, processor: Processor) -> tuple[str, tuple[str, ...], bytes]:
    """The C text, the LLVM texts of kernels and the bytes of constants that make a library."""
    tile = processor.tile
    kernels = KernelTexts.empty(program.dtype, tile)
    steps = StepTexts(program, kernels, Constants(program.constants, tile), known_everywhere(program))
    write_steps(steps)
    number_of = {slot: k for k, slot in enumerate(sorted(slot_sizes(program.buffers)))}
    sizes = slot_sizes(program.buffers)
    text = render(
        "native/model.c.jinja",
        title="A deployed irrepc model",
        about=about(program),
        quoted=[quoted(f"{line}\n") for line in about(program)],
        species_count=len(program.species),
        buffer_count=len(program.buffers),
        slot_count=len(sizes),
        atomic_numbers=", ".join(map(str, program.species)),
        cutoff=repr(float(program.cutoff)),
        closest=repr(float(program.closest)),
        cutoffs=", ".join(repr(float(c)) for c in program.cutoffs),
        slots=[f"{{{int(sizes[s][0] == 'edge')}, {sizes[s][1]}}}" for s in sorted(sizes)],
        buffers=[f"{number_of[b.slot]}, /* {b.name}, {b.width} {b.dtype} */" for b in program.buffers],
        geometry=steps.geometry,
        externs=steps.externs,
        steps=steps.steps,
        forward=steps.forward,
        backward=steps.backward,
        reach=1 + steps.reach,
        exchange_width=max(steps.exchanged, default=0),
        number_bytes=4 if program.dtype == "float32" else 8,
    )
    return text, tuple(kernels.texts), steps.constants.block()


def header_text() -> str:
    """The C interface, the same for every model."""
    return render("native/irrepc_model.h.jinja")


def about(program: Program) -> list[str]:
    """What is known of the model, a line each, fit for a comment of C."""
    known = {"numbers": program.dtype, **program.metadata}
    return [f"{key}: {value}".replace("*/", "* /").replace("\n", " ")[:116] for key, value in known.items()]


def quoted(text: str) -> str:
    """A text as a literal of C: every byte but plain letters, digits and signs in octal."""
    plain = set(b" ,.:;_+-*/()[]{}=<>") | set(range(48, 58)) | set(range(65, 91)) | set(range(97, 123))
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'


def known_everywhere(program: Program) -> frozenset[str]:
    """Buffers of atoms that depend on their species alone, so that ghosts' rows are computed and not asked for."""
    buffers = {b.name: b for b in program.buffers}
    unknown = {b.name for b in program.buffers if b.rows == "edge"}
    while True:
        found = set(unknown)
        for step in program.steps:
            if isinstance(step, Geometry) or found.intersection(reads(step)):
                found.update(name for name in writes(step) if name in buffers)
        if found == unknown:
            return frozenset(buffers) - frozenset(found)
        unknown = found


def check_compiler(compiler: str) -> None:
    """Raise BackendError unless there is a C compiler here that makes ELF libraries."""
    if not sys.platform.startswith("linux"):
        raise BackendError(f"shared library: got the system {sys.platform}; expected Linux; use the deployed file")
    if shutil.which(compiler) is None:
        raise BackendError(
            f"shared library: got no C compiler {compiler!r}; expected one; do: apt install gcc, or name another"
        )


def compile_c(command: list[str], folder: Path) -> None:
    """Run a compiler in a folder; raises BackendError with the first lines of what it says."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join(done.stderr.splitlines()[:12])
        raise BackendError(f"compiler: got an error from {' '.join(command[:4])} ...:\n{said}")
