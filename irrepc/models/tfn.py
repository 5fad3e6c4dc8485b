"""Tensor field network: point convolutions with equivariant filters (Thomas et al., arXiv:1802.08219, 2018).

A layer of the paper (section 4) maps point features x, of any degrees, to x':

    z_i = Σ_j R_p(r_ij) · (x_j ⊗ Y(r_ij))_p              point convolution, section 4.2, along every path p
    x'  = η(W z + b)                                       self-interaction, 4.2.4, and nonlinearity, 4.3

R_p is a perceptron of one hidden layer, its own for each path. The paper has no parity: its features are those of
rotations alone, written here as even (0e, 1e, 2e, ...), so that every path of the triangle is used and mirror images
differ. With `parity` the labels are those of O(3) and reflections are kept.

tfn_tasks.py makes energies and classes of the features. The authors' code follows the same formulas for degrees <= 1;
its weights are read by irrepc/interop/tfn.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.nn.convolution import Convolution
from irrepc.nn.graph import Graph, check_graph, edge_vectors, first_edges, graph_from_edges
from irrepc.nn.harmonics import SphericalHarmonics
from irrepc.nn.linear import Linear, check_width
from irrepc.nn.radial import GaussianBasis, cosine_cutoff

EPSILON = 1e-8
"""Squared lengths are at least this, as in the authors' code: a point is 1e-4 away from itself."""


def shifted_softplus(x: Tensor) -> Tensor:
    """log(eˣ/2 + 1/2), the paper's nonlinearity; torch's own threshold of 20 would cost six digits of float64."""
    return F.softplus(x, threshold=40.0) - math.log(2.0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"ssp": shifted_softplus, "elu": F.elu, "relu": F.relu}


@dataclass(frozen=True, slots=True)
class TFNConfig:
    """What defines a tensor field network, but for its weights.

    species             atomic numbers (or any labels of points); graph.species counts into them
    features            irreps after each layer, "4x0e+4x1e"; one that a layer cannot reach is refused
    embedding           channels of the species embedding, the first features
    lmax                largest degree of the filters
    parity              False: rotations alone, all irreps even; True: O(3), filters 0e, 1o, 2e, ...
    reach               Å, the last centre of the radial basis; the first is 0
    cutoff              Å, where messages have faded; inf: they do not fade (the paper)
    basis, hidden       radial basis functions, and hidden width of each R
    activation          η: "ssp", "elu" or "relu"
    radial_activation   of R, likewise; "relu" makes forces jump
    linear_last         True: no η in the last layer
    avg_num_neighbors   messages are divided by its square root; 1 in the paper
    readout             hidden width of the energies (TFNEnergy)
    scales, shifts      eV, one for each species: E_i = scale e_i + shift (TFNEnergy)
    """

    species: tuple[int, ...]
    features: tuple[str, ...] = ("8x0e+8x1e", "8x0e+8x1e", "8x0e")
    embedding: int = 8
    lmax: int = 1
    parity: bool = False
    reach: float = 3.5
    cutoff: float = math.inf
    basis: int = 4
    hidden: int = 4
    activation: str = "ssp"
    radial_activation: str = "ssp"
    linear_last: bool = False
    avg_num_neighbors: float = 1.0
    readout: int = 16
    scales: tuple[float, ...] = ()
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.species)
        odd = [b.irrep for text in self.features for b in Irreps.of(text) if b.irrep.p == -1]
        rules = (
            ("species", count > 0 and len(set(self.species)) == count, "distinct numbers, at least one"),
            ("features", len(self.features) > 0 and all(self.features), "irreps for each layer, at least one"),
            ("features", self.parity or not odd, "even irreps, as there is no parity; write 1e, or set parity=True"),
            ("embedding", self.embedding >= 1, "an integer >= 1"),
            ("lmax", self.lmax >= 0, "an integer >= 0"),
            ("reach", math.isfinite(self.reach) and self.reach > 0, "a finite number > 0 (Å)"),
            ("cutoff", self.cutoff > 0, "a number > 0 (Å), or inf"),
            ("basis", self.basis >= 2, "an integer >= 2"),
            ("hidden", self.hidden >= 1, "an integer >= 1"),
            ("activation", self.activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}"),
            ("radial_activation", self.radial_activation in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}"),
            ("avg_num_neighbors", self.avg_num_neighbors > 0, "a number > 0"),
            ("readout", self.readout >= 1, "an integer >= 1"),
            ("scales", len(self.scales) in (0, count), f"{count} numbers, one for each species, or none"),
            ("shifts", len(self.shifts) in (0, count), f"{count} numbers, one for each species, or none"),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"TFNConfig: got {name} = {getattr(self, name)!r}; expected {expected}")


