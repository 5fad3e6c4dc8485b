"""Build: machine code ahead for a module in the form of an emitted one, found again by that module without NVRTC."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from irrepc.cli import main
from irrepc.commands.build import build
from irrepc.errors import BackendError
from irrepc.runtime import nvrtc

MODULE = '''"A module in the form of an emitted one: what of it the command asks for."
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import torch

specification = importlib.util.spec_from_file_location("sibling_nvrtc", Path(__file__).parent / "nvrtc.py")
nvrtc = sys.modules["sibling_nvrtc"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(nvrtc)


class Threads(NamedTuple):
    axes: tuple
    adds: bool


KERNELS = {"scale": Threads(("u",), False), "add": Threads((), True)}


def source():
    return Path(__file__).with_suffix(".cu").read_text()


def defines(name, real, atomic=False, **extents):
    macros = (("REAL", {torch.float32: "float", torch.float64: "double"}[real]), (f"WITH_{name}", "1"))
    macros += (("ATOMIC", "1"),) if atomic else ()
    return (*macros, *((axis.upper(), str(extents[axis])) for axis in KERNELS[name].axes))
'''
TEXT = '''
#ifdef WITH_scale
extern "C" __global__ void scale(const REAL* x, REAL* o) { o[threadIdx.x] = U * x[threadIdx.x]; }
#endif
#ifdef WITH_add
extern "C" __global__ void add(const REAL* x, REAL* o) { o[threadIdx.x] += x[threadIdx.x]; }
#endif
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one module; an empty cache; skips without NVRTC."""
    try:
        nvrtc.find_nvrtc()
    except nvrtc.CudaError as error:
        pytest.skip(str(error))
    monkeypatch.setenv(nvrtc.CACHE_VARIABLE, str(tmp_path / "cache"))
    package = tmp_path / "package" / "cuda"
    package.mkdir(parents=True)
    shutil.copy(str(nvrtc.__file__), package / "nvrtc.py")
    (package / "scale.py").write_text(MODULE)
    (package / "scale.cu").write_text(TEXT)
    return package


def test_machine_code_and_manifest(folder: Path) -> None:
    count = build(folder.parent, ("80", "sm_90"), [{"u": 4}, {"*": 8}], ("float32", "float64"), Console(quiet=True))
    assert count == (2 + 2) * 2 * 2, "one without channels is made once for each dtype, and with ATOMIC"
    manifest = json.loads((folder / "cubin" / "manifest.json").read_text())
    assert manifest["nvrtc"] == nvrtc.find_nvrtc().version
    assert len(manifest["kernels"]) == count
    for entry in manifest["kernels"]:
        assert (folder / "cubin" / entry["file"]).read_bytes().startswith(b"\x7fELF")
        assert entry["module"] == "scale.py"
        assert entry["spills"] == 0
        assert 0 < entry["registers"] < 32
    assert {(e["kernel"], e["arch"], e["defines"].get("U"), "ATOMIC" in e["defines"]) for e in manifest["kernels"]} == {
        (kernel, arch, u, atomic)
        for arch in ("sm_80", "sm_90")
        for kernel, u, atomic in (
            ("scale", "4", False),
            ("scale", "8", False),
            ("add", None, False),
            ("add", None, True),
        )
    }


def test_the_module_finds_it_in_a_process_without_nvrtc(folder: Path) -> None:
    build(folder, ("90",), [{"u": 4}], ("float32",), Console(quiet=True))
    shutil.rmtree(folder.parents[1] / "cache")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import scale, torch\n"
        "scale.nvrtc.nvrtc_places = lambda: ()\n"
        "for u in (4, 5):\n"
        "    defines = scale.defines('scale', torch.float32, u=u)\n"
        "    try: print(sorted(scale.nvrtc.compile_source(scale.source(), defines, 'sm_90').resources))\n"
        "    except scale.nvrtc.CudaError as error: print(str(error)[:19])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['scale']", "compile for sm_90 w"]


def test_code_of_an_architecture_serves_later_ones_of_its_kind_and_no_others(folder: Path) -> None:
    """8.0 serves 8.9; 9.0 is of another kind, and what there is is told, with the way to make it."""
    build(folder, ("80", "100"), [{"u": 4}], ("float32",), Console(quiet=True))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import scale, torch\n"
        "scale.nvrtc.nvrtc_places = lambda: ('libnvrtc.so.0',)\n"
        "ask = lambda arch: scale.nvrtc.compile_source(\n"
        "    scale.source(), scale.defines('scale', torch.float32, u=4), arch)\n"
        "assert ask('sm_80') == ask('sm_86') == ask('sm_89') != ask('sm_100') == ask('sm_103')\n"
        "for arch in ('sm_75', 'sm_90', 'sm_120'):\n"
        "    try: ask(arch)\n"
        "    except scale.nvrtc.CudaError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [line.split()[2] for line in said] == ["sm_75", "sm_90", "sm_120"]
    for line in said:
        assert "made ahead is add for sm_100, scale for sm_100, add for sm_80, scale for sm_80" in line
        assert "libnvrtc.so.0" in line
        assert "irrepc build" in line


def test_what_cannot_be_built_is_said(folder: Path, tmp_path: Path) -> None:
    quiet = Console(quiet=True)
    with pytest.raises(BackendError, match="holds no CUDA module"):
        build(tmp_path / "cache", ("90",), [{"u": 4}], ("float32",), quiet)
    with pytest.raises(BackendError, match=r"got no number of channels u for scale .* do: --channels u=64"):
        build(folder, ("90",), [{"v": 4}], ("float32",), quiet)
    with pytest.raises(BackendError, match="got architecture sm_20; expected one that NVRTC"):
        build(folder, ("20",), [{"u": 4}], ("float32",), quiet)


def test_the_command(folder: Path) -> None:
    run = CliRunner()
    done = run.invoke(main, ["build", str(folder), "--arch", "80", "--channels", "u=4", "--dtype", "float32"])
    assert done.exit_code == 0, done.output
    assert "3 pieces of machine code" in done.output
    done = run.invoke(main, ["build", str(folder), "--channels", "u=none"])
    assert done.exit_code == 2
    assert 'expected "64", or "u=64,u1=32"' in done.output
