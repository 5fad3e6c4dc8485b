"""The layers of an emitted package against sums written down by hand, and the errors of layers."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from irrepc.emit.package import package

FEATURES = "3x0e+2x0o+2x1o+1x1e"


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The layers of lmax 1 with features of both parities and three multiplicities."""
    folder = tmp_path_factory.mktemp("layers")
    for path, text in package(1, irreps=FEATURES).items():
        (folder / "lmax1" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "lmax1" / path).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("lmax1.layers")
    sys.path.remove(str(folder))
    for name in [n for n in sys.modules if n.split(".")[0] == "lmax1"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def table(layers: ModuleType) -> ModuleType:
    return importlib.import_module("lmax1.clebsch_gordan")


def graph(layers: ModuleType) -> tuple[torch.Tensor, torch.Tensor, tuple[object, object]]:
    senders, receivers = torch.tensor([0, 2, 2, 1, 0]), torch.tensor([1, 1, 0, 1, 0])
    return senders, receivers, (layers.Index.of(senders, 4), layers.Index.of(receivers, 4))


def blocks(row: torch.Tensor, sides: list[tuple[int, int]]) -> list[torch.Tensor]:
    """A row cut into (rows, components, channels) of each (channels, degree)."""
    out, start = [], 0
    for channels, l in sides:
        stop = start + channels * (2 * l + 1)
        out.append(row[:, start:stop].reshape(len(row), 2 * l + 1, channels))
        start = stop
    assert start == row.shape[1]
    return out


def test_convolution_is_the_sum_over_edges(layers: ModuleType, table: ModuleType) -> None:
    """Against dense couplings, one edge and path after the other."""
    extents = {"u": 3, "u1": 2, "u2": 1}
    layer = layers.Convolution(backend="torch")
    assert layer.channels == (3, 2, 1), "the multiplicities of --irreps are the defaults"
    senders, receivers, indices = graph(layers)
    generator = torch.Generator().manual_seed(0)
    features = [(extents[a], int(i[0])) for a, i in layers.FEATURES]
    messages = [(extents[a], int(i[0])) for a, i in layers.MESSAGES]
    x = torch.randn(4, sum(c * (2 * l + 1) for c, l in features), generator=generator, dtype=torch.float64)
    y = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    w = torch.randn(5, layer.weight_numel, generator=generator, dtype=torch.float64)
    out = layer(x, y, w, *indices)
    expected = [torch.zeros(4, 2 * l + 1, c, dtype=torch.float64) for c, l in messages]
    paths = []
    for i, (a, left) in enumerate(layers.FEATURES):
        for j, (_, right) in enumerate(layers.HARMONICS):
            l1, l2 = int(left[0]), int(right[0])
            for l3 in range(abs(l1 - l2), min(l1 + l2, 1) + 1):
                paths.append((i, j, a, (l1, l2, l3)))
    assert len(paths) == len(messages)
    ys = [y[:, :1], y[:, 1:]]
    start = 0
    for k, (i, j, a, degrees) in enumerate(paths):
        coupling = torch.from_numpy(table.clebsch_gordan(*degrees)) * (2 * degrees[2] + 1) ** 0.5
        weight = w[:, start : start + extents[a]]
        start += extents[a]
        for e in range(5):
            left_block = blocks(x, features)[i][senders[e]]
            expected[k][receivers[e]] += torch.einsum("ijk,iu,j,u->ku", coupling, left_block, ys[j][e], weight[e])
    assert start == layer.weight_numel
    for got, want in zip(blocks(out, messages), expected, strict=True):
        assert torch.allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("name", ["Linear", "MessageLinear"])
def test_linear_mixes_channels_of_equal_irreps(name: str, layers: ModuleType) -> None:
    """Every output channel has unit variance, and is the sum written down by hand."""
    sides = layers.FEATURES if name == "Linear" else layers.MESSAGES
    before, after = {"u": 3, "u1": 2, "u2": 1}, {"v": 4, "v1": 1, "v2": 2}
    torch.manual_seed(0)
    layer = getattr(layers, name)(*before.values(), *after.values()).double()
    inputs = [(before[a], int(i[0])) for a, i in sides]
    outputs = [(after[a], int(i[0])) for a, i in layers.OUTPUTS]
    x = torch.randn(6, sum(c * (2 * l + 1) for c, l in inputs), dtype=torch.float64)
    got = blocks(layer(x), outputs)
    expected = [torch.zeros(6, 2 * l + 1, c, dtype=torch.float64) for c, l in outputs]
    fan_in = [sum(before[a] for a, i in sides if i == irrep) for _, irrep in layers.OUTPUTS]
    start = 0
    for (a, i), block in zip(sides, blocks(x, inputs), strict=True):
        for k, (b, irrep) in enumerate(layers.OUTPUTS):
            if i == irrep:
                stop = start + before[a] * after[b]
                matrix = layer.weight[start:stop].view(before[a], after[b])
                expected[k] += block @ matrix / fan_in[k] ** 0.5
                start = stop
    assert start == layer.weight.numel()
    for g, e in zip(got, expected, strict=True):
        assert torch.allclose(g, e, atol=1e-12)


def test_gate_opens_with_the_sigmoid_of_a_scalar(layers: ModuleType) -> None:
    layer = layers.Gate(3, 2, 1, backend="torch")
    assert layer.num_gates == 2 + 2 + 1
    x, gates = torch.randn(5, 3 + 2 + 6 + 3), torch.randn(5, 5)
    out = layer(x, gates)
    assert torch.allclose(out[:, :3], torch.nn.functional.silu(x[:, :3]))
    assert torch.allclose(out[:, 3:5], x[:, 3:5] * gates[:, :2].sigmoid())
    vectors = x[:, 5:11].view(5, 3, 2) * gates[:, None, 2:4].sigmoid()
    assert torch.allclose(out[:, 5:11], vectors.reshape(5, 6))


def test_norm_has_a_gradient_at_zero(layers: ModuleType) -> None:
    layer = layers.Norm(3, 2, 1, backend="torch")
    x = torch.randn(2, 14)
    x[0] = 0
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad[0] == 0).all()
    assert torch.allclose(layer(x.detach())[1, 3:5], x.detach()[1, 3:5].abs())


