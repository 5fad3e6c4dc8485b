"""NVRTC and the driver through ctypes: CUDA C++ text -> machine code, kept on disk -> launches on torch's stream.

Free-standing: it needs torch and the standard library, nothing of irrepc, and travels beside emitted CUDA modules.

Machine code (a cubin, made for one architecture) is looked for in the folder `cubin` beside this file, where
`irrepc build` puts it, then in the cache, and is compiled last of all; no header and no compiler but NVRTC is needed,
which comes with torch.  Code for 8.0 serves 8.9 too, but no 9.0 (CUDA C++ Programming Guide, binary compatibility).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

Defines = tuple[tuple[str, str], ...]

OPTIONS = ("--std=c++17", "--ptxas-options=-v")
"""-v makes the log say what each kernel takes.  No fast math: it costs digits and brings nothing here."""
SAID = (r"Used (\d+) registers", *(rf"(\d+) bytes {s}" for s in ("spill stores", "spill loads", "stack frame", "smem")))
"""How the log says each of the Resources."""
MOST = 250  # registers of a thread: with 255 there are no more
AHEAD = Path(__file__).resolve().parent / "cubin"
"""Machine code made ahead, for computers without NVRTC."""
CACHE_VARIABLE = "IRREPC_CACHE"
CHOICE = 'choose backend="torch"'


class CudaError(RuntimeError):
    """CUDA kernels cannot be compiled, loaded or launched here; the message names the cause and what to do."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a kernel takes: registers and bytes of stack and spills for each thread, shared bytes for each block."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """Machine code for one architecture, what the compiler said, and what each kernel takes."""

    cubin: bytes
    log: str
    resources: dict[str, Resources]


def compile_source(source: str, defines: Defines, arch: str) -> Compiled:
    """Machine code of CUDA C++ text, from the folder of code made ahead, the cache, or NVRTC.

    source   header-free text with extern "C" kernels
    defines  macros, (name, value) each
    arch     "sm_90": the architecture it is for
    Raises CudaError without NVRTC, for an architecture it does not know, text that does not compile (with the log), or
    a cache that cannot be written.
    """
    for older in (f"{arch[:-1]}{minor}" for minor in range(int(arch[-1]), -1, -1)):
        ahead = _read(AHEAD / f"{digest(source, defines, older)}.cubin")
        if ahead is not None:
            return ahead
    try:
        nvrtc = find_nvrtc()
    except CudaError as error:
        raise CudaError(f"compile for {arch} with {dict(defines)}: {_made_ahead()}; {error}") from error
    file = cache_folder() / f"{digest(source, defines, arch)}.{nvrtc.version}.cubin"
    if (kept := _read(file)) is not None:
        return kept
    try:
        with _turn(file):
            kept = _read(file)
            if kept is None:
                kept = nvrtc.compile(source, defines, arch)
                write_cubin(file, kept)
    except OSError as error:
        raise CudaError(
            f"cache: got {error}; expected to write {file.parent}; do: set {CACHE_VARIABLE} to a folder you can write"
        ) from error
    return kept


