"""The cuda backend from recipe to third derivative without a device: its text, compiled for the processor, chained.

Kernels are launched through the shim of tests/emit in place of nvrtc.py; everything else is what runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from irrepc.algebra.recipe import Recipe
from irrepc.commands.write import write_package
from irrepc.emit.module import Entry, compose, kernels
from irrepc.emit.package import package
from irrepc.runtime.load import load
from irrepc.runtime.ops import Kernel
from irrepc.runtime.store import load_module
from irrepc.runtime.tensors import OnTensors
from tests.emit.shim.host import ABSENT, COMPILER, build
from tests.emit.test_numbers import load as load_text
from tests.gpu import orders
from tests.gpu.orders import Problem
from tests.kernels import EXTENTS, RECIPES
from tests.runtime.test_ops import largest, operands

CPU = torch.device("cpu")
NAMES = ("convolution", "contraction", "harmonics", "crossed")
SIZES = {"sender": 7, "receiver": 5, "species": 3, "pair": 6}

pytestmark = pytest.mark.skipif(COMPILER is None, reason=ABSENT)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Kernel, ModuleType]]:
    """Kernels as torch functions over CUDA text on the processor, and their emitted modules."""
    folder = tmp_path_factory.mktemp("cuda")
    modules = {name: emitted(name, RECIPES[name], folder) for name in NAMES}
    reals = (torch.float32, torch.float64)
    wanted = [
        (m.source(), k, m.defines(k, real, **{a: EXTENTS[a] for a in m.KERNELS[k].axes}))
        for m in modules.values()
        for k in m.KERNELS
        for real in reals
    ]
    host = build(wanted, folder)
    out = {}
    for name, module in modules.items():
        module.nvrtc = host
        meaning, function = load_module(RECIPES[name], "torch")
        out[name] = (Kernel(module, meaning, function, "on_cpu", device="cpu", implement=OnTensors), module)
    return out


def emitted(name: str, recipe: Recipe, folder: Path) -> ModuleType:
    """The module of the cuda backend for a recipe, from its files."""
    function = kernels(Entry(recipe.name, recipe))[0].name
    made = compose(f"{name}.", (Entry(function, recipe),), "cuda", "a test")
    for suffix, text in made.companions:
        (folder / name).with_suffix(suffix).write_text(text, encoding="utf-8")
    for file, text in made.shared:
        (folder / file).write_text(text, encoding="utf-8")
    return load_text(made.text, folder, name)


@pytest.fixture
def launched(built: dict[str, tuple[Kernel, ModuleType]]) -> Iterator[list[str]]:
    """The names of the kernels that are launched, in order."""
    names: list[str] = built["convolution"][1].nvrtc.launches
    names.clear()
    yield names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("rows", [0, 1, 37])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_two_gradients(
    name: str,
    rows: int,
    dtype: torch.dtype,
    built: dict[str, tuple[Kernel, ModuleType]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel, _ = built[name]
    monkeypatch.setattr(orders, "load", lambda recipe, backend: kernel if backend == "cuda" else load(recipe, backend))
    Problem(RECIPES[name], dtype, rows, SIZES, EXTENTS, device=CPU).check("cuda")


def test_third_derivative(built: dict[str, tuple[Kernel, ModuleType]]) -> None:
    def third(kernel: Callable[..., Any]) -> torch.Tensor:
        (x, y, w), indices = operands()
        e = (kernel(x * y.sum(), y**2, w, *indices, 2) ** 3).sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(e, y, create_graph=True)
            e = (g**2).sum()
        return g

    a, b = third(built["convolution"][0]), third(load(RECIPES["convolution"], "torch"))
    assert largest(a, b) < 1e-12 * float(b.detach().abs().max())


def test_kernels_whose_outputs_nobody_wants_are_not_launched(
    built: dict[str, tuple[Kernel, ModuleType]], launched: list[str]
) -> None:
    kernel, _ = built["convolution"]
    (x, y, w), indices = operands()
    o = kernel(x.detach(), y, w, *indices, 2)
    assert launched == ["convolution_o"]
    launched.clear()
    (forces,) = torch.autograd.grad((o**2).sum(), y, create_graph=True)
    assert launched == ["convolution_vjp_d_y_d_w"]
    x.requires_grad_()
    launched.clear()
    torch.autograd.grad((kernel(x, y.detach(), w.detach(), *indices, 2) ** 2).sum(), x)
    assert launched == ["convolution_o", "convolution_vjp_d_x"]
    assert forces.requires_grad


@pytest.mark.slow
def test_opcheck_of_all_three_orders(built: dict[str, tuple[Kernel, ModuleType]]) -> None:
    kernel, _ = built["convolution"]
    tensors, indices = operands(edges=4)
    rest = [*(t for index in indices for t in index), 2]
    g = torch.randn_like(kernel(*tensors, *indices, 2)).requires_grad_()
    directions = [torch.randn_like(tensors[0]).requires_grad_(), None, torch.randn_like(tensors[2]).requires_grad_()]
    for operator, arguments in zip(
        kernel.operators,
        (
            (*tensors, *rest),
            (*tensors, g, *rest, [True, True, False]),
            (*tensors, g, *directions, *rest, [True, False, True, True]),
        ),
        strict=True,
    ):
        result = torch.library.opcheck(operator, arguments)
        assert set(result.values()) == {"SUCCESS"}


@pytest.mark.slow
def test_compiles_whole_forward_and_backward(built: dict[str, tuple[Kernel, ModuleType]]) -> None:
    kernel, _ = built["convolution"]
    tensors, indices = operands()

    def f(*t: torch.Tensor) -> Any:
        return kernel(*t, *indices, 2)

    compiled = torch.compile(f, fullgraph=True)
    expected = torch.autograd.grad((f(*tensors) ** 2).sum(), tensors)
    got = torch.autograd.grad((compiled(*tensors) ** 2).sum(), tensors)
    for a, b in zip(got, expected, strict=True):
        assert largest(a, b) < 1e-12 * max(1.0, float(b.abs().max()))


def test_operands_elsewhere_are_refused() -> None:
    (x, y, w), indices = operands()
    with pytest.raises(ValueError, match="expected a CUDA tensor for this backend; choose"):
        load(RECIPES["convolution"], "cuda")(x, y, w, *indices, 2)


def test_layers_of_a_package_take_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """auto: cuda on CUDA tensors and torch elsewhere, where the package holds no more; cuda alone refuses the rest."""
    write_package(package(1, backends=("torch", "cuda")), tmp_path / "of_cuda")
    monkeypatch.syspath_prepend(tmp_path)
    layers = import_module("of_cuda.layers")
    r = torch.nn.functional.normalize(torch.ones(2, 3), dim=1)
    harmonics = layers.SphericalHarmonics()
    assert harmonics.kernel.backend == "auto"
    assert harmonics.kernel._compiled["cuda"].device == "cuda"
    assert torch.equal(harmonics(r), layers.SphericalHarmonics(backend="torch")(r))
    with pytest.raises(ValueError, match="got r on cpu; expected a CUDA tensor"):
        layers.SphericalHarmonics(backend="cuda")(r)
    assert layers.BACKENDS == ("auto", "torch", "cuda")
