"""Graph attention between atoms: a softmax over the neighbours of each atom, for each head, and the weighted sum.

    m_e = L_s(x_j) + L_d(x_i),  t_e = R(r_e) · (m_e ⊗ Y_e)           a message for each edge j → i
    α_eh = softmax_i(a_h · leaky(Linear(t_e)_h))                     from its scalars
    x'_i = Linear(Σ_e α_eh v_eh),  v = Linear(t)  or  v = Linear(gate(Linear(t)) ⊗ Y)

Liao and Smidt, Equiformer, ICLR 2023, section 4.2 and figure 1b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irrepc.algebra.irreps import Block, Irrep, Irreps
from irrepc.nn.block_linear import BlockLinear, together
from irrepc.nn.closed_forms import silu
from irrepc.nn.depthwise import Depthwise, DepthwiseProduct, DepthwiseSum
from irrepc.nn.distance_bases import RadialProfile
from irrepc.nn.dropout import EquivariantDropout, check_rate
from irrepc.nn.graph import Graph, Index
from irrepc.nn.swish_gate import SwishGate

LEAKY_GAIN = 1.531320475574866
"""Makes the second moment of the smooth leaky ReLU one; a Monte-Carlo number, part of every trained network."""


class Edges(NamedTuple):
    """What every layer reads along the edges of a graph.

    harmonics  (E, irreps of the harmonics)
    basis      (P, size) the radial basis of each pair of atoms, whose two directions are of one length
    graph      the graph; its edges are sorted by receiver, its pairs are those of the basis
    copies     Index of (heads · E,) over the E edges: row h · E + e stands for edge e in head h
    targets    Index of (heads · E,) over heads · N rows: its receiver in that head
    """

    harmonics: Tensor
    basis: Tensor
    graph: Graph
    copies: Index
    targets: Index


def edges_of(graph: Graph, harmonics: Tensor, basis: Tensor, heads: int) -> Edges:
    """The edges of a graph with a row for each head, heads slow, in the order that both sums want."""
    receivers, count, atoms = graph.receivers, graph.num_edges, graph.num_atoms
    head = torch.arange(heads, device=receivers.values.device)
    rows = torch.arange(heads * count, device=head.device)
    edge = rows.view(heads, count)
    copies = Index(
        torch.arange(count, device=head.device).repeat(heads),
        edge.t().reshape(-1),
        torch.arange(count + 1, device=head.device) * heads,
    )
    first = (receivers.start[:-1] + head.unsqueeze(1) * count).reshape(-1)
    targets = Index(
        (receivers.values + head.unsqueeze(1) * atoms).reshape(-1),
        (receivers.order + head.unsqueeze(1) * count).reshape(-1),
        torch.cat((first, first.new_full((1,), heads * count))),
    )
    return Edges(harmonics, basis, graph, copies, targets)


def edge_softmax(scores: Tensor, receivers: Index) -> Tensor:
    """exp(s_e) / (Σ exp + 1e-16) over the edges of each receiver; scores (E, heads) -> (E, heads).

    The largest score of a receiver is taken off first, so that nothing overflows.
    """
    rows, values = receivers.start.shape[0] - 1, receivers.values
    largest = scores.new_zeros(rows, scores.shape[1]).scatter_reduce(
        0, values.unsqueeze(-1).expand_as(scores), scores.detach(), "amax", include_self=False
    )
    raised = torch.exp(scores - largest.index_select(0, values))
    total = raised.new_zeros(rows, scores.shape[1]).index_add(0, values, raised)
    return raised / (total + 1e-16).index_select(0, values)


class LinearValue(nn.Module):
    """Σ_e α_eh v_eh with v = Linear(t): a linear message; the first `read` blocks of it, None for all."""

    def __init__(self, irreps_message: Irreps, irreps_heads: Irreps, read: int | None) -> None:
        super().__init__()
        self.read = read
        self.linear = BlockLinear(irreps_message, irreps_heads)

    def forward(self, message: Sequence[Tensor], alpha: Tensor, edges: Edges) -> list[Tensor]:
        """t apart, α (E, heads) -> features of the atoms apart, irreps of all heads, channels (head, channel)."""
        receivers, (count, heads) = edges.graph.receivers.values, alpha.shape
        atoms, out = edges.graph.num_atoms, []
        for value, block in zip(self.linear(message, self.read), self.linear.irreps_out, strict=False):
            parts = value.view(count, block.irrep.dim, heads, block.mul // heads) * alpha[:, None, :, None]
            summed = value.new_zeros(atoms, block.dim).index_add(0, receivers, parts.flatten(1))
            out.append(summed.view(atoms * block.irrep.dim, block.mul))
        return out


class NonlinearValue(nn.Module):
    """Σ_e α_eh v_eh with v = Linear(w · (gate(Linear(t)) ⊗ Y)): a message with a gate inside.

    The last linear map does not depend on the edge, so the sum over edges comes before it; α scales the harmonics.

    weight  flat, one number for each channel of the product with Y, in the order of its irreps
    read    how many blocks of the result are made, from the first on; None for all. The weights are always there.
    """

    def __init__(
        self,
        irreps_message: Irreps,
        irreps_in: Irreps,
        irreps_edge: Irreps,
        irreps_heads: Irreps,
        read: int | None,
        backend: str,
    ) -> None:
        super().__init__()
        self.gate = SwishGate(irreps_in, backend)
        self.linear = BlockLinear(irreps_message, self.gate.irreps_in)
        self.read, self.plan = read, Depthwise(irreps_in, irreps_edge, irreps_heads)
        # irreps are sorted, so what ends in the first of them is the first of the product and of its weights
        self.sum = DepthwiseSum(irreps_in, irreps_edge, Irreps(irreps_heads.blocks[:read]), backend)
        self.weight = nn.Parameter(torch.randn(self.plan.weight_numel))
        self.mix = BlockLinear(self.plan.irreps_out, irreps_heads)
        self._channels = tuple(b.mul for b in self.plan.irreps_out)

    def forward(self, message: Sequence[Tensor], alpha: Tensor, edges: Edges) -> list[Tensor]:
        """t apart, α (E, heads) -> features of the atoms apart, irreps of all heads, channels (head, channel)."""
        atoms, heads = edges.graph.num_atoms, alpha.shape[1]
        x = self.gate(self.linear(message))
        y = (alpha.t().unsqueeze(-1) * edges.harmonics).flatten(0, 1)
        sums = self.sum(x, y, edges.copies, edges.targets)
        weights, matrices, out = self.weight.split_with_sizes(self._channels), self.mix.matrices(), []
        for feed, block in zip(self.mix.feeds[: self.read], self.mix.irreps_out.blocks[: self.read], strict=True):
            rows = atoms * block.irrep.dim
            if feed is None:
                out.append(x.new_zeros(rows, block.mul))
                continue
            channels = self._channels[feed.block]
            matrix = (weights[feed.block].unsqueeze(1) * matrices[feed.matrix]).view(channels, heads, -1)
            v = torch.bmm(sums[feed.block].view(heads, rows, channels), matrix.transpose(0, 1)).transpose(0, 1)
            if feed.biased and self.mix.bias is not None:
                total = alpha.new_zeros(atoms, heads).index_add(0, edges.graph.receivers.values, alpha)
                v = v + total.unsqueeze(-1) * self.mix.bias.view(heads, -1)
            out.append(v.reshape(rows, block.mul))
        return out


class GraphAttention(nn.Module):
    """x' of the formulas above.

    irreps_head   of one head; it has as many scalars for its score as 0e for its value
    nonlinear     whether there is a gate inside the message
    rescale       whether the sum is multiplied by the number of neighbours
    widths        of the radial profile: basis, hidden layers
    read          how many blocks of the result are made, from the first on, and no others than these need; None for all
    alpha_drop    rate at which attention weights are dropped in training; proj_drop: copies of irreps of the result

    dot           (heads, scalars) the vectors a_h
    """

    own: Tensor

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_edge: Irreps,
        irreps_out: Irreps,
        irreps_head: Irreps,
        heads: int,
        widths: tuple[int, ...],
        *,
        nonlinear: bool = True,
        rescale: bool = False,
        read: int | None = None,
        alpha_drop: float = 0.0,
        proj_drop: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        irreps_heads, self.heads = irreps_head * heads, heads
        scalars = irreps_head.count("0e")
        self.source = BlockLinear(irreps_in, irreps_in)
        self.target = BlockLinear(irreps_in, irreps_in, bias=False)
        # the paths of a message end where its value does: at the gate's irreps, or at those of the heads
        wanted = irreps_in if nonlinear else irreps_heads
        self.product = DepthwiseProduct(irreps_in, irreps_edge, wanted, backend)
        self.radial = RadialProfile((*widths, self.product.weight_numel))
        message = self.product.irreps_out
        self.score = BlockLinear(message, Irreps((Block(heads * scalars, Irrep(0, 1)),)))
        self.dot = nn.Parameter(torch.empty(heads, scalars))
        nn.init.xavier_uniform_(self.dot)
        self.register_buffer("own", torch.eye(heads), persistent=False)
        self.value = (
            NonlinearValue(message, irreps_in, irreps_edge, irreps_heads, read, backend)
            if nonlinear
            else LinearValue(message, irreps_heads, read)
        )
        self.read = read
        self.rescale, self.alpha_drop = rescale, check_rate("alpha_drop", alpha_drop)
        self.projection = BlockLinear(irreps_heads, irreps_out)
        self.dropout = EquivariantDropout(irreps_out, proj_drop)

    def forward(self, x: Sequence[Tensor], edges: Edges) -> list[Tensor]:
        """Features of the atoms apart, irreps_in -> irreps_out, or the blocks of it that are read."""
        graph, irreps = edges.graph, self.source.irreps_in
        sent, received = together(self.source(x), irreps), together(self.target(x), irreps)
        message = sent.index_select(0, graph.senders.values) + received.index_select(0, graph.receivers.values)
        weights = self.radial(edges.basis).index_select(0, graph.pairs.values)
        parts = self.product(message, edges.harmonics, weights)
        alpha = edge_softmax(self.scores(parts), graph.receivers)
        alpha = F.dropout(alpha, self.alpha_drop, self.training) if self.alpha_drop else alpha
        values = self.value(parts, alpha, edges)
        if self.rescale:
            degree = graph.receivers.start.diff().to(sent.dtype)
            values = [v * degree.repeat_interleave(v.shape[0] // max(graph.num_atoms, 1)).unsqueeze(1) for v in values]
        out: list[Tensor] = self.dropout(self.projection(values, self.read))
        return out

    def scores(self, message: Sequence[Tensor]) -> Tensor:
        """a_h · leaky(s_h), (E, heads); leaky(s) = 0.2 s + 0.8 silu(s) times its gain: slope 1 above, 0.2 below 0."""
        s = self.score(message)[0]
        # one matrix product for all heads: a_h in the rows of head h, zero elsewhere
        dots = (self.dot.unsqueeze(-1) * self.own.unsqueeze(1)).flatten(0, 1) * (0.8 * LEAKY_GAIN)
        return torch.add(silu(s), s, alpha=0.25) @ dots

    def extra_repr(self) -> str:
        """For repr."""
        return f"{self.heads} heads, rescale={self.rescale}, alpha_drop={self.alpha_drop}"
