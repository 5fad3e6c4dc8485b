"""Gate: the nonlinearity of steerable features; scalars are activated, the others scaled by activated gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.algebra.recipe import GateRecipe, labels
from irrepc.errors import IrrepsError
from irrepc.nn.closed_forms import silu
from irrepc.nn.linear import check_width, joined
from irrepc.runtime.load import check_choice, load


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
    "silu": Activation(silu, SILU_GAIN, 0),
    "sigmoid": Activation(torch.sigmoid, SIGMOID_GAIN, 0),
    "tanh": Activation(torch.tanh, TANH_GAIN, -1),
    "abs": Activation(torch.abs, ABS_GAIN, 1),
}


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
        backend: str = "auto",
    ) -> None:
        super().__init__()
        scalars, gates, gated = Irreps.of(scalars), Irreps.of(gates), Irreps.of(gated).simplify()
        if gates.num_irreps != gated.num_irreps:
            raise IrrepsError(
                f"Gate: got {gates.num_irreps} gates {gates} for {gated.num_irreps} irreps {gated}; expected one each"
            )
        activated = _activated("scalars", scalars, scalar_activations)
        opened = _activated("gates", gates, gate_activations).simplify()
        names = (*scalar_activations, *gate_activations)
        pieces = _pieces(tuple(gated), tuple(opened))
        self.irreps_out = activated + Irreps(tuple(after for _, after in pieces))

        # the input's blocks, cut into the pieces of the three kinds: in sorted order, and where each piece then lies
        parts = (*scalars, *gates, *(before for before, _ in pieces))
        ordered, order = Irreps(parts).sort()
        self.irreps_in = ordered.simplify()
        places = {k: place for place, k in enumerate(k for k in order if parts[k].mul)}
        self._widths = tuple(b.dim for b in self.irreps_in)
        self._shapes = tuple((b.irrep.dim, b.mul) for b in self.irreps_in)
        self._cuts = tuple(tuple(p.mul for p in ordered if p.mul and p.irrep == b.irrep) for b in self.irreps_in)
        functions = {place: ACTIVATIONS[name] for k, name in enumerate(names) if (place := places.get(k)) is not None}
        self._runs = _runs(self._cuts, functions)
        self._scalars = tuple(places[k] for k in range(len(scalars)) if parts[k].mul)
        first = len(scalars)
        self._gates = tuple(places[k] for k in range(first, first + len(gates)) if parts[k].mul)
        self._gated = tuple(places[k] for k in range(first + len(gates), len(parts)))
        kept, extents = labels(Irreps(tuple(before for before, _ in pieces)), "u")
        self._extents = tuple(extents[name] for name in dict.fromkeys(a for label in kept for a in label.axes))
        self._kernel = load(GateRecipe(kept), check_choice(backend)) if pieces else None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, irreps_in.dim) -> (rows, irreps_out.dim), both ir_mul."""
        rows = x.shape[0]
        check_width("Gate", x, self.irreps_in)
        pieces: list[Tensor] = []
        blocks = zip(x.split_with_sizes(self._widths, 1), self._shapes, self._cuts, self._runs, strict=True)
        for block, shape, cuts, runs in blocks:
            if len(cuts) == 1 and not runs:
                pieces.append(block)
            elif runs:  # numbers: neighbours with the same activation go through it together
                parts = block.split_with_sizes([sum(widths) for _, widths in runs], 1)
                for part, (activation, widths) in zip(parts, runs, strict=True):
                    pieces += activation(part).split_with_sizes(widths, 1)
            else:
                pieces += [p.flatten(1) for p in block.view(rows, *shape).split_with_sizes(cuts, 2)]
        out = [pieces[k] for k in self._scalars]
        if self._kernel is not None:
            features, gates = ([pieces[k] for k in group] for group in (self._gated, self._gates))
            out.append(self._kernel(joined(features, 1), joined(gates, 1), *self._extents))
        return joined(out, 1) if out else x.new_zeros(rows, 0)

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


Run = tuple[Activation, tuple[int, ...]]


def _runs(cuts: tuple[tuple[int, ...], ...], functions: dict[int, Activation]) -> tuple[tuple[Run, ...], ...]:
    """For each input block: the activations of its pieces, each with the widths of the neighbours that share it."""
    out, place = [], 0
    for widths in cuts:
        found = [(functions.get(place + k), width) for k, width in enumerate(widths)]
        groups = ((function, tuple(w for _, w in run)) for function, run in groupby(found, lambda pair: pair[0]))
        out.append(tuple((function, run) for function, run in groups if function is not None))
        place += len(widths)
    return tuple(out)


def _pieces(gated: tuple[Block, ...], gates: tuple[Block, ...]) -> list[tuple[Block, Block]]:
    """Gated blocks, cut where the parity of their gates changes: each piece before and after its gates."""
    signs = [block.irrep.p for block in gates for _ in range(block.mul)]
    pieces, gate = [], 0
    for block in gated:
        for p, run in groupby(signs[gate : gate + block.mul]):
            mul = len(list(run))
            after = Irrep(block.irrep.l, block.irrep.p * p)
            pieces.append((Block(mul, block.irrep), Block(mul, after)))
        gate += block.mul
    return pieces
