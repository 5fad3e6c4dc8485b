"""Frames are checked when they are built and frozen afterwards; their statistics and splits say what they promise."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from irrepc.errors import IrrepcError
from irrepc.train.data import Frame, Frames, ethanol, force_statistics, reference_energies, split


class TestStatistics:
    def test_forces(self) -> None:
        frames = Frames((Frame.of([1, 1], np.zeros((2, 3)), 0.0, [[3, 0, -4], [0, 1, 0]]),))
        found = force_statistics(frames)
        assert (found.components, found.largest) == (6, 5.0)
        assert found.mean_absolute == pytest.approx(8 / 6)
        assert found.root_mean_square == pytest.approx(np.sqrt(26 / 6))

    def test_reference_energies_are_found_exactly_where_determined(self) -> None:
        made = {1: -10.0, 6: -40.0, 8: -100.0}
        frames = []
        for numbers in ([1], [1, 1], [6, 1], [8, 6, 1], [8, 8]):
            size = (len(numbers), 3)
            frames.append(Frame.of(numbers, np.zeros(size), sum(made[number] for number in numbers), np.zeros(size)))
        assert reference_energies(Frames(tuple(frames))) == pytest.approx(made, abs=1e-10)

    def test_reference_energies_of_one_molecule_take_the_mean_out(self) -> None:
        frames = ethanol()
        energies = reference_energies(frames)
        total = 2 * energies[6] + energies[8] + 6 * energies[1]
        assert total == pytest.approx(frames.energies.mean(), abs=1e-8)

    @pytest.mark.parametrize("function", [force_statistics, reference_energies])
    def test_no_frames(self, function: Callable[[Frames], object]) -> None:
        with pytest.raises(IrrepcError, match="got no frames; expected at least one"):
            function(Frames(()))


class TestSplit:
    def test_parts_are_disjoint_and_repeatable(self) -> None:
        frames = ethanol("test_300K").select(range(10))
        parts = split(frames, (5, 3, 0), seed=1)
        again = split(frames, (5, 3, 0), seed=1)
        other = split(frames, (5, 3, 0), seed=2)
        names = [[id(frame) for frame in part] for part in parts]
        assert [len(part) for part in parts] == [5, 3, 0]
        assert len({*names[0], *names[1]}) == 8
        assert names == [[id(frame) for frame in part] for part in again]
        assert names != [[id(frame) for frame in part] for part in other]
        assert parts[0].provenance == frames.provenance

    @pytest.mark.parametrize("sizes", [(6, 5), (-1, 3)])
    def test_impossible_sizes(self, sizes: tuple[int, int]) -> None:
        with pytest.raises(IrrepcError, match=r"split: got sizes .* for 10 frames; expected sizes >= 0"):
            split(ethanol().select(range(10)), sizes, seed=0)


class TestFrame:
    def test_is_frozen(self) -> None:
        positions = np.zeros((1, 3))
        frame = Frame.of([1], positions, 0.0, np.zeros((1, 3)))
        positions[:] = 7
        assert not frame.positions.any()
        with pytest.raises(ValueError, match="read-only"):
            frame.forces[0, 0] = 1
        with pytest.raises(FrozenInstanceError):
            frame.energy = 1.0  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"numbers": []}, "at least one atom"),
            ({"numbers": [1, 0]}, "one integer >= 1 per atom"),
            ({"numbers": [1.0, 6.0]}, "type float64"),
            ({"forces": np.zeros((3, 3))}, r"got forces of shape \(3, 3\); expected \(2, 3\)"),
            ({"positions": [[0, 0, 0], [0, np.inf, 0]]}, r"got inf in positions\[1, 1\]; expected finite"),
            ({"energy": np.nan}, "got nan in energy; expected finite"),
            ({"energy": np.zeros(1)}, r"got energy of shape \(1,\)"),
            ({"stress": np.zeros(6)}, r"got stress of shape \(6,\); expected \(3, 3\)"),
            ({"pbc": (True, True, True)}, "without a cell"),
            ({"pbc": (True, True, True), "cell": np.zeros((3, 3))}, "without volume"),
            ({"pbc": (True,), "cell": np.eye(3)}, "got 1 flags of pbc; expected 3"),
        ],
    )
    def test_bad_values(self, change: dict[str, object], message: str) -> None:
        good = {"numbers": [1, 6], "positions": np.zeros((2, 3)), "energy": 0.0, "forces": np.zeros((2, 3))}
        with pytest.raises(IrrepcError, match=message):
            Frame.of(**{**good, **change})

    def test_box_around_a_molecule_is_dropped(self) -> None:
        assert Frame.of([1], np.zeros((1, 3)), 0.0, np.zeros((1, 3)), cell=50 * np.eye(3)).cell is None
