"""Functions of pairs: against formulas written out, and at their ends."""

import math

import pytest
import torch
from ase.data import covalent_radii as theirs

from irrepc.errors import InputError
from irrepc.nn.elements import COVALENT_RADII, covalent_radii
from irrepc.nn.pair import NEQUIP_SCREENING, AgnesiTransform, ScreenedRepulsion, SoftTransform

SPECIES = (1, 8)
FIRST, SECOND = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])


def test_radii_are_those_of_the_table() -> None:
    assert tuple(round(float(r), 2) for r in theirs[1:97]) == COVALENT_RADII
    assert covalent_radii((1, 6, 29)) == (0.31, 0.76, 1.32)
    with pytest.raises(InputError, match=r"got atomic numbers \[0, 97\]; expected 1 to 96"):
        covalent_radii((0, 1, 97))


def test_repulsion_is_the_universal_one() -> None:
    r = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64)
    found = ScreenedRepulsion(SPECIES, NEQUIP_SCREENING, 2.0, 6)(r, FIRST, SECOND)
    for value, distance, a, b in zip(found, r.tolist(), (1, 1, 8), (1, 8, 8), strict=True):
        x = distance * (a**0.23 + b**0.23) / 0.4685
        screening = (
            0.18175 * math.exp(-3.1998 * x)
            + 0.50986 * math.exp(-0.94229 * x)
            + 0.28022 * math.exp(-0.4029 * x)
            + 0.02817 * math.exp(-0.20162 * x)
        )
        u = distance / 2.0
        fade = 1 - 28 * u**6 + 48 * u**7 - 21 * u**8
        assert float(value) == pytest.approx(0.5 * 14.399645 * a * b / distance * screening * fade, rel=1e-12)


def test_repulsion_ends_at_its_reach() -> None:
    reach = torch.tensor([[1.0, 2.0], [2.0, 3.0]])
    repulsion = ScreenedRepulsion(SPECIES, NEQUIP_SCREENING, reach, 5).double()
    r = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert not repulsion(r, FIRST, SECOND).any()
    assert bool((repulsion(r - 1e-3, FIRST, SECOND) > 0).all())


def test_agnesi_goes_from_one_to_zero() -> None:
    transform = AgnesiTransform(SPECIES)
    r = torch.linspace(0.01, 50.0, 200, dtype=torch.float64)
    kinds = torch.ones(200, dtype=torch.int64)
    found = transform(r, kinds, kinds)
    assert float(found[0]) == pytest.approx(1.0, abs=1e-6)
    assert float(found[-1]) < 0.05
    assert bool((found.diff() < 0).all())
    s = 1.3 / 0.66
    expected = 1 / (1 + 1.0805 * s**0.9183 / (1 + s ** (0.9183 - 4.5791)))
    value = transform(torch.tensor([1.3], dtype=torch.float64), kinds[:1], kinds[:1])
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_soft_leaves_long_distances_alone() -> None:
    transform = SoftTransform(SPECIES)
    kinds = torch.zeros(2, dtype=torch.int64)
    near, far = transform(torch.tensor([0.01, 5.0], dtype=torch.float64), kinds, kinds).tolist()
    assert far == pytest.approx(5.0, abs=1e-12)
    total = 0.62
    low, high = 0.75 * total, 4 / 3 * total
    gate = 0.5 * (1 + math.tanh(4 / (high - low) * (0.01 - 0.5 * (low + high))))
    assert near == pytest.approx(low + (0.01 - low) * gate, rel=1e-12)
