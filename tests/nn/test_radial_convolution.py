"""Convolutions that make their weights: equal to one that is given them, with all derivatives."""

import math

import pytest
import torch
from torch import Tensor

from irrepc.errors import InputError, IrrepsError
from irrepc.frontend.weights import spline_pieces
from irrepc.nn.convolution import Convolution
from irrepc.nn.graph import Index, index_of
from irrepc.nn.radial_convolution import BasisConvolution, SplineConvolution

IRREPS = ("6x0e+3x1o", "1x0e+1x1o", "1x0e+1x1o")
BEGIN, END, INTERVALS, DEGREE = 0.5, 4.0, 6, 5
EDGES, NODES = 17, 5


def edges(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Index, Index]:
    """x, y, r, senders, receivers; one node has no edges."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(NODES, 15, generator=g, dtype=torch.float64)
    y = torch.randn(EDGES, 4, generator=g, dtype=torch.float64)
    r = BEGIN + (END - BEGIN) * torch.rand(EDGES, generator=g, dtype=torch.float64)
    ends = [index_of(torch.randint(NODES - 1, (EDGES,), generator=g), NODES) for _ in range(2)]
    return x, y, r, ends[0], ends[1]


def splines(backend: str = "auto", trained: bool = True) -> SplineConvolution:
    """A layer with a random table."""
    plain = Convolution(*IRREPS)
    table = torch.randn(
        INTERVALS + DEGREE, plain.weight_numel, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    layer = SplineConvolution(*IRREPS, table, begin=BEGIN, end=END, degree=DEGREE, backend=backend)
    return layer.requires_grad_(trained)


def weights(layer: SplineConvolution, r: Tensor) -> Tensor:
    """The splines written out."""
    along = (r - BEGIN) / (END - BEGIN) * INTERVALS
    n = along.detach().floor().long().clamp(0, INTERVALS - 1)
    t = along - n
    pieces = torch.tensor([[float(c) for c in piece] for piece in spline_pieces(DEGREE)], dtype=torch.float64)
    b = torch.stack([t**j for j in range(DEGREE + 1)], 1) @ pieces.T
    return sum((b[:, k, None] * layer.table[n + k] for k in range(DEGREE + 1)), torch.zeros(()))


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_splines_are_those_of_the_table(backend: str) -> None:
    """Value and gradients by features, harmonics, distances and table."""
    layer, plain = splines(backend), Convolution(*IRREPS)
    x, y, r, senders, receivers = edges()
    given = [t.requires_grad_() for t in (x, y, r)]
    out, expected = layer(x, y, r, senders, receivers), plain(x, y, weights(layer, r), senders, receivers)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = torch.autograd.grad(out, [*given, layer.table], g)
    for a, b in zip(found, torch.autograd.grad(expected, [*given, layer.table], g), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_frozen_table_changes_nothing_else() -> None:
    """Without sorted knots: the same value, the same forces, and twice differentiated."""
    x, y, r, senders, receivers = edges()
    found = []
    for trained in (True, False):
        layer, s = splines(trained=trained), r.clone().requires_grad_()
        out = layer(x, y, s, senders, receivers)
        (force,) = torch.autograd.grad(out.square().sum(), s, create_graph=True)
        found.append((out, force, *torch.autograd.grad(force.square().sum(), s)))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_splines_twice_differentiated() -> None:
    """gradcheck and gradgradcheck, distances and table among the inputs."""
    layer = splines()
    x, y, r, senders, receivers = edges()
    variables = [t.requires_grad_() for t in (x, y, r)]

    def run(x: Tensor, y: Tensor, r: Tensor, table: Tensor) -> Tensor:
        named = {"table": table}
        out: Tensor = torch.func.functional_call(layer, named, (x, y, r, senders, receivers))
        return out

    table = layer.table.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (*variables, table), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (*variables, table), fast_mode=True)


def test_splines_are_smooth_at_the_knots_and_constant_beyond_the_end() -> None:
    layer = splines()
    x, y, _, senders, receivers = edges()
    knot = BEGIN + 2 * (END - BEGIN) / INTERVALS

    def at(r: float) -> Tensor:
        out: Tensor = layer(x, y, torch.full((EDGES,), r, dtype=torch.float64), senders, receivers)
        return out

    torch.testing.assert_close(at(math.nextafter(knot, 0)), at(math.nextafter(knot, 9)), rtol=1e-12, atol=1e-12)
    assert torch.equal(at(END), at(END + 1))


def test_a_basis_in_the_kernel_is_a_matrix_product() -> None:
    """Value and all gradients of w = h W / √size."""
    layer, plain = BasisConvolution(*IRREPS, 4, dtype=torch.float64), Convolution(*IRREPS)
    x, y, _, senders, receivers = edges()
    h = torch.randn(EDGES, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    given = [*(t.requires_grad_() for t in (x, y, h)), layer.weight]
    out, expected = layer(x, y, h, senders, receivers), plain(x, y, h @ layer.weight / 2, senders, receivers)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(out.square().sum(), given)
    for a, b in zip(found, torch.autograd.grad(expected.square().sum(), given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_graphs_without_edges() -> None:
    layer = splines()
    x, y, r, _, _ = edges()
    none = index_of(torch.zeros(0, dtype=torch.int64), NODES)
    out = layer(x, y[:0], r[:0].requires_grad_(), none, none)
    assert not out.any()
    out.sum().backward()


def test_bad_input() -> None:
    """Too close, of different numbers, tables that do not fit."""
    layer = splines()
    x, y, r, senders, receivers = edges()
    with pytest.raises(InputError, match=r"0\.4 Å; expected 0\.5 Å or more"):
        layer(x, y, torch.full_like(r, 0.4), senders, receivers)
    with pytest.raises(InputError, match="same number of edges"):
        layer(x, y, r[:-1], senders, receivers)
    with pytest.raises(InputError, match="table of shape"):
        SplineConvolution(*IRREPS, layer.table[:, :-1], begin=BEGIN, end=END)
    with pytest.raises(InputError, match="begin < end"):
        SplineConvolution(*IRREPS, layer.table, begin=END, end=BEGIN)
    with pytest.raises(IrrepsError, match="no path"):
        BasisConvolution("2x0e", "1x0e", "1o", 3)
    assert "6 intervals of degree 5" in repr(layer)
