"""e3nn's modules with generated kernels inside, against themselves: values, both derivatives, names, copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from e3nn import nn as layers
from e3nn import o3
from e3nn.nn.models.v2106 import gate_points_networks
from torch import Tensor, nn

import irrepc.e3nn
from irrepc.errors import BackendError, InputError, MissingExtraError
from irrepc.interop.e3nn_parts import Product, Scaling

Build = Callable[[], nn.Module]
ROWS = 4


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """e3nn rounds its constants to torch's default dtype when a module is built."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def pair(build: Build, backend: str = "torch") -> tuple[nn.Module, nn.Module]:
    """The same module of e3nn twice, once replaced; each has read the other's state_dict."""
    theirs, ours = build(), irrepc.e3nn.replace(build(), backend)
    state = theirs.state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in ours.state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def orders(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The output, its gradients and the gradients of those, with respect to inputs and parameters."""
    leaves = [*(t.detach().clone().requires_grad_() for t in inputs), *module.parameters()]
    out = module(*leaves[: len(inputs)])
    first = torch.autograd.grad(out.sin().sum(), leaves, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves, materialize_grads=True)
    return [out, *first, *second]


def agree(theirs: nn.Module, ours: nn.Module, *inputs: Tensor) -> None:
    """Fail unless all orders are equal to 1e-12."""
    for a, b in zip(orders(theirs, inputs), orders(ours, inputs), strict=True):
        assert a.shape == b.shape
        assert a.numel() == 0 or float((a - b).detach().abs().max()) < 1e-12 * max(1.0, float(a.detach().abs().max()))


# ── products ─────────────────────────────────────────────────────────────────────────────────────

LEFT, RIGHT, OUT = "3x0e+3x1o+1x2e", "3x1o+2x0e", "3x1o+6x1o+3x0e+4x1e+2x0e+6x0e+2x1o+1x0e"
EVERY_MODE = [
    (0, 0, 0, "uvu", True, 1.0),
    (0, 0, 0, "uvv", True, 0.5),
    (0, 1, 5, "uvuv", True, 1.0),
    (1, 1, 1, "uvuv", False, 1.0),
    (1, 0, 2, "uuu", True, 2.0),
    (1, 0, 3, "uuw", True, 1.0),
    (0, 1, 4, "uvv", True, 1.0),
    (1, 1, 6, "uvw", True, 1.0),
    (2, 0, 6, "uvw", True, 0.0),
    (0, 0, 0, "uuu", False, 1.0),
    (1, 0, 7, "uuw", False, 3.0),
    (1, 1, 0, "uvu", False, 1.0),
]


def numbers(module: nn.Module, shared: bool) -> tuple[Tensor, ...]:
    """Inputs of a product, with the weights it does not hold."""
    x, y = torch.randn(ROWS, module.irreps_in1.dim), torch.randn(ROWS, module.irreps_in2.dim)
    if module.internal_weights:
        return x, y
    return x, y, torch.randn(module.weight_numel) if shared else torch.randn(ROWS, module.weight_numel)


@pytest.mark.parametrize(("shared", "internal"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("mode", range(len(EVERY_MODE)))
def test_each_mode_by_itself(mode: int, shared: bool, internal: bool) -> None:
    def build() -> nn.Module:
        chosen = [EVERY_MODE[mode]]
        return o3.TensorProduct(LEFT, RIGHT, OUT, chosen, shared_weights=shared, internal_weights=internal)

    theirs, ours = pair(build)
    agree(theirs, ours, *numbers(theirs, shared))


@pytest.mark.parametrize("irrep_normalization", ["component", "norm", "none"])
@pytest.mark.parametrize("path_normalization", ["element", "path", "none"])
def test_all_modes_and_normalizations(irrep_normalization: str, path_normalization: str) -> None:
    def build() -> nn.Module:
        return o3.TensorProduct(
            LEFT, RIGHT, OUT, EVERY_MODE,
            in1_var=[1.0, 2.0, 0.5], in2_var=[0.3, 1.0], out_var=[1.0, 2.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0],
            irrep_normalization=irrep_normalization, path_normalization=path_normalization,
        )  # fmt: skip

    theirs, ours = pair(build)
    agree(theirs, ours, *numbers(theirs, True))


@pytest.mark.parametrize("backend", ["auto", "numba"])
def test_compiled_backends_agree(backend: str) -> None:
    theirs, ours = pair(lambda: o3.FullyConnectedTensorProduct("2x0e+2x1o", "0e+1o", "2x0e+1x1o+2x1e"), backend)
    agree(theirs, ours, *numbers(theirs, True))
    assert f"backend={backend}" in repr(ours)


@pytest.mark.parametrize(
    "build",
    [
        lambda: o3.FullTensorProduct("2x0e+1x1o", "1x0o+2x1e", irrep_normalization="norm"),
        lambda: o3.FullTensorProduct("2x0e+1x1o", "1x0o+2x1e", filter_ir_out=["0o", "1o"]),
        lambda: o3.ElementwiseTensorProduct("3x0e+2x1o", "1x1o+4x0e"),
        lambda: o3.ElementwiseTensorProduct("2x0e+3x1o", "3x1o+2x1e", ["0e", "1e", "1o"], irrep_normalization="norm"),
        lambda: o3.FullyConnectedTensorProduct("2x0e+0x1o+2x1e", "1x1e+0x2e", "3x1e+0x0e+2x3o"),
        lambda: o3.FullyConnectedTensorProduct("2x0e", "1x1e", "3x3o"),
        lambda: o3.FullyConnectedTensorProduct("2x0e", "", "3x3o"),
    ],
)
def test_products_with_their_own_classes(build: Build) -> None:
    theirs, ours = pair(build)
    agree(theirs, ours, *numbers(theirs, True))
    assert type(ours) is type(theirs)


@pytest.mark.parametrize("out", [None, "2x0e+1x1e+2x2e"])
@pytest.mark.parametrize("irrep_normalization", ["component", "norm", "none"])
def test_tensor_square(out: str | None, irrep_normalization: str) -> None:
    theirs, ours = pair(lambda: o3.TensorSquare("3x0e+2x1o+1x1e", out, irrep_normalization=irrep_normalization))
    agree(theirs, ours, torch.randn(ROWS, 12))


def test_leading_dimensions_broadcast_as_before() -> None:
    theirs, ours = pair(lambda: o3.FullyConnectedTensorProduct("2x0e+1x1o", "1x0e+1x1o", "2x1o"))
    for left, right in (((2, 3, 5), (3, 4)), ((5,), (4,)), ((0, 5), (0, 4)), ((1, 5), (7, 4))):
        agree(theirs, ours, torch.randn(left), torch.randn(right))
    theirs, ours = pair(lambda: o3.TensorProduct("2x1o", "1o", "2x0e", [(0, 0, 0, "uvu", True)], shared_weights=False))
    agree(theirs, ours, torch.randn(2, 3, 6), torch.randn(3), torch.randn(2, 1, 2))


def test_weights_as_a_list_of_tensors() -> None:
    theirs, ours = pair(
        lambda: o3.FullyConnectedTensorProduct("2x0e+1x1o", "1o", "2x1o+1x0e", internal_weights=False)
    )
    x, y = torch.randn(3, 5), torch.randn(3, 3)
    weights = [torch.randn(i.path_shape) for i in theirs.instructions]
    assert float((theirs(x, y, weights) - ours(x, y, weights)).abs().max()) < 1e-12


def test_gates_need_no_kernel() -> None:
    ours = irrepc.e3nn.replace(o3.ElementwiseTensorProduct("2x1o+3x2e", "5x0o"), "torch")
    assert isinstance(ours._compiled_main_left_right, Scaling)


# ── the other classes ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("irreps", "out", "options"),
    [
        ("3x0e+2x1o+2x0e+1x2e", "2x0e+3x1o+1x0e", {}),
        ("3x0e+2x1o+2x0e", "2x0e+3x1o+2x3e+1x0e", {"biases": True}),
        ("3x0e+2x1o+2x0e", "2x0e+3x1o+1x0e", {"biases": [False, False, True], "path_normalization": "path"}),
        ("3x0e+2x0e+2x1o", "3x0e+2x0e+1x1o", {"instructions": [(0, 0), (1, 1), (0, 1)]}),
        ("2x0e+0x1o", "3x1o+0x0e", {"biases": True}),
        ("2x1o", "3x0e", {"biases": True}),
        ("2x0e+2x1o", "3x0e+1x1o", {"f_in": 2, "f_out": 3, "biases": True}),
    ],
)
def test_linear(irreps: str, out: str, options: dict[str, object]) -> None:
    theirs, ours = pair(lambda: o3.Linear(irreps, out, **options))
    with torch.no_grad():
        theirs.bias.normal_()
        ours.bias.copy_(theirs.bias)
    x = torch.randn(*((5, 3, 2) if "f_in" in options else (5, 3)), theirs.irreps_in.dim)
    agree(theirs, ours, x)


@pytest.mark.parametrize("shared", [True, False])
def test_linear_with_weights_of_the_call(shared: bool) -> None:
    theirs, ours = pair(
        lambda: o3.Linear("3x0e+2x1o", "2x0e+3x1o", shared_weights=shared, internal_weights=False, biases=True)
    )
    weight = torch.randn(*(() if shared else (ROWS,)), theirs.weight_numel)
    agree(theirs, ours, torch.randn(ROWS, 9), weight, torch.randn(1, theirs.bias_numel))


@pytest.mark.parametrize("normalization", ["component", "norm", "integral"])
@pytest.mark.parametrize(
    ("degrees", "normalize"), [([0, 1, 2, 3], True), ("2x1e+1x0e", True), (2, False), ("1o+3o", False)]
)
def test_spherical_harmonics(degrees: str | int | list[int], normalize: bool, normalization: str) -> None:
    theirs, ours = pair(lambda: o3.SphericalHarmonics(degrees, normalize, normalization))
    agree(theirs, ours, torch.randn(2, 3, 3))
    assert torch.equal(theirs(torch.zeros(1, 3)), ours(torch.zeros(1, 3)))


@pytest.mark.parametrize(
    ("scalars", "gates", "gated"),
    [
        (("4x0e+2x0o", [torch.tanh, torch.abs]), ("3x0e+2x0o", [torch.sigmoid, torch.tanh]), "2x1o+1x1e+2x2e"),
        (("4x0e", [torch.nn.functional.silu]), ("", []), ""),
        (("", []), ("3x0o", [torch.tanh]), "3x1o"),
    ],
)
def test_gate(scalars: tuple[str, list], gates: tuple[str, list], gated: str) -> None:
    theirs, ours = pair(lambda: layers.Gate(*scalars, *gates, gated))
    agree(theirs, ours, torch.randn(2, ROWS, theirs.irreps_in.dim))
    assert [name for name, _ in irrepc.e3nn.report(ours).replaced] == ["sc.cut", "mul"]


def test_extract() -> None:
    irreps, outs, which = "2x0e+1x1o+3x0e", ["3x0e+2x0e", "1x1o", ""], [(2, 0), (1,), ()]
    theirs, ours = pair(lambda: layers.Extract(irreps, outs, which))
    x = torch.randn(2, 3, 8)
    for a, b in zip(theirs(x), ours(x), strict=True):
        assert torch.equal(a, b)
    ours(x)[1].zero_()
    assert bool(x.abs().min() > 0)  # outputs are copies, as e3nn's
    for squeeze in (True, False):
        theirs, ours = pair(lambda squeeze=squeeze: layers.Extract(irreps, ["1x1o"], [(1,)], squeeze_out=squeeze))
        assert type(theirs(x)) is type(ours(x))
    theirs, ours = pair(lambda: layers.ExtractIr(irreps, "0e"))
    assert torch.equal(theirs(x), ours(x))


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
    agree_first(theirs, compiled, torch.randn(ROWS, 8), torch.randn(ROWS, 4))


def agree_first(theirs: nn.Module, ours: nn.Module, *inputs: Tensor) -> None:
    """The output and the gradients of the inputs, to 1e-12."""
    for t in inputs:
        t.requires_grad_()
    a, b = theirs(*inputs), ours(*inputs)
    pairs = zip(torch.autograd.grad(a.sin().sum(), inputs), torch.autograd.grad(b.sin().sum(), inputs), strict=True)
    for p, q in ((a, b), *pairs):
        assert float((p - q).detach().abs().max()) < 1e-12


# ── what is left, and errors ─────────────────────────────────────────────────────────────────────


def test_what_is_left_is_said() -> None:
    tree = nn.ModuleDict(
        {
            "open": o3.Linear("2x0e", "2x0e", f_in=2, f_out=3, internal_weights=False),
            "full": o3.experimental.FullTensorProductv2("1x1o", "1x1o"),
            "plain": nn.Linear(2, 2),
        }
    )
    before = irrepc.e3nn.report(nn.Sequential(o3.Linear("1x0e", "1x0e")))
    assert before.replaced == () and "not replaced yet" in before.left[0][1]
    found = irrepc.e3nn.report(irrepc.e3nn.replace(tree, "torch"))
    assert found.replaced == ()
    assert [name for name, _ in found.left] == ["open", "full"]
    assert "f_in and f_out" in found.left[0][1] and "no generated form" in found.left[1][1]
    assert "left      open: Linear: f_in" in str(found)


def test_an_unknown_mode_is_left() -> None:
    product = o3.TensorProduct("2x1o", "2x1o", "2x0e", [(0, 0, 0, "uuu", True)])
    product.instructions = [product.instructions[0]._replace(connection_mode="uvwx")]
    code = product._compiled_main_left_right
    assert irrepc.e3nn.replace(product, "torch")._compiled_main_left_right is code
    assert "got connection mode 'uvwx'" in irrepc.e3nn.report(product).left[0][1]


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="expected one of auto"):
        irrepc.e3nn.replace(nn.Linear(1, 1), "fast")
    product = irrepc.e3nn.replace(o3.FullyConnectedTensorProduct("1x1o", "1x1o", "1x0e"), "numba")
    with pytest.raises(InputError, match=r"got torch\.jit\.trace"):
        torch.jit.trace(product, (torch.ones(1, 3), torch.ones(1, 3)))
    with monkeypatch.context() as patch:
        patch.setattr("e3nn.__version__", "0.5.1")
        with pytest.raises(BackendError, match=r"got e3nn 0\.5\.1; expected 0\.6"):
            irrepc.e3nn.replace(product)
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "e3nn", None)
        with pytest.raises(MissingExtraError, match="irrepc"):
            irrepc.e3nn.replace(product)
