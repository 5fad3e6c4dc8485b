"""BlockProduct: the matrix products of a linear map of steerable features, all irreps in one node of autograd.

A small network spends most of its time on the bookkeeping of such products, not in them.  There are three, linear in
each argument, and the derivatives of each are the other two, so any order of derivative is a few calls:

    apply(W, x) = y      back(W, g) = x̄      outer(g, x) = W̄
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from irrepc.nn.closed_forms import is_transformed

Tensors = Sequence[Tensor]


class Target(NamedTuple):
    """An output block: its size, the scale of its matrix, and the input blocks and weights that feed it."""

    components: int
    mul: int
    scale: float
    blocks: tuple[int, ...]
    matrices: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BlockProduct:
    """What is multiplied with what.

    blocks    (components, mul) of each input block
    shapes    (mul_in, mul_out) of each matrix of the weights, which lie flat one after the other
    targets   the output blocks
    species   how many weights there are of each kind, (species, Σ sizes); 0: one, (Σ sizes,), the same for all rows
    """

    blocks: tuple[tuple[int, int], ...]
    shapes: tuple[tuple[int, int], ...]
    targets: tuple[Target, ...]
    species: int = 0

    def __call__(self, weight: Tensor, x: Tensor, one_hot: Tensor | None, matrices: Tensors) -> Tensor:
        """Features -> (rows, Σ components · mul of the targets).

        matrices: those of `weight`, detached; one_hot (rows, species) says the species of each row, where weights have
        species.
        """
        if is_transformed():
            return self.apply(self.matrices(weight), x, one_hot)
        if torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad):
            y: Tensor = _apply(self, one_hot, matrices, weight, x)
            return y
        return self.apply(matrices, x, one_hot)

    # ── the three products, of plain arrays ──────────────────────────────────────────────────────

    def apply(self, matrices: Tensors, x: Tensor, one_hot: Tensor | None) -> Tensor:
        """y of x."""
        rows, features = x.shape[0], iter(self._gathered(x, one_hot))
        found = iter(matrices)
        out = [
            torch.mm(next(features), next(found)).view(rows, t.components * t.mul)
            if t.blocks
            else x.new_zeros(rows, t.components * t.mul)
            for t in self.targets
        ]
        return out[0] if len(out) == 1 else torch.cat(out, 1)

    def back(self, matrices: Tensors, g: Tensor, one_hot: Tensor | None) -> Tensor:
        """x̄ of the cotangent of y."""
        parts = [torch.mm(h, m.t()) for h, m in zip(self._cotangents(g), matrices, strict=True)]
        return self._scattered(parts, g.shape[0], one_hot)

    def outer(self, g: Tensor, x: Tensor, one_hot: Tensor | None) -> Tensor:
        """W̄ of the cotangent of y and x."""
        features = self._gathered(x, one_hot)
        return self._flat([torch.mm(f.t(), h) for f, h in zip(features, self._cotangents(g), strict=True)], g)

    def matrices(self, weight: Tensor) -> list[Tensor]:
        """What the features of each target that is fed are multiplied with, ([species ·] fan-in, mul)."""
        sizes = [n * m for n, m in self.shapes]
        if not self.species:
            parts = [w.view(shape) for w, shape in zip(weight.split_with_sizes(sizes), self.shapes, strict=True)]
            return [_joined([parts[k] for k in t.matrices], 0) * t.scale for t in self.targets if t.blocks]
        pieces = weight.view(self.species, -1).split_with_sizes(sizes, 1)
        parts = [w.view(self.species, *shape) for w, shape in zip(pieces, self.shapes, strict=True)]
        fed = (t for t in self.targets if t.blocks)
        return [_joined([parts[k] for k in t.matrices], 1).flatten(0, 1) * t.scale for t in fed]

    # ── features and weights, put together and taken apart ───────────────────────────────────────

    def _gathered(self, x: Tensor, one_hot: Tensor | None) -> list[Tensor]:
        """The features of each target that is fed, (rows · components, [species ·] fan-in)."""
        rows, out = x.shape[0], []
        parts = x.split_with_sizes([components * mul for components, mul in self.blocks], 1)
        for t in self.targets:
            if not t.blocks:
                continue
            features = _joined([parts[k].view(rows, *self.blocks[k]) for k in t.blocks], 2)
            if one_hot is not None:
                features = one_hot[:, None, :, None] * features.unsqueeze(2)
            out.append(features.reshape(rows * t.components, features.shape[2:].numel()))
        return out

    def _scattered(self, parts: Tensors, rows: int, one_hot: Tensor | None) -> Tensor:
        """The transpose of `_gathered`."""
        fed = [t for t in self.targets if t.blocks]
        whole = parts[0].new_empty(rows, sum(components * mul for components, mul in self.blocks))
        places = whole.split_with_sizes([components * mul for components, mul in self.blocks], 1)
        written: set[int] = set()
        for part, t in zip(parts, fed, strict=True):
            x = part.view(rows, t.components, part.shape[1])
            if one_hot is not None:
                fan_in = part.shape[1] // self.species
                x = (x.view(rows, t.components, self.species, fan_in) * one_hot[:, None, :, None]).sum(2)
            for k, piece in zip(t.blocks, x.split_with_sizes([self.blocks[k][1] for k in t.blocks], 2), strict=True):
                place = places[k].view(rows, *self.blocks[k])
                _ = place.add_(piece) if k in written else place.copy_(piece)
                written.add(k)
        for k in range(len(self.blocks)):
            if k not in written:
                places[k].zero_()
        return whole

    def _cotangents(self, g: Tensor) -> list[Tensor]:
        parts = g.split_with_sizes([t.components * t.mul for t in self.targets], 1)
        pairs = zip(parts, self.targets, strict=True)
        return [part.reshape(g.shape[0] * t.components, t.mul) for part, t in pairs if t.blocks]

    def _flat(self, matrices: Tensors, like: Tensor) -> Tensor:
        """The transpose of `matrices`."""
        copies, fed = max(self.species, 1), (t for t in self.targets if t.blocks)
        out: list[Tensor] = [like] * len(self.shapes)
        for matrix, t in zip(matrices, fed, strict=True):
            whole = (matrix * t.scale).view(copies, matrix.shape[0] // copies, t.mul)
            pieces = whole.split_with_sizes([self.blocks[k][1] for k in t.blocks], 1)
            for k, piece in zip(t.matrices, pieces, strict=True):
                out[k] = piece.reshape(copies, self.shapes[k][0] * self.shapes[k][1])
        flat = _joined(out, 1) if out else like.new_zeros(copies, 0)
        return flat if self.species else flat.view(-1)


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: BlockProduct, one_hot: Tensor | None, ms: Tensors, weight: Tensor, x: Tensor) -> Tensor:
        ctx.plan, ctx.one_hot, ctx.ms = plan, one_hot, ms
        ctx.save_for_backward(weight, x)
        return plan.apply(ms, x, one_hot)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        weight, x = ctx.saved_tensors
        of_weight = _outer(ctx.plan, ctx.one_hot, g, x) if ctx.needs_input_grad[3] else None
        of_x = _back(ctx.plan, ctx.one_hot, ctx.ms, weight, g) if ctx.needs_input_grad[4] else None
        return None, None, None, of_weight, of_x


class _Back(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: BlockProduct, one_hot: Tensor | None, ms: Tensors, weight: Tensor, g: Tensor) -> Tensor:
        ctx.plan, ctx.one_hot, ctx.ms = plan, one_hot, ms
        ctx.save_for_backward(weight, g)
        return plan.back(ms, g, one_hot)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> Any:
        weight, g = ctx.saved_tensors
        of_weight = _outer(ctx.plan, ctx.one_hot, g, x) if ctx.needs_input_grad[3] else None
        of_g = _apply(ctx.plan, ctx.one_hot, ctx.ms, weight, x) if ctx.needs_input_grad[4] else None
        return None, None, None, of_weight, of_g


class _Outer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: BlockProduct, one_hot: Tensor | None, g: Tensor, x: Tensor) -> Tensor:
        ctx.plan, ctx.one_hot = plan, one_hot
        ctx.save_for_backward(g, x)
        return plan.outer(g, x, one_hot)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> Any:
        g, x = ctx.saved_tensors
        ms = ctx.plan.matrices(weight.detach())
        of_g = _apply(ctx.plan, ctx.one_hot, ms, weight, x) if ctx.needs_input_grad[2] else None
        of_x = _back(ctx.plan, ctx.one_hot, ms, weight, g) if ctx.needs_input_grad[3] else None
        return None, None, of_g, of_x


_apply: Callable[..., Any] = _Apply.apply
_back: Callable[..., Any] = _Back.apply
_outer: Callable[..., Any] = _Outer.apply


def _joined(parts: Tensors, dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)
