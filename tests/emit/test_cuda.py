"""Emitted CUDA text without a device: the same text, compiled for the processor, against the torch text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from irrepc.algebra.surd import ONE, Surd
from irrepc.emit import module
from irrepc.emit.module import Entry, kernels
from irrepc.ir.check import check
from irrepc.ir.kernel import Equation, Kernel, Operand, Ref, Term
from tests.emit.shim.host import ABSENT, COMPILER, build, emitted
from tests.kernels import RECIPES

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-5}
CHANNELS = {torch.float64: (1, 5, 33, 40, 64), torch.float32: (5, 64)}
SIZES = {"sender": 5, "receiver": 4, "species": 3}

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
        for backend in ("torch", "cuda"):
            known[name, backend] = emitted(recipe, backend, folder)
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


def compare(
    kernel: Kernel, ours: ModuleType, meaning: ModuleType, extents: dict[str, int], rows: int, real: torch.dtype
) -> None:
    """The same numbers from both modules, and every one of them written."""
    inputs = operands(kernel, extents, rows, real)
    got = getattr(ours, kernel.name)(*inputs, *indices(kernel, ours, rows), *extents.values())
    exact = [t.double() for t in inputs]
    right = getattr(meaning, kernel.name)(*exact, *indices(kernel, meaning, rows), *extents.values())
    pairs = zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, right)), strict=True)
    for o, (a, b) in zip(kernel.outputs, pairs, strict=True):
        where = (kernel.name, o.name, extents, real)
        assert a.dtype == real
        assert a.shape == b.shape, where
        assert not a.isnan().any(), where
        scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
        assert ((a - b).abs() <= BOUNDS[real] * scale).all(), where


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("rows", [0, 1, 7, 150])
def test_cuda_text_equals_the_torch_text(
    name: str, rows: int, modules: dict[tuple[str, str], ModuleType], poisoned: None
) -> None:
    ours, meaning = modules[name, "cuda"], modules[name, "torch"]
    for kernel in kernels(Entry("kernel", RECIPES[name])):
        for real, sizes in CHANNELS.items():
            for channels in sizes if rows < 100 else sizes[-1:]:
                compare(kernel, ours, meaning, widths(kernel, channels), rows, real)


def handmade(letter: str) -> Kernel:
    """Kernels of forms that no recipe has: sums over channels that are scattered, shared, or needed before the end."""
    u, v = ("u",), ("v",)
    x, w, s = Operand("x", (u, u), "edge"), Operand("w", (u,), "node", "sender"), Operand("s", ((),), "edge")
    m = Operand("m", ((),), "edge")
    x0, x1, w0, s0, m0 = Ref("x", 0), Ref("x", 1), Ref("w", 0), Ref("s", 0), Ref("m", 0)
    two, three = Surd.of(2), Surd.root(3)
    dot = Equation(m0, (Term(ONE, (x0, x0)), Term(three, (x0, x1))))
    match letter:
        case "scattered":
            o = Operand("o", ((), ()), "node", "receiver")
            terms = (Term(three, (w0, x0)), Term(two, (s0,)))
            more = Equation(Ref("o", 1), (Term(ONE, (s0, s0)),))
            return Kernel("k", (x, w, s), (o,), (Equation(Ref("o", 0), terms), more))
        case "square":
            o = Operand("o", ((),), "node", "receiver")
            return Kernel("k", (x, w), (o,), (dot, Equation(Ref("o", 0), (Term(ONE, (m0, m0)),))), (m,))
        case "scaled":
            o, q = Operand("o", (u, u, ()), "edge"), Operand("q", ((),), "edge")
            terms = (Equation(Ref("o", 0), (Term(ONE, (m0, x1)),)), Equation(Ref("o", 2), (Term(three, (m0, s0)),)))
            more = Equation(Ref("q", 0), (Term(two, (m0, m0)), Term(ONE, (s0,))))
            return Kernel("k", (x, s), (o, q), (dot, *terms, more), (m,))
        case "shared":
            o = Operand("o", ((), ()), None)
            return Kernel("k", (x, s), (o,), (Equation(Ref("o", 1), (Term(two, (s0, x0, x1)), Term(ONE, (s0,)))),))
        case _:
            y, o = Operand("y", (v,), "edge"), Operand("o", ((), u), "edge")
            one = Equation(Ref("o", 0), (Term(three, (x0, Ref("y", 0))), Term(ONE, (x0, x1))))
            return Kernel("k", (x, y), (o,), (one, Equation(Ref("o", 1), (Term(two, (x0, Ref("y", 0))),))))


@pytest.mark.parametrize("letter", ["scattered", "square", "scaled", "shared", "crossed"])
def test_forms_that_no_recipe_has(
    letter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned: None
) -> None:
    kernel = check(handmade(letter))
    monkeypatch.setattr(module, "derive", lambda recipe: kernel)
    recipe = RECIPES["harmonics"]
    ours, meaning = (emitted(recipe, backend, tmp_path, letter) for backend in ("cuda", "torch"))
    orders = kernels(Entry(letter, recipe))
    extents = {a: 5 + 34 * i for i, a in enumerate(kernel.channels)}
    ours.nvrtc = build(((ours.source(), k, ours.defines(k, torch.float64, **extents)) for k in ours.KERNELS), tmp_path)
    for order in orders:
        compare(order, ours, meaning, {a: extents[a] for a in order.channels}, 9, torch.float64)
