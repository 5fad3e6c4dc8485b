"""Couplings: exact values, a second derivation, both sign conventions, and the reference tables."""

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from irrepc.algebra.surd import Surd
from irrepc.errors import ConventionError, IrrepsError
from irrepc.frontend.clebsch_gordan import E3NN_04_FLIPPED, clebsch_gordan, racah, triangles, w3j
from tests.frontend.second_derivation import real_coupling

Degrees = tuple[int, int, int]


def dense(degrees: Degrees, entries: dict[Degrees, Surd]) -> np.ndarray:
    out = np.zeros([2 * l + 1 for l in degrees])
    for key, value in entries.items():
        out[key] = float(value)
    return out


def test_small_couplings_by_hand() -> None:
    assert dict(w3j(0, 0, 0)) == {(0, 0, 0): Surd.of(1)}
    assert dict(w3j(1, 1, 0)) == {(i, i, 0): Surd.root(Fraction(1, 3)) for i in range(3)}
    sixth = Surd.root(Fraction(1, 6))
    signs = {(0, 1, 2): 1, (1, 2, 0): 1, (2, 0, 1): 1, (0, 2, 1): -1, (2, 1, 0): -1, (1, 0, 2): -1}
    assert dict(w3j(1, 1, 1)) == {key: sixth * sign for key, sign in signs.items()}


@pytest.mark.parametrize("degrees", triangles(4))
def test_second_derivation(degrees: Degrees) -> None:
    assert dict(w3j(*degrees)) == real_coupling(*degrees)


@pytest.mark.parametrize("degrees", [(1, 11, 12), (12, 12, 1), (2, 12, 12), (12, 5, 8), (7, 12, 9), (12, 12, 12)])
def test_second_derivation_at_degree_12(degrees: Degrees) -> None:
    assert dict(w3j(*degrees)) == real_coupling(*degrees)


@pytest.mark.parametrize("degrees", [d for d in triangles(5) if list(d) != sorted(d)])
def test_unsorted_degrees_by_their_own_sum(degrees: Degrees) -> None:
    assert dict(w3j(*degrees)) == racah(*degrees)


def test_entries_are_sorted_single_roots_and_read_only() -> None:
    for degrees in triangles(4):
        coupling = w3j(*degrees)
        assert list(coupling) == sorted(coupling)
        assert all(len(value.parts) == 1 for value in coupling.values())
    with pytest.raises(TypeError):
        w3j(1, 1, 1)[0, 0, 0] = Surd()


def test_rows_of_clebsch_gordan_are_orthonormal() -> None:
    for degrees in ((1, 2, 2), (3, 4, 5)):
        products: Counter[tuple[int, int]] = Counter()
        entries = clebsch_gordan(*degrees)
        for (i, j, k), value in entries.items():
            for n in range(2 * degrees[2] + 1):
                if (i, j, n) in entries:
                    products[k, n] = products[k, n] + value * entries[i, j, n]
        assert {key: value for key, value in products.items() if value} == {
            (k, k): Surd.of(1) for k in range(2 * degrees[2] + 1)
        }


@pytest.mark.parametrize("degrees", [(1, 1, 3), (0, 0, 1), (2, 5, 1)])
def test_outside_the_triangle(degrees: Degrees) -> None:
    with pytest.raises(IrrepsError, match=r"w3j: got degrees .*; expected \d+ <= l3 <= \d+"):
        w3j(*degrees)


@pytest.mark.parametrize("bad", [-1, 1.0, True, "1"])
def test_degrees_that_are_none(bad: object) -> None:
    with pytest.raises(IrrepsError, match=r"expected an integer >= 0"):
        w3j(1, bad, 1)  # type: ignore[arg-type]


# ── signs of e3nn 0.4 ────────────────────────────────────────────────────────────────────────────


def test_the_older_signs_are_a_table_of_odd_multisets() -> None:
    assert len(E3NN_04_FLIPPED) == 18
    assert all(sum(degrees) % 2 and list(degrees) == sorted(degrees) for degrees in E3NN_04_FLIPPED)
    flipped = [d for d in triangles(8) if w3j(*d, convention="e3nn-0.4") != w3j(*d)]
    assert len(triangles(8)) == 369
    assert len(flipped) == 70
    assert set(flipped) == {order for degrees in E3NN_04_FLIPPED for order in permutations(degrees)}
    assert (1, 1, 1) not in flipped
    for degrees in flipped[::7]:
        older = w3j(*degrees, convention="e3nn-0.4")
        assert {key: -value for key, value in older.items()} == dict(w3j(*degrees))
        assert (
            clebsch_gordan(*degrees, convention="e3nn-0.4")[next(iter(older))].sign == next(iter(older.values())).sign
        )


def test_older_signs_are_refused_where_they_are_not_known() -> None:
    assert w3j(8, 8, 8, convention="e3nn-0.4") == w3j(8, 8, 8)
    with pytest.raises(ConventionError, match=r"expected degrees up to 8"):
        w3j(1, 8, 9, convention="e3nn-0.4")
    with pytest.raises(ConventionError, match=r"w3j convention: got 'e3nn-0.3'; expected one of e3nn-0.5, e3nn-0.4"):
        w3j(1, 1, 1, convention="e3nn-0.3")


# ── reference tables ─────────────────────────────────────────────────────────────────────────────


def test_golden_couplings(shared: Path) -> None:
    table = np.load(shared / "golden" / "e3nn_w3j.npz")
    assert len(table["l1l2l3"]) == 175
    for number, row in enumerate(table["l1l2l3"].tolist()):
        start, stop = table["ptr"][number : number + 2]
        golden = {tuple(k): v for k, v in zip(table["ijk"][start:stop].tolist(), table["val"][start:stop], strict=True)}
        ours = w3j(*row)
        assert set(ours) == set(golden), row
        assert max(abs(float(ours[key]) - value) for key, value in golden.items()) < 1e-15, row
        assert all(ours[key].sign == np.sign(value) for key, value in golden.items()), row


def test_golden_clebsch_gordan(shared: Path) -> None:
    table = np.load(shared / "golden" / "cue_cg.npz")
    assert len(table.files) == 65
    for name in table.files:
        l1, l2, l3 = map(int, name.split("_"))
        assert np.abs(dense((l1, l2, l3), dict(clebsch_gordan(l1, l2, l3))) - table[name]).max() < 2e-15, name


@pytest.fixture
def o3() -> Iterator[object]:
    """e3nn's o3 in double precision."""
    torch = pytest.importorskip("torch", reason="e3nn needs torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield pytest.importorskip("e3nn.o3", reason="e3nn is not installed")
    torch.set_default_dtype(before)


@pytest.mark.parametrize("degrees", [(7, 7, 7), (1, 7, 8), (8, 5, 6), (8, 8, 8), (11, 3, 9), (2, 11, 10)])
def test_e3nn_beyond_the_golden_tables(degrees: Degrees, o3: object) -> None:
    theirs = o3.wigner_3j(*degrees).numpy()  # type: ignore[attr-defined]
    assert np.abs(dense(degrees, dict(w3j(*degrees))) - theirs).max() < 2e-15
