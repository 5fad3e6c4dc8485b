"""SO(2) convolutions: into the frame of an edge, one matrix for each order |m|, and back to the atoms.

About the edge, the polar axis of its frame, an equivariant linear map mixes degrees but not orders, and acts on the
pair (x_m, x_-m) as a complex number acts on the plane (Passaro and Zitnick, ICML 2023).  Features in the frame are one
contiguous array for each m = 0 ... mmax, so that a convolution is one matrix product for each (so2_recipe.orders).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.recipe import WignerRecipe
from irrepc.algebra.so2_recipe import OrderGateRecipe, RotateBackRecipe, RotateRecipe, kept_start, orders
from irrepc.errors import InputError
from irrepc.nn.graph import Index
from irrepc.nn.rotations import invert_quaternion
from irrepc.runtime.load import check_choice, load

ByOrder = tuple[Tensor, ...]


class FrameMatrices(nn.Module):
    """The rows |m'| <= mmax of D^0 ... D^lmax that take features of atoms into the frames of edges.

    size  numbers for each edge, Σ_l (2 min(l, mmax) + 1)(2l + 1)
    """

    def __init__(self, lmax: int, mmax: int, backend: str = "auto") -> None:
        super().__init__()
        self.lmax, self.mmax, self.size = lmax, mmax, kept_start(lmax + 1, mmax)
        self._kernel = load(WignerRecipe(lmax, mmax), check_choice(backend))

    def forward(self, frames: Tensor) -> Tensor:
        """Unit quaternions (E, 4) of rotations with R ŷ = the edge's direction (nn/frames.py) -> (E, size)."""
        d: Tensor = self._kernel(invert_quaternion(frames))
        return d

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, mmax={self.mmax}"


