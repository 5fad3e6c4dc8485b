"""Torch operators for emitted kernels: forward, VJP and VJP of the VJP as one chain.

Free-standing: it needs torch and an emitted module, nothing of irrepc, and travels with every generated package.

An emitted module tells through its SPEC what a kernel takes and gives.  Each order becomes an operator of
torch.library, opaque to torch.compile but with shapes, whose backward is the operator of the next order.  The third
derivative is taken by torch through the torch text of the same kernel.

Nothing is computed that nobody asked for: a backward tells the next order which gradients are wanted, those that some
input needs, that this pass of autograd will use, and that are not zero because all their cotangents are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch

from .arrays import OnArrays
from .operands import Order, Signature, Wanted, check_operands, derivative, row_counts, separate, shape_of, signature

NAMESPACE = "irrepc"
SUFFIXES = ("", "_vjp", "_vjp_vjp")
Implement = Callable[[ModuleType, str, Signature], Order]
"""(emitted module, name of a function in it, its signature) -> that order as a function of tensors."""


class Kernel:
    """A kernel of an emitted module as a differentiable torch function.

    module     the emitted module that computes
    meaning    the torch text of the same kernel, used for third derivatives
    name       the function, a key of module.SPEC
    tag        makes the operator's name unique in the process
    device     the type of device it computes on
    implement  how an order of the module is called with tensors of that device
    """

    def __init__(
        self,
        module: ModuleType,
        meaning: ModuleType,
        name: str,
        tag: str,
        *,
        device: str = "cpu",
        implement: Implement = OnArrays,
    ) -> None:
        self.name, self.device = name, device
        self.signature = signature(module.SPEC[name])
        links = _links(module, name, self.signature, implement)
        third = _third(getattr(meaning, links[-1].name), meaning, links[-1].signature)
        self._operators = _register(links, third, f"{name}_{tag}", device)
        following = third
        for link in reversed(links):
            following = _eager(link, following)
        self._eager = following

    def __call__(self, *arguments: Any) -> Any:
        """Operands, then an Index (values, order, start) for each index, then channel extents, as the emitted text.

        Raises TypeError for mixed or unsupported dtypes and ValueError for wrong devices or shapes.
        """
        s = self.signature
        n, m = len(s.inputs), len(s.inputs) + len(s.indices)
        operands, indices, extents = arguments[:n], arguments[n:m], arguments[m:]
        flat = (*operands, *(t for index in indices for t in index), *extents)
        if torch.compiler.is_compiling():
            result = self._operators[0](*flat)  # which checks for itself
        else:
            check_operands(self.name, s, operands, indices, extents, self.device)
            result = self._eager((True,) * len(s.outputs), flat)
        return result[0] if len(s.outputs) == 1 else tuple(result)

    @property
    def operators(self) -> tuple[Any, ...]:
        """The torch.library operators of orders 0, 1 and 2, for opcheck and the curious.

        They take operands, the tensors of the indices, extents; from order 1 on cotangents may be None, and `wanted`,
        a bool for each output, comes last: an output that is not wanted is an empty tensor.
        """
        return self._operators


class _Link(NamedTuple):
    """One order: name, signature, function, and for each output the numbers of the cotangents it depends on."""

    name: str
    signature: Signature
    run: Order
    cotangents: tuple[tuple[int, ...], ...]


Gradient = Callable[[Wanted, Sequence[Any]], Sequence[Any]]
"""The next order, as the backward of this one calls it."""


def _links(module: ModuleType, name: str, forward: Signature, implement: Implement) -> tuple[_Link, ...]:
    """Orders 0, 1 and 2."""
    links = []
    s = forward
    for suffix in SUFFIXES:
        read = {o: taken for _, taken, _, made in module.PARTS[name + suffix] for o in made}
        cotangents = s.inputs[len(s.inputs) - s.cotangents :]
        numbers = tuple(tuple(i for i, g in enumerate(cotangents) if g.name in read[o.name]) for o in s.outputs)
        links.append(_Link(name + suffix, s, implement(module, name + suffix, s), numbers))
        s = derivative(s)
    return tuple(links)


# ── eager calls ──────────────────────────────────────────────────────────────────────────────────


def _eager(link: _Link, following: Gradient) -> Gradient:
    """One order for eager calls: the dispatcher costs more than a small kernel; torch is asked for gradients only."""
    s, run = link.signature, link.run
    n = len(s.inputs)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(wanted: Wanted, *arguments: Any) -> Any:
            return tuple(run(wanted, arguments))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            _save(ctx, n, inputs[1:])

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor | None) -> Any:
            needed = _used(ctx, ctx.needs_input_grad[1 : n + 1])
            return (None, *_gradients(ctx, n, cotangents, needed, following))

    # Function.apply inspects signatures for defaults, 20 µs, and then calls this one; torch.func alone needs it.
    apply = super(torch.autograd.Function, Differentiable).apply

    def call(wanted: Wanted, arguments: Sequence[Any]) -> Sequence[Any]:
        wanted = _nonzero(link, wanted, arguments)
        if torch._C._are_functorch_transforms_active():
            return Differentiable.apply(wanted, *arguments)  # type: ignore[no-any-return, no-untyped-call]
        if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in arguments[:n]]):
            return apply(wanted, *arguments)  # type: ignore[no-any-return, no-untyped-call]
        return run(wanted, arguments)

    return call


def _used(ctx: Any, needed: Sequence[bool]) -> list[bool]:
    """Of the gradients that operands need, those this pass of autograd uses: autograd.grad may ask for few inputs.

    Of a leaf torch does not tell; then the gradient is made.
    """
    if torch._C._are_functorch_transforms_active():
        return list(needed)
    edges = iter(ctx.next_functions)  # one for each argument that is a tensor
    nodes: list[Any] = [next(edges)[0] if present else None for present in ctx.present]
    return [
        need and (node.name() == LEAF or torch._C._will_engine_execute_node(node))
        for need, node in zip(needed, nodes, strict=True)
    ]


LEAF = "torch::autograd::AccumulateGrad"


# ── operators ────────────────────────────────────────────────────────────────────────────────────


def _register(links: Sequence[_Link], third: Gradient, unique: str, device: str) -> tuple[Any, ...]:
    """Define an operator for each order, and chain them."""
    library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
    names = [f"{unique}{suffix}" for suffix in SUFFIXES]
    for name, link in zip(names, links, strict=True):
        library.define(f"{name}({_schema(link.signature)}) -> Tensor[]")
        library.impl(name, _checked(link, device), device.upper())
        torch.library.register_fake(f"{NAMESPACE}::{name}", _fake(link.signature), lib=library)
    operators = tuple(getattr(getattr(torch.ops, NAMESPACE), name).default for name in names)
    following = [*(_called(*pair) for pair in zip(links[1:], operators[1:], strict=True)), third]
    for name, link, gradient in zip(names, links, following, strict=True):
        backward, setup = _backward(link.signature, gradient), _setup(link.signature)
        torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup, lib=library)
    return operators


_LIBRARIES: list[Any] = []
"""Keeps the registrations alive: a Library that is collected takes its operators with it."""


def _schema(s: Signature) -> str:
    given = len(s.inputs) - s.cotangents
    parts = [f"Tensor{'' if i < given else '?'} {a.name}" for i, a in enumerate(s.inputs)]
    for index in s.indices:
        parts += [f"Tensor {index}", f"Tensor {index}_order", f"Tensor {index}_start"]
    parts += [f"SymInt {axis}" for axis in s.axes]
    return ", ".join([*parts, "bool[] wanted"] if s.cotangents else parts)


def _masked(s: Signature, arguments: Sequence[Any]) -> tuple[Wanted, Sequence[Any]]:
    """The arguments of an operator as an order takes them."""
    return (arguments[-1], arguments[:-1]) if s.cotangents else ((True,) * len(s.outputs), arguments)


def _checked(link: _Link, device: str) -> Callable[..., list[torch.Tensor]]:
    """The operator on tensors: whoever calls it may have made a mistake, and addresses forgive none."""
    s = link.signature

    def run(*everything: Any) -> list[torch.Tensor]:
        wanted, arguments = _masked(s, everything)
        check_operands(link.name, s, *separate(s, arguments), device)
        outputs = link.run(wanted, arguments)
        return [arguments[0].new_empty(0) if t is None else t for t in outputs]

    return run


def _fake(s: Signature) -> Callable[..., list[torch.Tensor]]:
    """Shapes and dtypes without numbers, for torch.compile and torch.export."""

    def shapes(*everything: Any) -> list[torch.Tensor]:
        wanted, arguments = _masked(s, everything)
        operands, indices, extents = separate(s, arguments)
        counts = row_counts(s, operands, indices)
        made = [shape_of(o, s, counts, extents) if want else (0,) for o, want in zip(s.outputs, wanted, strict=True)]
        return [arguments[0].new_empty(size) for size in made]

    return shapes


def _called(link: _Link, operator: Any) -> Gradient:
    """An operator as the backward of the order before calls it."""

    def call(wanted: Wanted, arguments: Sequence[Any]) -> Sequence[Any]:
        wanted = _nonzero(link, wanted, arguments)
        outputs = operator(*arguments, list(wanted))
        return [t if want else None for t, want in zip(outputs, wanted, strict=True)]

    return call


def _setup(s: Signature) -> Callable[..., None]:
    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.wanted, arguments = _masked(s, inputs)
        _save(ctx, len(s.inputs), arguments)

    return setup


def _backward(s: Signature, following: Gradient) -> Callable[..., tuple[Any, ...]]:
    n = len(s.inputs)

    def backward(ctx: Any, cotangents: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
        given = [g if want else None for g, want in zip(cotangents, ctx.wanted, strict=True)]
        gradients = _gradients(ctx, n, given, ctx.needs_input_grad[:n], following)
        return (*gradients, None) if s.cotangents else gradients

    return backward


# ── the chain ────────────────────────────────────────────────────────────────────────────────────


def _save(ctx: Any, n: int, arguments: Sequence[Any]) -> None:
    """Keep what the backward takes; indices and extents have no derivative and no versions."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*arguments[:n])
    ctx.present = [t is not None for t in arguments[:n]]
    ctx.rest = arguments[n:]


