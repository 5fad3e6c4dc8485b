"""SwishGate: SiLU of the scalars, every other irrep times the sigmoid of a scalar of its own; one kernel.

Equal to Gate with "silu" and "sigmoid", for features whose irreps lie apart: silu(x) is x times sigmoid(x), so scalars
are gated like all others, by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.algebra.recipe import GateRecipe, labels
from irrepc.errors import IrrepsError
from irrepc.nn.closed_forms import silu
from irrepc.nn.gate import SIGMOID_GAIN, SILU_GAIN
from irrepc.runtime.load import check_choice, load


class SwishGate(nn.Module):
    """φ(scalars) ⊕ ψ(gates) · gated, with the gains that keep second moments (irrepc/nn/gate.py).

    irreps_out  0e first, then the irreps to be gated, each once
    irreps_in   0e for the scalars and then the gates, one for each other copy; then the gated irreps

    Raises IrrepsError unless 0e comes first.
    """

    gains: Tensor

    def __init__(self, irreps_out: Irreps | str, backend: str = "auto") -> None:
        super().__init__()
        self.irreps_out = Irreps.of(irreps_out)
        if not len(self.irreps_out) or not self.irreps_out[0].irrep.is_scalar:
            raise IrrepsError(f"SwishGate: got {self.irreps_out}; expected 0e in the first block")
        self.scalars = self.irreps_out[0].mul
        gates = self.irreps_out.num_irreps - self.scalars
        self.irreps_in = Irreps((Block(self.scalars + gates, Irrep(0, 1)), *self.irreps_out.blocks[1:]))
        self._gains = (SILU_GAIN,) * self.scalars + (SIGMOID_GAIN,) * gates
        self.register_buffer("gains", torch.tensor(self._gains), persistent=False)
        left, extents = labels(self.irreps_out, "u")
        names = dict.fromkeys(a for label in left for a in label.axes)
        self._extents = tuple(extents[name] for name in names)
        self._kernel = load(GateRecipe(left, apart=True), check_choice(backend))

    def forward(self, blocks: Sequence[Tensor]) -> Tensor:
        """Features of irreps_in apart -> (rows, irreps_out.dim), ir_mul."""
        first, rows = blocks[0], blocks[0].shape[0]
        gated = [x.view(rows, b.dim) for x, b in zip(blocks[1:], self.irreps_in.blocks[1:], strict=True)]
        opened = torch.sigmoid(first) * self.gains
        scalars = first if not gated else first[:, : self.scalars]
        out: Tensor = self._kernel(scalars, *gated, opened, *self._extents)
        return out

    def only_scalars(self, first: Tensor) -> Tensor:
        """φ(scalars) alone, of the first block of irreps_in: where what is gated is not read."""
        return silu(first[:, : self.scalars]) * SILU_GAIN

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SwishGate:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # a new dtype rounds the constants themselves, not what another dtype had made of them
        self.gains = torch.tensor(self._gains, dtype=self.gains.dtype, device=self.gains.device)
        return self

    def extra_repr(self) -> str:
        """Irreps, for repr."""
        return f"{self.irreps_in} -> {self.irreps_out}"
