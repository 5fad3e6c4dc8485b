"""NVRTC and launches without a GPU: real compilations, and a driver that writes down what it is asked."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from irrepc.runtime import nvrtc
from irrepc.runtime.nvrtc import CudaError, Driver, Launch, Nvrtc, Resources, compile_source

SOURCE = """
extern "C" __global__ void scale(REAL* a, long long n) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) a[i] *= FACTOR;
}
extern "C" __global__ void crowd(REAL* a, long long n) {
    __shared__ REAL s[64];
    REAL v[200];
    for (int i = 0; i < 200; i++) v[i] = a[i * n + threadIdx.x];
    s[threadIdx.x & 63] = v[3];
    __syncthreads();
    for (int k = 0; k < n; k++)
        for (int i = 1; i < 200; i++) v[i] = v[i] * v[i - 1] + s[5];
    for (int i = 0; i < 200; i++) a[i * n + threadIdx.x] = v[i];
}
"""
DOUBLE = (("REAL", "double"), ("FACTOR", "2"))
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'scale' for 'sm_80'
ptxas info    : Function properties for scale
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 368 bytes cmem[0]
ptxas info    : Compiling entry function 'crowd' for 'sm_80'
ptxas info    : Function properties for crowd
ptxas         .     2520 bytes stack frame, 3500 bytes spill stores, 3508 bytes spill loads
ptxas info    : Used 254 registers, used 1 barriers, 2520 bytes cumulative stack size, 512 bytes smem, 368 bytes cmem[0]
"""


@pytest.fixture(scope="module")
def compiler() -> Nvrtc:
    """The NVRTC of this computer."""
    try:
        return nvrtc.find_nvrtc()
    except CudaError as error:
        pytest.skip(str(error))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache."""
    monkeypatch.setenv(nvrtc.CACHE_VARIABLE, str(tmp_path))
    yield tmp_path


# ── compile ──────────────────────────────────────────────────────────────────────────────────────


def test_the_log_says_what_each_kernel_takes() -> None:
    assert nvrtc.read_resources(LOG) == {
        "scale": Resources(8, 0, 0, 0, 0),
        "crowd": Resources(254, 3500, 3508, 2520, 512),
    }
    assert nvrtc.read_resources("") == {}


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_compiles_for_an_architecture_without_a_device(compiler: Nvrtc, cache: Path, arch: str) -> None:
    compiled = compile_source(SOURCE, DOUBLE, arch)
    assert compiled.cubin.startswith(b"\x7fELF")
    scale, crowd = compiled.resources["scale"], compiled.resources["crowd"]
    assert scale.registers < 32
    assert (scale.spill_stores, scale.spill_loads, scale.stack, scale.shared) == (0, 0, 0, 0)
    assert crowd.registers > 200
    assert crowd.spill_stores > 0
    assert crowd.shared == 64 * 8
    assert arch in compiled.log


def test_a_hit_compiles_nothing(compiler: Nvrtc, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compile_source(SOURCE, DOUBLE, "sm_90")
    (file,) = cache.rglob("*.cubin")
    assert file.read_bytes() == first.cubin
    assert file.with_suffix(".log").read_text() == first.log

    def fail(*_: object) -> None:
        raise AssertionError("compiled twice")

    monkeypatch.setattr(Nvrtc, "compile", fail)
    assert compile_source(SOURCE, DOUBLE, "sm_90") == first
    for other in ((SOURCE + " ", DOUBLE, "sm_90"), (SOURCE, DOUBLE[:1], "sm_90"), (SOURCE, DOUBLE, "sm_80")):
        with pytest.raises(AssertionError, match="compiled twice"):
            compile_source(*other)


def test_a_kernel_that_spills_with_registers_to_spare_is_compiled_for_fewer_at_a_time(
    compiler: Nvrtc, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the compiler spilled unless three blocks are enough; what fills all registers is left as it is."""
    asked: list[str | None] = []
    one, text, compile_ = LOG.split("ptxas info    : Compiling entry function 'crowd'")[0], Nvrtc._text, Nvrtc.compile

    def said(self: Nvrtc, program: Any, ask_size: str, ask: str) -> bytes:
        if not ask.endswith("Log"):
            return text(self, program, ask_size, ask)
        log = one.replace("Used 8 registers", f"Used {registers} registers")
        spilled = "0" if asked[-1] == "3" else "12"
        return log.replace(" 0 bytes spill stores", f" {spilled} bytes spill stores").encode()

    def compiles(self: Nvrtc, source: str, defines: nvrtc.Defines, arch: str) -> nvrtc.Compiled:
        asked.append(dict(defines).get("BLOCKS"))
        return compile_(self, source, defines, arch)

    monkeypatch.setattr(Nvrtc, "_text", said)
    monkeypatch.setattr(Nvrtc, "compile", compiles)
    for registers, blocks in ((64, [None, "4", "3"]), (255, [None])):
        asked.clear()
        found = compiler.compile(SOURCE, DOUBLE, "sm_90")
        assert asked == blocks
        assert found.resources["scale"].spill_stores == (0 if registers == 64 else 12)


