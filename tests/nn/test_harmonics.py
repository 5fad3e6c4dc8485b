"""The layer of spherical harmonics: directions, and the vector that has none."""

from __future__ import annotations

import pytest
import torch

from irrepc.nn.harmonics import SphericalHarmonics


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_length_does_not_matter_and_a_zero_vector_is_flat(backend: str) -> None:
    """Where r = 0 all but the constant vanish, and so do the gradient and the gradient of its square."""
    layer = SphericalHarmonics(3, backend=backend)
    r = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r[5] = 0
    there = r.square().sum(1) > 0
    assert torch.allclose(layer(7 * r), layer(r), rtol=0, atol=1e-13)
    assert torch.allclose(layer(r)[there].square().sum(1), torch.full((19,), 16.0, dtype=r.dtype))
    r.requires_grad_()
    y = layer(r)
    assert torch.equal(y[5], torch.eye(1, 16, dtype=r.dtype)[0])
    (g,) = torch.autograd.grad((y**3).sum(), r, create_graph=True)
    (h,) = torch.autograd.grad((g**2).sum(), r)
    assert torch.equal(g[5], torch.zeros_like(g[5])) and torch.equal(h[5], torch.zeros_like(h[5]))
    assert bool(g[there].ne(0).any() and h[there].ne(0).any())
    assert float((g * r)[there].sum(1).abs().max().detach()) < 1e-12, "nothing changes along r"


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_two_derivatives_through_the_direction(backend: str) -> None:
    layer = SphericalHarmonics(2, backend=backend)
    r = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(layer, (r,))
    assert torch.autograd.gradgradcheck(layer, (r,))
