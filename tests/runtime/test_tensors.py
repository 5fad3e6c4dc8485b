"""The operator chain over modules that take tensors, with the torch text in the place of CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from irrepc.algebra.recipe import Recipe
from irrepc.frontend.derive import derive
from irrepc.nn.graph import index_of
from irrepc.runtime import load as loading
from irrepc.runtime.operands import derivative, signature
from irrepc.runtime.ops import SUFFIXES, Kernel
from irrepc.runtime.store import load_module
from irrepc.runtime.tensors import OnTensors
from tests import kernels
from tests.kernels import RECIPES
from tests.runtime.test_ops import largest, operands

TAGS = iter(range(10**6))


def stand_in(recipe: Recipe) -> tuple[ModuleType, str, list[tuple[str, tuple[bool, ...]]]]:
    """The torch text in the form of a CUDA module, whose kernels leave no graph; its name; and what was asked of it."""
    text, name = load_module(recipe, "torch")
    module = ModuleType("stand_in")
    asked: list[tuple[str, tuple[bool, ...]]] = []
    contents: dict[str, Any] = {"SPEC": text.SPEC, "Index": getattr(text, "Index", None), "PARTS": {}}
    s = signature(text.SPEC[name])
    for suffix in SUFFIXES:
        inputs, outputs = (tuple(a.name for a in side) for side in (s.inputs, s.outputs))
        contents["PARTS"][name + suffix] = (("all", inputs, None, outputs),)
        contents[name + suffix] = _as_kernel(getattr(text, name + suffix), name + suffix, asked)
        s = derivative(s)
    vars(module).update(contents)
    return module, name, asked


def _as_kernel(function: Callable[..., Any], name: str, asked: list[tuple[str, tuple[bool, ...]]]) -> Any:
    def compute(*arguments: Any, wanted: tuple[bool, ...]) -> Any:
        asked.append((name, wanted))
        tensors = [t for t in arguments if isinstance(t, torch.Tensor)]
        assert all(t.is_contiguous() for t in tensors), "a kernel reads addresses"
        with torch.no_grad():
            result = function(*arguments)
        outputs = result if isinstance(result, tuple) else (result,)
        made = tuple(t.clone() if w else None for t, w in zip(outputs, wanted, strict=True))
        return made if len(made) > 1 else made[0]

    return compute


def kernel_of(recipe: Recipe) -> tuple[Kernel, list[tuple[str, tuple[bool, ...]]]]:
    """The differentiable function over the stand-in, and what it asks of it."""
    module, name, asked = stand_in(recipe)
    meaning, _ = load_module(recipe, "torch")
    return Kernel(module, meaning, name, f"stand_in_{next(TAGS)}", device="cpu", implement=OnTensors), asked


def test_values_and_three_derivatives_are_those_of_the_torch_text() -> None:
    def all_orders(kernel: Callable[..., Any]) -> list[torch.Tensor]:
        (x, y, w), indices = operands()
        o = kernel(x * y.sum(), y**2, w, *indices, 2)
        found, value = [o], (o**3).sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(value, y, create_graph=True)
            found.append(g)
            value = (g**2).sum()
        return found

    kernel, asked = kernel_of(RECIPES["convolution"])
    for a, b in zip(all_orders(kernel), all_orders(loading.load(RECIPES["convolution"], "torch")), strict=True):
        assert largest(a, b) <= 1e-12 * float(b.detach().abs().max())
    assert {name for name, _ in asked} == {"convolution", "convolution_vjp", "convolution_vjp_vjp"}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [(True, True, True, True), (False, True, False, True)])
def test_opcheck_of_all_three_orders(wanted: tuple[bool, ...]) -> None:
    kernel, _ = kernel_of(RECIPES["convolution"])
    tensors, indices = operands(edges=4, channels=1)
    rest = [*(t for index in indices for t in index), 1]
    g = torch.randn_like(kernel(*tensors, *indices, 1)).requires_grad_()
    directions = [torch.randn_like(t).requires_grad_() if w else None for t, w in zip(tensors, wanted, strict=False)]
    for operator, arguments in zip(
        kernel.operators,
        (
            (*tensors, *rest),
            (*tensors, g, *rest, list(wanted[:3])),
            (*tensors, g, *directions, *rest, list(wanted)),
        ),
        strict=True,
    ):
        result = torch.library.opcheck(operator, arguments)
        assert set(result.values()) == {"SUCCESS"}


@pytest.mark.slow
def test_compiles_whole_forward_and_backward() -> None:
    kernel, _ = kernel_of(RECIPES["convolution"])
    tensors, indices = operands()

    def f(*t: torch.Tensor) -> Any:
        return kernel(*t, *indices, 2)

    compiled = torch.compile(f, fullgraph=True)
    expected = torch.autograd.grad((f(*tensors) ** 2).sum(), tensors)
    got = torch.autograd.grad((compiled(*tensors) ** 2).sum(), tensors)
    for a, b in zip(got, expected, strict=True):
        assert largest(a, b) < 1e-12 * max(1.0, float(b.abs().max()))


def test_a_module_is_told_which_outputs_are_wanted() -> None:
    kernel, asked = kernel_of(RECIPES["convolution"])
    (x, y, w), indices = operands()
    o = kernel(x.detach(), y, w.detach(), *indices, 2)
    assert asked == [("convolution", (True,))]
    (d_y,) = torch.autograd.grad((o**2).sum(), y)
    assert asked[1:] == [("convolution_vjp", (False, True, False))]
    whole = loading.load(RECIPES["convolution"], "torch")(x, y, w, *indices, 2)
    assert largest(d_y, torch.autograd.grad((whole**2).sum(), y)[0]) < 1e-12 * float(d_y.abs().max())


def test_strided_operands_and_indices_are_made_contiguous() -> None:
    kernel, _ = kernel_of(RECIPES["convolution"])
    (x, y, w), indices = operands()
    wide = torch.stack((x, x), 2).flatten(1)[:, ::2]
    strided = [type(i)(*(torch.stack((t, t), 1)[:, 0] for t in i)) for i in indices]
    assert not wide.is_contiguous()
    assert largest(kernel(wide, y, w, *strided, 2), kernel(x, y, w, *indices, 2)) == 0


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "convolution"])
def test_every_kind_of_kernel_goes_through(name: str) -> None:
    forward = derive(RECIPES[name])
    generator, rows = torch.Generator().manual_seed(0), kernels.indices(0)
    tensors = []
    for o in forward.inputs:
        count = () if o.rows is None else (4 if o.index is None else kernels.SIZES[o.index],)
        t = torch.randn(*count, kernels.width(o), dtype=torch.float64, generator=generator)
        tensors.append(t.requires_grad_())
    found = [index_of(torch.tensor(rows[i]), kernels.SIZES[i]) for i in forward.indices]
    extents = [kernels.EXTENTS[a] for a in forward.channels]
    kernel, _ = kernel_of(RECIPES[name])
    results = []
    for f in (kernel, loading.load(RECIPES[name], "torch")):
        o = f(*tensors, *found, *extents)
        outputs = o if isinstance(o, tuple) else (o,)
        value = sum((t**2).sum() for t in outputs)
        results.append([*outputs, *torch.autograd.grad(value, tensors)])
    for a, b in zip(*results, strict=True):
        assert largest(a, b) <= 1e-12 * max(1.0, float(b.detach().abs().max()))


@pytest.mark.parametrize(("cuda", "elsewhere"), [("13.0", "cuda"), (None, "torch")])
def test_auto_goes_by_the_device_of_the_first_operand(
    cuda: str | None, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device of ROCm calls itself cuda, too, but torch has no version of CUDA then."""
    loaded: list[str] = []

    def note(recipe: Recipe, backend: str) -> Callable[..., str]:
        loaded.append(backend)
        return lambda *_: backend

    monkeypatch.setattr(loading, "load", note)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    call = loading._auto(RECIPES["harmonics"])
    for device, backend in (("cpu", "llvm"), ("cuda", elsewhere), ("mps", "torch"), ("meta", "torch")):
        assert call(SimpleNamespace(device=SimpleNamespace(type=device))) == backend
    loaded.clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loading._auto(RECIPES["harmonics"])
    assert "cuda" not in loaded, "nothing is emitted for a device that is not there"
