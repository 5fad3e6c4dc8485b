"""Layers of graph attention against the general layers and formulas they are special cases of."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError, IrrepsError
from irrepc.nn.attention import edge_softmax, edges_of
from irrepc.nn.block_linear import BlockLinear, apart, together
from irrepc.nn.depthwise import Depthwise, DepthwiseProduct, DepthwiseSum
from irrepc.nn.distance_bases import EnvelopedBessel, ExponentialBasis, RadialProfile, TrainedGaussians
from irrepc.nn.dropout import ChannelDropout, EquivariantDropout, PathDropout
from irrepc.nn.gate import Gate
from irrepc.nn.graph import Graph, graph_from_edges, index_of
from irrepc.nn.linear import Linear
from irrepc.nn.swish_gate import SwishGate
from irrepc.nn.tensor_product import TensorProduct

FEATURES, EDGE = Irreps.of("4x0e+3x0o+3x1e+2x1o"), Irreps.of("1x0e+1x1o+1x2e")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def graph() -> Graph:
    """Five atoms, the last two without neighbours."""
    senders, receivers = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 0, 1, 2, 2])
    return graph_from_edges(normal(5, 3), torch.zeros(5, dtype=torch.int64), senders, receivers)


def test_apart_and_together() -> None:
    x = normal(3, FEATURES.dim)
    blocks = apart(x, FEATURES)
    assert [tuple(b.shape) for b in blocks] == [(3, 4), (3, 3), (9, 3), (9, 2)]
    assert torch.equal(together(blocks, FEATURES), x)
    assert together(apart(x[:0], FEATURES), FEATURES).shape == (0, FEATURES.dim)


def test_a_block_linear_is_a_linear_map_without_its_scale() -> None:
    out = Irreps.of("2x1o+5x0e+2x2e+3x1e")
    layer = BlockLinear(FEATURES, out, dtype=torch.float64)
    general = Linear(FEATURES, out, bias=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(normal(layer.weight_numel))
        layer.bias.copy_(normal(5, seed=1))
        general.bias.copy_(layer.bias)
        fans = [math.sqrt(n) for n, m in layer._shapes for _ in range(n * m)]
        general.weight.copy_(layer.weight * torch.tensor(fans, dtype=torch.float64))
    x = normal(3, FEATURES.dim, seed=2)
    close(together(layer(apart(x, FEATURES)), out), general(x))
    with pytest.raises(IrrepsError, match="each irrep once"):
        BlockLinear("2x0e+1x0e", "1x0e")


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_a_depthwise_product_is_a_tensor_product(backend: str) -> None:
    layer = DepthwiseProduct(FEATURES, EDGE, FEATURES, backend)
    plan = layer.plan
    instructions = [(p.left, p.right, p.out, "uvu", True) for p in plan.paths]
    general = TensorProduct(
        FEATURES, EDGE, plan.blocks, instructions, path_normalization="none", shared_weights=False, backend="torch"
    )
    assert [(b.irrep.l, -b.irrep.p) for b in plan.irreps_out] == sorted({(b.irrep.l, -b.irrep.p) for b in plan.blocks})
    x, y, w = normal(4, FEATURES.dim), normal(4, EDGE.dim, seed=1), normal(4, layer.weight_numel, seed=2)
    expected = general(x, y, w).split_with_sizes([b.dim for b in plan.blocks], 1)
    for found, block in zip(layer(x, y, w), plan.irreps_out, strict=True):
        parts = [
            part.view(4, b.irrep.dim, b.mul)
            for part, b in zip(expected, plan.blocks, strict=True)
            if b.irrep == block.irrep
        ]
        close(found.view(4, block.irrep.dim, block.mul), torch.cat(parts, 2))


@pytest.mark.parametrize("backend", ["torch", "llvm"])
def test_a_depthwise_sum_adds_up_the_product(backend: str) -> None:
    layer = DepthwiseSum(FEATURES, EDGE, FEATURES, backend)
    product = DepthwiseProduct(FEATURES, EDGE, FEATURES, "torch")
    senders, receivers = index_of(torch.tensor([1, 0, 2, 2]), 3), index_of(torch.tensor([0, 0, 3, 1]), 4)
    x, y = normal(3, FEATURES.dim), normal(4, EDGE.dim, seed=1)
    edges = product(x[senders.values], y, torch.ones(4, product.weight_numel, dtype=torch.float64))
    summed = together(edges, product.irreps_out)
    expected = summed.new_zeros(4, summed.shape[1]).index_add(0, receivers.values, summed)
    close(together(layer(x, y, senders, receivers), layer.irreps_out), expected)


def test_weights_of_a_depthwise_product_are_sorted_with_its_blocks() -> None:
    plan = Depthwise(Irreps.of("2x0e+1x1o"), Irreps.of("1x0e+1x1o"), Irreps.of("0e+1o"))
    # 0e⊗0e→0e, 0e⊗1o→1o, 1o⊗0e→1o, 1o⊗1o→0e
    assert plan.degrees() == ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))
    assert str(plan.blocks) == "2x0e+1x0e+2x1o+1x1o"
    assert plan.sorted_weight(torch.arange(6)).tolist() == [0, 1, 5, 2, 3, 4]
    with pytest.raises(IrrepsError, match="multiplicity 1"):
        Depthwise(FEATURES, Irreps.of("2x0e"), FEATURES)


@pytest.mark.parametrize("backend", ["torch", "llvm"])
@pytest.mark.parametrize("text", ["3x0e+2x1e+1x2e", "3x0e"])
def test_a_swish_gate_is_a_gate(text: str, backend: str) -> None:
    layer = SwishGate(text, backend).double()
    gated = Irreps(layer.irreps_out.blocks[1:])
    gates = [f"{b.mul}x0e" for b in gated]
    general = Gate("3x0e", ["silu"], "+".join(gates), ["sigmoid"] * len(gates), gated)
    assert general.irreps_in == layer.irreps_in
    x = normal(4, layer.irreps_in.dim)
    close(layer(apart(x, layer.irreps_in)), general(x))
    with pytest.raises(IrrepsError, match="0e in the first block"):
        SwishGate("1x1o+2x0e")


def test_the_gains_of_a_gate_are_rounded_once() -> None:
    there_and_back = SwishGate("2x0e+1x1e", "torch").double().float().double()
    assert there_and_back.gains.tolist() == [1.6791767923989418] * 2 + [1.8467055342154763]


def test_softmax_over_the_edges_of_a_receiver() -> None:
    index = index_of(torch.tensor([0, 2, 0, 2, 2]), 4)
    scores = normal(5, 2) * 300  # exp alone would overflow
    found = edge_softmax(scores, index)
    for row in (0, 2):
        close(found[index.values == row], torch.softmax(scores[index.values == row], 0))
    assert edge_softmax(scores[:0], index_of(index.values[:0], 4)).shape == (0, 2)


def test_rows_of_heads() -> None:
    g = graph()
    edges = edges_of(g, normal(5, 4), normal(5, 2), 3)
    for found, values, rows in (
        (edges.copies, torch.arange(5).repeat(3), 5),
        (edges.targets, torch.cat([g.receivers.values + 5 * h for h in range(3)]), 15),
    ):
        for a, b in zip(found, index_of(values, rows), strict=True):
            assert torch.equal(a, b)


def test_bases_are_their_formulas() -> None:
    r = torch.tensor([0.3, 1.7, 3.9], dtype=torch.float64)
    d, cutoff = r.numpy()[:, None], 4.0
    gaussians = TrainedGaussians(cutoff, 5, dtype=torch.float64)
    mean, width = gaussians.mean.detach().numpy(), np.abs(gaussians.width.detach().numpy()) + 1e-5
    values = np.exp(-0.5 * ((d / cutoff - mean) / width) ** 2) / (np.sqrt(2 * 3.14159) * width)
    np.testing.assert_allclose(gaussians(r).detach().numpy(), values, rtol=1e-12)
    exponentials = ExponentialBasis(cutoff, 6, dtype=torch.float64)
    means, beta = np.linspace(np.exp(-cutoff), 1, 6), (2 / 6 * (1 - np.exp(-cutoff))) ** -2
    values = 0.5 * (np.cos(np.pi * d / cutoff) + 1) * np.exp(-beta * (np.exp(-5 * d / cutoff) - means) ** 2)
    np.testing.assert_allclose(exponentials(r).numpy(), values, rtol=1e-12)
    x, n = d / cutoff, np.arange(1, 5)
    envelope = 1 - 21 * x**5 + 35 * x**6 - 15 * x**7
    values = envelope * np.sqrt(2 / cutoff**3) * np.sin(n * np.pi * x) / x
    bessel = EnvelopedBessel(cutoff, 4, dtype=torch.float64)
    np.testing.assert_allclose(bessel(r).detach().numpy(), values, rtol=1e-12, atol=1e-15)


def test_the_radial_profile_is_a_perceptron() -> None:
    profile = RadialProfile((3, 4, 5, 6), dtype=torch.float64)
    v = normal(2, 3)
    hidden = v
    for layer, norm in zip(profile.layers, profile.norms, strict=True):
        hidden = torch.nn.functional.silu(norm(layer(hidden)))
    close(profile(v), hidden @ profile.last.T + profile.offset)
    with pytest.raises(InputError, match="three or more"):
        RadialProfile((3, 4))


def test_dropouts_drop_whole_copies_and_whole_structures() -> None:
    torch.manual_seed(0)
    irreps = Irreps.of("50x0e+40x1o")
    ones = [torch.ones(6, 50), torch.ones(18, 40)]
    layer, path = EquivariantDropout(irreps, 0.25), PathDropout(0.5)
    found = layer(ones)[1].view(6, 3, 40)
    assert torch.equal(found[:, 0], found[:, 1])
    assert {round(float(v), 6) for v in found.unique()} == {0.0, round(1 / 0.75, 6)}
    batch = torch.tensor([0, 0, 1, 1, 2, 2])
    branch = torch.stack([path(ones, batch, 3)[1].view(6, 3, 40) for _ in range(20)])
    assert {float(v) for v in branch.unique()} == {0.0, 2.0}
    assert torch.equal(branch[:, 0::2], branch[:, 1::2])
    channels = ChannelDropout(50, 0.2)
    kept = channels(torch.ones(30, 4 * 50)).view(30, 4, 50)
    assert torch.equal(kept[:, 0], kept[:, 3])
    assert {round(float(v), 6) for v in kept.unique()} == {0.0, 1.25}
    assert torch.equal(channels.eval()(ones[0]), ones[0])
    for module in (layer.eval(), path.eval()):
        assert (module(ones) if module is layer else module(ones, batch, 3)) is ones
    with pytest.raises(InputError, match="rate 1"):
        EquivariantDropout(irreps, 1)


def test_the_first_blocks_of_a_linear_map_need_no_others() -> None:
    layer = BlockLinear("3x0e+2x1e+2x2e", "4x0e+5x1e+1x2e").double()
    x = apart(normal(6, layer.irreps_in.dim), layer.irreps_in)
    for read in (1, 2):
        found = layer(x[:read], read)
        assert len(found) == read
        for a, b in zip(found, layer(x), strict=False):
            assert torch.equal(a, b)
