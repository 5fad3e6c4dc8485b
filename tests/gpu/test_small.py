"""Every kind of kernel on small sizes of every awkward kind; memcheck and racecheck run these, too."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.orders import Problem
from tests.kernels import EXTENTS, RECIPES

pytestmark = pytest.mark.gpu

SIZES = {"sender": 7, "receiver": 5, "species": 3, "knot": 4}
DTYPES = (torch.float32, torch.float64)
NAMES = {torch.float32: "f32", torch.float64: "f64"}


@pytest.mark.parametrize("dtype", DTYPES, ids=NAMES.get)
@pytest.mark.parametrize("name", RECIPES)
def test_every_kind_of_kernel(name: str, dtype: torch.dtype) -> None:
    Problem(RECIPES[name], dtype, 37, SIZES, EXTENTS).check()


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("name", RECIPES)
def test_few_rows(name: str, rows: int) -> None:
    Problem(RECIPES[name], torch.float64, rows, SIZES, EXTENTS).check()


@pytest.mark.parametrize("name", RECIPES)
def test_one_row_behind_every_index(name: str) -> None:
    Problem(RECIPES[name], torch.float64, 6, dict.fromkeys(SIZES, 1), EXTENTS).check()


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 31, 32, 33, 64])
def test_any_number_of_channels(channels: int) -> None:
    extents = dict.fromkeys(EXTENTS, channels)
    Problem(RECIPES["convolution"], torch.float32, 23, SIZES, extents).check()
    Problem(RECIPES["convolution"], torch.float64, 23, SIZES, extents).check()


@pytest.mark.parametrize("channels", [(2, 3), (33, 1), (64, 32)])
def test_channels_of_two_widths(channels: tuple[int, int]) -> None:
    extents = {**EXTENTS, "u": channels[0], "u1": channels[1]}
    Problem(RECIPES["convolution, two widths"], torch.float64, 23, SIZES, extents).check()


def test_rows_without_edges() -> None:
    sizes = {"sender": 40, "receiver": 50}
    Problem(RECIPES["convolution"], torch.float64, 23, sizes, EXTENTS, empty=35).check()


def test_strided_operands() -> None:
    problem = Problem(RECIPES["convolution"], torch.float64, 23, SIZES, EXTENTS)
    problem.inputs = tuple(torch.stack((t, t), -1)[..., 0] for t in problem.inputs)
    assert not any(t.is_contiguous() for t in problem.inputs)
    problem.check()
