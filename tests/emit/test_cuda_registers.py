"""Emitted CUDA text compiled for devices that are not here: it compiles without a word, and nothing is spilled."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from os import sched_getaffinity
from pathlib import Path
from types import ModuleType

import pytest
import torch

from irrepc.algebra.recipe import ContractionRecipe, HarmonicsRecipe, Recipe, WignerRecipe
from irrepc.emit.plan import plan
from irrepc.runtime.nvrtc import Compiled, CudaError, compile_source, find_nvrtc
from tests.emit.shim.host import emitted
from tests.kernels import RECIPES

ARCHITECTURES = ("sm_80", "sm_90")
CHANNELS = 128


def reason() -> str:
    """Why nothing can be compiled; empty when it can."""
    try:
        known = find_nvrtc().architectures()
    except CudaError as error:
        return str(error)
    missing = set(ARCHITECTURES) - set(known)
    return f"NVRTC knows no {', '.join(sorted(missing))}" if missing else ""


pytestmark = pytest.mark.skipif(bool(reason()), reason=reason() or "NVRTC is here")
SLOW = ((), pytest.mark.slow)
MATRIX = [
    *((name, lmax, "float32") for name in ("harmonics", "wigner", "convolution") for lmax in range(1, 5)),
    *(("contraction", lmax, "float32") for lmax in (1, 2, 3)),
    *((name, lmax, "float64") for name in ("harmonics", "wigner", "convolution", "contraction") for lmax in (1, 2)),
]
"""What is asked for; in float64 there are registers for half as many numbers."""


def recipe_of(name: str, lmax: int) -> Recipe:
    """The kernel of that name and degree; a convolution is of all features of natural parity."""
    match name:
        case "harmonics":
            return HarmonicsRecipe(lmax)
        case "wigner":
            return WignerRecipe(lmax)
        case "contraction":
            return ContractionRecipe(lmax, (0, 1), 3)
    part = plan(lmax).part("convolution")
    assert part is not None
    return part.entries[0].recipe


def compiled(module: ModuleType, real: str) -> dict[tuple[str, str, bool], Compiled]:
    """The code of every kernel of a module by name, architecture, and whether it adds to sums at once."""
    ways = [(name, atomic) for name, threads in module.KERNELS.items() for atomic in {False, threads.adds}]
    jobs = [(name, arch, atomic) for name, atomic in ways for arch in ARCHITECTURES]

    def run(job: tuple[str, str, bool]) -> Compiled:
        name, arch, atomic = job
        extents = dict.fromkeys(module.KERNELS[name].axes, CHANNELS)
        return compile_source(module.source(), module.defines(name, getattr(torch, real), atomic, **extents), arch)

    with ThreadPoolExecutor(len(sched_getaffinity(0))) as pool:
        return dict(zip(jobs, pool.map(run, jobs), strict=True))


@pytest.mark.parametrize(("name", "lmax", "real"), [pytest.param(*c, marks=SLOW[c[1] > 2]) for c in MATRIX])
def test_nothing_is_spilled(name: str, lmax: int, real: str, tmp_path: Path) -> None:
    module = emitted(recipe_of(name, lmax), "cuda", tmp_path)
    for (kernel, arch, atomic), code in compiled(module, real).items():
        taken = code.resources[kernel]
        assert not taken.spill_stores + taken.spill_loads + taken.stack, (kernel, arch, atomic, taken)
        # Lanes that write rows together lay down 32 components of 32 rows, one place more for each row, in 4 warps.
        size = 4 if real == "float32" else 8
        assert taken.shared <= (4 * 32 * 33 * size if module.KERNELS[kernel].lanes == () else 0)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("real", "pack", "channels"), [("double", "1", "5"), ("float", "4", "12")])
def test_every_kernel_compiles_without_a_warning(
    name: str, real: str, pack: str, channels: str, tmp_path: Path
) -> None:
    module = emitted(RECIPES[name], "cuda", tmp_path)
    axes = dict.fromkeys(axis for threads in module.KERNELS.values() for axis in threads.axes)
    macros = {"REAL": real, "PACK": pack} | {f"CHANNELS_{axis.upper()}": channels for axis in axes}
    macros |= {f"WITH_{kernel}": "1" for kernel in module.KERNELS}
    code = compile_source(module.source(), tuple(macros.items()), ARCHITECTURES[0])
    assert set(code.resources) == set(module.KERNELS)
    assert not re.search("warning|error", code.log), code.log
