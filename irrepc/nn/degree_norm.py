"""Normalisation of features u*0e+u*1o+...+u*lmax by their mean square, in the three ways of EquiformerV2 and eSEN.

The mean square of degree l is (1/(2l+1)) Σ_m mean_c x[l, m, c]² («component» normalisation); ε is 1e-5.
Liao et al., EquiformerV2, ICLR 2024, section 4.1 and figure 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.errors import InputError
from irrepc.nn.so3_linear import degrees_of_components

EPSILON = 1e-5


class DegreeRMSNorm(nn.Module):
    """«rms_norm_sh»: l = 0 centred over its channels, then everything over the root of one mean square of all degrees.

    weight  (lmax + 1, channels); bias (channels,), of l = 0
    """

    degrees: Tensor
    sizes: Tensor

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        _remember(self, lmax)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, (lmax+1)²·channels) -> the same shape."""
        x = _centred(torch.unflatten(x, 1, (-1, self.channels)))
        scale = (_mean_squares(x, self.sizes).sum(1) / (self.lmax + 1) + EPSILON).rsqrt()
        y = x * scale[:, None, None] * self.weight.index_select(0, self.degrees)
        return _biased(y, self.bias)


class DegreeLayerNorm(nn.Module):
    """«layer_norm_sh»: the ordinary layer norm for l = 0, one mean square for all degrees above.

    weight  (lmax, channels), of l > 0; scalars an nn.LayerNorm
    """

    degrees: Tensor
    sizes: Tensor

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.scalars = nn.LayerNorm(channels, eps=EPSILON)
        self.weight = nn.Parameter(torch.ones(lmax, channels))
        _remember(self, lmax)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, (lmax+1)²·channels) -> the same shape."""
        scalars, rest = x[:, : self.channels], torch.unflatten(x[:, self.channels :], 1, (-1, self.channels))
        scale = (_mean_squares(rest, self.sizes[1:]).sum(1) / max(self.lmax, 1) + EPSILON).rsqrt()
        rest = rest * scale[:, None, None] * self.weight.index_select(0, self.degrees[1:] - 1)
        return torch.cat((self.scalars(scalars), rest.flatten(1)), 1)


class SeparateLayerNorm(nn.Module):
    """«layer_norm»: each degree over the root of its own mean square, l = 0 centred first.

    weight  (lmax + 1, channels); bias (channels,), of l = 0
    """

    degrees: Tensor
    sizes: Tensor

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        _remember(self, lmax)
        self._dims = [2 * l + 1 for l in range(lmax + 1)]

    def forward(self, x: Tensor) -> Tensor:
        """(rows, (lmax+1)²·channels) -> the same shape."""
        x = _centred(torch.unflatten(x, 1, (-1, self.channels)))
        squares = _mean_squares(x, self.sizes).split_with_sizes(self._dims, 1)
        scale = (torch.stack([part.sum(1) for part in squares], 1) + EPSILON).rsqrt()
        factors = scale.unsqueeze(-1) * self.weight
        return _biased(x * factors.index_select(1, self.degrees), self.bias)


NORMS: dict[str, type[DegreeRMSNorm] | type[DegreeLayerNorm] | type[SeparateLayerNorm]] = {
    "rms_norm_sh": DegreeRMSNorm,
    "layer_norm_sh": DegreeLayerNorm,
    "layer_norm": SeparateLayerNorm,
}


def degree_norm(kind: str, lmax: int, channels: int) -> nn.Module:
    """The norm of that name, one of NORMS. Raises InputError for another."""
    if kind not in NORMS:
        raise InputError(f"norm: got {kind!r}; expected one of {', '.join(NORMS)}")
    return NORMS[kind](lmax, channels)


def _remember(norm: nn.Module, lmax: int) -> None:
    """Buffers: l and 2l+1 of each component; whole numbers, which every dtype holds exactly."""
    degrees = degrees_of_components(lmax)
    norm.register_buffer("degrees", degrees, persistent=False)
    norm.register_buffer("sizes", (2 * degrees + 1).to(torch.get_default_dtype()), persistent=False)


def _centred(x: Tensor) -> Tensor:
    """(rows, components, channels) with the mean over channels taken from l = 0."""
    first = x[:, :1]
    return torch.cat((first - first.mean(-1, keepdim=True), x[:, 1:]), 1)


def _mean_squares(x: Tensor, sizes: Tensor) -> Tensor:
    """Mean over channels of x² over 2l+1: the sum over the components of a degree is its mean square."""
    return x.square().mean(-1) / sizes


def _biased(y: Tensor, bias: Tensor) -> Tensor:
    """The bias on l = 0; flat."""
    return (y + F.pad(bias[None], (0, 0, 0, y.shape[1] - 1))).flatten(1)
