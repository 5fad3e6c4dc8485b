"""Attention between atoms whose messages are SO(2) convolutions in the frames of edges.

    t_e = Convolution₁(w(e) · D_e (x_j, x_i))              features y_e, scalars a_e for each head, and the gates
    α_eh = softmax_i(d_h · leaky(LayerNorm(a_eh)))         over the edges e = j → i of each receiver i
    x'_i = Linear(Σ_e α_eh D_eᵀ v_eh),  v = Convolution₂(activation(y))

Liao, Wood, Das and Smidt, EquiformerV2, ICLR 2024, section 4 and figure 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.errors import InputError
from irrepc.nn.attention import edge_softmax
from irrepc.nn.degree_norm import EPSILON
from irrepc.nn.dropout import check_rate
from irrepc.nn.graph import Graph
from irrepc.nn.radial import RadialMLP
from irrepc.nn.s2_grid import OrderS2Activation, S2Grid
from irrepc.nn.so2 import OrderGate, Rotate, RotateBack, SO2Convolution
from irrepc.nn.so3_linear import SO3Linear

ACTIVATIONS = ("gate", "separable_s2", "s2")


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """The sizes that every attention of a network shares.

    lmax, mmax     degrees of the features, orders kept in the frame of an edge
    channels       of the atoms' features
    hidden         channels between the two convolutions
    heads          each with `alpha` scalars for its score and `value` channels
    edge_channels  of the species embeddings of edges, and inside the radial perceptron
    activation     one of ACTIVATIONS; with s2 alone no gates come out of the first convolution
    weights        radial weights for each "order" and degree, or for each "degree" only
    renorm         whether the scalars of a score are normalised
    alpha_drop     rate at which attention weights are dropped in training
    """

    lmax: int
    mmax: int
    channels: int
    hidden: int
    heads: int
    alpha: int
    value: int
    edge_channels: int
    activation: str
    weights: str
    renorm: bool
    alpha_drop: float = 0.0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(f"attention: got activation {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}")
        check_rate("attention: alpha_drop", self.alpha_drop)

    @property
    def gates(self) -> int:
        """Scalars that the activation takes."""
        return {"gate": self.lmax * self.hidden, "separable_s2": self.hidden, "s2": 0}[self.activation]


class EdgeScalars(nn.Module):
    """What a radial perceptron reads: functions of the distance, then the embedded species of sender and receiver.

    size  numbers for each edge
    """

    def __init__(self, basis_size: int, species: int, channels: int) -> None:
        super().__init__()
        self.senders = nn.Embedding(species, channels)
        self.receivers = nn.Embedding(species, channels)
        self.size = basis_size + 2 * channels

    def forward(self, basis: Tensor, graph: Graph) -> Tensor:
        """basis (E, basis_size) -> (E, size)."""
        ends = (
            table.weight.index_select(0, graph.species).index_select(0, index.values)
            for table, index in ((self.senders, graph.senders), (self.receivers, graph.receivers))
        )
        return torch.cat((basis, *ends), 1)


class GivenScalars(nn.Module):
    """In the place of EdgeScalars where what is given holds the species already, or shall not hold them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, edge: Tensor, graph: Graph) -> Tensor:
        """edge (E, size), unchanged."""
        return edge


class SO2Attention(nn.Module):
    """x' of the formulas above.

    grid  for the activations s2 and separable_s2, of |m| <= mmax; None with gates

    dot   (heads, alpha) the vectors d_h
    """

    def __init__(
        self,
        shape: AttentionShape,
        channels_out: int,
        scalars: EdgeScalars | GivenScalars,
        grid: S2Grid | None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        lmax, mmax, hidden, values = shape.lmax, shape.mmax, shape.hidden, shape.heads * shape.value
        self.scalars = scalars
        self.rotate = Rotate(lmax, mmax, shape.channels, sides=2, weights=shape.weights, backend=backend)
        self.radial = RadialMLP(scalars.size, shape.edge_channels, self.rotate.weight_numel)
        scores = shape.heads * shape.alpha
        self.conv_1 = SO2Convolution(lmax, mmax, 2 * shape.channels, hidden, extra=scores + shape.gates)
        self.activation: nn.Module = (
            OrderGate(lmax, mmax, hidden, backend) if grid is None else OrderS2Activation(grid, hidden)
        )
        self.conv_2 = SO2Convolution(lmax, mmax, hidden, values)
        self.norm = nn.LayerNorm(shape.alpha, eps=EPSILON) if shape.renorm else nn.Identity()
        self.dot = nn.Parameter(torch.empty(shape.heads, shape.alpha))
        self.rotate_back = RotateBack(lmax, mmax, values, heads=shape.heads, backend=backend)
        self.projection = SO3Linear(lmax, values, channels_out)
        self.alpha_drop = shape.alpha_drop
        self._cut = [scores, shape.gates]
        self.reset()

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw d_h uniformly in ± 1/√alpha; the layers inside have their own rules."""
        bound = 1 / math.sqrt(self.dot.shape[1])
        nn.init.uniform_(self.dot, -bound, bound, generator)

    def forward(self, h: Tensor, edge: Tensor, into: Tensor, out: Tensor, graph: Graph) -> Tensor:
        """h (N, (lmax+1)²·channels) -> (N, (lmax+1)²·channels_out).

        edge       (E, n) what `scalars` takes
        into, out  (E, FrameMatrices.size) rows of D, and those for the way back, which may carry factors by degree
        """
        weights = self.radial(self.scalars(edge, graph))
        extra, y = self.conv_1(self.rotate(h, into, graph.senders, graph.receivers, weights))
        scores, gates = extra.split_with_sizes(self._cut, 1)
        _, v = self.conv_2(self.activation(y, gates if gates.shape[1] else None))
        alpha = self.attention(scores, graph)
        alpha = F.dropout(alpha, self.alpha_drop, self.training) if self.alpha_drop else alpha
        messages = self.rotate_back(v, out, graph.receivers, alpha)
        projected: Tensor = self.projection(messages)
        return projected

    def attention(self, scores: Tensor, graph: Graph) -> Tensor:
        """Scalars of the scores (E, heads·alpha) -> α (E, heads); they add up to 1 over the edges of a receiver."""
        a = self.norm(torch.unflatten(scores, 1, self.dot.shape))
        leaky = 0.2 * a + 0.8 * F.silu(a)  # 0.6 a + 0.4 a tanh(a/2): slope 1 far above zero, 0.2 far below
        return edge_softmax((leaky * self.dot).sum(-1), graph.receivers)
