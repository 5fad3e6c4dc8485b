"""Neighbour lists against all pairs of all images counted one by one, and the structures they refuse."""

import builtins
import itertools
import sys
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from irrepc.errors import InputError, MissingExtraError
from irrepc.nn.graph import edge_vectors
from irrepc.nn.neighbours import NeighbourList, SkinList, graph_of, graph_of_atoms, neighbours, species_of

CELLS = {
    "molecule": (None, (False, False, False)),
    "cube": (np.diag([4.0, 5.0, 6.0]), (True, True, True)),
    "thin": (np.diag([0.9, 5.0, 1.3]), (True, True, True)),
    "skewed": (np.array([[3.0, 0, 0], [2.8, 1.0, 0], [-2.5, 0.7, 2.0]]), (True, True, True)),
    "left-handed": (np.array([[0, 3.0, 0], [3.0, 0, 0], [0, 0, 3.0]]), (True, True, True)),
    "slab": (np.array([[3.0, 0, 0], [1.0, 2.5, 0], [0, 0, 0]]), (True, True, False)),
    "slab along y": (np.array([[3.0, 0.5, 0], [0, 40.0, 0], [0, 0.2, 3.0]]), (True, False, True)),
    "chain": (np.array([[0, 0, 0], [0.4, 0.3, 1.5], [0, 0, 0]]), (False, True, False)),
}


def counted(points: np.ndarray, cell: Any, pbc: tuple[bool, ...], cutoff: float) -> set[tuple[int, ...]]:
    box = np.zeros((3, 3)) if cell is None else cell
    reach = cutoff + np.linalg.norm(np.ptp(points, axis=0))
    heights = np.full(3, np.inf)
    heights[list(pbc)] = 1 / np.linalg.norm(np.linalg.pinv(box[list(pbc)]), axis=0)
    images = np.ceil(reach / heights).astype(int)
    found = set()
    for shift in itertools.product(*(range(-n, n + 1) for n in images)):
        distances = np.linalg.norm(points[None] - points[:, None] + np.array(shift) @ box, axis=-1)
        found |= {(int(i), int(j), *shift) for i, j in np.argwhere(distances < cutoff) if i != j or shift != (0, 0, 0)}
    return found


def listed(pairs: NeighbourList) -> list[tuple[int, ...]]:
    return [
        (int(i), int(j), *map(int, s)) for i, j, s in zip(pairs.receivers, pairs.senders, pairs.shifts, strict=True)
    ]


@pytest.mark.parametrize("cutoff", [1.7, 4.0])
@pytest.mark.parametrize("name", CELLS)
def test_all_pairs_are_found_once_and_in_order(name: str, cutoff: float) -> None:
    cell, pbc = CELLS[name]
    points = np.random.default_rng(3).normal(size=(5, 3)) * 2  # some lie outside of the cell
    pairs = listed(neighbours(points, cell, pbc, cutoff=cutoff))
    assert pairs == sorted(pairs)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == counted(points, cell, pbc, cutoff)
    assert {(j, i, *(-k for k in s)) for i, j, *s in pairs} == set(pairs)


def test_many_atoms_in_a_slab_with_a_short_open_direction() -> None:
    cell = np.diag([9.0, 9.0, 0.5])
    points = np.random.default_rng(1).uniform(0, 9, size=(150, 3))
    pairs = listed(neighbours(points, cell, (True, True, False), cutoff=3.0))
    assert set(pairs) == counted(points, cell, (True, True, False), 3.0)


def test_vectors_of_the_graph_are_those_of_the_images() -> None:
    cell, pbc = CELLS["skewed"]
    points = np.random.default_rng(3).normal(size=(4, 3)) * 3
    graph = graph_of([0, 1, 0, 2], points, cell, pbc, cutoff=3.0)
    lengths = edge_vectors(graph).norm(dim=1)
    assert graph.num_edges > 20
    assert float(lengths.max()) < 3.0
    expected = sorted(
        np.linalg.norm(points[j] - points[i] + np.array(s) @ cell) for i, j, *s in counted(points, cell, pbc, 3.0)
    )
    np.testing.assert_allclose(np.sort(lengths.numpy()), expected, atol=1e-12)


@pytest.mark.parametrize("atoms", [0, 1])
def test_no_atom_and_one_atom(atoms: int) -> None:
    graph = graph_of(np.zeros(atoms, int), np.zeros((atoms, 3)), cutoff=5.0)
    assert (graph.num_atoms, graph.num_edges, graph.num_graphs) == (atoms, 0, 1)
    assert graph.senders.start.tolist() == [0] * (atoms + 1)
    assert edge_vectors(graph).shape == (0, 3)


def test_one_atom_sees_its_own_images() -> None:
    graph = graph_of_atoms(bulk("Cu", "fcc", a=3.6), cutoff=2.6, species=[1, 29], dtype=torch.float32)
    assert graph.num_edges == 12
    assert graph.species.tolist() == [1]
    assert graph.positions.dtype == graph.shifts.dtype == graph.cell.dtype == torch.float32