def _gradients(
    ctx: Any, n: int, cotangents: Sequence[torch.Tensor | None], needed: Sequence[bool], following: Gradient
) -> tuple[Any, ...]:
    """The next order applied to what was saved and the cotangents; None for what is not needed or zero."""
    gradients: Sequence[Any] = (None,) * n
    if any(needed) and any([g is not None for g in cotangents]):
        gradients = following(needed, (*ctx.saved_tensors, *cotangents, *ctx.rest))
    return (*gradients, *(None for _ in ctx.rest))


def _nonzero(link: _Link, wanted: Wanted, arguments: Sequence[Any]) -> Wanted:
    """Without the outputs that are zero, because all cotangents that they depend on are absent."""
    s = link.signature
    present = [t is not None for t in arguments[len(s.inputs) - s.cotangents : len(s.inputs)]]
    if all(present):
        return wanted
    return [w and any([present[i] for i in numbers]) for w, numbers in zip(wanted, link.cotangents, strict=True)]


def _third(function: Callable[..., Any], meaning: ModuleType, s: Signature) -> Gradient:
    """The derivative of the highest order, by torch's autograd through the torch text."""
    n, outputs = len(s.inputs), len(s.outputs)

    def gradient(wanted: Wanted, arguments: Sequence[Any]) -> Sequence[Any]:
        inputs, cotangents, rest = arguments[:n], arguments[n : n + outputs], arguments[n + outputs :]
        _, indices, extents = separate(s, (*inputs, *rest))
        counts = row_counts(s, inputs, indices)
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            variables = []
            for a, t in zip(s.inputs, inputs, strict=True):
                if t is None:
                    variables.append(inputs[0].new_zeros(shape_of(a, s, counts, extents)))
                else:
                    # Aliases: an input may itself be computed from another, and only partial derivatives are wanted.
                    variables.append(t.view_as(t) if t.requires_grad else t.detach().requires_grad_())
            result = function(*variables, *(meaning.Index(*index) for index in indices), *extents)
            values = result if isinstance(result, tuple) else (result,)
            given = [(v, g) for v, g in zip(values, cotangents, strict=True) if g is not None and v.requires_grad]
            asked = [t for t, want in zip(variables, wanted, strict=True) if want]
            found = torch.autograd.grad(
                [v for v, _ in given], asked, [g for _, g in given], create_graph=further, allow_unused=True
            )
        gradients = iter(found)
        return [next(gradients) if want else None for want in wanted]

    return gradient
