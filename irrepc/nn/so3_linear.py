"""SO3Linear: one matrix for each degree, the same for all its components (Liao et al., EquiformerV2, ICLR 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SO3Linear(nn.Module):
    """y[l, m] = W_l x[l, m], and a bias for l = 0.

    weight  (lmax + 1, out, in); bias (out,)
    """

    degrees: Tensor

    def __init__(self, lmax: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.lmax, self.channels_in, self.channels_out = lmax, channels_in, channels_out
        self.weight = nn.Parameter(torch.empty(lmax + 1, channels_out, channels_in))
        self.bias = nn.Parameter(torch.empty(channels_out))
        self.register_buffer("degrees", degrees_of_components(lmax), persistent=False)
        self.reset()

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Uniform in ± 1/√inputs; bias zero."""
        nn.init.uniform_(self.weight, -1 / math.sqrt(self.channels_in), 1 / math.sqrt(self.channels_in), generator)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, (lmax+1)²·in) -> (rows, (lmax+1)²·out)."""
        components = self.degrees.shape[0]
        by_component = torch.unflatten(x, 1, (components, self.channels_in)).transpose(0, 1)
        weight = self.weight.index_select(0, self.degrees).mT
        bias = nn.functional.pad(self.bias[None, None], (0, 0, 0, 0, 0, components - 1))
        return torch.baddbmm(bias, by_component, weight).transpose(0, 1).flatten(1)

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, {self.channels_in} -> {self.channels_out}"


def degrees_of_components(lmax: int) -> Tensor:
    """l of each component (l, m), ((lmax+1)²,) int64."""
    return torch.tensor([l for l in range(lmax + 1) for _ in range(2 * l + 1)])