def digest(source: str, defines: Defines, arch: str) -> str:
    """What names a piece of machine code: 32 hexadecimal digits of all that is given to the compiler."""
    words = (source, *(f"{name}={value}" for name, value in defines), arch, *OPTIONS)
    return sha256("\0".join(words).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """Where machine code is kept: $IRREPC_CACHE, or the user's cache folder."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(user) / "irrepc") / "cubin"


def write_cubin(file: Path, compiled: Compiled) -> None:
    """Write machine code and the log beside it, each whole or not at all, the machine code last."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, content in ((file.with_suffix(".log"), compiled.log.encode()), (file, compiled.cubin)):
        (temporary := path.with_name(f".{path.name}.{os.getpid()}")).write_bytes(content)
        os.replace(temporary, path)


def read_resources(log: str) -> dict[str, Resources]:
    """What each kernel takes, read from the compiler's log."""
    out = {}
    for entry in log.split("Compiling entry function ")[1:]:
        said = (re.search(pattern, entry) for pattern in SAID)
        out[entry.split("'")[1]] = Resources(*(int(match[1]) if match else 0 for match in said))
    return out


def _read(file: Path) -> Compiled | None:
    """Machine code from a file, if it is there."""
    if not file.is_file():
        return None
    return Compiled(file.read_bytes(), log := file.with_suffix(".log").read_text("utf-8"), read_resources(log))


def _made_ahead() -> str:
    """For an error: what there is in place of it."""
    made = json.loads(file.read_text("utf-8"))["kernels"] if (file := AHEAD / "manifest.json").is_file() else ()
    known = sorted({(entry["arch"], entry["kernel"]) for entry in made})
    return f"made ahead is {', '.join(' for '.join(reversed(k)) for k in known) or 'nothing'}, of some channels each"


@contextmanager
def _turn(file: Path) -> Iterator[None]:
    """Wait for other processes and threads that compile the same; the lock ends with the process that holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / f".{file.stem}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class Nvrtc:
    """An opened NVRTC: its entry points, the file for messages, and its version."""

    def __init__(self, library: Any, place: str) -> None:
        self.library, self.place = library, place
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def compile(self, source: str, defines: Defines, arch: str) -> Compiled:
        """Compile, without any cache, and without spills where registers suffice; arguments, errors as there."""
        known = self.architectures()
        if arch not in known:
            raise CudaError(
                f"compile: got architecture {arch}; expected one that NVRTC {self.version} ({self.place}) knows: "
                f"{', '.join(known)}; do: install a torch made for a CUDA that has it, or {CHOICE}"
            )
        options = [f"--gpu-architecture={arch}", *OPTIONS]
        options += [f"--define-macro={name}={value}" for name, value in defines]
        program = ctypes.c_void_p()
        self._check("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
        try:
            given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            code = self.library.nvrtcCompileProgram(program, len(options), given)
            log = self._text(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").rstrip(b"\0").decode()
            if code:
                raise CudaError(
                    f"compile: got {self._meaning(code)} from NVRTC {self.version} ({self.place}) with "
                    f"{' '.join(options)}; expected text that compiles; do: read the log, or {CHOICE}\n{log}"
                )
            cubin = self._text(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(program))
        made, blocks = Compiled(cubin, log, read_resources(log)), int(dict(defines).get("BLOCKS", 5)) - 1
        if blocks and any(r.spill_stores and r.registers < MOST for r in made.resources.values()):
            # The compiler aims at many warps at a time and would rather spill a little: ask for few and few again.
            return self.compile(source, (*(d for d in defines if d[0] != "BLOCKS"), ("BLOCKS", str(blocks))), arch)
        return made

    def architectures(self) -> tuple[str, ...]:
        """The names of the architectures it compiles for."""
        self._check("nvrtcGetNumSupportedArchs", ctypes.byref(count := ctypes.c_int()))
        numbers = (ctypes.c_int * count.value)()
        self._check("nvrtcGetSupportedArchs", numbers)
        return tuple(f"sm_{number}" for number in numbers)

    def _text(self, program: ctypes.c_void_p, ask_size: str, ask: str) -> bytes:
        self._check(ask_size, program, ctypes.byref(size := ctypes.c_size_t()))
        self._check(ask, program, buffer := ctypes.create_string_buffer(size.value))
        return buffer.raw

    def _check(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            raise CudaError(f"{name}: got {self._meaning(code)} of {self.place}; expected success; do: {CHOICE}")

    def _meaning(self, code: int) -> str:
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return f"{self.library.nvrtcGetErrorString(code).decode()} ({code})"


@lru_cache(maxsize=1)
def find_nvrtc() -> Nvrtc:
    """The NVRTC of the CUDA that torch was made for, else any other; raises CudaError when there is none."""
    return open_nvrtc(nvrtc_places())


def nvrtc_places() -> tuple[str, ...]:
    """Where NVRTC may lie: wheels that come with torch, torch itself, an environment, a toolkit, the system."""
    spec = find_spec("nvidia")
    wheels = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    toolkits = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    folders = [Path(torch.__file__).parent / "lib", Path(sys.prefix) / "lib", *(place / "lib64" for place in toolkits)]
    # Machine code made by a newer CUDA than the driver's does not load, so that of torch's own comes first.
    newest_last = (torch.version.cuda or "").startswith("12.")
    places = []
    for major, wheel in sorted(((13, "cu13"), (12, "cuda_nvrtc")), reverse=not newest_last):
        places += [str(f / f"libnvrtc.so.{major}") for f in (*(w / wheel / "lib" for w in wheels), *folders)]
        places.append(f"libnvrtc.so.{major}")
    return tuple(places)


def open_nvrtc(places: Sequence[str]) -> Nvrtc:
    """Open the first NVRTC of these files and of these bare names, which the system's loader looks for.

    Raises CudaError, naming them, when there is none.
    """
    reasons = []
    for place in places:
        try:
            # libnvrtc opens its builtins by name and does not look beside itself; without them it fails with an empty
            # log.  A library that is loaded already is found by its name.
            for builtins in sorted(Path(place).parent.glob("libnvrtc-builtins.so.*")) if "/" in place else ():
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return Nvrtc(ctypes.CDLL(place), place)
        except OSError as error:
            reasons.append(str(error))
    raise CudaError(
        f"NVRTC: got {'; '.join(reasons)}; expected the library that comes with torch for CUDA; do: pip install "
        f"nvidia-cuda-nvrtc, or make the kernels ahead on another computer with `irrepc build`, or {CHOICE}"
    )


@cache
def launcher(source: str, name: str, defines: Defines, device: int) -> Launch:
    """A kernel on a device, ready to launch: compiled, loaded, and kept for the next call.

    source, defines  as for compile_source;  name  of the extern "C" kernel;  device  its number in torch
    Raises CudaError when it cannot be compiled or loaded, or when this first call is inside a CUDA graph's capture.
    """
    if (driver := find_driver()).capturing():
        raise CudaError(
            f"{name}: got its first call while a CUDA graph is captured; expected the kernel to be loaded before; "
            "do: call once before the capture, as torch.cuda.graph asks for anyway"
        )
    return driver.load(_library(source, defines, architecture(device)), name, device)


def architecture(device: int) -> str:
    """What compile_source calls the device: "sm_90"."""
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def _library(source: str, defines: Defines, arch: str) -> int:
    # A CUlibrary belongs to no context: one serves every device of its architecture.
    return find_driver().open(compile_source(source, defines, arch).cubin, arch)


@lru_cache(maxsize=1)
def find_driver() -> Driver:
    """The driver of this computer; raises CudaError when there is none."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CudaError(
            f"driver: got {error}; expected libcuda.so.1 of an NVIDIA driver; do: install the driver, or {CHOICE}"
        ) from error
    return Driver(library)


