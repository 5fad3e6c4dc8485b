"""Radial functions: the formulas they name, smoothness at the cutoff, and finite values at zero."""

import math

import pytest
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.nn.closed_forms import fade, length_and_direction, silu, sines
from irrepc.nn.radial import BesselBasis, GaussianBasis, ScalarMLP, cosine_cutoff, polynomial_cutoff

CUTOFFS = {"polynomial": polynomial_cutoff, "cosine": cosine_cutoff}


def derivatives(f: object, x: Tensor, order: int) -> list[Tensor]:
    x = x.clone().requires_grad_()
    values = [f(x)]  # type: ignore[operator]
    for _ in range(order):
        values.append(torch.autograd.grad(values[-1].sum(), x, create_graph=True)[0])
    return [v.detach() for v in values]


@pytest.mark.parametrize(("name", "order"), [("polynomial", 2), ("cosine", 1)])
def test_cutoffs_vanish_smoothly(name: str, order: int) -> None:
    step = 1e-7
    inside, at, outside = (
        derivatives(CUTOFFS[name], torch.tensor([x], dtype=torch.float64), order) for x in (1 - step, 1.0, 1.5)
    )
    for value in inside:
        assert abs(float(value)) < 400 * step
    assert [float(v) for v in (*at, *outside)] == [0.0] * (2 * order + 2)
    assert float(CUTOFFS[name](torch.zeros(1))) == 1.0


def test_the_polynomial_of_power_six_is_the_one_of_the_papers() -> None:
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(polynomial_cutoff(x), 1 - 28 * x**6 + 48 * x**7 - 21 * x**8, rtol=0, atol=2e-14)


@pytest.mark.parametrize("power", [2, 3, 6, 9])
def test_polynomials_of_any_power_vanish_with_two_derivatives(power: int) -> None:
    x = torch.tensor([1 - 1e-6], dtype=torch.float64)
    for value in derivatives(lambda t: polynomial_cutoff(t, power), x, 2):
        assert abs(float(value)) < 1e-3


def test_bessel_functions_are_those_of_the_formula() -> None:
    r = torch.linspace(0.1, 5.0, 60, dtype=torch.float64)
    n = torch.arange(1, 9, dtype=torch.float64)
    expected = (2 / 5.0) * torch.sin(n * math.pi * r[:, None] / 5.0) / r[:, None]
    torch.testing.assert_close(BesselBasis(5.0, dtype=torch.float64)(r), expected, rtol=1e-13, atol=1e-14)


def test_bessel_functions_are_finite_at_zero_with_two_derivatives() -> None:
    basis = BesselBasis(5.0, dtype=torch.float64)
    value, first, second = derivatives(lambda r: basis(r), torch.zeros(1, dtype=torch.float64), 2)
    expected = (2 * math.pi / 25.0) * torch.arange(1, 9, dtype=torch.float64)
    torch.testing.assert_close(value[0], expected, rtol=1e-15, atol=0)
    assert float(first) == 0.0
    assert math.isfinite(float(second))


def test_a_trainable_bessel_basis_is_a_parameter_and_a_fixed_one_is_not() -> None:
    assert [name for name, _ in BesselBasis(5.0, trainable=True).named_parameters()] == ["roots"]
    assert not list(BesselBasis(5.0).parameters())
    assert BesselBasis(5.0).state_dict().keys() == {"roots"}


def test_basis_times_cutoff_vanishes_with_two_derivatives() -> None:
    basis = BesselBasis(4.0, dtype=torch.float64)
    r = torch.tensor([4.0 - 1e-6], dtype=torch.float64)
    for value in derivatives(lambda r: basis(r) * polynomial_cutoff(r / 4.0)[:, None], r, 2):
        assert float(value.abs().max()) < 1e-3
    assert not basis(torch.tensor([4.5], dtype=torch.float64)).mul(polynomial_cutoff(torch.tensor([4.5 / 4]))).any()


def test_gaussians_have_their_centres_and_width() -> None:
    basis = GaussianBasis(0.0, 6.0, 7, width=2.0, dtype=torch.float64)
    values = basis(torch.tensor([3.0], dtype=torch.float64))[0]
    expected = [math.exp(-0.5 * (k - 3.0) ** 2 / 4.0) for k in range(7)]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


