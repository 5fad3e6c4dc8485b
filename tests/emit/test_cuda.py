"""Emitted CUDA text without a device: the same text, compiled for the processor, against the torch text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from irrepc.emit.module import Entry, compose, kernels
from irrepc.ir.kernel import Kernel
from tests.emit.shim.host import ABSENT, COMPILER, Host, build
from tests.emit.test_numbers import load
from tests.kernels import RECIPES

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-5}
CHANNELS = {torch.float64: (1, 5, 33, 40, 64), torch.float32: (5, 64)}
SIZES = {"sender": 5, "receiver": 4, "species": 3}
SUFFIXES = ("", "_vjp", "_vjp_vjp")

pytestmark = pytest.mark.skipif(COMPILER is None, reason=ABSENT)


def widths(kernel: Kernel, channels: int) -> dict[str, int]:
    """The extents of a kernel's axes: all different, but the ones that are one remain so."""
    return {a: max(1, channels - 3 * i) for i, a in enumerate(kernel.channels)}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], ModuleType]:
    """The emitted modules by recipe and backend; those of cuda launch kernels that were compiled for the processor."""
    folder = tmp_path_factory.mktemp("cuda")
    known: dict[tuple[str, str], ModuleType] = {}
    wanted = []
    for name, recipe in RECIPES.items():
        plain = name.replace(", ", "_").replace(" ", "_")
        for backend in ("torch", "cuda"):
            made = compose("A kernel.", (Entry("kernel", recipe),), backend, "a test")
            for suffix, text in made.companions:
                (folder / f"{plain}_{backend}").with_suffix(suffix).write_text(text, encoding="utf-8")
            for file, text in made.shared:
                (folder / file).write_text(text, encoding="utf-8")
            known[name, backend] = load(made.text, folder, f"{plain}_{backend}")
        module = known[name, "cuda"]
        forward = kernels(Entry("kernel", recipe))[0]
        for real, sizes in CHANNELS.items():
            for channels in sizes:
                extents = widths(forward, channels)
                wanted += [(module.source(), k, module.defines(k, real, **extents)) for k in module.KERNELS]
    host = build(wanted, folder)
    for (_, backend), module in known.items():
        if backend == "cuda":
            module.nvrtc = host
    return known


@pytest.fixture
def poisoned() -> Iterator[None]:
    """New tensors hold NaN, so that a number nobody wrote is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.ones(3).new_empty((2, 2)).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def operands(kernel: Kernel, extents: dict[str, int], rows: int, real: torch.dtype) -> list[torch.Tensor]:
    """Random inputs."""
    generator = torch.Generator().manual_seed(3)
    out = []
    for o in kernel.inputs:
        width = sum(int(np.prod([extents[a] for a in axes])) for axes in o.components)
        shape = (width,) if o.rows is None else (rows if o.index is None else SIZES[o.index], width)
        out.append(torch.randn(shape, generator=generator, dtype=real))
    return out


def indices(kernel: Kernel, module: ModuleType, rows: int) -> list[object]:
    """An Index for each index of a kernel: not sorted, and one row is never named."""
    out = []
    for name in kernel.indices:
        generator = torch.Generator().manual_seed(len(name))
        values = torch.randint(0, SIZES[name] - 1, (rows,), generator=generator)
        counts = torch.bincount(values, minlength=SIZES[name])
        start = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
        out.append(module.Index(values, torch.argsort(values, stable=True), start))
    return out


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("rows", [0, 1, 7, 150])
def test_cuda_text_equals_the_torch_text(
    name: str, rows: int, modules: dict[tuple[str, str], ModuleType], poisoned: None
) -> None:
    ours, meaning = modules[name, "cuda"], modules[name, "torch"]
    for kernel in kernels(Entry("kernel", RECIPES[name])):
        for real, sizes in CHANNELS.items():
            for channels in sizes if rows < 100 else sizes[-1:]:
                extents = widths(kernel, channels)
                inputs = operands(kernel, extents, rows, real)
                got = getattr(ours, kernel.name)(*inputs, *indices(kernel, ours, rows), *extents.values())
                exact = [t.double() for t in inputs]
                right = getattr(meaning, kernel.name)(*exact, *indices(kernel, meaning, rows), *extents.values())
                pairs = zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, right)), strict=True)
                for o, (a, b) in zip(kernel.outputs, pairs, strict=True):
                    assert a.dtype == real
                    assert a.shape == b.shape, (kernel.name, o.name)
                    scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
                    assert not a.isnan().any(), (kernel.name, o.name, extents)
                    assert ((a - b).abs() <= BOUNDS[real] * scale).all(), (kernel.name, o.name, real, extents)
