"""Functions of the distance: bases, cutoffs, and the perceptron that turns them into weights of tensor products."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.nn.closed_forms import fade, silu, sines
from irrepc.nn.kept import Kept


def polynomial_cutoff(x: Tensor, p: int = 6) -> Tensor:
    """1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) for x = r / r_c < 1, and 0 from there on.

    Value, first and second derivative vanish at x = 1 (Gasteiger 2020, eq. 8). Same shape as x.
    Raises InputError unless p is a whole number >= 1.
    """
    if p != int(p) or p < 1:
        raise InputError(f"polynomial_cutoff: got p = {p}; expected an integer >= 1")
    return fade(x, int(p))


def cosine_cutoff(x: Tensor) -> Tensor:
    """(cos πx + 1) / 2 for x = r / r_c < 1, and 0 from there on; value and first derivative vanish at x = 1."""
    return torch.where(x < 1, (torch.cos(math.pi * x) + 1) / 2, torch.zeros_like(x))


class BesselBasis(nn.Module):
    """b_n(r) = (2 / r_c) sin(k_n r / r_c) / r, k_n = nπ (Gasteiger 2020, eq. 7, with NequIP's factor).

    roots  (n,) the numbers k_n / π, trainable or not
    """

    roots: Tensor

    def __init__(
        self, cutoff: float, size: int = 8, *, trainable: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.cutoff = _positive("cutoff", cutoff)
        self.size = int(_positive("size", size))
        roots = torch.arange(1, size + 1, dtype=dtype)
        if trainable:
            self.roots = nn.Parameter(roots)
        else:
            self.register_buffer("roots", roots)

    def forward(self, r: Tensor) -> Tensor:
        """Distances (E,) Å -> (E, size), 1/Å²; finite at r = 0, with gradient zero."""
        return sines(r, self.roots * (math.pi / self.cutoff)) * (2 / self.cutoff)


class GaussianBasis(nn.Module):
    """exp(-(r - μ_n)² / 2σ²), centres μ_n evenly from start to stop, σ = width · their spacing."""

    centres: Tensor

    def __init__(
        self, start: float, stop: float, size: int, *, width: float = 1.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if size < 2 or not start < stop:
            raise InputError(f"GaussianBasis: got {size} centres from {start} to {stop} Å; expected >= 2, start < stop")
        self.size = size
        self.sigma = _positive("width", width) * (stop - start) / (size - 1)
        self.register_buffer("centres", torch.linspace(start, stop, size, dtype=dtype))

    def forward(self, r: Tensor) -> Tensor:
        """Distances (E,) Å -> (E, size)."""
        return torch.exp(-0.5 * ((r.unsqueeze(-1) - self.centres) / self.sigma).square())


class ScalarMLP(nn.Module):
    """A perceptron without biases on invariants: v ← silu(v W₁ / √n₀), …, v W_k · gain / √n_(k-1).

    weights  matrices (in, out), drawn with unit variance; the factors stay outside. The gain √2 is NequIP's (it keeps
    the variance through SiLU, about); 1.6791767923989418 is that of e3nn's FullyConnectedNet. `scale` multiplies the
    result, without an operation of its own.
    A zero row gives zero out, so a weight made from a basis times a cutoff vanishes at the cutoff too.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        gain: float = math.sqrt(2.0),
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise InputError(f"ScalarMLP: got widths {widths}; expected two or more, each >= 1")
        self.widths = widths
        gains = [(1.0 if k == 0 else gain) / math.sqrt(n) for k, n in enumerate(widths[:-1])]
        self.scales = (*gains[:-1], gains[-1] * scale)
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(n, m, dtype=dtype)) for n, m in pairwise(widths))
        self._matrices: Kept[list[Tensor]] = Kept()

    def forward(self, v: Tensor) -> Tensor:
        """(rows, widths[0]) -> (rows, widths[-1])."""
        for k, matrix in enumerate(self._matrices(self.weights, self.matrices)):
            v = (v if k == 0 else silu(v)) @ matrix
        return v

    def matrices(self) -> list[Tensor]:
        """The weights times their factors."""
        return [weight * scale for weight, scale in zip(self.weights, self.scales, strict=True)]

    def extra_repr(self) -> str:
        """Widths, for repr."""
        return " -> ".join(str(n) for n in self.widths)


class RadialMLP(nn.Sequential):
    """Linear, layer norm, SiLU; again; Linear: the radial function of EquiformerV2 and eSEN, with biases.

    Drawn uniformly in ± 1/√inputs, biases too (torch's own rule).
    """

    def __init__(self, size_in: int, hidden: int, size_out: int) -> None:
        widths = ((size_in, hidden), (hidden, hidden))
        layers = [m for n, k in widths for m in (nn.Linear(n, k), nn.LayerNorm(k), nn.SiLU())]
        super().__init__(*layers, nn.Linear(hidden, size_out))


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
        raise InputError(f"{name}: got {value!r}; expected a finite number > 0")
    return value
