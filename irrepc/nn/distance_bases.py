"""Bases of distances as Equiformer has them: Gaussians that are trained, exponentials of PhysNet, Bessel functions.

Each maps distances (E,) Å to (E, size); none but the Gaussians keeps a value at the cutoff.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.nn.closed_forms import silu
from irrepc.nn.radial import BesselBasis, cosine_cutoff, polynomial_cutoff


class TrainedGaussians(nn.Module):
    """exp(-(a r/r_c + b - μ_n)² / 2σ_n²) / (√(2π) σ_n), σ_n = |s_n| + 1e-5, all of a, b, μ, s trained.

    π is 3.14159, as in the authors' code and in every network trained with it. μ is drawn from 0 ... 1, s from
    1/size ... 1.
    """

    def __init__(self, cutoff: float, size: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cutoff, self.size = cutoff, size
        # drawn in one dtype, so that a seed means the same in all
        self.mean = nn.Parameter(torch.rand(size).to(dtype))
        self.width = nn.Parameter((torch.rand(size) * (1 - 1 / size) + 1 / size).to(dtype))
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))
        self.shift = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, r: Tensor) -> Tensor:
        """Distances (E,) Å -> (E, size)."""
        x = (self.scale * (r / self.cutoff) + self.shift).unsqueeze(-1)
        sigma = self.width.abs() + 1e-5
        return torch.exp(-0.5 * ((x - self.mean) / sigma).square()) / (math.sqrt(2 * 3.14159) * sigma)


class ExponentialBasis(nn.Module):
    """f_c(r) exp(-β_n (exp(-5 r / r_c) - μ_n)²), f_c the cosine cutoff (Unke and Meuwly 2019, eq. 7 and 8).

    means, betas  (size,) buffers: μ evenly from exp(-r_c) to 1, β = (2/size (1 - exp(-r_c)))⁻²
    """

    means: Tensor
    betas: Tensor

    def __init__(self, cutoff: float, size: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cutoff, self.size = cutoff, size
        start = math.exp(-cutoff)
        self.register_buffer("means", torch.linspace(start, 1.0, size, dtype=dtype))
        self.register_buffer("betas", torch.full((size,), (2 / size * (1 - start)) ** -2, dtype=dtype))

    def forward(self, r: Tensor) -> Tensor:
        """Distances (E,) Å -> (E, size)."""
        near = torch.exp(r * (-5.0 / self.cutoff)).unsqueeze(-1)
        return cosine_cutoff(r / self.cutoff).unsqueeze(-1) * torch.exp(-self.betas * (near - self.means).square())


class EnvelopedBessel(nn.Module):
    """u(r) √(2/r_c) sin(k_n r / r_c) / r, u the polynomial cutoff of p = 5, k_n trained (Gasteiger 2020, eq. 7, 8)."""

    def __init__(self, cutoff: float, size: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cutoff, self.size = cutoff, size
        self.bessel = BesselBasis(cutoff, size, trainable=True, dtype=dtype)

    def forward(self, r: Tensor) -> Tensor:
        """Distances (E,) Å -> (E, size)."""
        # the basis carries 2/r_c, which is right for NequIP
        gain = math.sqrt(self.cutoff / 2)
        values: Tensor = self.bessel(r)
        return values * (gain * polynomial_cutoff(r / self.cutoff, 5)).unsqueeze(-1)


BASES: dict[str, type[TrainedGaussians] | type[ExponentialBasis] | type[EnvelopedBessel]] = {
    "gaussian": TrainedGaussians,
    "exp": ExponentialBasis,
    "bessel": EnvelopedBessel,
}


class RadialProfile(nn.Module):
    """Layers silu(norm(v W + b)), then v W + offset: the weights of a tensor product from a basis (Liao 2023, fig. 1).

    widths  of the basis, of the hidden layers and of the result
    """

    def __init__(self, widths: tuple[int, ...], *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if len(widths) < 3 or min(widths) < 1:
            raise InputError(f"RadialProfile: got widths {widths}; expected three or more, each >= 1")
        self.widths = widths
        *hidden, last = widths[1:]
        sources = widths[:-1]
        self.layers = nn.ModuleList(nn.Linear(n, m, dtype=dtype) for n, m in zip(sources, hidden, strict=False))
        self.norms = nn.ModuleList(nn.LayerNorm(m, dtype=dtype) for m in hidden)
        bound = 1 / math.sqrt(sources[-1])
        self.last = nn.Parameter((torch.rand(last, sources[-1], dtype=dtype) * 2 - 1) * bound)
        self.offset = nn.Parameter((torch.rand(last, dtype=dtype) * 2 - 1) * bound)

    def hidden(self, v: Tensor) -> Tensor:
        """(rows, widths[0]) -> the last hidden layer (rows, widths[-2])."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            v = silu(norm(layer(v)))
        return v

    def forward(self, v: Tensor) -> Tensor:
        """(rows, widths[0]) -> (rows, widths[-1])."""
        return torch.addmm(self.offset, self.hidden(v), self.last.t())

    def extra_repr(self) -> str:
        """Widths, for repr."""
        return " -> ".join(str(n) for n in self.widths)
