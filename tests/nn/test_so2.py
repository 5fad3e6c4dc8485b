"""SO(2) convolutions: into frames and back, complex matrices, gates; grids on the sphere; norms by degree."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from irrepc.algebra.so2_recipe import orders
from irrepc.errors import InputError, RecipeError
from irrepc.nn.degree_norm import NORMS, degree_norm
from irrepc.nn.frames import frame_quaternions
from irrepc.nn.graph import Index, index_of
from irrepc.nn.harmonics import SphericalHarmonics, WignerD
from irrepc.nn.rotations import invert_quaternion, multiply_quaternions, random_quaternions
from irrepc.nn.s2_grid import OrderS2Activation, S2Grid, grid_matrices, resolution, ring_weights
from irrepc.nn.so2 import FrameMatrices, OrderGate, Rotate, RotateBack, SO2Convolution, complex_product, degree_order
from irrepc.nn.so3_linear import SO3Linear

LMAX, MMAX, CHANNELS, ATOMS, EDGES = 3, 2, 5, 4, 9
COMPONENTS = (LMAX + 1) ** 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def edges() -> tuple[Index, Index]:
    generator = torch.Generator().manual_seed(1)
    return tuple(index_of(torch.randint(0, ATOMS, (EDGES,), generator=generator), ATOMS) for _ in "sr")  # type: ignore


def dense(lmax: int, q: Tensor) -> Tensor:
    """Block-diagonal D (E, (lmax+1)², (lmax+1)²)."""
    blocks = WignerD(lmax, "torch").blocks(q)
    return torch.stack([torch.block_diag(*(b[e] for b in blocks)) for e in range(q.shape[0])])


def turn(x: Tensor, q: Tensor, lmax: int, channels: int) -> Tensor:
    """Features of all rows turned by one rotation."""
    d = dense(lmax, q[None])[0]
    return (d @ x.unflatten(1, (-1, channels))).flatten(1)


def rows(lmax: int, mmax: int) -> list[int]:
    """Places l² + l + m of the components by order."""
    return [l * l + l + m for part in orders(lmax, mmax) for m, l in part]


@pytest.mark.parametrize("backend", ["torch", "llvm"])
@pytest.mark.parametrize("mmax", [0, 1, 3])
def test_only_the_kept_rows_of_d(backend: str, mmax: int) -> None:
    q = random_quaternions(EDGES, torch.Generator().manual_seed(0))
    blocks = WignerD(3, "torch").blocks(invert_quaternion(q))
    kept = [b[:, l - min(l, mmax) : l + min(l, mmax) + 1].flatten(1) for l, b in enumerate(blocks)]
    found = FrameMatrices(3, mmax, backend)(q)
    torch.testing.assert_close(found, torch.cat(kept, 1), rtol=1e-14, atol=1e-14)


def test_the_rows_of_order_zero_are_harmonics_of_the_edge() -> None:
    n = torch.nn.functional.normalize(random(EDGES, 3), dim=1)
    expected = SphericalHarmonics(4, "norm", backend="torch")(n)
    torch.testing.assert_close(FrameMatrices(4, 0, "torch")(frame_quaternions(n)), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("weights", ["none", "degree", "order"])
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_rotation_into_frames_is_the_dense_product(backend: str, sides: int, weights: str) -> None:
    senders, receivers = edges()
    q = random_quaternions(EDGES, torch.Generator().manual_seed(2))
    x = random(ATOMS, COMPONENTS * CHANNELS)
    layer = Rotate(LMAX, MMAX, CHANNELS, sides=sides, weights=weights, backend=backend)
    w = random(EDGES, layer.weight_numel, seed=3) if weights != "none" else None
    found = layer(x, FrameMatrices(LMAX, MMAX, "torch")(q), senders, receivers, w)
    # features of both ends, side by side, through the whole matrix
    ends = [x.unflatten(1, (-1, CHANNELS))[i.values] for i in (senders, receivers)[:sides]]
    whole = (dense(LMAX, invert_quaternion(q)) @ torch.cat(ends, 2))[:, rows(LMAX, MMAX)]
    if w is not None:
        slots = [(m, l) for m in range(MMAX + 1) for l in range(m, LMAX + 1)]
        places = [
            slots.index((abs(m), l)) if weights == "order" else l for part in orders(LMAX, MMAX) for m, l in part
        ]
        whole = whole * w.unflatten(1, (-1, sides * CHANNELS))[:, places]
    torch.testing.assert_close(torch.cat(found, 1), whole.flatten(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_rotation_back_is_the_dense_product(backend: str, heads: int) -> None:
    _, receivers = edges()
    channels = 6
    q = random_quaternions(EDGES, torch.Generator().manual_seed(2))
    y = [random(EDGES, len(part) * channels, seed=m) for m, part in enumerate(orders(LMAX, MMAX))]
    a = random(EDGES, heads, seed=5) if heads else None
    layer = RotateBack(LMAX, MMAX, channels, heads=heads, backend=backend)
    found = layer(tuple(y), FrameMatrices(LMAX, MMAX, "torch")(q), receivers, a)
    whole = torch.cat([v.unflatten(1, (-1, channels)) for v in y], 1)
    if a is not None:
        whole = whole * a.repeat_interleave(channels // heads, 1)[:, None]
    back = dense(LMAX, invert_quaternion(q))[:, rows(LMAX, MMAX)].mT @ whole
    expected = torch.zeros(ATOMS, COMPONENTS, channels, dtype=torch.float64).index_add(0, receivers.values, back)
    torch.testing.assert_close(found, expected.flatten(1), rtol=1e-12, atol=1e-12)


def test_wrong_operands_are_refused() -> None:
    senders, receivers = edges()
    x, d = random(ATOMS, 4 * CHANNELS), random(EDGES, 10)
    with pytest.raises(InputError, match="got w absent"):
        Rotate(1, 1, CHANNELS, weights="order", backend="torch")(x, d, senders, receivers)
    with pytest.raises(InputError, match="got w given"):
        Rotate(1, 1, CHANNELS, backend="torch")(x, d, senders, receivers, d)
    with pytest.raises(InputError, match="expected heads=0"):
        RotateBack(1, 0, CHANNELS, backend="torch")((x,), d, receivers, d)
    with pytest.raises(InputError, match="5 channels in 2 heads"):
        RotateBack(1, 0, CHANNELS, heads=2, backend="torch")
    with pytest.raises(RecipeError, match="mmax 3"):
        FrameMatrices(2, 3, "torch")
    with pytest.raises(RecipeError, match="weights 'each'"):
        Rotate.__init__(Rotate.__new__(Rotate), 1, 1, CHANNELS, weights="each", backend="torch")


def messages(x: Tensor, n: Tensor, roll: Tensor, kind: str) -> Tensor:
    """A whole message: there, convolution, gate or grid, convolution, back; frames rolled about the edge."""
    torch.manual_seed(0)
    hidden, extra = 3, LMAX * 3 if kind == "gate" else 3
    first = SO2Convolution(LMAX, MMAX, 2 * CHANNELS, hidden, extra=extra).double()
    second = SO2Convolution(LMAX, MMAX, hidden, CHANNELS).double()
    zero = torch.zeros_like(roll)
    about = torch.stack(((roll / 2).cos(), zero, (roll / 2).sin(), zero), 1)
    d = FrameMatrices(LMAX, MMAX, "torch")(multiply_quaternions(frame_quaternions(n), about))
    senders, receivers = edges()
    extra_scalars, y = first(Rotate(LMAX, MMAX, CHANNELS, backend="torch")(x, d, senders, receivers))
    if kind == "gate":
        y = OrderGate(LMAX, MMAX, hidden, "torch")(y, extra_scalars)
    else:
        grid = S2Grid(LMAX, MMAX, rings_and_points=(40, 40) if kind == "fine grid" else None)
        y = OrderS2Activation(grid, hidden)(y, extra_scalars)
    out: Tensor = RotateBack(LMAX, MMAX, CHANNELS, backend="torch")(second(y)[1], d, receivers)
    return out


@pytest.mark.parametrize(("kind", "bound"), [("gate", 1e-12), ("fine grid", 1e-12), ("coarse grid", None)])
def test_messages_turn_with_the_atoms_whatever_the_roll(kind: str, bound: float | None) -> None:
    x = random(ATOMS, COMPONENTS * CHANNELS)
    n = torch.nn.functional.normalize(random(EDGES, 3, seed=1), dim=1)
    q = random_quaternions(1, torch.Generator().manual_seed(4))[0]
    before = messages(x, n, random(EDGES, seed=5), kind)
    turned = messages(turn(x, q, LMAX, CHANNELS), (dense(1, q[None])[0, 1:, 1:] @ n.mT).mT, random(EDGES, seed=6), kind)
    error = float((turned - turn(before, q, LMAX, CHANNELS)).abs().max().detach() / before.abs().max().detach())
    assert error < bound if bound is not None else 1e-4 < error < 0.5


def test_three_real_products_make_a_complex_one() -> None:
    real, imaginary, x = random(3, 4, seed=1), random(3, 4, seed=2), random(7, 8, seed=3)
    z = torch.complex(real, imaginary) @ torch.complex(x[:, :4], x[:, 4:]).mT
    found = complex_product(x, torch.cat((real, imaginary)))
    torch.testing.assert_close(found, torch.cat((z.real, z.imag)).mT, rtol=1e-14, atol=1e-14)


def test_extra_scalars_come_first() -> None:
    layer = SO2Convolution(1, 1, 2, 3, extra=4).double()
    x = (random(5, 4), random(5, 4, seed=1))
    extra, y = layer(x)
    expected = x[0] @ layer.weight_0.mT + layer.bias_0
    torch.testing.assert_close(torch.cat((extra, y[0]), 1), expected, rtol=1e-14, atol=1e-14)
    assert [tuple(v.shape) for v in y] == [(5, 6), (5, 6)]


def test_components_by_order() -> None:
    assert orders(2, 1) == (((0, 0), (0, 1), (0, 2)), ((1, 1), (1, 2), (-1, 1), (-1, 2)))
    # by degree: 0; -1 0 1; -1 0 1
    assert degree_order(2, 1) == [0, 2, 5, 3, 6, 1, 4]


# ── the grid ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("normalization", ["integral", "component"])
@pytest.mark.parametrize("shape", [None, (18, 18)])
@pytest.mark.parametrize("lmax", [1, 2, 4, 6])
def test_there_and_back_is_the_identity(lmax: int, shape: tuple[int, int] | None, normalization: str) -> None:
    there, back = grid_matrices(lmax, lmax, normalization=normalization, rings_and_points=shape)
    unit = torch.eye((lmax + 1) ** 2, dtype=torch.float64)
    torch.testing.assert_close(back.mT @ there, unit, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rings", [2, 6, 12, 18])
def test_the_quadrature_is_exact_for_polynomials_below_the_number_of_rings(rings: int) -> None:
    beta = (torch.arange(rings, dtype=torch.float64) + 0.5) * (math.pi / rings)
    weights = ring_weights(rings)
    for degree in range(rings):
        exact = 0.0 if degree % 2 else 1 / (degree + 1)
        assert abs(float((weights * beta.cos() ** degree).sum()) - exact) < 1e-14
    # cos^rings is the first even power that the rings cannot integrate
    assert abs(float((weights * beta.cos() ** rings).sum()) - 1 / (rings + 1)) > 1e-9


def test_values_are_those_of_the_function() -> None:
    there, _ = grid_matrices(2, 2)
    assert resolution(2, 2) == (6, 7)
    beta, alpha = 1.5 * math.pi / 6, 2 * 2 * math.pi / 7
    direction = [math.sin(beta) * math.sin(alpha), math.cos(beta), math.sin(beta) * math.cos(alpha)]
    expected = SphericalHarmonics(2, "integral", backend="torch")(torch.tensor([direction], dtype=torch.float64))
    torch.testing.assert_close(there[1 * 7 + 2], expected[0], rtol=1e-14, atol=1e-15)


def test_the_grid_keeps_its_numbers_in_every_dtype() -> None:
    grid = S2Grid(2).float().double()
    assert torch.equal(grid.to_grid, grid_matrices(2, 2)[0])
    assert grid.values(torch.ones(1, 9, 2)).dtype == torch.float32


@pytest.mark.parametrize("rings", [0, 5])
def test_odd_numbers_of_rings_are_refused(rings: int) -> None:
    with pytest.raises(InputError, match=f"got {rings} rings"):
        ring_weights(rings)
    with pytest.raises(InputError, match="normalization 'norm'"):
        grid_matrices(1, 1, normalization="norm")


# ── maps and norms of features by degree ─────────────────────────────────────────────────────────


def test_linear_maps_each_degree_alike() -> None:
    layer = SO3Linear(2, 3, 4).double()
    torch.nn.init.normal_(layer.bias)
    x = random(6, 27)
    y = layer(x).unflatten(1, (9, 4))
    for l in range(3):
        part = x.unflatten(1, (9, 3))[:, l * l : (l + 1) ** 2] @ layer.weight[l].mT
        torch.testing.assert_close(y[:, l * l : (l + 1) ** 2], part + (layer.bias if l == 0 else 0))


@pytest.mark.parametrize("kind", NORMS)
def test_norms_turn_along_and_take_the_scale_away(kind: str) -> None:
    layer = degree_norm(kind, LMAX, CHANNELS).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = random(6, COMPONENTS * CHANNELS)
    q = random_quaternions(1, torch.Generator().manual_seed(4))[0]
    expected = turn(layer(x), q, LMAX, CHANNELS)
    torch.testing.assert_close(layer(turn(x, q, LMAX, CHANNELS)), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(1e4 * x), layer(1e6 * x), rtol=1e-8, atol=1e-8)


def test_mean_squares_after_the_norms() -> None:
    x = random(6, COMPONENTS * CHANNELS) * 3
    starts = [l * l for l in range(LMAX + 2)]

    def squares(kind: str) -> Tensor:
        y = degree_norm(kind, LMAX, CHANNELS).double()(x).unflatten(1, (-1, CHANNELS))
        return torch.stack([y[:, a:b].square().mean((1, 2)) for a, b in pairwise(starts)], 1)

    one = torch.ones(6, dtype=torch.float64)
    close = {"rtol": 1e-4, "atol": 1e-4}  # epsilon
    torch.testing.assert_close(squares("rms_norm_sh").mean(1), one, **close)
    torch.testing.assert_close(squares("layer_norm_sh")[:, 1:].mean(1), one, **close)
    torch.testing.assert_close(squares("layer_norm_sh")[:, 0], one, **close)
    torch.testing.assert_close(squares("layer_norm"), one[:, None].expand(-1, LMAX + 1), **close)


def test_unknown_norms_are_refused() -> None:
    with pytest.raises(InputError, match="got 'batch'; expected one of rms_norm_sh"):
        degree_norm("batch", 1, 1)