def test_a_cell_without_periodicity_is_dropped() -> None:
    graph = graph_of([0, 0], [[0.0, 0, 0], [1.0, 0, 0]], np.eye(3), False, cutoff=2.0)
    assert graph.num_edges == 2
    assert not graph.cell.any()


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"positions": [[0.0, 0, 0], [NAN, 0, 0]]}, "atom 1 at .*nan"),
        ({"positions": [[0.0, 0, 0], [float("inf"), 0, 0]]}, "atom 1 at .*inf"),
        ({"positions": [[0.0, 0], [1.0, 0]]}, r"shape \(2, 2\)"),
        ({"positions": [[0.0, 0, 0], [0.0, 0, 0]]}, "atoms 0 and 1 at|atoms 1 and 0 at"),
        ({"cutoff": 0.0}, "cutoff 0.0"),
        ({"cutoff": -1.0}, "cutoff -1.0"),
        ({"cutoff": NAN}, "cutoff nan"),
        ({"pbc": True}, "independent vectors"),
        ({"pbc": True, "cell": [[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1]]}, "independent vectors"),
        ({"pbc": True, "cell": [[1.0, 0, 0], [0, 1e-9, 0], [0, 0, 1]]}, "independent vectors"),
        ({"pbc": True, "cell": np.eye(3) * 0.05}, "heights of 0.1"),
        ({"pbc": True, "cell": [[1.0, NAN, 0], [0, 1, 0], [0, 0, 1]]}, "finite numbers"),
        ({"pbc": True, "cell": np.eye(2)}, r"\(3, 3\)"),
        ({"species": [0]}, r"species of shape \(1,\)"),
        ({"species": [0, -1]}, "integers >= 0"),
        ({"species": [0.0, 1.0]}, "float64"),
    ],
)
def test_broken_structures_are_refused(change: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"species": [0, 0], "positions": [[0.0, 0, 0], [1.0, 0, 0]], "cutoff": 3.0, **change}
    with pytest.raises(InputError, match=says):
        graph_of(**given)


def test_vectors_along_open_directions_may_be_anything() -> None:
    cell = np.array([[3.0, 0, 0], [NAN, NAN, NAN], [3.0, 0, 0]])
    assert len(neighbours([[0.0, 0, 0]], cell, (True, False, False), cutoff=4.0).senders) == 2


def test_species_count_into_the_list_of_the_model() -> None:
    assert species_of([8, 1, 1], (1, 6, 8)).tolist() == [2, 0, 0]
    assert species_of([], (1, 6, 8)).tolist() == []
    with pytest.raises(InputError, match=r"atomic numbers \[7, 16\]; expected only \[1, 6, 8\]"):
        species_of([1, 16, 7, 7], (8, 6, 1))


def test_without_vesin_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vesin", None)
    with pytest.raises(MissingExtraError, match=r"irrepc\[ase\]"):
        neighbours(np.zeros((2, 3)) + np.arange(2)[:, None], cutoff=2.0)
    assert builtins.__import__  # nothing but the module table was touched


def crystal(seed: int) -> Atoms:
    atoms = bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def test_a_skin_list_gives_the_graph_of_a_fresh_list() -> None:
    atoms, skin = crystal(0), SkinList(cutoff=4.0, skin=0.6)
    generator = np.random.default_rng(5)
    for _ in range(30):
        atoms.positions += generator.normal(scale=0.04, size=atoms.positions.shape)
        fresh = graph_of(np.zeros(8, int), atoms.positions, atoms.cell.array, atoms.pbc, cutoff=4.0)
        kept = skin.graph(np.zeros(8, int), atoms.positions, atoms.cell.array, atoms.pbc)
        for a, b in zip(torch.utils._pytree.tree_leaves(fresh), torch.utils._pytree.tree_leaves(kept), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
    assert 1 < skin.made < 20


def test_a_skin_list_is_made_anew_when_it_must() -> None:
    atoms, skin = crystal(0), SkinList(cutoff=4.0, skin=0.6)

    def made() -> int:
        skin.graph(np.zeros(len(atoms), int), atoms.positions, atoms.cell.array, atoms.pbc)
        return skin.made

    assert made() == 1
    atoms.positions[0, 0] += 0.29
    assert made() == 1
    atoms.positions[0, 0] += 0.02
    assert made() == 2
    atoms.set_cell(atoms.cell.array * 1.001, scale_atoms=True)
    assert made() == 3
    atoms.pbc = (True, True, False)
    assert made() == 4
    del atoms[0]
    assert made() == 5
    assert made() == 5


def test_a_skin_list_follows_the_vacuum_of_a_slab() -> None:
    skin = SkinList(cutoff=3.0)
    for height in (20.0, 25.0):
        graph = skin.graph([0], [[0.0, 0, 0]], np.diag([3.0, 3.0, height]), (True, True, False))
        assert float(graph.cell[0, 2, 2]) == height


def test_a_graph_of_a_skin_list_is_no_view_of_the_positions() -> None:
    points = np.array([[0.0, 0, 0], [1.0, 0, 0]])
    graph = SkinList(cutoff=3.0).graph([0, 1], points)
    points[0] = 9.0
    assert graph.positions[0].tolist() == [0.0, 0.0, 0.0]


def test_a_skin_list_follows_changed_species_without_a_new_search() -> None:
    skin = SkinList(cutoff=3.0)
    points = [[0.0, 0, 0], [1.0, 0, 0]]
    assert skin.graph([0, 1], points).species.tolist() == [0, 1]
    assert skin.graph([1, 1], points).species.tolist() == [1, 1]
    assert skin.made == 1
    with pytest.raises(InputError, match=r"species of shape \(1,\)"):
        skin.graph([1], points)
    with pytest.raises(InputError, match="skin: got -1"):
        SkinList(cutoff=3.0, skin=-1.0)
