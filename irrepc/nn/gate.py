"""Gate: the nonlinearity of steerable features; scalars are activated, the others scaled by activated gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.errors import IrrepsError
from irrepc.nn.graph import InputError


@dataclass(frozen=True, slots=True)
class Activation:
    """gain · function; parity +1 for an even function, -1 for an odd one, 0 for neither.

    The gains make the second moment one for normal inputs. They are the Monte-Carlo numbers of e3nn's normalize2mom
    (10⁶ samples, seed 0), wrong by up to 2e-3 and part of every trained network, so they are copied and not derived.
    """

    function: Callable[[Tensor], Tensor]
    gain: float
    parity: int

    def __call__(self, x: Tensor) -> Tensor:
        """Same shape."""
        return self.function(x) * self.gain


SILU_GAIN = 1.6791767923989418
TANH_GAIN = 1.5937334472592695
SIGMOID_GAIN = 1.8467055342154763
ABS_GAIN = 1.001110600838467

ACTIVATIONS = {
    "silu": Activation(F.silu, SILU_GAIN, 0),
    "sigmoid": Activation(torch.sigmoid, SIGMOID_GAIN, 0),
    "tanh": Activation(torch.tanh, TANH_GAIN, -1),
    "abs": Activation(torch.abs, ABS_GAIN, 1),
}


class _Part(NamedTuple):
    """Some channels of an input block, seen as (rows, components, width of the block)[:, :, first:last]."""

    start: int
    stop: int
    components: int
    width: int
    first: int
    last: int

    def read(self, x: Tensor) -> Tensor:
        """(rows, components, channels)."""
        whole = x[:, self.start : self.stop].reshape(x.shape[0], self.components, self.width)
        return whole[:, :, self.first : self.last]


class Gate(nn.Module):
    """φ(scalars) ⊕ ψ(gates) · gated, as e3nn's Gate, in our layout.

    scalars, gates  irreps of degree 0, each block with the name of its activation ("silu", "sigmoid", "tanh", "abs")
    gated           irreps, one gate for each copy, in order
    irreps_in       all of them, sorted by irrep (stable) and simplified: 0e holds the scalars, then the gates
    irreps_out      activated scalars, then the gated irreps with the parity of their gates

    Raises IrrepsError where the numbers of gates and gated irreps differ, a scalar has a degree > 0, an activation is
    unknown, or one that is neither even nor odd stands on an odd scalar: silu(-x) is no multiple of silu(x).
    """

    def __init__(
        self,
        scalars: Irreps | str,
        scalar_activations: Sequence[str],
        gates: Irreps | str,
        gate_activations: Sequence[str],
        gated: Irreps | str,
    ) -> None:
        super().__init__()
        scalars, gates, gated = Irreps.of(scalars), Irreps.of(gates), Irreps.of(gated).simplify()
        if gates.num_irreps != gated.num_irreps:
            raise IrrepsError(
                f"Gate: got {gates.num_irreps} gates {gates} for {gated.num_irreps} irreps {gated}; expected one each"
            )
        activated = _activated("scalars", scalars, scalar_activations)
        opened = _activated("gates", gates, gate_activations).simplify()
        self._activations = tuple(ACTIVATIONS[name] for name in (*scalar_activations, *gate_activations))

        blocks = (*scalars, *gates, *gated)
        self.irreps_in, parts = _sorted_parts(blocks)
        self._width = self.irreps_in.dim
        degree_zero = len(scalars) + len(gates)
        self._scalars, self._gates = parts[: len(scalars)], parts[len(scalars) : degree_zero]
        pieces = _pieces(tuple(gated), tuple(opened), parts[degree_zero:])
        self._gated = tuple((part, first) for part, first, _ in pieces)
        self.irreps_out = activated + Irreps(tuple(block for _, _, block in pieces))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps_in.dim) -> (rows, irreps_out.dim), both ir_mul."""
        rows = x.shape[0]
        if x.shape[1:] != (self._width,):
            raise InputError(f"Gate: got shape {tuple(x.shape)}; expected (rows, {self._width}) of {self.irreps_in}")
        values = [
            activation(part.read(x)[:, 0])
            for activation, part in zip(self._activations, (*self._scalars, *self._gates), strict=True)
        ]
        out, gates = values[: len(self._scalars)], values[len(self._scalars) :]
        if self._gated:
            gate = gates[0] if len(gates) == 1 else torch.cat(gates, 1)
            for part, first in self._gated:
                features = part.read(x)
                product = features * gate[:, None, first : first + features.shape[2]]
                out.append(product.reshape(rows, part.components * features.shape[2]))
        return torch.cat(out, 1) if out else x.new_zeros(rows, 0)

    def extra_repr(self) -> str:
        """Irreps, for repr."""
        return f"{self.irreps_in} -> {self.irreps_out}"


def _activated(what: str, irreps: Irreps, names: Sequence[str]) -> Irreps:
    """The irreps after the activations, with their parities."""
    if len(names) != len(irreps):
        raise IrrepsError(f"Gate: got {len(names)} activations for {what} {irreps}; expected one for each block")
    out = []
    for block, name in zip(irreps, names, strict=True):
        if name not in ACTIVATIONS:
            raise IrrepsError(f"Gate: got activation {name!r}; expected one of {', '.join(sorted(ACTIVATIONS))}")
        parity = block.irrep.p if block.irrep.p == 1 else ACTIVATIONS[name].parity
        if block.irrep.l != 0:
            raise IrrepsError(f"Gate: got {block} among the {what}; expected degree 0; put it among the gated irreps")
        if parity == 0:
            raise IrrepsError(
                f"Gate: got {name} on odd {what} {block}; expected an odd function (tanh) or an even one (abs), "
                "otherwise reflections do more than change the sign"
            )
        out.append(Block(block.mul, Irrep(0, parity)))
    return Irreps(tuple(out))


def _sorted_parts(blocks: tuple[Block, ...]) -> tuple[Irreps, tuple[_Part, ...]]:
    """Sorted, simplified irreps of the blocks, and where each block's channels went."""
    ordered, order = Irreps(blocks).sort()
    whole = ordered.simplify()
    places = {block.irrep: where for block, where in zip(whole, whole.slices(), strict=True)}
    used = dict.fromkeys(places, 0)
    parts: dict[int, _Part] = {}
    for k in order:
        block = blocks[k]
        if not block.mul:
            parts[k] = _Part(0, 0, block.irrep.dim, 0, 0, 0)
            continue
        where, first = places[block.irrep], used[block.irrep]
        width = (where.stop - where.start) // block.irrep.dim
        parts[k] = _Part(where.start, where.stop, block.irrep.dim, width, first, first + block.mul)
        used[block.irrep] += block.mul
    return whole, tuple(parts[k] for k in range(len(blocks)))


def _pieces(
    gated: tuple[Block, ...], gates: tuple[Block, ...], parts: tuple[_Part, ...]
) -> list[tuple[_Part, int, Block]]:
    """Gated blocks cut where the parity of their gates changes: the part, its first gate, its irrep after the gate."""
    ends = [sum(b.mul for b in gates[: k + 1]) for k in range(len(gates))]
    pieces, gate, run = [], 0, 0
    for block, part in zip(gated, parts, strict=True):
        first = part.first
        while first < part.last:
            while ends[run] <= gate:
                run += 1
            last = min(part.last, first + ends[run] - gate)
            irrep = Irrep(block.irrep.l, block.irrep.p * gates[run].irrep.p)
            pieces.append((part._replace(first=first, last=last), gate, Block(last - first, irrep)))
            gate, first = gate + last - first, last
    return pieces
