"""Emitted text against the interpreter: every kernel, order, backend, dtype and awkward shape."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from math import isqrt
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch

from irrepc.emit.module import Entry, compose, emit, kernels
from irrepc.ir.interpret import interpret
from irrepc.ir.kernel import Kernel
from tests.kernels import EXTENTS, RECIPES, SIZES, arrays, settings, width

# float32: a few rounding errors per term, of sums that stay below some tens.
BOUNDS = {"float64": 1e-12, "float32": 2e-5}
SUFFIXES = ("", "_vjp", "_vjp_vjp")


def load(text: str, folder: Path, name: str) -> ModuleType:
    """Import emitted text from a real file."""
    file = folder / f"{name}.py"
    file.write_text(text)
    specification = importlib.util.spec_from_file_location(f"emitted_{name}", file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[f"emitted_{name}"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def interpreted_numba() -> Iterator[None]:
    """Run numba text as plain Python: the loops are the same, and nothing waits for a compiler."""
    before = numba.config.DISABLE_JIT
    numba.config.DISABLE_JIT = True
    yield
    numba.config.DISABLE_JIT = before


@pytest.fixture(scope="module")
def modules(
    interpreted_numba: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], ModuleType]:
    """The emitted module of a recipe for a backend, made once."""
    folder = tmp_path_factory.mktemp("emitted")
    known: dict[tuple[str, str], ModuleType] = {}

    def get(name: str, backend: str) -> ModuleType:
        if (name, backend) not in known:
            plain = f"{name.replace(', ', '_').replace(' ', '_')}_{backend}"
            made = compose("A kernel.", (Entry("kernel", RECIPES[name]),), backend, "a test")
            for suffix, text in made.companions:
                (folder / plain).with_suffix(suffix).write_text(text, encoding="utf-8")
            known[name, backend] = load(made.text, folder, plain)
        return known[name, backend]

    return get


def shaped(values: Any, rows: bool, width: int, dtype: str) -> np.ndarray:
    """Exact rows as an array, also when there are no rows."""
    array = np.array([[float(a) for a in row] for row in values] if rows else [float(a) for a in values], dtype)
    return array.reshape(-1, width) if rows else array


def evaluate(
    module: ModuleType, kernel: Kernel, backend: str, exact: dict[str, Any], rows: int, dtype: str
) -> list[Any]:
    """Call the emitted function on the exact arrays."""
    inputs = [shaped(exact[o.name], o.rows is not None, width(o), dtype) for o in kernel.inputs]
    numbers = settings(9, rows)["indices"]
    csr = []
    for name in kernel.indices:
        values = np.array(numbers[name], dtype=np.int64)
        start = np.searchsorted(np.sort(values), np.arange(SIZES[name] + 1))
        csr.append((values, np.argsort(values, kind="stable"), start))
    extents = [EXTENTS[a] for a in kernel.channels]
    function = getattr(module, kernel.name)
    if backend != "torch":
        result = function(*inputs, *(module.Index(*i) for i in csr), *extents)
    else:
        tensors = [torch.from_numpy(a) for a in inputs]
        result = function(*tensors, *(module.Index(*map(torch.from_numpy, i)) for i in csr), *extents)
    return [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("backend", ["torch", "numba", "llvm"])
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_emitted_code_equals_the_interpreter(
    name: str, backend: str, rows: int, modules: Callable[[str, str], ModuleType]
) -> None:
    module = modules(name, backend)
    for kernel in kernels(Entry("kernel", RECIPES[name])):
        exact = arrays(kernel, 5, rows)
        floats = {
            k: [[float(a) for a in r] if isinstance(r, list) else float(r) for r in v] for k, v in exact.items()
        }
        expected = interpret(kernel, floats, number=float, **settings(9, rows))
        for dtype, bound in BOUNDS.items():
            got = evaluate(module, kernel, backend, exact, rows, dtype)
            for o, array in zip(kernel.outputs, got, strict=True):
                right = shaped(expected[o.name], o.rows is not None, width(o), "float64")
                assert array.shape == right.shape, (kernel.name, o.name)
                assert array.dtype == dtype
                scale = max(1.0, float(np.abs(right).max(initial=0.0)))
                assert np.abs(array - right).max(initial=0.0) <= bound * scale, (kernel.name, o.name, dtype)


def test_numba_text_refuses_mixed_types_and_takes_strided_arrays(modules: Callable[[str, str], ModuleType]) -> None:
    module = modules("product", "numba")
    x, y = np.ones((3, 6)), np.ones((3, 5))
    with pytest.raises(TypeError, match="got arrays of float32, float64; expected all float32 or all float64"):
        module.kernel(x, y.astype(np.float32), 2)
    with pytest.raises(TypeError, match="got arrays of int64"):
        module.kernel(x.astype(int), y.astype(int), 2)
    with pytest.raises(ValueError, match=r"got y of shape \(2, 5\); expected \(3, 5\)"):
        module.kernel(x, y[:2], 2)
    wide = np.arange(36.0).reshape(3, 12)
    assert np.array_equal(module.kernel(wide[:, ::2], y, 2), module.kernel(wide[:, ::2].copy(), y, 2))
    with pytest.raises(ValueError, match="expected 0 to 2"):
        module.Index.of(np.array([0, 3]), 3)


def test_nan_stays_where_it_is_put(modules: Callable[[str, str], ModuleType]) -> None:
    """A NaN in one row spoils that row and no other, on both backends."""
    for backend in ("torch", "numba", "llvm"):
        module = modules("product", backend)
        x, y = np.ones((3, 6)), np.ones((3, 5))
        x[1, 2] = np.nan
        args = (x, y) if backend != "torch" else (torch.from_numpy(x), torch.from_numpy(y))
        o = np.asarray(module.kernel(*args, 2))
        assert np.isnan(o[1]).any()
        assert not np.isnan(o[[0, 2]]).any()


def test_every_constant_is_the_nearest_double_of_the_exact_value_beside_it() -> None:
    """Re-read the text: the decimal must be what √ and / of the comment give."""
    text = emit("A kernel.", (Entry("kernel", RECIPES["harmonics"]),), "torch", "a test")
    found = re.findall(r"^C\d+ = (\S+)  # (?:(\d*)√(\d+)|(\d+))(?:/(\d+))?$", text, re.MULTILINE)
    assert len(found) > 10
    for decimal, times, radicand, whole, below in found:
        top = int(whole) if whole else int(times or 1)
        square = top * top * int(radicand or 1)
        scale = 10**40
        exact = isqrt(square * scale * scale // int(below or 1) ** 2)
        assert float(decimal) == exact / scale
    assert len(re.findall(r"^C\d+ = ", text, re.MULTILINE)) == len(found)


@pytest.mark.parametrize("name", ["convolution", "convolution, two widths", "crossed", "linear", "norm"])
@pytest.mark.parametrize("channels", [16, 35])
def test_vectors_and_their_rest_agree_with_the_torch_text(
    name: str, channels: int, modules: Callable[[str, str], ModuleType]
) -> None:
    """Whole vectors, vectors with a rest, and a rest alone, in one loop nest."""
    ours, meaning = modules(name, "llvm"), modules(name, "torch")
    generator = np.random.default_rng(0)
    for kernel in kernels(Entry("kernel", RECIPES[name])):
        extents = {a: channels - 5 * i for i, a in enumerate(kernel.channels)}
        numbers = settings(9, 6)["indices"]
        csr = []
        for index in kernel.indices:
            values = np.array(numbers[index], dtype=np.int64)
            start = np.searchsorted(np.sort(values), np.arange(SIZES[index] + 1))
            csr.append((values, np.argsort(values, kind="stable"), start))
        inputs = []
        for o in kernel.inputs:
            wide = sum(int(np.prod([extents[a] for a in axes])) for axes in o.components)
            rows = 6 if o.index is None else SIZES[o.index]
            inputs.append(generator.normal(size=(wide,) if o.rows is None else (rows, wide)))
        for dtype, bound in BOUNDS.items():
            arrays_ = [a.astype(dtype) for a in inputs]
            got = getattr(ours, kernel.name)(*arrays_, *(ours.Index(*i) for i in csr), *extents.values())
            tensors = [torch.from_numpy(a) for a in inputs]
            indices = [meaning.Index(*map(torch.from_numpy, i)) for i in csr]
            expected = getattr(meaning, kernel.name)(*tensors, *indices, *extents.values())
            pairs = zip(
                got if isinstance(got, tuple) else (got,),
                expected if isinstance(expected, tuple) else (expected,),
                strict=True,
            )
            for a, b in pairs:
                scale = max(1.0, float(b.abs().max()))
                assert a.dtype == dtype
                assert np.abs(a - b.numpy()).max() <= bound * scale
