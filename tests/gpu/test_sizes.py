"""Convolutions, harmonics and contractions at the sizes of networks, and rows that 32 bits do not count."""

from __future__ import annotations

import pytest
import torch

from irrepc.algebra.recipe import ContractionRecipe, HarmonicsRecipe, WignerRecipe
from irrepc.nn.graph import index_of
from irrepc.runtime.load import load
from tests.gpu.orders import CUDA, Problem, convolution

pytestmark = pytest.mark.gpu

DTYPES = (torch.float32, torch.float64)
NAMES = {torch.float32: "f32", torch.float64: "f64"}


@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("channels", [33, 64, 128])
@pytest.mark.parametrize("lmax", [1, 2, 3, 4], ids="lmax{}".format)
def test_convolution(lmax: int, channels: int, dtype: torch.dtype) -> None:
    sizes = {"sender": 97, "receiver": 101}
    problem = Problem(convolution(lmax), dtype, 3001, sizes, {"u": channels})
    problem.check()
    if channels == 64:
        problem.check("cuda-atomic")


@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("lmax", [1, 2, 4, 8])
def test_harmonics(lmax: int, dtype: torch.dtype) -> None:
    Problem(HarmonicsRecipe(lmax), dtype, 10_001, {}, {}).check()


@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.get)
def test_rotations(dtype: torch.dtype) -> None:
    Problem(WignerRecipe(4), dtype, 1001, {}, {}).check()


@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.get)
@pytest.mark.parametrize(("lmax", "correlation"), [(1, 3), (2, 2), (3, 2)])
def test_contraction(lmax: int, correlation: int, dtype: torch.dtype) -> None:
    Problem(ContractionRecipe(lmax, (0, 1), correlation), dtype, 203, {"species": 10}, {"u": 64}).check()


@pytest.mark.slow
def test_operands_of_more_than_two_to_the_31_numbers() -> None:
    """Edges beyond the first 2³¹ weights add up like those before: w is one number throughout."""
    recipe, channels = convolution(1), 128
    edges = 2**31 // (4 * channels) + 1000
    free, _ = torch.cuda.mem_get_info()
    if free < 3 * 4 * edges * 4 * channels:
        pytest.skip(f"gpu: {free / 2**30:.0f} GiB are free")
    nodes = 1000
    rows = torch.arange(edges) // (edges // nodes + 1)
    indices = (index_of(rows, nodes).to(CUDA), index_of(rows, nodes).to(CUDA))
    x = torch.randn(nodes, 4 * channels, device=CUDA, generator=torch.Generator(CUDA).manual_seed(0))
    y = torch.ones(edges, 4, device=CUDA)
    w = torch.ones(edges, 4 * channels, device=CUDA)
    out = load(recipe, "cuda")(x, y, w, *indices, channels)
    counts = torch.bincount(rows, minlength=nodes).to(CUDA)
    few = load(recipe, "torch")(
        x, y[:nodes], w[:nodes], *(index_of(torch.arange(nodes), nodes).to(CUDA) for _ in range(2)), channels
    )
    assert torch.allclose(out, few * counts[:, None], rtol=1e-3, atol=1e-2)
