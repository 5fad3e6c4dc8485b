"""Networks of e3nn's modules with generated kernels inside: they train, load, copy and compile as before."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from e3nn import nn as layers
from e3nn import o3
from e3nn.nn.models.v2106 import gate_points_networks
from torch import Tensor, nn

import irrepc.e3nn
from irrepc.interop.e3nn_parts import Product
from tests.e3nn_pairs import agree, pair


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """e3nn rounds its constants to torch's default dtype when a module is built."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


# ── networks ─────────────────────────────────────────────────────────────────────────────────────


class Interaction(nn.Module):
    """A NequIP layer of e3nn's modules: linear, convolution with radial weights, linear, self-connection, gate."""

    def __init__(self, irreps: str, out: str, lmax: int) -> None:
        super().__init__()
        given, harmonics = o3.Irreps(irreps), o3.Irreps.spherical_harmonics(lmax)
        scalars = o3.Irreps([b for b in o3.Irreps(out) if b.ir.l == 0])
        gated = o3.Irreps([b for b in o3.Irreps(out) if b.ir.l > 0])
        gates = o3.Irreps([(gated.num_irreps, "0e")])
        tanh, silu = torch.tanh, nn.functional.silu
        self.gate = layers.Gate(scalars, [silu if b.ir.p == 1 else tanh for b in scalars], gates, [silu], gated)
        middle, instructions = [], []
        for i, (mul, a) in enumerate(given):
            for j, (_, b) in enumerate(harmonics):
                for c in a * b:
                    if c in self.gate.irreps_in:
                        instructions.append((i, j, len(middle), "uvu", True))
                        middle.append((mul, c))
        self.up = o3.Linear(given, given)
        self.convolution = o3.TensorProduct(
            given, harmonics, o3.Irreps(middle), instructions, shared_weights=False, internal_weights=False
        )
        self.radial = layers.FullyConnectedNet([4, 8, self.convolution.weight_numel], silu)
        self.down = o3.Linear(o3.Irreps(middle).simplify(), self.gate.irreps_in)
        self.connection = o3.FullyConnectedTensorProduct(given, "2x0e", self.gate.irreps_in)

    def forward(self, x: Tensor, kinds: Tensor, y: Tensor, lengths: Tensor, edges: Tensor) -> Tensor:
        messages = self.convolution(self.up(x)[edges[0]], y, self.radial(lengths))
        received = messages.new_zeros(len(x), messages.shape[1]).index_add(0, edges[1], messages)
        return self.gate(self.down(received) + self.connection(x, kinds))


class Network(nn.Module):
    """Energy of positions: two interactions and a readout."""

    def __init__(self, features: str = "3x0e+2x1o+2x1e") -> None:
        super().__init__()
        self.harmonics = o3.SphericalHarmonics("0e+1o+2e", True, "component")
        self.first = Interaction("2x0e", features, 2)
        self.second = Interaction(str(self.first.gate.irreps_out), features, 2)
        self.readout = o3.Linear(self.second.gate.irreps_out, "1x0e", biases=True)

    def forward(self, positions: Tensor) -> Tensor:
        edges = (1 - torch.eye(len(positions))).nonzero().T
        r = positions[edges[0]] - positions[edges[1]]
        lengths = torch.exp(-(r.norm(dim=1, keepdim=True) - torch.arange(4.0)).square())
        kinds = torch.eye(2)[torch.arange(len(positions)) % 2]
        y = self.harmonics(r)
        x = self.first(kinds, kinds, y, lengths, edges)
        return self.readout(self.second(x, kinds, y, lengths, edges)).sum()


def test_a_network_trains_on_forces_as_before() -> None:
    theirs, ours = pair(Network)
    found = irrepc.e3nn.report(ours)
    assert not found.left
    assert {kind for _, kind in found.replaced} == {
        "SphericalHarmonics", "Linear", "TensorProduct", "FullyConnectedTensorProduct", "Extract",
        "ElementwiseTensorProduct",
    }  # fmt: skip
    agree(theirs, ours, torch.randn(4, 3))


def test_a_network_of_the_package() -> None:
    def build() -> nn.Module:
        made = gate_points_networks.SimpleNetwork(
            "2x0e+1x1o", "2x0e+1x1o", max_radius=3.0, num_neighbors=3.0, num_nodes=4.0, mul=2, layers=1, lmax=1
        )
        made.mp.layers[0].first.fc.double()
        return made

    theirs, ours = pair(build)
    data = {"pos": torch.randn(4, 3), "x": torch.randn(4, 5)}
    assert not irrepc.e3nn.report(ours).left
    assert len(irrepc.e3nn.report(ours).replaced) > 6
    assert float((theirs(data) - ours(data)).detach().abs().max()) < 1e-12


# ── what stays ───────────────────────────────────────────────────────────────────────────────────


def test_module_parameters_and_methods_stay() -> None:
    product = o3.FullyConnectedTensorProduct("2x0e+1x1o", "1x1o", "2x1o+1x0e", compile_right=True)
    weight, shared = product.weight, nn.ModuleList([product, product])
    views, right = [v.shape for v in product.weight_views()], product.right(torch.ones(1, 3))
    assert irrepc.e3nn.replace(shared, "torch") is shared
    assert shared[0] is shared[1] is product
    assert product.weight is weight and isinstance(product, o3.FullyConnectedTensorProduct)
    assert [v.shape for v in product.weight_views()] == views
    assert torch.equal(product.right(torch.ones(1, 3)), right)
    assert irrepc.e3nn.report(shared).replaced == (("0", "FullyConnectedTensorProduct"),)


def test_replacing_twice_changes_the_backend_and_nothing_else() -> None:
    once = irrepc.e3nn.replace(Network(), "torch")
    state, found, positions = once.state_dict(), irrepc.e3nn.report(once), torch.randn(4, 3)
    energy = once(positions)
    twice = irrepc.e3nn.replace(once, "torch")
    assert irrepc.e3nn.report(twice) == found
    assert list(twice.state_dict()) == list(state)
    assert torch.equal(twice(positions), energy)


def test_copies_pickles_and_dtypes() -> None:
    network = irrepc.e3nn.replace(Network(), "torch")
    positions = torch.randn(4, 3)
    energy = network(positions)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(positions), energy)
        assert list(other.state_dict()) == list(network.state_dict())
        assert isinstance(other.first.convolution._compiled_main_left_right, Product)
        assert other.first.up.weight is not network.first.up.weight
    product = irrepc.e3nn.replace(o3.FullyConnectedTensorProduct("2x0e+1x1o", "1x1o", "2x1o+1x0e"), "torch").float()
    assert product(torch.ones(1, 5).float(), torch.ones(1, 3).float()).dtype is torch.float32


def test_torch_compile_takes_the_graph_whole() -> None:
    theirs, ours = pair(lambda: o3.FullyConnectedTensorProduct("2x0e+2x1o", "0e+1o", "2x0e+1x1o+2x1e"), "auto")
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    agree_first(theirs, compiled, torch.randn(4, 8), torch.randn(4, 4))


def agree_first(theirs: nn.Module, ours: nn.Module, *inputs: Tensor) -> None:
    """The output and the gradients of the inputs, to 1e-12."""
    for t in inputs:
        t.requires_grad_()
    a, b = theirs(*inputs), ours(*inputs)
    pairs = zip(torch.autograd.grad(a.sin().sum(), inputs), torch.autograd.grad(b.sin().sum(), inputs), strict=True)
    for p, q in ((a, b), *pairs):
        assert float((p - q).detach().abs().max()) < 1e-12
