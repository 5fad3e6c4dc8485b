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
from hashlib import sha256
from types import ModuleType
from typing import Any, NamedTuple

import torch

from .arrays import OnArrays
from .operands import Loop, Order, Signature, Wanted, check_operands, derivative, separate, shape_of, signature

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
        self._eager, self._wanted = following, (True,) * len(self.signature.outputs)

    def __call__(self, *arguments: Any) -> Any:
        """Operands, then an Index (values, order, start) for each index, then channel extents, as the emitted text.

        Raises TypeError for mixed or unsupported dtypes and ValueError for wrong devices or shapes.
        """
        s = self.signature
        n, m = len(s.inputs), len(s.inputs) + len(s.indices)
        operands, indices, extents = arguments[:n], arguments[n:m], arguments[m:]
        if torch.compiler.is_compiling():
            flat = (t for index in indices for t in index)
            result = self._operators[0](*operands, *flat, *extents)  # which checks for itself
        else:
            loop = Loop(s, operands, indices, extents)
            check_operands(self.name, s, operands, loop, self.device)
            result = self._eager(self._wanted, loop, operands)
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


def private(name: str, otherwise: Callable[..., bool]) -> Callable[..., bool]:
    """A function that torch does not promise to keep; where it is gone, what is always right, if slower."""
    found: Callable[..., bool] = getattr(torch._C, name, otherwise)
    return found


TRANSFORMED = private("_are_functorch_transforms_active", lambda: True)
"""Whether torch.func may be at work; then calls take the way that it understands."""
USED = private("_will_engine_execute_node", lambda node: True)
"""Whether this pass of autograd will use what goes to a node."""
LEAF = "torch::autograd::AccumulateGrad"


def _eager(link: _Link, following: Order) -> Order:
    """One order for eager calls: the dispatcher costs more than a small kernel; torch is asked for gradients only."""
    run, has_cotangents = link.run, link.signature.cotangents > 0

    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> Any:
        saved = ctx.saved_tensors
        used = _used(ctx, saved, ctx.needs_input_grad[2:])
        return (None, None, *_gradients(ctx.loop, saved, cotangents, used, following))

    def forward(ctx: Any, wanted: Wanted, loop: Loop, *operands: Any) -> Any:
        _save(ctx, loop, operands)
        return tuple(run(wanted, loop, operands))

    def forward_alone(wanted: Wanted, loop: Loop, *operands: Any) -> Any:
        return tuple(run(wanted, loop, operands))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _save(ctx, inputs[1], inputs[2:])

    quick = _function(forward=forward, backward=backward)
    transformable = _function(forward=forward_alone, setup_context=setup_context, backward=backward)
    # Function.apply inspects signatures for defaults, 20 µs, and then calls this one; torch.func alone needs it.
    apply = super(torch.autograd.Function, quick).apply

    def call(wanted: Wanted, loop: Loop, operands: Sequence[Any]) -> Sequence[Any]:
        if has_cotangents:
            wanted = _nonzero(link, wanted, operands)
        if TRANSFORMED():
            return transformable.apply(wanted, loop, *operands)  # type: ignore[no-any-return]
        if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in operands]):
            return apply(wanted, loop, *operands)  # type: ignore[no-any-return]
        return run(wanted, loop, operands)

    return call


def _function(**methods: Callable[..., Any]) -> Any:
    """An autograd function with these methods."""
    return type("Differentiable", (torch.autograd.Function,), {k: staticmethod(m) for k, m in methods.items()})


def _used(ctx: Any, saved: Sequence[Any], needed: Sequence[bool]) -> list[bool]:
    """Of the gradients that operands need, those this pass of autograd uses: autograd.grad may ask for few inputs.

    Of a leaf torch does not tell; then the gradient is made.
    """
    if TRANSFORMED():
        return list(needed)
    edges = iter(ctx.next_functions)  # one for each argument that is a tensor
    nodes: list[Any] = [None if t is None else next(edges)[0] for t in saved]
    return [need and (node.name() == LEAF or USED(node)) for need, node in zip(needed, nodes, strict=True)]


# ── operators ────────────────────────────────────────────────────────────────────────────────────


def _register(links: Sequence[_Link], third: Order, unique: str, device: str) -> tuple[Any, ...]:
    """Define an operator for each order, and chain them."""
    library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
    schemas = [_schema(link.signature) for link in links]
    # torch.compile keeps graphs on disk and finds them by the operators' names: other arguments, another name.
    marks = [sha256(schema.encode()).hexdigest()[:8] for schema in schemas]
    names = [f"{unique}_{mark}{suffix}" for mark, suffix in zip(marks, SUFFIXES, strict=True)]
    for name, link, schema in zip(names, links, schemas, strict=True):
        library.define(f"{name}({schema}) -> Tensor[]")
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
        operands, loop = separate(s, arguments)
        check_operands(link.name, s, operands, loop, device)
        outputs = link.run(wanted, loop, operands)
        return [arguments[0].new_empty(0) if t is None else t for t in outputs]

    return run