def test_text_that_does_not_compile_is_refused_with_the_log(compiler: Nvrtc, cache: Path) -> None:
    with pytest.raises(CudaError, match='identifier "FACTOR" is undefined') as caught:
        compile_source(SOURCE, DOUBLE[:1], "sm_90")
    assert "NVRTC_ERROR_COMPILATION" in str(caught.value)
    assert 'choose backend="torch"' in str(caught.value)
    assert not list(cache.rglob("*.cubin"))


def test_an_unknown_architecture_is_refused_with_those_there_are(compiler: Nvrtc, cache: Path) -> None:
    with pytest.raises(CudaError, match=r"got architecture sm_20; expected one that NVRTC \d+\.\d+ .* sm_90"):
        compile_source(SOURCE, DOUBLE, "sm_20")


def test_without_nvrtc_the_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    places = (str(tmp_path / "libnvrtc.so.13"), "libnvrtc.so.0")
    with pytest.raises(CudaError, match="pip install nvidia-cuda-nvrtc") as caught:
        nvrtc.open_nvrtc(places)
    assert all(place in str(caught.value) for place in places)
    assert "irrepc build" in str(caught.value)


def test_a_broken_nvrtc_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "libnvrtc.so.13"
    broken.write_bytes(b"no library")
    with pytest.raises(CudaError, match=str(broken)):
        nvrtc.open_nvrtc((str(broken),))


