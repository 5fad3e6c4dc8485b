"""Functions on the sphere: from coefficients to values on a grid and back, and the activations that act on the values.

The grid has `rings` at β_b = (b+½)π/rings and `points` at α_a = 2πa/points on each, in directions
(sin β sin α, cos β, sin β cos α). The quadrature over rings is exact for band-limited functions (Driscoll and Healy,
Adv. Appl. Math. 15, 202, 1994), so there and back is the identity. A nonlinearity between is not band-limited, and what
the grid cannot hold is folded back: such networks are equivariant up to that aliasing only, less of it on finer grids.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.so2_recipe import orders
from irrepc.errors import InputError
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.so2 import ByOrder, degree_order

NORMALIZATIONS = ("component", "integral")
CACHED = 1 << 20
"""Bytes of values on the grid at a time: about what a core keeps near."""


def resolution(lmax: int, mmax: int) -> tuple[int, int]:
    """The rings and points on a ring that EquiformerV2 and eSEN take where none are asked for."""
    return 2 * (lmax + 1), 2 * (mmax + 1) + 1 if mmax == lmax else 2 * mmax + 1


def ring_weights(rings: int) -> Tensor:
    """The share of each of an even number of rings in the mean over the sphere, (rings,) float64; they add up to 1."""
    if rings < 2 or rings % 2:
        raise InputError(f"grid: got {rings} rings; expected an even number >= 2")
    half = rings // 2
    odd = 2 * torch.arange(rings, dtype=torch.float64) + 1
    k = 2 * torch.arange(half, dtype=torch.float64) + 1
    sums = (torch.sin(odd[:, None] * k * (math.pi / (4 * half))) / k).sum(1)
    return torch.sin(odd * (math.pi / (4 * half))) * sums / half


def grid_matrices(
    lmax: int, mmax: int, *, normalization: str = "integral", rings_and_points: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """(to, from), each (rings·points, components) float64; components by degree, |m| <= mmax.

    normalization  "integral": values are f(r) = Σ c_lm Y_lm(r) of orthonormal harmonics (eSEN); "component": they have
                   variance one for coefficients of variance one (EquiformerV2)
    values = to @ coefficients; coefficients = from.T @ values. With mmax < lmax degrees above mmax are scaled by
    √((2l+1)/(2mmax+1)) both ways, as both networks do.
    """
    if normalization not in NORMALIZATIONS:
        raise InputError(f"grid: got normalization {normalization!r}; expected one of {', '.join(NORMALIZATIONS)}")
    rings, points = rings_and_points or resolution(lmax, mmax)
    beta = (torch.arange(rings, dtype=torch.float64) + 0.5) * (math.pi / rings)
    alpha = torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)
    b, a = torch.meshgrid(beta, alpha, indexing="ij")
    directions = torch.stack((b.sin() * a.sin(), b.cos(), b.sin() * a.cos()), -1).flatten(0, 1)
    harmonics = SphericalHarmonics(lmax, "integral", normalize=False, backend="torch")(directions)
    kept = [(l, m) for l in range(lmax + 1) for m in range(-min(l, mmax), min(l, mmax) + 1)]
    values = harmonics[:, [l * l + l + m for l, m in kept]]
    degrees = torch.tensor([float(l) for l, _ in kept], dtype=torch.float64)
    scale = torch.where(degrees > mmax, ((2 * degrees + 1) / (2 * mmax + 1)).sqrt(), 1.0)
    weights = ring_weights(rings).repeat_interleave(points)[:, None] / points
    forth, back = torch.ones_like(degrees), torch.full_like(degrees, 4 * math.pi)
    if normalization == "component":
        forth = math.sqrt(4 * math.pi) / ((2 * degrees + 1) * (lmax + 1)).sqrt()
        back = math.sqrt(4 * math.pi) * ((2 * degrees + 1) * (lmax + 1)).sqrt()
    return values * (forth * scale), values * (back * scale) * weights


class S2Grid(nn.Module):
    """Coefficients (rows, components, channels) by degree to values (rows, points, channels), and back.

    The matrices define the layer and are no weights: they stay in float64 and are rounded where they are used.
    """

    to_grid: Tensor
    from_grid: Tensor

    def __init__(
        self,
        lmax: int,
        mmax: int | None = None,
        *,
        normalization: str = "integral",
        rings_and_points: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        mmax = lmax if mmax is None else mmax
        self.lmax, self.mmax, self.shape = lmax, mmax, rings_and_points or resolution(lmax, mmax)
        there, back = grid_matrices(lmax, mmax, normalization=normalization, rings_and_points=self.shape)
        self.register_buffer("to_grid", there, persistent=False)
        self.register_buffer("from_grid", back.mT.contiguous(), persistent=False)

    def values(self, x: Tensor) -> Tensor:
        """(rows, components, channels) -> (rows, points, channels)."""
        return torch.matmul(self.to_grid.to(x.dtype), x)

    def coefficients(self, values: Tensor) -> Tensor:
        """(rows, points, channels) -> (rows, components, channels)."""
        return torch.matmul(self.from_grid.to(values.dtype), values)

    def pointwise(self, function: Callable[[Tensor], Tensor], x: Tensor, places: Tensor | None = None) -> Tensor:
        """Coefficients of function(values), (rows, components, channels) -> (rows, components, channels of function).

        places  (components,) where each component of x stands among those by degree, if they come in another order;
                so does the result

        On the CPU a few rows at a time, whose values stay in the cache: there are many more of them than coefficients.
        """
        to, back = self.to_grid.to(x.dtype), self.from_grid.to(x.dtype)
        if places is not None:
            to, back = to.index_select(1, places), back.index_select(0, places)
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return torch.matmul(back, function(torch.matmul(to, x)))
        rows = max(1, CACHED // max(1, to.shape[0] * x.shape[2] * x.element_size()))
        return torch.cat([torch.matmul(back, function(torch.matmul(to, part))) for part in torch.split(x, rows)])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> S2Grid:
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in kept.items():  # a new device, but never a new dtype
            self._buffers[name] = buffer.to(self.get_buffer(name).device)
        return self

    def extra_repr(self) -> str:
        """For repr."""
        return f"lmax={self.lmax}, mmax={self.mmax}, {self.shape[0]} x {self.shape[1]}"


class OrderS2Activation(nn.Module):
    """SiLU of the values on the grid, for features in the frames of edges, one array for each order.

    With scalars, l = 0 of the result is SiLU(scalars): «separable»; without, it is the grid's.
    """

    places: Tensor

    def __init__(self, grid: S2Grid, channels: int) -> None:
        super().__init__()
        self.grid, self.channels = grid, channels
        self.register_buffer("places", torch.tensor(degree_order(grid.lmax, grid.mmax)), persistent=False)
        self._sizes = [len(rows) for rows in orders(grid.lmax, grid.mmax)]

    def forward(self, y: ByOrder, scalars: Tensor | None = None) -> ByOrder:
        """y one array for each order, scalars (E, channels) -> as y."""
        x = torch.cat([torch.unflatten(v, 1, (-1, self.channels)) for v in y], 1)
        z = self.grid.pointwise(F.silu, x, self.places)
        first, *rest = z.split_with_sizes(self._sizes, 1)
        if scalars is not None:
            first = torch.cat((F.silu(scalars).unsqueeze(1), first[:, 1:]), 1)
        return (first.flatten(1), *(part.flatten(1) for part in rest))
