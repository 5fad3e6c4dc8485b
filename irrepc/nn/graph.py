"""Graph: atoms, their neighbours and their cells as one NamedTuple of tensors, and how graphs are joined in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from irrepc.errors import InputError


class Index(NamedTuple):
    """Row numbers, one for each edge, with the order that sorts them: a gather, and without atomics a scatter.

    values  (E,) int64, the row that each edge reads or adds to
    order   (E,) int64, stable argsort of values: order[start[n]:start[n + 1]] are the edges of row n, ascending
    start   (rows + 1,) int64
    """

    values: Tensor
    order: Tensor
    start: Tensor

    def to(self, device: torch.device | str) -> Index:
        """The same index on another device."""
        return Index(self.values.to(device), self.order.to(device), self.start.to(device))


class Graph(NamedTuple):
    """One structure or a batch of them. Edges are sorted by receiver, so `receivers.order` is 0, 1, 2, ...

    An edge points from the atom at its centre, the receiver i, to the neighbour, the sender j:
    r = positions[j] + shifts · cell - positions[i].

    positions  (N, 3) Å, float
    species    (N,) int64, counts into the list of elements the model knows
    senders    Index of (E,) over N rows, the neighbours j
    receivers  Index of (E,) over N rows, the centres i
    shifts     (E, 3) whole numbers of cell vectors, in the dtype of positions; zero without periodicity
    cell       (B, 3, 3) Å, rows are the cell vectors, in the dtype of positions; zero without periodicity
    batch      (N,) int64, ascending: the structure each atom belongs to
    pairs      Index of (E,) over P rows: an edge i → j and its reverse, of the same length, belong to one pair
    """

    positions: Tensor
    species: Tensor
    senders: Index
    receivers: Index
    shifts: Tensor
    cell: Tensor
    batch: Tensor
    pairs: Index

    @property
    def num_atoms(self) -> int:
        """N."""
        return self.positions.shape[0]

    @property
    def num_edges(self) -> int:
        """E, directed: each bond counts twice."""
        return self.shifts.shape[0]

    @property
    def num_pairs(self) -> int:
        """P: each bond counts once."""
        return self.pairs.start.shape[0] - 1

    @property
    def num_graphs(self) -> int:
        """B."""
        return self.cell.shape[0]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """The same graph on another device, or with its floating-point fields in another dtype."""
        where = self.positions.device if device is None else torch.device(device)
        return Graph(
            self.positions.to(where, dtype),
            self.species.to(where),
            self.senders.to(where),
            self.receivers.to(where),
            self.shifts.to(where, dtype),
            self.cell.to(where, dtype),
            self.batch.to(where),
            self.pairs.to(where),
        )


def edge_vectors(graph: Graph) -> Tensor:
    """Vectors (E, 3) Å from each centre to its neighbour, differentiable in positions and cell."""
    centre, neighbour = graph.receivers.values, graph.senders.values
    vectors = graph.positions.index_select(0, neighbour) - graph.positions.index_select(0, centre)
    if graph.num_graphs == 1:
        return torch.addmm(vectors, graph.shifts, graph.cell[0])
    cells = graph.cell.index_select(0, graph.batch.index_select(0, centre))
    return vectors + (graph.shifts.unsqueeze(-1) * cells).sum(1)


def first_edges(pairs: Index) -> Tensor:
    """The first edge of each pair, (P,) int64: what a pair has is computed there, once for both directions."""
    return pairs.order.index_select(0, pairs.start[:-1])


def pairs_of(senders: Tensor, receivers: Tensor, shifts: Tensor, atoms: int) -> Index:
    """Which edges are one another's reverse: those i → j shifted by s and j → i shifted by -s are one pair.

    senders, receivers (E,) int64 in 0 ... atoms - 1; shifts (E, 3) whole numbers of any dtype. An edge without a
    reverse is a pair of its own; pairs are counted by the lower of their atoms. Raises InputError where atoms and
    shifts are too many to be counted in 63 bits.
    """
    steps = shifts.round().to(torch.int64)
    reach = int(steps.abs().max()) if steps.numel() else 0
    span = 2 * reach + 1
    if atoms**2 * span**3 >= 2**63:
        raise InputError(f"pairs_of: got shifts of up to {reach} cells, {atoms} atoms; expected fewer; wrap the atoms")
    code = ((steps[:, 0] * span) + steps[:, 1]) * span + steps[:, 2]
    middle = (span**3 - 1) // 2
    there = (receivers * atoms + senders) * span**3 + middle + code
    back = (senders * atoms + receivers) * span**3 + middle - code
    return index_by(torch.minimum(there, back))


def each_its_own(edges: int, device: torch.device | str = "cpu") -> Index:
    """Pairs of one edge each: for what differs between the two directions."""
    number = torch.arange(edges + 1, device=device)
    return Index(number[:-1], number[:-1], number)


def check_graph(graph: Graph, species: int, weight: Tensor) -> None:
    """Raise InputError unless a model of `species` species and weights like `weight` can take the graph.

    Compiled code goes without: there values cannot be looked at.
    """
    positions = graph.positions
    if (positions.dtype, positions.device) != (weight.dtype, weight.device):
        raise InputError(
            f"model: got a graph of {positions.dtype} on {positions.device}; expected {weight.dtype} on "
            f"{weight.device}, as the weights; do: graph.to(device, dtype)"
        )
    if torch.compiler.is_compiling() or positions.device.type != "cpu" or not graph.num_atoms:
        return
    least, largest = (int(t) for t in torch.aminmax(graph.species))
    if largest >= species or least < 0:
        raise InputError(
            f"model: got species up to {largest}; expected 0 ... {species - 1}; they count into the model's list and "
            "are no atomic numbers; do: species_of(numbers, model.species)"
        )


def checked_vectors(graph: Graph, species: int, weight: Tensor) -> Tensor:
    """`edge_vectors` in the dtype of the weights, of a graph in that dtype or in float64; errors as `check_graph`.

    Where positions have more digits than the weights, their differences are taken before digits are dropped: in a box
    of tens of Å that makes the forces of a float32 network ten times as exact.
    """
    check_graph(graph, species, weight.new_empty(0, dtype=torch.promote_types(weight.dtype, graph.positions.dtype)))
    return edge_vectors(graph).to(weight.dtype)


def index_of(values: Tensor, rows: int) -> Index:
    """Index of `values` (E,) int64, each in 0 ... rows - 1.

    Raises InputError for another shape or dtype, or for a value out of range.
    """
    if values.dim() != 1 or values.dtype != torch.int64:
        raise InputError(
            f"index_of: got shape {tuple(values.shape)} of {values.dtype}; expected (E,) of torch.int64; "
            "give one row number for each edge"
        )
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= rows):
        raise InputError(
            f"index_of: got row numbers {int(values.min())} ... {int(values.max())}; expected 0 ... {rows - 1}; "
            "count rows from zero"
        )
    order = torch.argsort(values, stable=True)
    start = torch.searchsorted(values[order], torch.arange(rows + 1, device=values.device))
    return Index(values, order, start)


def index_by(keys: Tensor) -> Index:
    """Index over the distinct values of `keys` (E,) int64 >= 0, counted as they rise."""
    order = torch.argsort(keys, stable=True)
    first = keys.index_select(0, order).diff(prepend=keys.new_full((1,), -1)).ne(0)
    start = torch.cat([first.nonzero().squeeze(1), keys.new_full((1,), keys.shape[0])])
    return Index(torch.empty_like(keys).index_copy_(0, order, first.cumsum(0) - 1), order, start)


def graph_from_edges(
    positions: Tensor,
    species: Tensor,
    senders: Tensor,
    receivers: Tensor,
    *,
    shifts: Tensor | None = None,
    cell: Tensor | None = None,
) -> Graph:
    """One structure from its edges, in any order: they are sorted by receiver, stably.

    positions (N, 3) Å, float; species (N,) int64; senders, receivers (E,) int64; shifts (E, 3) whole numbers;
    cell (3, 3) Å. Raises InputError where shapes, dtypes or row numbers do not fit.
    """
    atoms, edges = positions.shape[0], senders.shape[0]
    shifts = positions.new_zeros(edges, 3) if shifts is None else shifts.to(positions)
    cell = positions.new_zeros(3, 3) if cell is None else cell.to(positions)
    for name, tensor, shape in (
        ("positions", positions, (atoms, 3)),
        ("species", species, (atoms,)),
        ("receivers", receivers, (edges,)),
        ("shifts", shifts, (edges, 3)),
        ("cell", cell, (3, 3)),
    ):
        if tuple(tensor.shape) != shape:
            raise InputError(f"graph_from_edges: got {name} of shape {tuple(tensor.shape)}; expected {shape}")
    if not positions.is_floating_point() or species.dtype != torch.int64:
        raise InputError(
            f"graph_from_edges: got positions of {positions.dtype} and species of {species.dtype}; "
            "expected a floating-point dtype and torch.int64; convert them"
        )
    by_receiver = torch.argsort(receivers, stable=True)
    to, at, shifts = senders[by_receiver], receivers[by_receiver], shifts[by_receiver]
    return Graph(
        positions,
        species,
        index_of(to, atoms),
        index_of(at, atoms),
        shifts,
        cell.unsqueeze(0),
        torch.zeros_like(species),
        pairs_of(to, at, shifts, atoms),
    )


def batch(graphs: Sequence[Graph]) -> Graph:
    """Join structures into one graph of N = ΣN, E = ΣE, B = ΣB; nothing is sorted again.

    Raises InputError for an empty sequence, or for graphs of different dtypes or devices.
    """
    if not graphs:
        raise InputError("batch: got no graphs; expected at least one")
    kinds = {(g.positions.dtype, g.positions.device) for g in graphs}
    if len(kinds) > 1:
        raise InputError(
            f"batch: got graphs of {', '.join(sorted(f'{d} on {w}' for d, w in kinds))}; "
            "expected one dtype and one device; do: graph.to(device, dtype)"
        )
    atoms = _offsets([g.num_atoms for g in graphs])
    edges = _offsets([g.num_edges for g in graphs])
    pairs = _offsets([g.num_pairs for g in graphs])
    structures = _offsets([g.num_graphs for g in graphs])
    return Graph(
        torch.cat([g.positions for g in graphs]),
        torch.cat([g.species for g in graphs]),
        _joined([g.senders for g in graphs], atoms, edges),
        _joined([g.receivers for g in graphs], atoms, edges),
        torch.cat([g.shifts for g in graphs]),
        torch.cat([g.cell for g in graphs]),
        torch.cat([g.batch + first for g, first in zip(graphs, structures, strict=True)]),
        _joined([g.pairs for g in graphs], pairs, edges),
    )


def _offsets(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:k]) for k in range(len(counts))]


def _joined(indices: Sequence[Index], rows: Sequence[int], edges: Sequence[int]) -> Index:
    # rows of later graphs are larger, so the sorted pieces stay sorted when they are put one after the other
    first = indices[0].start.new_zeros(1)
    return Index(
        torch.cat([i.values + row for i, row in zip(indices, rows, strict=True)]),
        torch.cat([i.order + edge for i, edge in zip(indices, edges, strict=True)]),
        torch.cat([first, *(i.start[1:] + edge for i, edge in zip(indices, edges, strict=True))]),
    )
