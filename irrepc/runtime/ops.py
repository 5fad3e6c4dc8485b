"""Torch operators for emitted NumPy kernels: forward, VJP and VJP of the VJP as one chain.

Free-standing: it needs torch and an emitted module, nothing of irrepc, and travels with every generated package.

An emitted module tells through its SPEC what a kernel takes and gives.  Each order becomes an operator of
torch.library, opaque to torch.compile but with shapes, whose backward is the operator of the next order.  The third
derivative is taken by torch through the torch text of the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch

NAMESPACE = "irrepc"
Runs = tuple[tuple[int, tuple[str, ...]], ...]


class Argument(NamedTuple):
    """An operand as SPEC writes it: name, row axis (None: shared), gather, ((components, channel axes), ...)."""

    name: str
    rows: str | None
    gather: str | None
    runs: Runs


class Signature(NamedTuple):
    """What one order of a kernel takes and gives."""

    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    indices: tuple[str, ...]
    axes: tuple[str, ...]


def signature(spec: Sequence[Any]) -> Signature:
    """Read an entry of SPEC."""
    inputs, outputs, indices, axes = spec
    return Signature(tuple(Argument(*a) for a in inputs), tuple(Argument(*a) for a in outputs), indices, axes)


def derivative(s: Signature) -> Signature:
    """The signature of the VJP: cotangents of the outputs come in, gradients of the inputs go out."""
    cotangents = tuple(o._replace(name=f"g_{o.name}") for o in s.outputs)
    gradients = tuple(i._replace(name=f"d_{i.name}") for i in s.inputs)
    return Signature(s.inputs + cotangents, gradients, s.indices, s.axes)


def widths(argument: Argument, axes: tuple[str, ...], extents: Sequence[int]) -> int:
    """The length of a row: Σ components · Π channel extents."""
    known = dict(zip(axes, extents, strict=True))
    total = 0
    for count, names in argument.runs:
        for name in names:
            count = count * known[name]
        total = total + count
    return total


class Kernel:
    """A kernel of an emitted module as a differentiable torch function.

    module   the emitted module that computes (NumPy arrays)
    meaning  the torch text of the same kernel, used for third derivatives
    name     the function, a key of module.SPEC
    tag      makes the operator's name unique in the process
    """

    def __init__(self, module: ModuleType, meaning: ModuleType, name: str, tag: str) -> None:
        self.name = name
        self.signature = signature(module.SPEC[name])
        self._operators, self._eager = _register(module, meaning, name, f"{name}_{tag}", self.signature)

    def __call__(self, *arguments: Any) -> Any:
        """Operands, then an Index (values, order, start) for each index, then channel extents, as the emitted text.

        Raises TypeError for mixed or unsupported dtypes and ValueError for wrong devices or shapes.
        """
        s = self.signature
        n = len(s.inputs)
        tensors, rest = arguments[:n], arguments[n:]
        indices, extents = rest[: len(s.indices)], rest[len(s.indices) :]
        check_operands(self.name, s, tensors, indices, extents)
        flat = (*tensors, *(t for index in indices for t in index), *extents)
        result = self._operators[0](*flat) if torch.compiler.is_compiling() else self._eager(*flat)
        return result[0] if len(s.outputs) == 1 else tuple(result)

    @property
    def operators(self) -> tuple[Any, ...]:
        """The torch.library operators of orders 0, 1 and 2, for opcheck and the curious."""
        return self._operators


def check_operands(
    name: str,
    s: Signature,
    tensors: Sequence[torch.Tensor],
    indices: Sequence[Any],
    extents: Sequence[int],
    *,
    cpu_only: bool = True,
) -> None:
    """Refuse operands of another dtype, device or shape than the kernel computes with."""
    first = tensors[0]
    own = (t.shape[0] for a, t in zip(s.inputs, tensors, strict=True) if a.rows is not None and a.gather is None)
    loop = indices[0].values.shape[0] if indices else next(own, 0)
    rows = {name: index.start.shape[0] - 1 for name, index in zip(s.indices, indices, strict=True)}
    for argument, t in zip(s.inputs, tensors, strict=True):
        if t.dtype not in (torch.float32, torch.float64) or t.dtype != first.dtype:
            raise TypeError(f"{name}: got {argument.name} of {t.dtype}; expected float32 or float64, the same for all")
        if t.device != first.device:
            raise ValueError(f"{name}: got {argument.name} on {t.device}; expected {first.device} for all operands")
        if cpu_only and t.device.type != "cpu":
            raise ValueError(
                f"{name}: got {argument.name} on {t.device}; expected a CPU tensor for this backend; "
                "choose backend='torch' for other devices"
            )
        width = widths(argument, s.axes, extents)
        count = loop if argument.gather is None else rows[argument.gather]
        if t.shape != ((width,) if argument.rows is None else (count, width)):
            shape = f"({width},)" if argument.rows is None else f"({argument.rows} = {count}, {width})"
            raise ValueError(f"{name}: got {argument.name} of shape {tuple(t.shape)}; expected {shape}")


def _register(
    module: ModuleType, meaning: ModuleType, name: str, unique: str, forward: Signature
) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    """Define the three operators and chain them; and the same chain for eager calls, without the dispatcher."""
    library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
    orders = [forward, derivative(forward), derivative(derivative(forward))]
    suffixes = ("", "_vjp", "_vjp_vjp")
    functions = [getattr(module, name + suffix) for suffix in suffixes]
    runs = [_implementation(f, module, s) for f, s in zip(functions, orders, strict=True)]
    for s, suffix, run in zip(orders, suffixes, runs, strict=True):
        library.define(f"{unique}{suffix}({_schema(s)}) -> Tensor[]")
        library.impl(f"{unique}{suffix}", run, "CPU")
        torch.library.register_fake(f"{NAMESPACE}::{unique}{suffix}", _fake(s), lib=library)
    namespace = getattr(torch.ops, NAMESPACE)
    operators = tuple(getattr(namespace, unique + suffix).default for suffix in suffixes)
    third = _third(getattr(meaning, name + suffixes[2]), meaning, orders[2])
    for s, suffix, gradient in zip(orders, suffixes, (operators[1], operators[2], third), strict=True):
        torch.library.register_autograd(
            f"{NAMESPACE}::{unique}{suffix}", _backward(s, gradient), setup_context=_setup(s), lib=library
        )
    eager = third
    for s, run in zip(reversed(orders), reversed(runs), strict=True):
        eager = _eager(s, run, eager)
    return operators, eager


def _eager(s: Signature, run: Callable[..., Any], gradient: Callable[..., Any]) -> Callable[..., Any]:
    """One order for eager calls: the dispatcher costs more than a small kernel; torch is asked for gradients only."""
    setup, backward = _setup(s), _backward(s, gradient)

    class Order(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return tuple(run(*arguments))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            setup(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor | None) -> Any:
            return backward(ctx, cotangents)

    count = len(s.inputs)

    def call(*arguments: Any) -> Any:
        if torch.is_grad_enabled() and any(t.requires_grad for t in arguments[:count]):
            return Order.apply(*arguments)  # type: ignore[no-untyped-call]
        return run(*arguments)

    return call


_LIBRARIES: list[Any] = []
"""Keeps the registrations alive: a Library that is collected takes its operators with it."""


def _schema(s: Signature) -> str:
    parts = [f"Tensor {a.name}" for a in s.inputs]
    for index in s.indices:
        parts += [f"Tensor {index}", f"Tensor {index}_order", f"Tensor {index}_start"]
    return ", ".join([*parts, *(f"SymInt {axis}" for axis in s.axes)])


def _split(s: Signature, arguments: Sequence[Any]) -> tuple[Sequence[Any], list[Sequence[Any]], Sequence[int]]:
    """Operands, (values, order, start) for each index, channel extents."""
    n, m = len(s.inputs), len(s.indices)
    flat = arguments[n : n + 3 * m]
    return arguments[:n], [flat[3 * i : 3 * i + 3] for i in range(m)], arguments[n + 3 * m :]


def _implementation(
    function: Callable[..., Any], module: ModuleType, s: Signature
) -> Callable[..., list[torch.Tensor]]:
    """The operator on CPU tensors: no copy in, no copy out."""

    def run(*arguments: Any) -> list[torch.Tensor]:
        tensors, indices, extents = _split(s, arguments)
        arrays = [t.detach().numpy() for t in tensors]
        rows = [module.Index(*(t.numpy() for t in index)) for index in indices]
        result = function(*arrays, *rows, *extents, threads=torch.get_num_threads())
        return [torch.from_numpy(a) for a in (result if isinstance(result, tuple) else (result,))]

    return run


def _fake(s: Signature) -> Callable[..., list[torch.Tensor]]:
    """Shapes and dtypes without numbers, for torch.compile and torch.export."""

    def shapes(*arguments: Any) -> list[torch.Tensor]:
        tensors, indices, extents = _split(s, arguments)
        starts = {name: index[2] for name, index in zip(s.indices, indices, strict=True)}
        loop = next(
            (t.shape[0] for a, t in zip(s.inputs, tensors, strict=True) if a.rows is not None and a.gather is None),
            indices[0][0].shape[0] if indices else 0,
        )
        out = []
        for a in s.outputs:
            width = widths(a, s.axes, extents)
            if a.rows is None:
                out.append(tensors[0].new_empty((width,)))
            else:
                out.append(tensors[0].new_empty((loop if a.gather is None else starts[a.gather].shape[0] - 1, width)))
        return out

    return shapes


def _setup(s: Signature) -> Callable[..., None]:
    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        tensors, indices, extents = _split(s, inputs)
        ctx.save_for_backward(*tensors, *(t for index in indices for t in index))
        ctx.extents = tuple(extents)
        ctx.shapes = tuple(o.shape for o in output)

    return setup


def _backward(s: Signature, gradient: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """The operator of the next order, applied to what was saved and the cotangents."""

    def backward(ctx: Any, cotangents: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        n = len(s.inputs)
        given = [
            saved[0].new_zeros(shape) if g is None else g.contiguous()
            for g, shape in zip(cotangents, ctx.shapes, strict=True)
        ]
        gradients = gradient(*saved[:n], *given, *saved[n:], *ctx.extents)
        return (*gradients, *(None for _ in saved[n:]), *(None for _ in ctx.extents))

    return backward


def _third(function: Callable[..., Any], meaning: ModuleType, s: Signature) -> Callable[..., Any]:
    """The derivative of the highest order, by torch's autograd through the torch text."""

    def gradient(*arguments: Any) -> tuple[torch.Tensor, ...]:
        n, outputs = len(s.inputs), len(s.outputs)
        inputs, cotangents, rest = arguments[:n], arguments[n : n + outputs], arguments[n + outputs :]
        count = 3 * len(s.indices)
        indices = [meaning.Index(*rest[i : i + 3]) for i in range(0, count, 3)]
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            # Aliases: one input may itself be computed from another, and only the partial derivatives are wanted.
            variables = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in inputs]
            result = function(*variables, *indices, *rest[count:])
            values = result if isinstance(result, tuple) else (result,)
            gradients = torch.autograd.grad(
                values, variables, cotangents, create_graph=further, allow_unused=True
            )
        return tuple(torch.zeros_like(t) if g is None else g for g, t in zip(gradients, inputs, strict=True))

    return gradient