class Rotate(nn.Module):
    """Features of atoms, gathered, turned into the frames of edges, times weights; nothing else is stored.

    channels   of each component of the atoms' features
    sides      1: the sender's; 2: the sender's, then the receiver's, side by side along the channels
    weights    "none", "degree" (for each l) or "order" (for each |m| and l); one for each channel and side
    """

    def __init__(
        self, lmax: int, mmax: int, channels: int, *, sides: int = 2, weights: str = "none", backend: str = "auto"
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.channels, self.sides, self.weights = lmax, mmax, channels, sides, weights
        slots = {"none": 0, "degree": lmax + 1, "order": sum(lmax + 1 - m for m in range(mmax + 1))}
        self._kernel = load(RotateRecipe(lmax, mmax, sides, weights), check_choice(backend))
        self.weight_numel = slots[weights] * sides * channels

    def forward(self, x: Tensor, d: Tensor, senders: Index, receivers: Index, w: Tensor | None = None) -> ByOrder:
        """x (N, (lmax+1)²·channels), d (E, FrameMatrices.size), w (E, weight_numel) -> one array for each order.

        Slots of w by |m|, then l; inside, the sender's channels before the receiver's. Raises InputError where w is
        given and not wanted, or the reverse.
        """
        if (w is None) != (self.weights == "none"):
            raise InputError(f"Rotate: got w {'absent' if w is None else 'given'}; expected weights={self.weights}")
        inputs = ((x, x)[: self.sides], (d,), () if w is None else (w,), (senders, receivers)[: self.sides])
        out: ByOrder = self._kernel(*(a for part in inputs for a in part), self.channels)
        return out if isinstance(out, tuple) else (out,)

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, mmax={self.mmax}, {self.sides} x {self.channels} channels, weights={self.weights}"


class RotateBack(nn.Module):
    """Features in the frames of edges, turned back and added up at the receivers.

    heads  0, or the number of heads that the channels are divided in, each with a factor for each edge
    """

    def __init__(self, lmax: int, mmax: int, channels: int, *, heads: int = 0, backend: str = "auto") -> None:
        super().__init__()
        self.lmax, self.mmax, self.channels, self.heads = lmax, mmax, channels, heads
        if heads and channels % heads:
            raise InputError(f"RotateBack: got {channels} channels in {heads} heads; expected a multiple")
        self._kernel = load(RotateBackRecipe(lmax, mmax, bool(heads)), check_choice(backend))
        self._extents = (heads, channels // heads) if heads else (channels,)

    def forward(self, y: ByOrder, d: Tensor, receivers: Index, factors: Tensor | None = None) -> Tensor:
        """y one array for each order, d (E, size), factors (E, heads) -> (N, (lmax+1)²·channels)."""
        if (factors is None) != (self.heads == 0):
            raise InputError(f"RotateBack: got factors {factors is not None}; expected heads={self.heads}")
        out: Tensor = self._kernel(*y, d, *(() if factors is None else (factors,)), receivers, *self._extents)
        return out

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, mmax={self.mmax}, {self.channels} channels, heads={self.heads}"


class SO2Convolution(nn.Module):
    """Linear maps of each order: y_0 = W_0 x_0 + b, y_m + i y_-m = (W_r + i W_i)(x_m + i x_-m).

    extra     scalars that come out beside the features (gates, attention)
    weight_0  (extra + (lmax+1)·out, (lmax+1)·in), bias_0: the extra scalars first
    weights   for each m > 0 W_r over W_i, (2·n·out, n·in), n = lmax + 1 - m degrees; no bias
    """

    def __init__(self, lmax: int, mmax: int, channels_in: int, channels_out: int, *, extra: int = 0) -> None:
        super().__init__()
        self.lmax, self.mmax, self.extra = lmax, mmax, extra
        self.channels_in, self.channels_out = channels_in, channels_out
        self.weight_0 = nn.Parameter(torch.empty(extra + (lmax + 1) * channels_out, (lmax + 1) * channels_in))
        self.bias_0 = nn.Parameter(torch.empty(extra + (lmax + 1) * channels_out))
        sizes = range(lmax, lmax - mmax, -1)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(2 * n * channels_out, n * channels_in)) for n in sizes
        )
        self.reset()

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Uniform in ± 1/√inputs, for m > 0 over √2 (EquiformerV2's); biases zero."""
        for weight, scale in ((self.weight_0, 1.0), *((w, math.sqrt(0.5)) for w in self.weights)):
            nn.init.uniform_(weight, -scale / math.sqrt(weight.shape[1]), scale / math.sqrt(weight.shape[1]), generator)
        nn.init.zeros_(self.bias_0)

    def forward(self, x: ByOrder) -> tuple[Tensor, ByOrder]:
        """x one array for each order -> extra scalars (E, extra), and one array for each order."""
        cut = [self.extra, self.weight_0.shape[0] - self.extra]
        weights, biases = self.weight_0.split_with_sizes(cut), self.bias_0.split_with_sizes(cut)
        # two products rather than one to be cut: what follows wants contiguous arrays
        extra, y = (F.linear(x[0], w, b) for w, b in zip(weights, biases, strict=True))
        return extra, (y, *(complex_product(v, w) for v, w in zip(x[1:], self.weights, strict=True)))

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, mmax={self.mmax}, {self.channels_in} -> {self.channels_out}, extra={self.extra}"


class OrderGate(nn.Module):
    """SiLU for l = 0, and every degree l > 0 times the sigmoid of its gate, the same for all orders."""

    def __init__(self, lmax: int, mmax: int, channels: int, backend: str = "auto") -> None:
        super().__init__()
        self.lmax, self.mmax, self.channels = lmax, mmax, channels
        self._kernel = load(OrderGateRecipe(lmax, mmax), check_choice(backend))

    def forward(self, y: ByOrder, gates: Tensor) -> ByOrder:
        """y one array for each order, gates (E, lmax·channels) by degree -> as y."""
        factors = torch.cat((y[0][:, : self.channels], gates), 1).sigmoid()
        out: ByOrder = self._kernel(*y, factors, self.channels)
        return out if isinstance(out, tuple) else (out,)

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, mmax={self.mmax}, {self.channels} channels"


def complex_product(x: Tensor, weight: Tensor) -> Tensor:
    """(a, b) in the rows of x (E, 2k), W_r over W_i (2n, k) -> (W_r a - W_i b, W_i a + W_r b) (E, 2n).

    Three real products rather than four (Gauss): W_r (a + b) is in both, and the sums cost far less than a product.
    """
    real, imaginary = weight.chunk(2)
    a, b = x.chunk(2, 1)
    both = F.linear(a + b, real)
    return torch.cat((both - F.linear(b, real + imaginary), both + F.linear(a, imaginary - real)), 1)


def degree_order(lmax: int, mmax: int) -> list[int]:
    """For each component by order, its place among those by degree (l, then m, |m| <= mmax): their permutation."""
    start = [sum(2 * min(k, mmax) + 1 for k in range(l)) for l in range(lmax + 1)]
    return [start[l] + min(l, mmax) + m for rows in orders(lmax, mmax) for m, l in rows]
