"""The operator chain: torch's own checks, three derivatives, only what is asked for, compile, export, bad operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from irrepc.nn.convolution import Convolution
from irrepc.nn.graph import Index, index_of
from irrepc.runtime import ops
from irrepc.runtime.arrays import OnArrays
from irrepc.runtime.load import load
from tests.kernels import RECIPES, convolution

NODES, EDGES, CHANNELS = 5, 11, 2


def operands(
    dtype: torch.dtype = torch.float64, edges: int = EDGES, channels: int = CHANNELS
) -> tuple[list[torch.Tensor], list[Index]]:
    """x, y, w of the small convolution and its two indices, unsorted, with one isolated node."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(NODES, 4 * channels), (edges, 4), (edges, 6 * channels)]
    tensors = [torch.randn(*s, dtype=dtype, generator=generator, requires_grad=True) for s in shapes]
    rows = [torch.randint(0, NODES - 1, (edges,), generator=generator) for _ in range(2)]
    return tensors, [index_of(r, NODES) for r in rows]


def function(backend: str) -> tuple[Callable[..., Any], list[torch.Tensor], list[Index]]:
    """The convolution as a function of x, y, w alone."""
    kernel = load(RECIPES["convolution"], backend)
    tensors, indices = operands()
    return (lambda *t: kernel(*t, *indices, CHANNELS)), tensors, indices


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    """max |a - b|."""
    return float((a - b).detach().abs().max())


def test_gradcheck_and_gradgradcheck() -> None:
    tensors, indices = operands(edges=4, channels=1)
    kernel = load(RECIPES["convolution"], "numba")

    def f(*t: torch.Tensor) -> Any:
        return kernel(*t, *indices, 1)

    assert torch.autograd.gradcheck(f, tensors)
    assert torch.autograd.gradgradcheck(f, tensors)


