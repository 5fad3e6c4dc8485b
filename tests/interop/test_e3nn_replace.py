"""Each class of e3nn with generated kernels inside, against itself: values and both derivatives."""

from __future__ import annotations

from collections.abc import Iterator

import e3nn
import pytest
import torch
from e3nn import nn as layers
from e3nn import o3
from e3nn.util import jit
from e3nn.util.test import assert_equivariant
from torch import Tensor, nn

import irrepc.e3nn
from irrepc.errors import BackendError, InputError, MissingExtraError
from irrepc.interop.e3nn_parts import Scaling
from tests.e3nn_pairs import Build, agree, pair

ROWS = 4


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """e3nn rounds its constants to torch's default dtype when a module is built."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


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
    assert ours._compiled_main_left_right.backend == backend


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


PAIRS = o3.Irreps("3x0e+4x0o+1e+2o+3o")
THREE = o3.Irreps("5x0e+4x1o+1x2e")


@pytest.mark.parametrize(
    ("left", "right", "out", "instructions", "options"),
    [
        # a cross product, all pairs, variances, a dot product, features weighted by others, weights of unit variance
        ("4x1o", "4x1o", "4x1e", [(0, 0, 0, "uuu", False)], {}),
        ([(4, (1, -1))], [(4, (1, -1))], [(4, (1, 1))], [(0, 0, 0, "uvw", True)], {}),
        ("2x0o+2x1o", "4x1o", "4x1e", [(0, 0, 0, "uvw", True, 3), (1, 0, 0, "uvw", True, 1)], {"in2_var": [1 / 4]}),
        (PAIRS, PAIRS, "0e", [(i, i, 0, "uuw", False) for i in range(5)], {}),
        ("4x0o+3x1o", "5x0e+5x1e", "4x0o+3x1o", [(i, j, i, "uvu", True) for i, j in ((0, 0), (1, 0), (1, 1))], {}),
        (
            THREE, THREE, THREE,
            [
                (i, j, k, "uvw", True, a.mul * b.mul)
                for i, a in enumerate(THREE) for j, b in enumerate(THREE) for k, c in enumerate(THREE)
                if c.ir in a.ir * b.ir
            ],
            {},
        ),
    ],
)  # fmt: skip
def test_products_of_the_documentation(
    left: object, right: object, out: object, instructions: list, options: dict[str, object]
) -> None:
    theirs, ours = pair(lambda: o3.TensorProduct(left, right, out, instructions, **options))
    agree(theirs, ours, *numbers(theirs, True))
    assert_equivariant(ours)


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
        lambda: o3.Linear("3x0e+2x1o", "2x0e+3x1o", shared_weights=shared, internal_weights=False, biases=shared)
    )
    weight = torch.randn(*(() if shared else (ROWS,)), theirs.weight_numel)
    agree(theirs, ours, torch.randn(ROWS, 9), weight, torch.randn(theirs.bias_numel))


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


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")
def test_code_of_torchscript_is_exchanged_and_compiled_modules_are_left() -> None:
    def build() -> nn.Module:
        mode = e3nn.get_optimization_defaults()["jit_mode"]
        e3nn.set_optimization_defaults(jit_mode="script")
        try:
            parts = (o3.SphericalHarmonics([0, 1], True), o3.Linear("1x0e+1x1o", "2x0e+2x1o"), nn.Linear(8, 1))
            return nn.Sequential(*parts)
        finally:
            e3nn.set_optimization_defaults(jit_mode=mode)

    theirs, ours = pair(build)
    agree(theirs, ours, torch.randn(3, 3))
    with pytest.raises(NotImplementedError, match="does not support TorchScript"):
        jit.script(ours)
    compiled = nn.Sequential(*(torch.jit.script(part) for part in theirs))
    found = irrepc.e3nn.report(irrepc.e3nn.replace(compiled, "torch"))
    assert [name for name, _ in found.left] == ["0", "1"]
    assert "compiled by TorchScript" in found.left[0][1]


def test_indices_are_where_the_module_is() -> None:
    linear = irrepc.e3nn.replace(o3.Linear("2x1o", "2x1o").to("meta"), "torch")
    assert {t.device.type for t in (*linear.parameters(), *linear.buffers())} == {"meta"}


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning", "ignore::torch.jit.TracerWarning")
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