def test_the_perceptron_is_its_formula() -> None:
    mlp = ScalarMLP((8, 16, 12, 5), dtype=torch.float64)
    v = torch.randn(7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w1, w2, w3 = mlp.weights
    silu = torch.nn.functional.silu
    expected = silu(silu(v @ w1 / math.sqrt(8)) @ w2 * math.sqrt(2 / 16)) @ w3 * math.sqrt(2 / 12)
    torch.testing.assert_close(mlp(v), expected, rtol=1e-13, atol=1e-14)
    assert not mlp(torch.zeros(3, 8, dtype=torch.float64)).any()
    assert mlp(torch.zeros(0, 8, dtype=torch.float64)).shape == (0, 5)


def test_the_perceptron_with_e3nns_gain_is_e3nns() -> None:
    from e3nn.nn import FullyConnectedNet

    theirs = FullyConnectedNet([8, 16, 5], torch.nn.functional.silu).double()
    ours = ScalarMLP((8, 16, 5), gain=1.6791767923989418, dtype=torch.float64)
    with torch.no_grad():
        for weight, layer in zip(ours.weights, theirs, strict=True):
            weight.copy_(layer.weight)
    v = torch.randn(7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(ours(v), theirs(v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda: BesselBasis(0.0),
        lambda: BesselBasis(float("nan")),
        lambda: BesselBasis(5.0, 0),
        lambda: GaussianBasis(1.0, 1.0, 5),
        lambda: GaussianBasis(0.0, 1.0, 1),
        lambda: GaussianBasis(0.0, 1.0, 5, width=-1.0),
        lambda: ScalarMLP((8,)),
        lambda: ScalarMLP((8, 0, 1)),
    ],
)
def test_impossible_sizes_are_refused(build: object) -> None:
    with pytest.raises(InputError, match=r"got .* expected"):
        build()  # type: ignore[operator]


def plain_bessels(r: Tensor, k: Tensor) -> Tensor:
    return torch.sin(r.unsqueeze(1) * k) / r.unsqueeze(1)


FORMS = {
    "silu": (silu, lambda x: x * torch.sigmoid(x)),
    "fade": (lambda x: fade(x, 5), lambda x: torch.where(x < 1, 1 - 21 * x**5 + 35 * x**6 - 15 * x**7, 0.0)),
    "sines": (lambda x: sines(x, torch.tensor([1.0, 2.5]).double()), None),
    "length": (lambda x: length_and_direction(x.view(-1, 3))[0], lambda x: x.view(-1, 3).norm(dim=1)),
    "direction": (
        lambda x: length_and_direction(x.view(-1, 3))[1],
        lambda x: x.view(-1, 3) / x.view(-1, 3).norm(dim=1, keepdim=True),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_closed_forms_are_their_functions_with_three_derivatives(name: str) -> None:
    form, plain = FORMS[name]
    plain = plain or (lambda x: plain_bessels(x, torch.tensor([1.0, 2.5]).double()))
    generator = torch.Generator().manual_seed(0)
    x = 0.1 + 1.2 * torch.rand(12, dtype=torch.float64, generator=generator)
    found = []
    for f in (form, plain):
        weights, v = torch.Generator().manual_seed(1), x.clone().requires_grad_()
        values = [f(v)]
        for _ in range(3):
            mixed = (values[-1] * torch.randn(values[-1].shape, dtype=torch.float64, generator=weights)).sum()
            values.append(torch.autograd.grad(mixed, v, create_graph=True)[0])
        found.append(values)
    for ours, meant in zip(*found, strict=True):
        torch.testing.assert_close(ours, meant, rtol=1e-11, atol=1e-11)


def test_directions_of_nothing_have_no_gradient() -> None:
    v = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    length, direction = length_and_direction(v)
    (first,) = torch.autograd.grad(length.sum() + direction[:, 1].sum(), v, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), v)
    assert not first[0].any()
    assert not second[0].any()
    assert bool(torch.isfinite(second).all())
    assert length.tolist() == [0.0, 5.0]


def test_a_power_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(InputError, match="integer"):
        polynomial_cutoff(torch.zeros(1), 2.5)  # type: ignore[arg-type]