@pytest.mark.parametrize("wanted", [(True, True, True, True), (False, True, False, True)])
def test_opcheck_of_all_three_orders(wanted: tuple[bool, ...]) -> None:
    kernel: Any = load(RECIPES["convolution"], "llvm")
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


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What serial functions have computed since, "d_x" and "d_y d_w" for instance, in order."""
    found: list[str] = []
    run = OnArrays._run

    def recorded(self: OnArrays, part: Any, *rest: Any) -> Any:
        found.append(" ".join(self._signature.outputs[i].name for i in part.made))
        return run(self, part, *rest)

    monkeypatch.setattr(OnArrays, "_run", recorded)
    return found


@pytest.mark.parametrize("backend", ["numba", "llvm"])
@pytest.mark.parametrize("needed", ["x", "yw", "w", ""])
def test_gradients_that_no_operand_needs_are_not_given(backend: str, needed: str, computed: list[str]) -> None:
    f, tensors, _ = function(backend)
    expected = dict(zip("xyw", torch.autograd.grad((f(*tensors) ** 2).sum(), tensors), strict=True))
    computed.clear()
    frozen = [t.detach().requires_grad_(name in needed) for name, t in zip("xyw", tensors, strict=True)]
    if needed:
        (f(*frozen) ** 2).sum().backward()
    else:
        f(*frozen)
    assert computed == ["o", *(["d_x d_y d_w"] if needed else [])]  # one loop over the edges makes all three
    for name, t in zip("xyw", frozen, strict=True):
        assert (t.grad is None) == (name not in needed)
        assert t.grad is None or torch.equal(t.grad, expected[name])


def test_gradients_that_this_pass_does_not_use_are_not_computed(computed: list[str]) -> None:
    """x depends on parameters and y on positions: forces need d_y alone, though x wants a gradient in training."""
    f, (x, y, w), _ = function("llvm")
    e = (f(2 * x, 2 * y, w.detach()) ** 2).sum()
    computed.clear()
    (forces,) = torch.autograd.grad(e, y, create_graph=True)
    assert computed == ["d_x d_y d_w"]
    by_x, by_y = torch.autograd.grad(e, (x, y), retain_graph=True)
    assert torch.equal(by_y, forces)
    computed.clear()
    (through,) = torch.autograd.grad((forces**2).sum(), x)
    assert computed == ["d_x d_y d_w", "d_g_o", "d_x d_y d_w"]
    meaning, (x, y, w), _ = function("torch")
    e = (meaning(2 * x, 2 * y, w.detach()) ** 2).sum()
    (forces,) = torch.autograd.grad(e, y, create_graph=True)
    assert largest(by_x, torch.autograd.grad(e, x, retain_graph=True)[0]) < 1e-12 * float(by_x.abs().max())
    assert largest(through, torch.autograd.grad((forces**2).sum(), x)[0]) < 1e-12 * float(through.abs().max())


def test_gradients_that_are_zero_are_not_computed(computed: list[str]) -> None:
    """Only the cotangent of d_c is given, and d_c does not depend on c."""
    kernel = load(RECIPES["contraction"], "llvm")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    c = torch.randn(2, 54, dtype=torch.float64, generator=generator, requires_grad=True)
    species = index_of(torch.tensor([0, 1, 0]), 2)
    o = kernel(x, c, species, 2)
    g = torch.randn_like(o).requires_grad_()
    _, d_c = torch.autograd.grad(o, (x, c), g, create_graph=True)
    computed.clear()
    again = torch.autograd.grad(d_c.sum(), (x, c, g), allow_unused=True, retain_graph=True)
    assert computed == ["d_x d_g_o"]
    assert again[1] is None
    assert all(t is not None for t in (again[0], again[2]))
    meaning = load(RECIPES["contraction"], "torch")
    _, d_c = torch.autograd.grad(meaning(x, c, species, 2), (x, c), g, create_graph=True)
    for t, right in zip((again[0], again[2]), torch.autograd.grad(d_c.sum(), (x, g)), strict=True):
        assert largest(t, right) < 1e-12 * float(right.abs().max())


@pytest.mark.slow
def test_compiled_code_computes_no_more_than_eager(computed: list[str]) -> None:
    f, (x, y, w), _ = function("llvm")
    operands_ = (x.detach(), y, w.detach())
    compiled = torch.compile(f, fullgraph=True)
    (expected,) = torch.autograd.grad((f(*operands_) ** 2).sum(), y)
    value = (compiled(*operands_) ** 2).sum()
    computed.clear()
    (got,) = torch.autograd.grad(value, y)
    assert computed == ["d_x d_y d_w"]
    assert largest(got, expected) < 1e-12 * float(expected.abs().max())


def test_functional_transforms_of_torch_work() -> None:
    f, tensors, _ = function("llvm")
    plain = [t.detach() for t in tensors]
    got = torch.func.grad(lambda *t: (f(*t) ** 2).sum(), argnums=(0, 1, 2))(*plain)
    expected = torch.autograd.grad((f(*tensors) ** 2).sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_third_derivatives_go_through_the_torch_text() -> None:
    """y enters twice, directly and through x, so a wrong total derivative would show."""

    def third(kernel: Callable[..., Any]) -> torch.Tensor:
        (x, y, w), indices = operands()
        x = x * y.sum()
        e = (kernel(x, y**2, w, *indices, CHANNELS) ** 3).sum()
        (g1,) = torch.autograd.grad(e, y, create_graph=True)
        (g2,) = torch.autograd.grad((g1**2).sum(), y, create_graph=True)
        return torch.autograd.grad((g2**2).sum(), y)[0]

    a, b = third(load(RECIPES["convolution"], "numba")), third(load(RECIPES["convolution"], "torch"))
    assert largest(a, b) < 1e-12 * float(b.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "numba", "llvm"])
def test_compiles_whole_forward_and_backward(backend: str) -> None:
    f, tensors, _ = function(backend)
    compiled = torch.compile(f, fullgraph=True)
    expected = torch.autograd.grad((f(*tensors) ** 2).sum(), tensors)
    got = torch.autograd.grad((compiled(*tensors) ** 2).sum(), tensors)
    for a, b in zip(got, expected, strict=True):
        assert largest(a, b) < 1e-12 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("backend", ["torch", "numba", "llvm"])
def test_a_layer_exports(backend: str) -> None:
    layer = Convolution("2x0e+2x1o", "1x0e+1x1o", backend=backend)
    tensors, indices = operands(torch.float32)
    plain = tuple(t.detach() for t in tensors)
    program = torch.export.export(layer, (*plain, *indices))
    assert largest(program.module()(*plain, *indices), layer(*plain, *indices)) == 0


@pytest.mark.parametrize("edges", [0, 1])
def test_graphs_without_edges(edges: int) -> None:
    tensors, indices = operands(edges=edges)
    results = []
    for backend in ("torch", "numba", "llvm"):
        o = load(RECIPES["convolution"], backend)(*tensors, *indices, CHANNELS)
        results.append([o, *torch.autograd.grad((o**2).sum(), tensors)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.shape == b.shape
            assert torch.equal(a, b) or largest(a, b) < 1e-13


def test_strided_operands_give_the_same() -> None:
    for backend in ("torch", "numba", "llvm"):
        kernel = load(RECIPES["convolution"], backend)
        (x, y, w), indices = operands()
        wide = torch.stack((x, x), 2).flatten(1)[:, ::2]
        assert not wide.is_contiguous()
        assert largest(kernel(wide, y, w, *indices, CHANNELS), kernel(x, y, w, *indices, CHANNELS)) == 0


def test_bad_operands_are_named() -> None:
    for backend in ("torch", "numba", "llvm"):
        kernel = load(RECIPES["convolution"], backend)
        (x, y, w), indices = operands()
        with pytest.raises(TypeError, match=r"got y of torch\.float32; expected float32 or float64, the same for all"):
            kernel(x, y.float(), w, *indices, CHANNELS)
        with pytest.raises(TypeError, match=r"got x of torch\.int64"):
            kernel(x.long(), y, w, *indices, CHANNELS)
        with pytest.raises(ValueError, match=r"got w of shape \(11, 11\); expected \(edge = 11, 12\)"):
            kernel(x, y, w[:, :-1], *indices, CHANNELS)
        with pytest.raises(ValueError, match=r"got x of shape \(4, 8\); expected \(node = 5, 8\)"):
            kernel(x[:-1], y, w, *indices, CHANNELS)
        with pytest.raises(ValueError, match=r"got y of shape \(10, 4\); expected \(edge = 11, 4\)"):
            kernel(x, y[:-1], w, *indices, CHANNELS)
        with pytest.raises(ValueError, match="on meta; expected cpu for all operands"):
            kernel(x, y.to("meta"), w, *indices, CHANNELS)
    with pytest.raises(ValueError, match="expected a CPU tensor for this backend; choose backend='torch'"):
        load(RECIPES["product"], "numba")(torch.zeros(1, 3, device="meta"), torch.zeros(1, 5, device="meta"), 1)


@pytest.mark.parametrize("channels", [64, 33])
def test_outputs_too_large_for_the_caches_are_written_whole(channels: int) -> None:
    """d_w has more than 2 MiB: llvm writes it past the caches. Rows of 64 channels begin with a line, of 33 not."""
    edges, nodes = 4001, 50
    generator = torch.Generator().manual_seed(0)
    recipe = convolution("2x0e+2x1o", 1)
    sizes = ((nodes, 4 * channels), (edges, 4), (edges, len(recipe.paths) * channels))
    tensors = [torch.randn(size, generator=generator, requires_grad=True) for size in sizes]
    index = [index_of(torch.randint(0, nodes, (edges,), generator=generator), nodes) for _ in range(2)]
    found = {}
    for backend in ("llvm", "torch"):
        out = load(recipe, backend)(*tensors, *index, channels)
        found[backend] = torch.autograd.grad(out, tensors, torch.ones_like(out))
    assert found["llvm"][2].nbytes > 2**21
    for a, b in zip(found["llvm"], found["torch"], strict=True):
        assert largest(a, b) < 1e-5 * float(b.abs().max())


def test_a_torch_without_private_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(node: Any = None) -> bool:
        return True

    assert ops.private("_no_such_function", absent) is absent
    assert ops.private("_will_engine_execute_node", absent) is not absent
    f, tensors, _ = function("numba")
    wanted = torch.autograd.grad(f(*tensors).square().sum(), tensors)
    for name in ("TRANSFORMED", "USED"):
        monkeypatch.setattr(ops, name, absent)
    f, _, _ = function("numba")
    for got, want in zip(torch.autograd.grad(f(*tensors).square().sum(), tensors), wanted, strict=True):
        assert torch.equal(got, want)
    (alone,) = torch.autograd.grad(f(*tensors).square().sum(), tensors[1])
    assert torch.equal(alone, wanted[1])
    assert torch.autograd.gradgradcheck(f, tensors)
    with torch.no_grad():
        assert not f(*tensors).requires_grad