def _fake(s: Signature) -> Callable[..., list[torch.Tensor]]:
    """Shapes and dtypes without numbers, for torch.compile and torch.export."""

    def shapes(*everything: Any) -> list[torch.Tensor]:
        wanted, arguments = _masked(s, everything)
        _, loop = separate(s, arguments)
        made = [shape_of(o, s, loop) if want else (0,) for o, want in zip(s.outputs, wanted, strict=True)]
        return [arguments[0].new_empty(size) for size in made]

    return shapes


def _called(link: _Link, operator: Any) -> Order:
    """An operator as the backward of the order before calls it."""

    def call(wanted: Wanted, loop: Loop, operands: Sequence[Any]) -> Sequence[Any]:
        wanted = _nonzero(link, wanted, operands)
        outputs = operator(*operands, *(t for index in loop.indices for t in index), *loop.extents, list(wanted))
        return [t if want else None for t, want in zip(outputs, wanted, strict=True)]

    return call


def _setup(s: Signature) -> Callable[..., None]:
    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.wanted, arguments = _masked(s, inputs)
        operands, loop = separate(s, arguments)
        _save(ctx, loop, operands)

    return setup


def _backward(s: Signature, following: Order) -> Callable[..., tuple[Any, ...]]:
    n, others = len(s.inputs), 3 * len(s.indices) + len(s.axes) + (1 if s.cotangents else 0)

    def backward(ctx: Any, cotangents: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
        given = [g if want else None for g, want in zip(cotangents, ctx.wanted, strict=True)]
        found = _gradients(ctx.loop, ctx.saved_tensors, given, ctx.needs_input_grad[:n], following)
        return (*found, *(None,) * others)

    return backward


# ── the chain ────────────────────────────────────────────────────────────────────────────────────


def _save(ctx: Any, loop: Loop, operands: Sequence[Any]) -> None:
    """Keep what the backward takes; indices have no derivative and no versions."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*operands)
    ctx.loop = loop


def _gradients(
    loop: Loop,
    saved: Sequence[Any],
    cotangents: Sequence[torch.Tensor | None],
    needed: Sequence[bool],
    following: Order,
) -> Sequence[Any]:
    """The next order applied to what was saved and the cotangents; None for what is not needed or zero."""
    if True in needed and any([g is not None for g in cotangents]):
        return following(needed, loop, (*saved, *cotangents))
    return (None,) * len(needed)


def _nonzero(link: _Link, wanted: Wanted, operands: Sequence[Any]) -> Wanted:
    """Without the outputs that are zero, because all cotangents that they depend on are absent."""
    count = link.signature.cotangents
    present = [t is not None for t in operands[len(operands) - count :]] if count else ()
    if False not in present:
        return wanted
    return [w and any([present[i] for i in numbers]) for w, numbers in zip(wanted, link.cotangents, strict=True)]


def _third(function: Callable[..., Any], meaning: ModuleType, s: Signature) -> Order:
    """The derivative of the highest order, by torch's autograd through the torch text."""
    n = len(s.inputs)

    def gradient(wanted: Wanted, loop: Loop, operands: Sequence[Any]) -> Sequence[Any]:
        inputs, cotangents = operands[:n], operands[n:]
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            variables = []
            for a, t in zip(s.inputs, inputs, strict=True):
                if t is None:
                    variables.append(inputs[0].new_zeros(shape_of(a, s, loop)))
                else:
                    # Aliases: an input may itself be computed from another, and only partial derivatives are wanted.
                    variables.append(t.view_as(t) if t.requires_grad else t.detach().requires_grad_())
            result = function(*variables, *(meaning.Index(*index) for index in loop.indices), *loop.extents)
            values = result if isinstance(result, tuple) else (result,)
            pairs = zip(values, cotangents, strict=True)
            given = [(v, g) for v, g in pairs if g is not None and v.requires_grad]
            asked = [t for t, want in zip(variables, wanted, strict=True) if want]
            found = torch.autograd.grad(
                [v for v, _ in given], asked, [g for _, g in given], create_graph=further, allow_unused=True
            )
        gradients = iter(found)
        return [next(gradients) if want else None for want in wanted]

    return gradient
