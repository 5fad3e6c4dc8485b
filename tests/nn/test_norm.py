"""Norms: values, zero gradients at zero, and the layer norm's invariance."""

import pytest
import torch
from e3nn import o3

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.interop.e3nn_layout import from_e3nn, to_e3nn
from irrepc.nn.norm import EquivariantLayerNorm, irreps_norm, safe_norm

TEXT = "4x0e+3x0o+5x1o+2x2e"


def test_norms_are_e3nns() -> None:
    x = torch.randn(6, Irreps.of(TEXT).dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = o3.Norm(TEXT).double()(to_e3nn(x, TEXT))
    torch.testing.assert_close(irreps_norm(x, Irreps.of(TEXT)), expected, rtol=1e-13, atol=1e-13)
    assert irreps_norm(x[:0], Irreps.of(TEXT)).shape == (0, 14)


def test_a_zero_vector_has_norm_zero_and_gradient_zero() -> None:
    v = torch.zeros(2, 3, dtype=torch.float64)
    v[1, 0] = 2.0
    v.requires_grad_()
    norm = safe_norm(v, 1)
    (first,) = torch.autograd.grad(norm.sum(), v, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), v)
    assert norm.tolist() == [0.0, 2.0]
    assert first.tolist() == [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert second[0].tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(second).all()


def test_the_layer_norm_is_its_formula() -> None:
    norm = EquivariantLayerNorm("3x0e+2x1o+4x0o", eps=1e-5, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 10.0))
        norm.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    x = torch.randn(2, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    even = x[:, :3] - x[:, :3].mean(1, keepdim=True)
    vectors, odd = x[:, 3:9].view(2, 3, 2), x[:, 9:]
    expected = torch.cat(
        (
            even / (even.square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight[:3] + norm.bias,
            (vectors / (vectors.square().mean((1, 2), keepdim=True) + 1e-5).sqrt() * norm.weight[3:5]).reshape(2, 6),
            odd / (odd.square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight[5:],
        ),
        1,
    )
    torch.testing.assert_close(norm(x), expected, rtol=1e-13, atol=1e-13)


def test_the_layer_norm_is_equivariant_and_finite_at_zero() -> None:
    norm = EquivariantLayerNorm(TEXT, dtype=torch.float64)
    D = o3.Irreps(TEXT).D_from_matrix(-o3.rand_matrix()).double()
    x = torch.randn(5, Irreps.of(TEXT).dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    turned = from_e3nn(to_e3nn(x, TEXT) @ D.T, TEXT)
    torch.testing.assert_close(norm(turned), from_e3nn(to_e3nn(norm(x), TEXT) @ D.T, TEXT), rtol=1e-5, atol=1e-5)
    zero = torch.zeros(1, Irreps.of(TEXT).dim, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(norm(zero).sum(), zero)
    assert torch.isfinite(gradient).all()


def test_gradients_of_two_orders_and_a_wrong_width() -> None:
    norm = EquivariantLayerNorm("2x0e+1x1o", dtype=torch.float64)
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradgradcheck(norm, (x,))
    with pytest.raises(InputError, match="expected"):
        norm(x[:, :4])