def test_harmonics_turn_with_wigner_d_and_vectors_cross(layers: ModuleType) -> None:
    q = torch.nn.functional.normalize(torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64))
    matrices = layers.WignerD(backend="torch")(q)
    rotation = layers.WignerD.block(matrices, 1)[0]
    r = torch.randn(4, 3, dtype=torch.float64)
    harmonics = layers.SphericalHarmonics(backend="torch")
    assert torch.allclose(harmonics(r @ rotation.T)[:, 1:], harmonics(r)[:, 1:] @ rotation.T)
    assert torch.allclose(harmonics(r)[:, 1:], 3**0.5 * r)
    product = layers.TensorProduct("1o x 1o -> 1e", 1, backend="torch")
    assert torch.allclose(product(r[:2], r[2:]) * 6**0.5, torch.linalg.cross(r[:2], r[2:]))


def test_compiled_layers_agree_with_torch_and_differentiate_twice(layers: ModuleType) -> None:
    """numba takes a while to compile: one small kernel."""
    values = []
    for backend in ("torch", "numba", "auto"):
        layer = layers.SphericalHarmonics(backend=backend)
        r = torch.tensor([[0.3, -1.0, 2.0], [0.5, 0.1, 0.2]], requires_grad=True)
        value = layer(r)
        (gradient,) = torch.autograd.grad(value.square().sum(), r, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), r)
        values.append((value, gradient, second))
    for got in values[1:]:
        for g, expected in zip(got, values[0], strict=True):
            assert torch.allclose(g, expected, rtol=1e-5)


def test_layers_copy_pickle_and_say_what_they_are(layers: ModuleType) -> None:
    layer = layers.SphericalHarmonics(backend="auto")
    r = torch.randn(2, 3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(r), layer(r))
    assert "backend=auto" in repr(layer)
    assert layer.state_dict() == {}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: m.SphericalHarmonics(backend="fortran"), "expected one of auto, torch, numba"),
        (lambda m: m.TensorProduct("1o x 1o -> 3e", 1), "expected one of tensor_product_0e_0e_0e"),
        (lambda m: m.SphericalHarmonics(backend="torch")(torch.zeros(2, 4)), "expected"),
        (lambda m: m.SphericalHarmonics(backend="torch")(torch.zeros(2, 3, dtype=torch.int64)), "expected float32"),
        (lambda m: m.Index.of(torch.tensor([0, 3]), 3), "got rows 0 to 3; expected 0 to 2"),
        (lambda m: m.Index.of(torch.tensor([0.0]), 3), "expected .edges,. of torch.int64"),
        (lambda m: m.Gate(2, 2, 1, backend="torch")(torch.zeros(1, 5), torch.zeros(1, 5)), "expected"),
    ],
)
def test_layers_refuse_what_does_not_fit(make: object, says: str, layers: ModuleType) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        make(layers)  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_layer_compiles_whole(backend: str, layers: ModuleType) -> None:
    layer = layers.Convolution(3, 2, 1, backend=backend)
    _, _, indices = graph(layers)
    x, y, w = torch.randn(4, 14, requires_grad=True), torch.randn(5, 4), torch.randn(5, layer.weight_numel)
    results = []
    for run in (layer, torch.compile(layer, fullgraph=True)):
        value = run(x, y, w, *indices)
        (gradient,) = torch.autograd.grad(value.square().sum(), x)
        results.append((value, gradient))
    for got, expected in zip(*results, strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5)
