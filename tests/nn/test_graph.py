"""Graph: indices, edge vectors, batches, and what they refuse."""

import pytest
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.nn.graph import (
    Graph,
    Index,
    batch,
    checked_vectors,
    each_its_own,
    edge_vectors,
    first_edges,
    graph_from_edges,
    index_of,
    pairs_of,
)
from irrepc.nn.neighbours import SkinList, graph_of


def check_index(index: Index, rows: int) -> None:
    assert index.start.shape == (rows + 1,)
    assert index.values.dtype == index.order.dtype == index.start.dtype == torch.int64
    for n in range(rows):
        edges = index.order[index.start[n] : index.start[n + 1]]
        assert edges.tolist() == torch.nonzero(index.values == n).flatten().tolist()


def some_graph(seed: int, atoms: int = 5, edges: int = 12) -> Graph:
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    return graph_from_edges(
        torch.randn(atoms, 3, generator=generator, dtype=torch.float64),
        whole(0, 3, atoms),
        whole(0, atoms, edges),
        whole(0, atoms, edges),
        shifts=whole(-2, 3, edges, 3),
        cell=torch.randn(3, 3, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize(("values", "rows"), [([3, 0, 3, 1, 0], 4), ([], 3), ([], 0), ([0], 1), ([2, 2, 2], 5)])
def test_an_index_lists_the_edges_of_each_row_in_order(values: list[int], rows: int) -> None:
    check_index(index_of(torch.tensor(values, dtype=torch.int64), rows), rows)


@pytest.mark.parametrize(
    "values", [torch.tensor([0, 4]), torch.tensor([-1, 0]), torch.tensor([0.0]), torch.zeros(2, 2)]
)
def test_an_index_refuses_what_is_no_row_number(values: Tensor) -> None:
    with pytest.raises(InputError, match=r"index_of: got .* expected"):
        index_of(values, 4)


def test_edges_are_sorted_by_receiver_and_keep_their_vectors() -> None:
    positions = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])
    senders, receivers = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    graph = graph_from_edges(positions, torch.zeros(3, dtype=torch.int64), senders, receivers)
    assert graph.receivers.values.tolist() == [0, 1, 2]
    assert graph.receivers.order.tolist() == [0, 1, 2]
    assert graph.senders.values.tolist() == [2, 0, 1]
    assert edge_vectors(graph).tolist() == [[0, 2, 0], [-1, 0, 0], [1, -2, 0]]
    check_index(graph.senders, 3)
    check_index(graph.receivers, 3)


def test_edge_vectors_see_shifts_and_the_cell_of_the_own_structure() -> None:
    graph = batch([some_graph(1), some_graph(2, atoms=3, edges=7)])
    vectors = edge_vectors(graph)
    for e in range(graph.num_edges):
        i, j = graph.receivers.values[e], graph.senders.values[e]
        cell = graph.cell[graph.batch[i]]
        expected = graph.positions[j] - graph.positions[i] + graph.shifts[e] @ cell
        torch.testing.assert_close(vectors[e], expected, rtol=0, atol=1e-14)


def test_a_batch_is_its_parts_and_its_indices_stay_sorted() -> None:
    parts = [some_graph(1), some_graph(2, atoms=1, edges=0), some_graph(3, atoms=4, edges=9)]
    whole = batch(parts)
    assert (whole.num_graphs, whole.num_atoms, whole.num_edges) == (3, 10, 21)
    check_index(whole.senders, 10)
    check_index(whole.receivers, 10)
    assert whole.receivers.order.tolist() == list(range(21))
    assert whole.batch.tolist() == [0] * 5 + [1] + [2] * 4
    again = batch([batch(parts[:2]), parts[2]])
    for a, b in zip(torch.utils._pytree.tree_leaves(whole), torch.utils._pytree.tree_leaves(again), strict=True):
        assert torch.equal(a, b)


def test_a_graph_moves_to_another_dtype_whole() -> None:
    graph = some_graph(1).to(dtype=torch.float32)
    assert {graph.positions.dtype, graph.shifts.dtype, graph.cell.dtype} == {torch.float32}
    assert {graph.species.dtype, graph.batch.dtype, graph.senders.start.dtype} == {torch.int64}
    assert graph.to("meta").senders.order.device.type == "meta"


