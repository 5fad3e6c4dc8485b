"""Linear against e3nn with the same weights, and its edges."""

import pytest
import torch
from e3nn import o3

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError, IrrepsError
from irrepc.interop.e3nn_layout import from_e3nn, to_e3nn
from irrepc.nn.linear import Linear, SpeciesLinear

PAIRS = [
    ("16x0e", "8x0e"),
    ("8x0e+4x1o+3x2e", "5x0e+7x1o+2x2e"),
    ("8x0e+4x1o+6x0e+2x1o", "3x1o+5x0e+2x1o"),  # several blocks of one irrep on both sides
    ("4x0e+4x0o+4x1e+4x1o", "4x1o+3x0o+2x1e"),
    ("3x3o+2x1o", "3x3o+4x2e"),  # 2e has no source
    ("2x1o+0x0e", "2x1o+0x0e"),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_same_weights_give_what_e3nn_gives(before: str, after: str, bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = o3.Linear(before, after, biases=bias).double()
    ours = Linear(before, after, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.normal_(generator=generator)
        ours.weight.copy_(theirs.weight)
        if ours.bias is not None:
            theirs.bias.normal_(generator=generator)
            ours.bias.copy_(theirs.bias)
    x = torch.randn(9, ours.irreps_in.dim, generator=generator, dtype=torch.float64)
    expected = from_e3nn(theirs(to_e3nn(x, before)), after)
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_two_orders() -> None:
    linear = Linear("2x0e+1x1o+1x0e", "2x1o+2x0e", bias=True, dtype=torch.float64)
    x = torch.randn(3, linear.irreps_in.dim, dtype=torch.float64, requires_grad=True)
    assert linear.bias is not None

    def f(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        given = {"weight": weight, "bias": bias}
        out: torch.Tensor = torch.func.functional_call(linear, given, (x,))
        return out

    given = (x, linear.weight, linear.bias)
    assert torch.autograd.gradcheck(f, given)
    assert torch.autograd.gradgradcheck(f, given)


@pytest.mark.parametrize("before", ["2x0e+1x1o+1x0e", "2x1o+1x2e"])
def test_gradients_of_two_orders_of_a_map_for_each_species(before: str) -> None:
    generator = torch.Generator().manual_seed(0)
    linear = SpeciesLinear(before, "2x1o+2x0e", 2, dtype=torch.float64)
    x = torch.randn(4, linear.irreps_in.dim, dtype=torch.float64, generator=generator).requires_grad_()
    embedding = torch.randn(3, 2, dtype=torch.float64, generator=generator).requires_grad_()
    one_hot = torch.eye(3, dtype=torch.float64)[[0, 2, 2, 1]]

    def f(x: torch.Tensor, embedding: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(linear, {"weight": weight}, (x, embedding, one_hot))
        return out

    assert torch.autograd.gradcheck(f, (x, embedding, linear.weight))
    assert torch.autograd.gradgradcheck(f, (x, embedding, linear.weight))


def test_a_third_derivative_and_function_transforms() -> None:
    linear = Linear("2x0e+1x1o", "1x1o+3x0e", dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*s, dtype=torch.float64, generator=generator) for s in ((3, 5), linear.weight.shape))

    def f(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(linear, {"weight": weight}, (x,))
        return (out**3).sum()

    expected = torch.func.grad(lambda w: torch.func.grad(f)(x, w).square().sum())(weight)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    (first,) = torch.autograd.grad(f(x, weight), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight, create_graph=True)
    torch.testing.assert_close(second, expected)
    (third,) = torch.autograd.grad(second.square().sum(), x)
    h = torch.randn(3, 5, dtype=torch.float64, generator=generator)

    def square(step: float) -> torch.Tensor:
        shifted = x.detach() + step * h
        moved = torch.func.grad(lambda w: torch.func.grad(f)(shifted, w).square().sum())(weight.detach())
        return moved.square().sum()

    torch.testing.assert_close((third * h).sum(), (square(1e-5) - square(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-6)


def test_no_rows_other_strides_and_a_wrong_width() -> None:
    linear = Linear("2x0e+3x1o", "4x1o+1x0e")
    assert linear(torch.zeros(0, 11)).shape == (0, 13)
    x = torch.randn(11, 5).T
    torch.testing.assert_close(linear(x), linear(x.contiguous()))
    with pytest.raises(InputError, match=r"got shape \(5, 10\); expected \(rows, 11\) of 2x0e\+3x1o"):
        linear(torch.zeros(5, 10))
    with pytest.raises(IrrepsError):
        Linear("2x0e+?", "0e")


def test_it_compiles_whole() -> None:
    linear = Linear("4x0e+2x1o", "2x1o+3x0e", bias=True)
    x = torch.randn(6, linear.irreps_in.dim)
    compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), linear(x))


def test_zero_where_nothing_feeds() -> None:
    y = Linear("2x0e", "1x1o+1x0e", dtype=torch.float64)(torch.ones(2, 2, dtype=torch.float64))
    assert not y[:, :3].any()
    assert y[:, 3].all()
    assert Irreps.of("1x1o+1x0e").dim == y.shape[1]


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if "0x0e" not in pair[0] or "16" in pair[0]])
def test_a_map_for_each_species_is_e3nns_product_with_the_embedding(before: str, after: str) -> None:
    generator = torch.Generator().manual_seed(0)
    theirs = o3.FullyConnectedTensorProduct(before, "5x0e", after).double()
    ours = SpeciesLinear(before, after, 5, dtype=torch.float64)
    assert ours.weight_numel == theirs.weight_numel
    embedding = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    species = torch.tensor([0, 2, 2, 1, 0, 2, 1])
    with torch.no_grad():
        ours.weight.copy_(theirs.weight.normal_(generator=generator))
    x = torch.randn(7, ours.irreps_in.dim, generator=generator, dtype=torch.float64)
    one_hot = torch.nn.functional.one_hot(species, 3).double()
    expected = from_e3nn(theirs(to_e3nn(x, before), embedding[species]), after)
    torch.testing.assert_close(ours(x, embedding, one_hot), expected, rtol=1e-12, atol=1e-12)
    assert ours(x[:0], embedding, one_hot[:0]).shape == (0, ours.irreps_out.dim)
