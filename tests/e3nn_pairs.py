"""A module of e3nn and the same one with generated kernels inside, and what must be equal between them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import irrepc.e3nn

Build = Callable[[], nn.Module]


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
    if not out.requires_grad:  # nothing leads to it
        return [out]
    first = torch.autograd.grad(out.sin().sum(), leaves, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves, materialize_grads=True)
    return [out, *first, *second]


def agree(theirs: nn.Module, ours: nn.Module, *inputs: Tensor) -> None:
    """Fail unless all orders are equal to 1e-12, relative to the largest number."""
    for a, b in zip(orders(theirs, inputs), orders(ours, inputs), strict=True):
        assert a.shape == b.shape
        assert a.numel() == 0 or float((a - b).detach().abs().max()) < 1e-12 * max(1.0, float(a.detach().abs().max()))