class Driver:
    """The driver's entry points (an opened libcuda, or anything with the same functions), and what of torch they need.

    stream     number of a device -> handle of torch's current stream there
    capturing  whether torch's current stream is being captured into a CUDA graph
    """

    def __init__(
        self,
        library: Any,
        stream: Callable[[int], int] = lambda device: int(torch.cuda.current_stream(device).cuda_stream),
        capturing: Callable[[], bool] = torch.cuda.is_current_stream_capturing,
    ) -> None:
        self.library, self.stream, self.capturing = library, stream, capturing
        self.check("cuInit", self.library.cuInit(0))

    def open(self, cubin: bytes, arch: str) -> int:
        """Load machine code; returns a CUlibrary.  Raises CudaError when the driver refuses it."""
        handle = ctypes.c_void_p()
        code = self.library.cuLibraryLoadData(ctypes.byref(handle), cubin, None, None, 0, None, None, 0)
        if code:
            version = ctypes.c_int()
            self.check("cuDriverGetVersion", self.library.cuDriverGetVersion(ctypes.byref(version)))
            speaks = f"{version.value // 1000}.{version.value % 1000 // 10}"
            raise CudaError(
                f"load: got {self.meaning(code)} from a driver of CUDA {speaks} for code of {arch}; expected one that "
                f"loads it; do: update the driver, install a torch made for a CUDA no newer than it, or {CHOICE}"
            )
        return handle.value or 0

    def load(self, library: int, name: str, device: int) -> Launch:
        """A kernel of a library on a device.  Raises CudaError when the library has no kernel of that name."""
        kernel, number, context, function = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        cu = self.library
        self.check(f"find {name}", cu.cuLibraryGetKernel(ctypes.byref(kernel), ctypes.c_void_p(library), name.encode()))
        self.check("cuDeviceGet", cu.cuDeviceGet(ctypes.byref(number), device))
        # The primary context is the one torch works in.
        self.check("cuDevicePrimaryCtxRetain", cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), number))
        with self.inside(context.value or 0):
            # Loads the code into the context now, so that no launch has to do it while a graph is captured.
            self.check(f"load {name}", cu.cuKernelGetFunction(ctypes.byref(function), kernel))
        return Launch(self, name, device, context.value or 0, function.value or 0)

    @contextmanager
    def inside(self, context: int) -> Iterator[None]:
        """Make a context current.  A thread that has not worked with CUDA yet, as those of autograd, has none."""
        self.check("cuCtxGetCurrent", self.library.cuCtxGetCurrent(ctypes.byref(current := ctypes.c_void_p())))
        if current.value == context:
            yield
            return
        self.check("cuCtxPushCurrent", self.library.cuCtxPushCurrent_v2(ctypes.c_void_p(context)))
        try:
            yield
        finally:
            self.check("cuCtxPopCurrent", self.library.cuCtxPopCurrent_v2(ctypes.byref(current)))

    def check(self, what: str, code: int) -> None:
        """Raise CudaError for any code but success."""
        if code:
            raise CudaError(f"{what}: got {self.meaning(code)} from the driver; expected success; do: {CHOICE}")

    def meaning(self, code: int) -> str:
        """The driver's words for a code."""
        words = []
        for ask in (self.library.cuGetErrorName, self.library.cuGetErrorString):
            ask(code, ctypes.byref(text := ctypes.c_char_p()))
            words.append((text.value or b"unknown").decode())
        return f"{words[0]} ({code}, {words[1]})"


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel loaded on a device: `launch(blocks, threads, *arguments)` starts it on torch's current stream there."""

    driver: Driver
    name: str
    device: int
    context: int
    function: int

    def __call__(self, blocks: int, threads: int, *arguments: torch.Tensor | int) -> None:
        """Start `blocks` blocks of `threads` threads; returns at once.  No block: nothing is done.

        arguments  in the kernel's order: contiguous CUDA tensors as their addresses, integers as 64 bits
        Raises CudaError for a tensor elsewhere or with strides, and for what the driver refuses.
        """
        if blocks == 0:
            return
        count = len(arguments)
        values = (ctypes.c_int64 * count)(*map(self._value, arguments))
        first = ctypes.addressof(values)
        pointers = (ctypes.c_void_p * count)(*range(first, first + 8 * count, 8))
        stream = self.driver.stream(self.device)
        with self.driver.inside(self.context):
            code = self.driver.library.cuLaunchKernel(
                ctypes.c_void_p(self.function), blocks, 1, 1, threads, 1, 1, 0, ctypes.c_void_p(stream), pointers, None
            )
        if code:
            self.driver.check(f"launch of {self.name} in {blocks} blocks of {threads} threads", code)

    def _value(self, argument: torch.Tensor | int) -> int:
        if isinstance(argument, int):
            return argument
        if argument.get_device() == self.device and argument.is_contiguous():
            return argument.data_ptr()
        raise CudaError(
            f"launch of {self.name}: got a tensor of shape {tuple(argument.shape)} with strides {argument.stride()} "
            f"on {argument.device}; expected a contiguous one on cuda:{self.device}"
        )