class RadialFunctions(nn.Module):
    """R_p(b) = act(b U_p / √n + c_p) V_p / √h + d_p for every path p: the weights of a convolution.

    first (n, paths · h), first_bias (paths · h,); second: V_p (h, channels of p); second_bias: all d_p.
    """

    def __init__(self, basis: int, hidden: int, channels: tuple[int, ...], activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.first = nn.Parameter(torch.randn(basis, len(channels) * hidden))
        self.first_bias = nn.Parameter(torch.zeros(len(channels) * hidden))
        self.second = nn.ParameterList(nn.Parameter(torch.randn(hidden, c)) for c in channels)
        self.second_bias = nn.Parameter(torch.zeros(sum(channels)))
        self.scales = 1.0 / math.sqrt(basis), 1.0 / math.sqrt(hidden)

    def forward(self, basis: Tensor) -> Tensor:
        """(E, n) -> (E, sum of the channels)."""
        h = self.activation(basis @ (self.first * self.scales[0]) + self.first_bias)
        parts = h.chunk(len(self.second), 1)
        r = torch.cat([part @ (v * self.scales[1]) for part, v in zip(parts, self.second, strict=True)], 1)
        return r + self.second_bias


class Nonlinearity(nn.Module):
    """act(x) for 0e, and x · act(|x| + b) / |x| for every other copy of an irrep (section 4.3; the authors' code)."""

    def __init__(self, irreps: Irreps, activation: str) -> None:
        super().__init__()
        self.irreps, self.activation = irreps, ACTIVATIONS[activation]
        self._widths = tuple(b.dim for b in irreps)
        self._biases = tuple(0 if b.irrep.is_scalar else b.mul for b in irreps)
        self.bias = nn.Parameter(torch.zeros(sum(self._biases))) if any(self._biases) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, irreps.dim) -> the same shape, ir_mul."""
        biases = x.new_zeros(0) if self.bias is None else self.bias
        out = []
        pieces = zip(
            self.irreps, x.split_with_sizes(self._widths, 1), biases.split_with_sizes(self._biases), strict=True
        )
        for block, part, bias in pieces:
            if block.irrep.is_scalar:
                out.append(self.activation(part))
                continue
            v = torch.unflatten(part, 1, (block.irrep.dim, block.mul))
            length = v.square().sum(1, keepdim=True).clamp(min=EPSILON).sqrt()
            out.append((v * (self.activation(length + bias) / length)).flatten(1))
        return torch.cat(out, 1)


class Layer(nn.Module):
    """Point convolution, self-interaction, nonlinearity."""

    def __init__(self, irreps_in: Irreps, irreps_out: Irreps, config: TFNConfig, *, linear: bool, backend: str) -> None:
        super().__init__()
        edge = Irreps.spherical_harmonics(config.lmax, -1 if config.parity else 1)
        self.irreps_out = irreps_out
        self.convolution = Convolution(irreps_in, edge, irreps_out, backend=backend, by_pair=True)
        paths = self.convolution.irreps_out
        if lost := [str(b) for b in irreps_out if b.irrep not in paths]:
            raise InputError(f"TFN: got features {lost}, which {irreps_in} ⊗ {edge} does not reach; drop them")
        channels = tuple(block.mul for block in paths)
        self.radial = RadialFunctions(config.basis, config.hidden, channels, config.radial_activation)
        self.self_interaction = Linear(paths, irreps_out, bias=any(b.irrep.is_scalar for b in irreps_out))
        self.nonlinearity = nn.Identity() if linear else Nonlinearity(irreps_out, config.activation)

    def forward(self, x: Tensor, basis: Tensor, fade: Tensor, harmonics: Tensor, graph: Graph) -> Tensor:
        """x (N, irreps_in.dim) -> (N, irreps_out.dim); basis (P, n), fade (P, 1), harmonics (E, (lmax + 1)²)."""
        weights = self.radial(basis) * fade
        z = self.convolution(x, harmonics, weights, graph.senders, graph.receivers, graph.pairs)
        out: Tensor = self.nonlinearity(self.self_interaction(z))
        return out


class TFN(nn.Module):
    """Features of points from a graph: of `complete_graph` in the paper, of neighbours within the cutoff otherwise.

    config   what defines the network
    backend  of the compiled layers: "torch", "llvm", ... or "auto" (by the device); no part of the weights
    dtype    of the weights and the arithmetic
    seed     of the weights, which have unit variance, while biases are zero
    """

    def __init__(
        self, config: TFNConfig, backend: str = "auto", *, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        super().__init__()
        self.config, self.cutoff, self.species = config, config.cutoff, config.species
        self.embedding = nn.Embedding(len(config.species), config.embedding)
        self.harmonics = SphericalHarmonics(config.lmax, normalization="component", normalize=True, backend=backend)
        # the authors' exponent is -(d - μ)² · size / reach, whatever the spacing
        sigma, spacing = math.sqrt(config.reach / (2 * config.basis)), config.reach / (config.basis - 1)
        self.basis = GaussianBasis(0.0, config.reach, config.basis, width=sigma / spacing, dtype=torch.float64)
        self.irreps_in = Irreps.of(f"{config.embedding}x0e")
        irreps, layers = self.irreps_in, []
        for k, text in enumerate(config.features):
            linear = config.linear_last and k == len(config.features) - 1
            layers.append(Layer(irreps, Irreps.of(text), config, linear=linear, backend=backend))
            irreps = layers[-1].irreps_out
        self.layers, self.irreps_out = nn.ModuleList(layers), irreps
        self.normalisation = 1.0 / math.sqrt(config.avg_num_neighbors)
        draw(self.to(dtype), seed)

    def forward(self, graph: Graph) -> Tensor:
        """Features (N, irreps_out.dim), ir_mul; positions in the dtype of the weights."""
        check_graph(graph, len(self.species), self.embedding.weight)
        return self.layerwise(graph, self.embedding(graph.species))[-1]

    def layerwise(self, graph: Graph, x: Tensor) -> list[Tensor]:
        """Features after each layer, from the first: x (N, embedding), the embedding of the species or, say, masses."""
        check_width("TFN", x, self.irreps_in)
        vectors = edge_vectors(graph)
        r = vectors.index_select(0, first_edges(graph.pairs)).square().sum(1).clamp(min=EPSILON).sqrt()
        basis, harmonics = self.basis(r), self.harmonics(vectors)
        fade = cosine_cutoff(r / self.cutoff).unsqueeze(1) * self.normalisation
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1], basis, fade, harmonics, graph))
        return found[1:]

    def extra_repr(self) -> str:
        """The configuration, for repr."""
        return str(self.config)


def complete_graph(positions: Tensor, species: Tensor) -> Graph:
    """All pairs of points, each with itself: positions (N, 3), species (N,) int64."""
    number = torch.arange(len(positions), device=positions.device)
    senders, receivers = number.repeat(len(number)), number.repeat_interleave(len(number))
    return graph_from_edges(positions, species, senders, receivers)


def draw(model: nn.Module, seed: int) -> None:
    """Fill the weights with normal numbers of unit variance, the same in every dtype; biases stay zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