@pytest.mark.parametrize(("cuda", "first"), [("13.0", 13), (None, 13), ("12.8", 12)])
def test_the_nvrtc_of_torchs_own_cuda_comes_first(
    cuda: str | None, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    places = nvrtc.nvrtc_places()
    assert places[0].endswith(f".so.{first}")
    assert {"libnvrtc.so.12", "libnvrtc.so.13"} < set(places)


def test_a_cache_that_cannot_be_written_is_named(
    compiler: Nvrtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv(nvrtc.CACHE_VARIABLE, str(blocker / "below"))
    with pytest.raises(CudaError, match="set IRREPC_CACHE to a folder you can write"):
        compile_source(SOURCE, DOUBLE, "sm_90")


def test_code_made_ahead_needs_no_nvrtc(compiler: Nvrtc, tmp_path: Path) -> None:
    """The file beside an emitted module, alone in a process that finds no NVRTC and may write no cache."""
    copy = tmp_path / "nvrtc.py"
    shutil.copy(str(nvrtc.__file__), copy)
    made = compiler.compile(SOURCE, DOUBLE, "sm_90")
    nvrtc.write_cubin(tmp_path / "cubin" / f"{nvrtc.digest(SOURCE, DOUBLE, 'sm_90')}.cubin", made)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import nvrtc\n"
        "nvrtc.nvrtc_places = lambda: ('libnvrtc.so.0',)\n"
        f"ask = lambda arch: nvrtc.compile_source({SOURCE!r}, {DOUBLE!r}, arch)\n"
        "sys.stdout.write(str(ask('sm_90').resources['scale'].registers))\n"
        "try: ask('sm_80')\n"
        "except nvrtc.CudaError as error: sys.stderr.write(str(error))\n"
    )
    environment = {**os.environ, nvrtc.CACHE_VARIABLE: str(copy / "no folder")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == str(made.resources["scale"].registers)
    assert "libnvrtc.so.0" in done.stderr


def test_processes_and_threads_compile_once(compiler: Nvrtc, tmp_path: Path) -> None:
    program = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from irrepc.runtime import nvrtc\n"
        "compile, count = nvrtc.Nvrtc.compile, []\n"
        "nvrtc.Nvrtc.compile = lambda *a: (count.append(1), compile(*a))[1]\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        f"    list(pool.map(lambda _: nvrtc.compile_source({SOURCE!r}, {DOUBLE!r}, 'sm_80'), range(2)))\n"
        "print(len(count))\n"
    )
    environment = {**os.environ, nvrtc.CACHE_VARIABLE: str(tmp_path)}
    workers = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert sum(int(worker.communicate()[0]) for worker in workers) == 1
    (cubin,) = tmp_path.rglob("*.cubin")
    assert sorted(p.suffix for p in cubin.parent.iterdir()) == [".cubin", ".lock", ".log"]


# ── load and launch ──────────────────────────────────────────────────────────────────────────────

CONTEXT, FUNCTION, KERNEL, LIBRARY, STREAM = 0xC0, 0xF0, 0xA0, 0xB0, 0x50


class FakeCuda:
    """Entry points of libcuda that write down what they are asked.

    current  the context of the calling thread
    codes    what an entry point returns in place of success
    """

    def __init__(self, current: int | None = CONTEXT, **codes: int) -> None:
        self.current, self.codes = current, codes
        self.calls: list[tuple[Any, ...]] = []
        self.launched: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        def entry(*arguments: Any) -> int:
            plain = tuple(getattr(a, "value", a) for a in arguments)
            self.calls.append((name, *plain))
            given = {
                "cuLibraryLoadData": LIBRARY,
                "cuLibraryGetKernel": KERNEL,
                "cuKernelGetFunction": FUNCTION,
                "cuDevicePrimaryCtxRetain": CONTEXT,
                "cuCtxGetCurrent": self.current,
                "cuDriverGetVersion": 12080,
                "cuGetErrorName": b"CUDA_ERROR_OF_TEST",
                "cuGetErrorString": b"as told",
            }
            if name == "cuDeviceGet":
                arguments[0]._obj.value = 100 + arguments[1]
            elif name in given:
                arguments[1 if name.startswith("cuGetError") else 0]._obj.value = given[name]
            elif name == "cuLaunchKernel":
                self.launched.append([ctypes.c_int64.from_address(address).value for address in arguments[9]])
            return self.codes.get(name, 0)

        return entry

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of an entry point."""
        return [call[1:] for call in self.calls if call[0] == name]


class Placed(torch.Tensor):
    """A tensor that says it lies on device 1."""

    def get_device(self) -> int:
        """The number of the device."""
        return 1


def driver_of(library: FakeCuda) -> Driver:
    """A driver with these entry points, streams that are told apart by device, and no capture."""
    return Driver(library, stream=lambda device: STREAM + device, capturing=lambda: False)


def launch_of(library: FakeCuda) -> Launch:
    """The kernel `scale` on device 1."""
    return driver_of(library).load(LIBRARY, "scale", 1)


def test_a_kernel_is_loaded_into_the_context_of_torch_on_its_device() -> None:
    library = FakeCuda(current=None)
    driver = driver_of(library)
    handle = driver.open(b"code", "sm_90")
    launch = driver.load(handle, "scale", 1)
    assert (handle, launch.context, launch.function) == (LIBRARY, CONTEXT, FUNCTION)
    assert library.named("cuLibraryLoadData")[0][1:] == (b"code", None, None, 0, None, None, 0)
    assert library.named("cuLibraryGetKernel")[0][1:] == (LIBRARY, b"scale")
    assert library.named("cuDevicePrimaryCtxRetain")[0][1] == 101
    assert library.named("cuKernelGetFunction")[0][1] == KERNEL
    order = [call[0] for call in library.calls]
    assert order.index("cuCtxPushCurrent_v2") < order.index("cuKernelGetFunction") < order.index("cuCtxPopCurrent_v2")


def test_a_launch_passes_addresses_and_64_bit_integers_in_order() -> None:
    library = FakeCuda()
    a, b = (torch.zeros(3, dtype=d).as_subclass(Placed) for d in (torch.float32, torch.int64))
    launch_of(library)(7, 128, a, 2**40 + 3, b, -1)
    assert library.launched == [[a.data_ptr(), 2**40 + 3, b.data_ptr(), -1]]
    ((function, *grid, stream, _, extra),) = library.named("cuLaunchKernel")
    assert function == FUNCTION
    assert grid == [7, 1, 1, 128, 1, 1, 0]
    assert (stream, extra) == (STREAM + 1, None)


def test_a_launch_without_arguments_or_blocks() -> None:
    library = FakeCuda()
    launch = launch_of(library)
    launch(0, 128, 5)
    assert not library.named("cuLaunchKernel")
    launch(1, 128)
    assert library.launched == [[]]


@pytest.mark.parametrize(("current", "pushed"), [(CONTEXT, 0), (None, 1), (CONTEXT + 1, 1)])
def test_a_launch_makes_the_context_current_where_it_is_not(current: int | None, pushed: int) -> None:
    library = FakeCuda()
    launch = launch_of(library)
    library.current = current
    library.calls.clear()
    launch(1, 32, 5)
    assert [c[0] for c in library.calls].count("cuCtxPushCurrent_v2") == pushed
    assert [c[0] for c in library.calls].count("cuCtxPopCurrent_v2") == pushed


def test_threads_do_not_mix_their_arguments() -> None:
    library = FakeCuda()
    launch = launch_of(library)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: launch(1, 32, i, -i), range(64)))
    assert sorted(library.launched) == sorted([i, -i] for i in range(64))


@pytest.mark.parametrize(
    "tensor", [torch.zeros(4), torch.zeros(4, 4).as_subclass(Placed).t()[1:]], ids=["elsewhere", "strided"]
)
def test_a_tensor_that_a_kernel_cannot_read_is_refused(tensor: torch.Tensor) -> None:
    library = FakeCuda()
    with pytest.raises(CudaError, match=r"scale: got a tensor of shape .* expected a contiguous one on cuda:1"):
        launch_of(library)(1, 32, tensor)
    assert not library.named("cuLaunchKernel")


def test_what_the_driver_refuses_is_told_in_its_words() -> None:
    with pytest.raises(CudaError, match=r"cuInit: got CUDA_ERROR_OF_TEST \(3, as told\) from the driver"):
        driver_of(FakeCuda(cuInit=3))
    with pytest.raises(CudaError, match=r"from a driver of CUDA 12\.8 for code of sm_90; .* update the driver"):
        driver_of(FakeCuda(cuLibraryLoadData=200)).open(b"code", "sm_90")
    with pytest.raises(CudaError, match=r"find scale: got CUDA_ERROR_OF_TEST \(500"):
        launch_of(FakeCuda(cuLibraryGetKernel=500))
    with pytest.raises(CudaError, match=r"launch of scale in 3 blocks of 999 threads: got CUDA_ERROR_OF_TEST \(701"):
        launch_of(FakeCuda(cuLaunchKernel=701))(3, 999, 1)


def test_a_computer_without_a_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    nvrtc.find_driver.cache_clear()
    with pytest.raises(CudaError, match=r"driver: got libcuda\.so\.1: cannot open .* choose backend=\"torch\""):
        nvrtc.find_driver()


def test_a_launcher_is_kept_and_refuses_to_load_while_a_graph_is_captured(
    compiler: Nvrtc, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = FakeCuda()
    captured = [True]
    driver = Driver(library, stream=lambda _: STREAM, capturing=lambda: captured[0])
    monkeypatch.setattr(nvrtc, "find_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    nvrtc.launcher.cache_clear()
    nvrtc._library.cache_clear()
    with pytest.raises(CudaError, match="call once before the capture"):
        nvrtc.launcher(SOURCE, "scale", DOUBLE, 0)
    captured[0] = False
    first = nvrtc.launcher(SOURCE, "scale", DOUBLE, 0)
    captured[0] = True
    assert nvrtc.launcher(SOURCE, "scale", DOUBLE, 0) is first
    captured[0] = False
    assert nvrtc.launcher(SOURCE, "scale", DOUBLE, 1) is not first
    nvrtc.launcher(SOURCE, "crowd", DOUBLE, 0)
    assert len(library.named("cuLibraryLoadData")) == 1, "one library for all kernels and devices of an architecture"
    assert len(library.named("cuKernelGetFunction")) == 3
    nvrtc.launcher.cache_clear()
    nvrtc._library.cache_clear()
