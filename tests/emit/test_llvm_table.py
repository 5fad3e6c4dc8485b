"""Kernels printed as tables compute what the interpreter and the unrolled text do, and stay short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irrepc.emit import llvm_table
from irrepc.emit.llvm_text import llvm_function
from irrepc.emit.module import Entry, compose, kernels, scheduled
from irrepc.ir.interpret import interpret
from tests.emit.test_numbers import BOUNDS, evaluate, load, shaped
from tests.kernels import RECIPES, arrays, settings, width

CHANNELS = 83
"""A loop over 64 channels at once, one over 16, three by themselves: float32; two, two and one more: float64."""


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel is long."""
    monkeypatch.setattr(llvm_table, "UNROLLED", -1)


def module(name: str, folder: Path, plain: str) -> Any:
    """The emitted module of a recipe."""
    made = compose("A kernel.", (Entry("kernel", RECIPES[name]),), "llvm", "a test")
    for suffix, text in made.companions:
        (folder / plain).with_suffix(suffix).write_text(text, encoding="utf-8")
    return load(made.text, folder, plain)


@pytest.mark.parametrize("name", RECIPES)
def test_tables_equal_the_interpreter(name: str, tables: None, tmp_path: Path) -> None:
    emitted = module(name, tmp_path, f"table_{list(RECIPES).index(name)}")
    for kernel in kernels(Entry("kernel", RECIPES[name])):
        exact = arrays(kernel, 5, 4)
        floats = {k: [[float(a) for a in r] if isinstance(r, list) else float(r) for r in v] for k, v in exact.items()}
        expected = interpret(kernel, floats, number=float, **settings(9, 4))
        for dtype, bound in BOUNDS.items():
            got = evaluate(emitted, kernel, "llvm", exact, 4, dtype)
            for o, array in zip(kernel.outputs, got, strict=True):
                right = shaped(expected[o.name], o.rows is not None, width(o), "float64")
                scale = max(1.0, float(np.abs(right).max(initial=0.0)))
                assert np.abs(array - right).max(initial=0.0) <= bound * scale, (kernel.name, o.name, dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", ["convolution", "convolution, two widths", "contraction"])
def test_many_channels(name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"{list(RECIPES).index(name)}_{dtype}"
    unrolled = module(name, tmp_path, f"unrolled_{place}")
    monkeypatch.setattr(llvm_table, "UNROLLED", -1)
    table = module(name, tmp_path, f"wide_{place}")
    generator = np.random.default_rng(0)
    for kernel in kernels(Entry("kernel", RECIPES[name])):
        extents = [CHANNELS - 2 * i for i in range(len(kernel.channels))]
        known = dict(zip(kernel.channels, extents, strict=True))
        rows = {None: 7, **dict.fromkeys(kernel.indices, 3)}
        inputs = [
            generator.standard_normal(
                (rows[o.index], sum(int(np.prod([known[a] for a in axes])) for axes in o.components))
            ).astype(dtype)
            for o in kernel.inputs
        ]
        indices = [unrolled.Index.of(generator.integers(0, 3, 7), 3) for _ in kernel.indices]
        pairs = [getattr(m, kernel.name)(*inputs, *indices, *extents) for m in (unrolled, table)]
        for a, b in zip(*(p if isinstance(p, tuple) else (p,) for p in pairs), strict=True):
            assert np.abs(a - b).max() <= BOUNDS[dtype] * np.abs(a).max()


def test_a_table_is_a_line_for_each_statement(tables: None) -> None:
    """Coefficients stand in the table, each rounded once, with the name of what they are summed into."""
    block = scheduled(Entry("kernel", RECIPES["convolution"]))[0][0]
    text = llvm_function("kernel", block, "float64")
    constants, code = text.split("define internal", 1)
    statements = [s for stage in block.stages for s in stage.statements]
    for s in statements:
        assert constants.count(f"; {s.target}") == 3, "its place, its coefficients, its factors"
    assert "0x3FE" in constants
    assert not any(f"; {s.target}" in code for s in statements)


def test_short_kernels_are_unrolled() -> None:
    for recipe in RECIPES.values():
        for parts in scheduled(Entry("kernel", recipe)):
            assert not any(map(llvm_table.is_long, parts))
