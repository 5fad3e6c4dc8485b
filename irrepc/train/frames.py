"""Labelled frames (structures with energies, forces, perhaps stresses): the container and its statistics.

Units everywhere: Å, eV, eV/Å, eV/Å³. NumPy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irrepc.errors import IrrepcError

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One labelled structure. Build it with `Frame.of`, which checks; the arrays are read-only."""

    numbers: Int  # (atoms,) atomic numbers, hydrogen is 1
    positions: Float  # (atoms, 3) Å
    energy: float  # eV, of the whole structure
    forces: Float | None  # (atoms, 3) eV/Å, minus the gradient of the energy; None where they are not known
    pbc: tuple[bool, bool, bool]  # periodic along each cell vector
    cell: Float | None  # (3, 3) Å, rows are the cell vectors; None exactly where nothing is periodic
    stress: Float | None  # (3, 3) eV/Å³, dE/dstrain over the volume (positive under tension, as in ASE)
    group: str  # where the frame comes from, such as "test_500K"

    @classmethod
    def of(
        cls,
        numbers: ArrayLike,
        positions: ArrayLike,
        energy: float,
        forces: ArrayLike | None,
        *,
        pbc: Sequence[bool] = (False, False, False),
        cell: ArrayLike | None = None,
        stress: ArrayLike | None = None,
        group: str = "",
        where: str = "Frame.of",
    ) -> Frame:
        """Copy the arrays to int64 and float64, check and freeze them; `where` opens the message of an IrrepcError.

        A cell given with pbc all False is dropped: many files write a large box around a molecule, which means nothing.
        """
        given = np.array(numbers)
        if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu" or given.min() < 1:
            raise IrrepcError(
                f"{where}: got atomic numbers of shape {given.shape}, type {given.dtype}, values {given.tolist()}; "
                "expected one integer >= 1 per atom and at least one atom; write the element of each atom (1 is H)."
            )
        species, atoms = given.astype(np.int64), len(given)
        species.setflags(write=False)
        if len(pbc) != 3:
            raise IrrepcError(f"{where}: got {len(pbc)} flags of pbc; expected 3; give one for each cell vector.")
        if any(pbc) and cell is None:
            raise IrrepcError(f"{where}: got pbc {tuple(pbc)} without a cell; expected (3, 3) Å; give the cell.")
        box = _checked(cell, (3, 3), "cell", where) if any(pbc) and cell is not None else None
        if box is not None and abs(np.linalg.det(box)) < 1e-9:
            raise IrrepcError(
                f"{where}: got a cell without volume, {box.tolist()}; expected three independent vectors; give any "
                "vector of some length along a direction that is not periodic."
            )
        return cls(
            numbers=species,
            positions=_checked(positions, (atoms, 3), "positions", where),
            energy=float(_checked(energy, (), "energy", where)),
            forces=None if forces is None else _checked(forces, (atoms, 3), "forces", where),
            pbc=(bool(pbc[0]), bool(pbc[1]), bool(pbc[2])),
            cell=box,
            stress=None if stress is None else _checked(stress, (3, 3), "stress", where),
            group=group,
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Frames:
    """An ordered collection of frames, of any sizes, with a text that says where the labels come from."""

    frames: tuple[Frame, ...]
    provenance: str = ""

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __getitem__(self, index: int) -> Frame:
        return self.frames[index]

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.group(name))} of group {name!r}" for name in self.groups)
        return f"Frames({len(self)} frames: {counts})"

    def select(self, indices: Sequence[int] | Int) -> Frames:
        """The frames at these positions, in the order given."""
        return replace(self, frames=tuple(self.frames[int(index)] for index in indices))

    def group(self, name: str) -> Frames:
        """The frames of one group, in order; raises IrrepcError for a name that no frame carries."""
        chosen = tuple(frame for frame in self.frames if frame.group == name)
        if not chosen:
            raise IrrepcError(f"Frames.group: got {name!r}; expected one of {self.groups}; choose one of these groups.")
        return replace(self, frames=chosen)

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups, in the order of their first frames."""
        return tuple(dict.fromkeys(frame.group for frame in self.frames))

    @property
    def species(self) -> tuple[int, ...]:
        """The atomic numbers that occur, ascending."""
        return tuple(sorted({int(number) for frame in self.frames for number in frame.numbers}))

    @property
    def energies(self) -> Float:
        """(frames,) eV, float64."""
        return np.array([frame.energy for frame in self.frames], dtype=np.float64)

    @property
    def forces(self) -> Float:
        """(atoms of all frames, 3) eV/Å, float64, frame after frame; NaN where a frame has none."""
        return np.concatenate([forces_or_nan(frame) for frame in self.frames] or [np.zeros((0, 3))])


@dataclass(frozen=True, slots=True)
class ForceStatistics:
    """The spread of force labels, eV/Å: the errors of a network that always answers zero."""

    components: int  # how many numbers: 3 x atoms of all frames
    mean_absolute: float  # over components
    root_mean_square: float  # over components
    largest: float  # norm of the largest force on one atom


def force_statistics(frames: Frames) -> ForceStatistics:
    """Statistics over every atom of every frame that has forces; raises IrrepcError when there are none."""
    expect_frames(frames, "force_statistics")
    forces = frames.forces
    forces = forces[np.isfinite(forces).all(1)]
    if not len(forces):
        raise IrrepcError("force_statistics: got no forces; expected those of one frame at least; give labelled frames")
    return ForceStatistics(
        components=forces.size,
        mean_absolute=float(np.abs(forces).mean()),
        root_mean_square=float(np.sqrt(np.square(forces).mean())),
        largest=float(np.linalg.norm(forces, axis=1).max()),
    )


def reference_energies(frames: Frames) -> dict[int, float]:
    """Energy per atom of each species, eV, by least squares: minimise Σ_frames (E - Σ_Z n_Z e_Z)² over the e_Z.

    Keys are atomic numbers, ascending. On frames of isolated atoms the answer is their energies. Where the compositions
    do not tell the species apart (every frame the same molecule) only some sums of e_Z are determined, and the solution
    of smallest norm is returned: it still takes the mean out of the energies, but its single values have no meaning.
    Raises IrrepcError when there are no frames.
    """
    expect_frames(frames, "reference_energies")
    species = frames.species
    counts = np.array([[np.count_nonzero(frame.numbers == number) for number in species] for frame in frames], float)
    solution = np.linalg.lstsq(counts, frames.energies, rcond=None)[0]
    return {number: float(energy) for number, energy in zip(species, solution, strict=True)}


def split(frames: Frames, sizes: Sequence[int], seed: int) -> tuple[Frames, ...]:
    """Disjoint parts of the given sizes, drawn at random without replacement; the rest is left out.

    The same frames, sizes and seed give the same parts. Neighbouring frames of one trajectory resemble each other, so
    the error on a part drawn here is that of interpolation; for a score use another trajectory.
    Raises IrrepcError for a negative size and for sizes that sum to more than there are frames.
    """
    if any(size < 0 for size in sizes) or sum(sizes) > len(frames):
        raise IrrepcError(
            f"split: got sizes {tuple(sizes)} for {len(frames)} frames; expected sizes >= 0 that sum to at most "
            f"{len(frames)}; make them smaller."
        )
    order = np.random.default_rng(seed).permutation(len(frames))
    ends = [sum(sizes[:part]) for part in range(len(sizes) + 1)]
    return tuple(frames.select(order[ends[part] : ends[part + 1]]) for part in range(len(sizes)))


def forces_or_nan(frame: Frame) -> Float:
    """(atoms, 3) eV/Å, NaN where the frame has none: what arrays of many frames hold."""
    return np.full((len(frame.numbers), 3), np.nan) if frame.forces is None else frame.forces


def expect_frames(frames: Frames, where: str) -> None:
    """Raise IrrepcError, opened by `where`, when there are no frames."""
    if not len(frames):
        raise IrrepcError(f"{where}: got no frames; expected at least one; check where they come from.")


def _checked(values: ArrayLike, shape: tuple[int, ...], name: str, where: str) -> Float:
    """A read-only float64 copy of this shape with finite numbers only."""
    array = np.array(values, dtype=np.float64)
    if array.shape != shape:
        raise IrrepcError(f"{where}: got {name} of shape {array.shape}; expected {shape}; check the atoms' count.")
    if not np.isfinite(array).all():
        first = np.argwhere(~np.isfinite(array))[0].tolist()
        raise IrrepcError(
            f"{where}: got {array[tuple(first)]} in {name}{first or ''}; expected finite numbers; leave this frame out "
            "or compute it again."
        )
    array.setflags(write=False)
    return array
