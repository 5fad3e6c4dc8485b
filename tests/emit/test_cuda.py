"""Emitted CUDA text without a device: the same text, compiled for the processor, against the torch text."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from irrepc.emit.module import Entry, kernels
from irrepc.ir.kernel import Kernel
from tests.emit.shim.host import ABSENT, COMPILER, build, emitted, every_launch, indices, operands, run_poisoned
from tests.kernels import RECIPES, convolution

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-5}
CHANNELS = {torch.float64: (1, 5, 33, 40, 64), torch.float32: (5, 64)}
CASES = {**RECIPES, "in groups": convolution("2x0e+2x1o+2x2e", 2)}

pytestmark = pytest.mark.skipif(COMPILER is None, reason=ABSENT)


def widths(kernel: Kernel, channels: int) -> dict[str, int]:
    """The extents of a kernel's axes: all different, but the ones that are one remain so."""
    return {a: max(1, channels - 3 * i) for i, a in enumerate(kernel.channels)}


def channels_of(name: str) -> dict[torch.dtype, tuple[int, ...]]:
    """The numbers of channels to try: fewer of the large kernel."""
    return CHANNELS if name in RECIPES else {real: sizes[-1:] for real, sizes in CHANNELS.items()}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], ModuleType]:
    """The emitted modules by recipe and backend; those of cuda launch kernels that were compiled for the processor."""
    folder = tmp_path_factory.mktemp("cuda")
    known: dict[tuple[str, str], ModuleType] = {}
    wanted = []
    for name, recipe in CASES.items():
        for backend in ("torch", "cuda"):
            known[name, backend] = emitted(recipe, backend, folder)
        module = known[name, "cuda"]
        forward = kernels(Entry("kernel", recipe))[0]
        for real, sizes in channels_of(name).items():
            for channels in sizes:
                extents = widths(forward, channels)
                wanted += every_launch(module, real, extents)
    host = build(wanted, folder)
    for (_, backend), module in known.items():
        if backend == "cuda":
            module.nvrtc = host
    return known


def ways(kernel: Kernel, rows: int) -> list[dict[str, Any]]:
    """Options with which a kernel's function is called: outputs one by one, too, and sums in any order."""
    if rows != 7:
        return [{}]
    each = [{"wanted": tuple(o is other for other in kernel.outputs)} for o in kernel.outputs]
    return [{}, {"atomic": True}, *(each if len(each) > 1 else ())]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [0, 1, 7, 150])
def test_cuda_text_equals_the_torch_text(name: str, rows: int, modules: dict[tuple[str, str], ModuleType]) -> None:
    ours, meaning = modules[name, "cuda"], modules[name, "torch"]
    for kernel in kernels(Entry("kernel", CASES[name])):
        for real, sizes in channels_of(name).items():
            for channels in sizes if rows < 100 else sizes[-1:]:
                extents = widths(kernel, channels)
                inputs = operands(kernel, extents, rows, real)
                exact = [t.double() for t in inputs]
                right = getattr(meaning, kernel.name)(*exact, *indices(kernel, meaning, rows), *extents.values())
                right = right if isinstance(right, tuple) else (right,)
                for options in ways(kernel, rows):
                    got = run_poisoned(ours, kernel, inputs, extents, rows, **options)
                    wanted = options.get("wanted", (True,) * len(right))
                    for o, want, a, b in zip(kernel.outputs, wanted, got, right, strict=True):
                        where = (kernel.name, o.name, extents, real, options)
                        assert a is not None or not want, where
                        if a is None or not want:
                            continue
                        assert (a.dtype, a.shape) == (real, b.shape), where
                        scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
                        assert ((a - b).abs() <= BOUNDS[real] * scale).all(), where


@pytest.mark.parametrize(("name", "always"), [("convolution, two widths", False), ("in groups", True)])
def test_sums_are_made_of_written_rows_where_reading_again_moves_more(
    name: str, always: bool, modules: dict[tuple[str, str], ModuleType]
) -> None:
    """To add up 4 numbers, 4 weights and messages of 8 would be read: rows are as dear.  To add up 9, 11 and 35."""
    module = modules[name, "cuda"]
    kernel = kernels(Entry("kernel", CASES[name]))[1]
    extents = widths(kernel, 64)
    inputs = operands(kernel, extents, 7, torch.float64)
    for atomic in (False, True):
        module.nvrtc.launches.clear()
        run_poisoned(module, kernel, inputs, extents, 7, atomic=atomic)
        launched = module.nvrtc.launches
        assert any("_together_" in launch for launch in launched) == (atomic or always)
        assert any("_sum_" in launch for launch in launched) == (always and not atomic)


def test_the_large_kernel_has_groups_and_the_small_ones_channels_in_packs(
    modules: dict[tuple[str, str], ModuleType]
) -> None:
    large = modules["in groups", "cuda"].KERNELS
    assert large["kernel_o"].groups > 1
    assert {threads.pack for threads in modules["convolution", "cuda"].KERNELS.values()} == {2, 4}
