"""The parts of the engine: neighbours, tables, memory, text, the reverse sweep."""

from __future__ import annotations

import json

import numpy as np
import pytest

from irrepc.deploy.gradient import reads, with_backward, writes
from irrepc.deploy.memory import slot_sizes, without_dead
from irrepc.deploy.neighbours import check_structure, pairs_within
from irrepc.deploy.program import Add, Buffer, Fill, Forces, Place, Product, Readout, Seed, Segment
from irrepc.deploy.tables import basis, fit, refine
from irrepc.deploy.text import read, written
from irrepc.errors import InputError
from irrepc.nn.neighbours import neighbours
from tests.deploy.networks import NAMES, program


@pytest.mark.parametrize("seed", range(12))
def test_pairs_are_those_of_vesin(seed: int) -> None:
    generator = np.random.default_rng(seed)
    atoms, periodic = int(generator.integers(1, 40)), generator.random(3) < 0.6
    cell = np.eye(3) * generator.uniform(1.5, 12, 3) + generator.normal(0, 0.5, (3, 3))
    positions = generator.normal(0, 8, (atoms, 3))
    found = pairs_within(*check_structure(positions, cell, periodic), 4.3)
    expected = neighbours(positions, cell, periodic, cutoff=4.3)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def wave(x: np.ndarray) -> np.ndarray:
    """Two functions that vanish with their first derivatives at 5."""
    return np.stack([np.sin(3 * x), np.cos(x)], 1) * np.square(5 - x)[:, None]


def test_tables_converge_and_end_at_zero() -> None:
    errors = [fit(wave, (Segment(0.5, 5.0, n),), 5) for n in (20, 40)]
    assert errors[1].error < errors[0].error / 40
    assert errors[1].slope_error < errors[0].slope_error / 20
    value, slope = basis(np.ones(1), 5)
    for rows in (value, slope):
        assert np.abs(rows @ errors[0].rows[-6:]).max() < 1e-12


def test_segments_meet_with_value_and_slope() -> None:
    segments = (Segment(0.5, 2.0, 10), Segment(2.0, 5.0, 40))
    rows = fit(wave, segments, 5).rows
    left, right = rows[9:15], rows[15:21]
    for side, width in ((0, 1.0), (1, 1.5 / 10 / (3.0 / 40))):
        ends, begins = basis(np.ones(1), 5)[side] @ left, basis(np.zeros(1), 5)[side] @ right
        np.testing.assert_allclose(ends, begins * width, atol=1e-9)


def test_splines_are_a_partition_of_one() -> None:
    t = np.linspace(0, 1, 7)
    value, slope = basis(t, 5)
    np.testing.assert_allclose(value.sum(1), 1, atol=1e-14)
    np.testing.assert_allclose(slope.sum(1), 0, atol=1e-13)


def test_refinement_meets_its_tolerance_or_says_no() -> None:
    found = fit(wave, refine([wave], (0.5, 1.5, 5.0), 5, 1e-7), 5)
    assert found.slope_error < 2e-7 * found.steepest
    with pytest.raises(InputError, match="expected it with 1024 intervals"):
        refine([lambda x: np.abs(x - np.pi)[:, None] * np.square(5 - x)[:, None]], (0.5, 5.0), 5, 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_shared_memory_is_never_needed_twice(name: str) -> None:
    steps, buffers = program(name).steps, {b.name: b for b in program(name).buffers}
    holder: dict[int, str] = {}
    for number, step in enumerate(steps):
        for b in (buffers[n] for n in reads(step) if n in buffers):
            assert holder[b.slot] == b.name, f"step {number} reads {b.name} after {holder[b.slot]} was written over it"
        for b in (buffers[n] for n in writes(step)):
            holder[b.slot] = b.name
    alone = sum(b.width for b in buffers.values())
    shared = sum(size for _, size in slot_sizes(tuple(buffers.values())).values()) / 8
    assert shared < 0.8 * alone


@pytest.mark.parametrize("name", NAMES)
def test_programs_are_text(name: str) -> None:
    whole = program(name)
    assert read(json.loads(json.dumps(written(whole.steps)))) == whole.steps
    assert read(json.loads(json.dumps(written(whole.buffers)))) == whole.buffers


def test_text_of_another_version_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of Geometry"):
        read({"kind": "Teleport"})
    with pytest.raises(InputError, match="other fields"):
        read({"kind": "Fill", "z": 1})


def test_what_nobody_needs_is_dropped() -> None:
    def place(name: str, start: int = 0, width: int = 2) -> Place:
        return Place(name, start, width)

    buffers = tuple(Buffer(n, "node", w, "float64") for n, w in (("x", 4), ("y", 2), ("e", 1), ("energies", 1)))
    constants = {"w": np.eye(2), "v": np.ones((2, 1)), "scales": np.ones(1), "shifts": np.zeros(1)}
    steps = (
        Product(place("x", 0), place("y"), "w", 1),
        Add(place("x", 0), place("y")),
        Product(place("y"), place("e", 0, 1), "v", 1),
        Readout(place("e", 0, 1), "energies", "scales", "shifts"),
    )
    # nothing here depends on positions, so nothing goes back
    assert with_backward(steps, buffers, dict(constants))[0] == steps
    assert without_dead((Fill(place("x", 2)), *steps)) == (Fill(place("x", 2)), *steps)
    assert without_dead((*steps, Fill(place("x", 2)))) == steps
    assert not [s for s in with_backward(steps, buffers, dict(constants))[0] if isinstance(s, Seed | Forces)]