def test_batch_refuses_nothing_and_mixtures() -> None:
    with pytest.raises(InputError, match="no graphs"):
        batch([])
    with pytest.raises(InputError, match=r"torch.float32 on cpu, torch.float64 on cpu"):
        batch([some_graph(1), some_graph(2).to(dtype=torch.float32)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("positions", torch.zeros(4, 2)),
        ("positions", torch.zeros(4, 3, dtype=torch.int64)),
        ("species", torch.zeros(3, dtype=torch.int64)),
        ("species", torch.zeros(4)),
        ("receivers", torch.zeros(2, dtype=torch.int64)),
        ("shifts", torch.zeros(3, 2)),
        ("cell", torch.zeros(1, 3, 3)),
    ],
)
def test_a_graph_refuses_arrays_that_do_not_fit(name: str, value: Tensor) -> None:
    ends = torch.zeros(3, dtype=torch.int64)
    given = {
        "positions": torch.zeros(4, 3),
        "species": torch.zeros(4, dtype=torch.int64),
        "senders": ends,
        "receivers": ends,
        name: value,
    }
    with pytest.raises(InputError, match=f"got {name}|got positions"):
        graph_from_edges(**given)


def check_pairs(graph: Graph) -> None:
    """Every edge and its reverse in one pair, nobody else; the reverse has the very same length."""
    check_index(graph.pairs, graph.num_pairs)
    of = {}
    ends = zip(graph.receivers.values.tolist(), graph.senders.values.tolist(), graph.shifts.tolist(), strict=True)
    edges = [(i, j, tuple(round(n) for n in shift)) for i, j, shift in ends]
    for (i, j, shift), pair in zip(edges, graph.pairs.values.tolist(), strict=True):
        back = (j, i, tuple(-n for n in shift))
        assert of.setdefault((i, j, shift), pair) == pair
        assert of.get(back, pair) == pair
    kinds = {frozenset(((i, j, s), (j, i, tuple(-n for n in s)))) for i, j, s in edges}
    assert graph.num_pairs == len(kinds)
    lengths = torch.linalg.vector_norm(edge_vectors(graph), dim=1)
    assert torch.equal(lengths, lengths[first_edges(graph.pairs)][graph.pairs.values])


def test_an_edge_and_its_reverse_are_a_pair_images_of_an_atom_included() -> None:
    generator = torch.Generator().manual_seed(0)
    cell = torch.eye(3).double() * 2.5 + 0.3 * torch.rand(3, 3, generator=generator, dtype=torch.float64)
    positions = torch.rand(3, 3, generator=generator, dtype=torch.float64) @ cell
    graph = graph_of([0, 1, 0], positions.numpy(), cell.numpy(), True, cutoff=4.0)
    assert graph.num_pairs * 2 == graph.num_edges > 100
    check_pairs(graph)
    check_pairs(graph_of([0], positions[:1].numpy(), cell.numpy(), True, cutoff=4.0))
    check_pairs(some_graph(3))  # edges without a reverse, and doubled ones
    check_pairs(batch([graph, some_graph(1), graph]))
    moved = SkinList(4.0).graph([0, 1, 0], positions.numpy(), cell.numpy(), True)
    check_pairs(moved)
    assert moved.num_pairs == graph.num_pairs


def test_pairs_of_no_edges_of_one_and_of_too_far_images() -> None:
    none, far = torch.zeros(0, dtype=torch.int64), 2**20 * torch.ones(1, 3)
    check_index(pairs_of(none, none, torch.zeros(0, 3), 4), 0)
    check_index(each_its_own(3), 3)
    with pytest.raises(InputError, match="wrap the atoms"):
        pairs_of(none.new_zeros(1), none.new_zeros(1), far, 2)


def test_differences_are_taken_before_digits_are_dropped() -> None:
    positions = torch.tensor([[100.0, 0, 0], [100.0 + 1e-6, 0, 1.0]], dtype=torch.float64)
    index = torch.tensor([1, 0])
    graph = graph_from_edges(positions, torch.zeros(2, dtype=torch.int64), index, 1 - index)
    single = torch.zeros(1)
    found = checked_vectors(graph, 1, single)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], torch.tensor([1e-6, 0, 1.0]), rtol=1e-3, atol=0)
    assert checked_vectors(graph.to(dtype=torch.float32), 1, single)[0, 0] == 0
    with pytest.raises(InputError, match=r"got a graph of torch.float32 .* expected torch.float64"):
        checked_vectors(graph.to(dtype=torch.float32), 1, single.double())
