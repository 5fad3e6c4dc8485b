"""Matrix products in LLVM text: right for every shape, tiled over registers, the same however rows are cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest

from irrepc.emit.llvm_matrix import TILES, MatrixProduct, Tile, llvm_matrix, matrix_head
from irrepc.runtime.object_code import Processor, assembly, function, object_code, packed

DTYPES = ("float32", "float64")
SHAPES = [(1, 1, 1), (3, 5, 7), (9, 16, 33), (4, 33, 65), (1, 66, 270), (16, 17, 16)]


def text(product: MatrixProduct, dtype: str, tile: Tile) -> str:
    return matrix_head(dtype) + llvm_matrix("product", product, dtype, tile)


@lru_cache(maxsize=64)
def compiled(product: MatrixProduct, dtype: str, tile: Tile) -> Callable[..., None]:
    return function(object_code(text(product, dtype, tile), Processor.native()), "product", 3)


def multiply(
    product: MatrixProduct, tile: Tile, x: np.ndarray, weights: np.ndarray, y: np.ndarray, cuts: tuple[int, ...] = ()
) -> np.ndarray:
    """y after the product, the rows cut at `cuts`."""
    run = compiled(product, x.dtype.name, tile)
    matrix, y = packed(weights, tile), y.copy()
    ends = (0, *cuts, len(x))
    for n0, n1 in pairwise(ends):
        run(n0, n1, x.ctypes.data, matrix.ctypes.data, y.ctypes.data)
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("registers", sorted(TILES))
@pytest.mark.parametrize(("components", "inner", "outer"), SHAPES)
def test_runs_of_columns_are_multiplied(components: int, inner: int, outer: int, registers: int, dtype: str) -> None:
    """Runs inside wider rows; the other columns of y keep what they hold. Added to y where the width is odd."""
    rng = np.random.default_rng(inner)
    rows, tile, add = 29, TILES[registers], bool(outer % 2)
    product = MatrixProduct(components, inner, outer, components * inner + 3, 1, components * outer + 5, 2, add)
    x = rng.standard_normal((rows, product.x_width)).astype(dtype)
    y = rng.standard_normal((rows, product.y_width)).astype(dtype)
    weights = rng.standard_normal((inner, outer)).astype(dtype)
    meant = y.astype(np.float64)
    runs = x[:, 1 : 1 + components * inner].astype(np.float64).reshape(rows, components, inner) @ weights
    inside = meant[:, 2 : 2 + components * outer]
    inside[...] = runs.reshape(rows, -1) + (inside if add else 0)
    got = multiply(product, tile, x, weights, y)
    assert np.abs(got - meant).max() < 4 * np.finfo(dtype).eps * inner
    assert np.array_equal(got[:, :2], y[:, :2]) and np.array_equal(got[:, -3:], y[:, -3:])
    assert np.array_equal(got, multiply(product, tile, x, weights, y, cuts=(0, 1, 8, 8, 28)))


def test_any_number_of_rows() -> None:
    """Rows behind the last are not touched."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((98, 8)), rng.standard_normal((8, 8))
    product, tile = MatrixProduct(1, 8, 8, 8, 0, 8, 0, False), TILES[32]
    run, matrix = compiled(product, "float64", tile), packed(weights, tile)
    for rows in (0, 1, 5, 6, 7, 95, 96, 97):
        y = np.full((98, 8), np.nan)
        run(0, rows, x.ctypes.data, matrix.ctypes.data, y.ctypes.data)
        assert np.allclose(y[:rows], (x @ weights)[:rows], rtol=0, atol=1e-14)
        assert np.isnan(y[rows:]).all()


def test_tiles_agree_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((50, 64)).astype("f4"), rng.standard_normal((64, 100)).astype("f4")
    product = MatrixProduct(1, 64, 100, 64, 0, 100, 0, False)
    results = [multiply(product, tile, x, weights, np.zeros((50, 100), "f4")) for tile in TILES.values()]
    assert np.array_equal(*results)


@pytest.mark.parametrize(("processor", "registers", "letter"), [("znver4", 32, "z"), ("x86-64-v3", 16, "y")])
def test_sums_stay_in_registers(processor: str, registers: int, letter: str) -> None:
    """Every multiply-add is one of whole vectors, and the loops neither spill sums nor reload them."""
    assert Processor(processor).tile == TILES[registers]
    product = MatrixProduct(9, 128, 128, 1152, 0, 1152, 0, False)
    try:
        code = assembly(text(product, "float32", TILES[registers]), Processor(processor), "x86_64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("this llvmlite cannot emit code for x86-64")
    fused = re.findall(rf"\tvfmadd\d+ps\t.*%{letter}mm\d+$", code, re.MULTILINE)
    tile, halves = TILES[registers], 1 if letter == "z" else 2
    each = tile.rows * tile.vectors * halves * 4
    assert len(fused) % each == 0 and len(fused) >= each
    assert len(re.findall(r"\tvfmadd\d+[ps]s\t", code)) == len(fused)
    loads = len(re.findall(rf"\tvmov[au]ps\t[^%]*\(.*\), %{letter}mm\d+$", code, re.MULTILINE))
    broadcasts = len(re.findall(r"\tvbroadcastss\t", code))
    assert loads + broadcasts <= len(fused) * (tile.rows + tile.vectors * halves) / (tile.rows * tile.vectors * halves)
    assert not re.search(rf"\tvmov\w+\t%{letter}mm\d+, -?\d*\(%rsp\)", code)
