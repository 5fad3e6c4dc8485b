"""Tensor products against e3nn's with the same weights, every mode and both backends."""

from __future__ import annotations

from collections.abc import Iterator

import e3nn.o3 as o3
import pytest
import torch

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError, IrrepsError
from irrepc.interop.e3nn_layout import from_e3nn, to_e3nn
from irrepc.nn.tensor_product import (
    FullyConnectedTensorProduct,
    TensorProduct,
    elementwise_tensor_product,
    full_tensor_product,
)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """e3nn rounds its coefficients to torch's default dtype when a module is built."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


LEFT, RIGHT = "4x0e+3x1o+2x2e", "2x0e+3x1o+1x1e"


def pair(theirs: torch.nn.Module, ours: torch.nn.Module, irreps: tuple[str, str], rows: int = 5) -> float:
    """The largest difference of the two products on random features."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(rows, Irreps.of(i).dim, dtype=torch.float64, generator=generator) for i in irreps)
    expected = theirs(x, y)
    got = to_e3nn(ours(from_e3nn(x, ours.irreps1), from_e3nn(y, ours.irreps2)), ours.irreps_out)
    assert got.shape == expected.shape
    return float((got - expected).detach().abs().max())


@pytest.mark.parametrize(
    ("backend", "irrep_normalization", "path_normalization"),
    [
        ("torch", "component", "element"),
        ("torch", "component", "path"),
        ("torch", "norm", "element"),
        ("torch", "norm", "path"),
        ("numba", "component", "element"),
    ],
)
def test_fully_connected_equals_e3nn(backend: str, irrep_normalization: str, path_normalization: str) -> None:
    out = "3x0e+2x1o+2x1e+1x2o"
    theirs = o3.FullyConnectedTensorProduct(
        LEFT, RIGHT, out, irrep_normalization=irrep_normalization, path_normalization=path_normalization
    ).double()
    ours = FullyConnectedTensorProduct(
        LEFT,
        RIGHT,
        out,
        irrep_normalization=irrep_normalization,
        path_normalization=path_normalization,
        backend=backend,
        dtype=torch.float64,
    )
    with torch.no_grad():
        ours.weight.copy_(theirs.weight)
    assert pair(theirs, ours, (LEFT, RIGHT)) < 1e-12


@pytest.mark.parametrize("shared", [True, False])
def test_every_mode_equals_e3nn(shared: bool) -> None:
    left, right, out = "3x0e+3x1o", "3x1o+2x0e", "3x1o+6x1o+3x0e+4x1e+2x0e+6x0e+2x1o"
    instructions = [
        (0, 0, 0, "uvu", True, 1.0),
        (0, 0, 0, "uvv", True, 0.5),
        (0, 1, 5, "uvuv", True, 1.0),
        (1, 1, 1, "uvuv", False, 1.0),
        (1, 0, 2, "uuu", True, 2.0),
        (1, 0, 3, "uuw", True, 1.0),
        (0, 1, 4, "uvv", True, 1.0),
        (1, 1, 6, "uvw", True, 1.0),
        (0, 0, 0, "uuu", False, 1.0),
    ]
    theirs = o3.TensorProduct(left, right, out, instructions, shared_weights=shared, internal_weights=shared).double()
    ours = TensorProduct(left, right, out, instructions, shared_weights=shared, backend="torch", dtype=torch.float64)
    assert ours.weight_numel == theirs.weight_numel
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 12, dtype=torch.float64, generator=generator)
    y = torch.randn(4, 11, dtype=torch.float64, generator=generator)
    weights = None
    if shared:
        with torch.no_grad():
            ours.weight.copy_(theirs.weight)
    else:
        weights = torch.randn(4, ours.weight_numel, dtype=torch.float64, generator=generator)
    expected = theirs(x, y) if shared else theirs(x, y, weights)
    got = to_e3nn(ours(from_e3nn(x, ours.irreps1), from_e3nn(y, ours.irreps2), weights), ours.irreps_out)
    assert float((got - expected).detach().abs().max()) < 1e-12


def test_numba_agrees_with_torch_on_every_mode_and_gradient() -> None:
    left, right, out = "2x0e+2x1o", "2x1o", "2x1o+2x0e+2x1e+4x0e"
    instructions = [
        (0, 0, 0, "uvu", True),
        (0, 0, 0, "uvv", True),
        (1, 0, 1, "uuu", True),
        (1, 0, 2, "uuw", True),
        (1, 0, 3, "uvuv", False),
        (1, 0, 1, "uvw", True),
    ]
    products = {
        b: TensorProduct(left, right, out, instructions, backend=b, dtype=torch.float64) for b in ("torch", "numba")
    }
    products["numba"].load_state_dict(products["torch"].state_dict())
    generator = torch.Generator().manual_seed(3)
    results = {}
    for name, product in products.items():
        generator.manual_seed(3)
        x = torch.randn(4, 8, dtype=torch.float64, generator=generator, requires_grad=True)
        y = torch.randn(4, 6, dtype=torch.float64, generator=generator, requires_grad=True)
        o = product(x, y)
        first = torch.autograd.grad((o**2).sum(), (x, y, product.weight), create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), (x, y, product.weight))
        results[name] = [o, *first, *second]
    for a, b in zip(results["torch"], results["numba"], strict=True):
        assert float((a - b).detach().abs().max()) < 1e-11 * max(1.0, float(a.detach().abs().max()))


def test_full_and_elementwise_equal_e3nn() -> None:
    left, right = "2x0e+1x1o", "1x0o+2x1e"
    theirs, ours = o3.FullTensorProduct(left, right).double(), full_tensor_product(left, right, backend="torch")
    assert str(ours.irreps_out.simplify()) == str(theirs.irreps_out.simplify())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    y = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    got = to_e3nn(ours(from_e3nn(x, left), from_e3nn(y, right)), ours.irreps_out)
    assert float((got - theirs(x, y)).abs().max()) < 1e-12

    left, right = "3x0e+2x1o", "1x1o+4x0e"
    pairs = o3.ElementwiseTensorProduct(left, right).double()
    product = elementwise_tensor_product(left, right, backend="torch")
    x = torch.randn(5, 9, dtype=torch.float64, generator=generator)
    y = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    got = to_e3nn(
        product(from_e3nn(x, product.irreps1), from_e3nn(y, product.irreps2)), product.irreps_out
    )
    assert float((got - pairs(x, y)).abs().max()) < 1e-12


def test_impossible_instructions_say_what_is_wrong() -> None:
    with pytest.raises(IrrepsError, match=r"output 3o is not in 1o ⊗ 1o = 0e\+1e\+2e"):
        TensorProduct("1x1o", "1x1o", "1x3o", [(0, 0, 0, "uvu", True)])
    with pytest.raises(IrrepsError, match="gives 2 channels"):
        TensorProduct("2x1o", "1x1o", "3x0e", [(0, 0, 0, "uvu", True)])
    with pytest.raises(IrrepsError, match="pairs channels"):
        TensorProduct("2x1o", "1x1o", "2x0e", [(0, 0, 0, "uuu", True)])
    product = FullyConnectedTensorProduct("1x0e", "1x0e", "1x0e", backend="torch")
    with pytest.raises(InputError, match="expected none"):
        product(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
