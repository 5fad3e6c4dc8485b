"""Reads labelled frames one after the other: our .npz, extended XYZ, ASE databases and trajectories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irrepc.errors import IrrepcError, require
from irrepc.train.frames import Frame
from irrepc.train.labels import Labels, frame_of

SUFFIXES = (".npz", ".xyz", ".extxyz", ".traj", ".db")


def read_frames(path: str | os.PathLike[str], labels: Labels) -> Iterator[Frame | IrrepcError]:
    """Yield each frame of a file in order, or, in its place, the error that says what is wrong with it.

    A file that ends the reading (no such file, another format, a line that cannot be read) raises IrrepcError.
    ASE keeps one frame at a time in memory; .npz files are read whole.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise IrrepcError(
            f"read_frames: got {file}, of suffix {file.suffix!r}; expected one of {', '.join(SUFFIXES)}; convert it, "
            "for instance with ase.io."
        )
    if not file.is_file():
        raise IrrepcError(f"read_frames: got {file}, which is no file; expected a file of frames; check the path.")
    if file.suffix == ".npz":
        from irrepc.train.data import load_frames

        yield from load_frames(file)
        return
    index = -1
    for index, atoms in enumerate(_structures(file)):
        try:
            yield frame_of(atoms, labels, f"{file.name}, frame {index}")
        except IrrepcError as error:
            yield error
    if index < 0:
        raise IrrepcError(f"read_frames: got no frames in {file}; expected at least one; check where it comes from.")


def _structures(file: Path) -> Iterator[Any]:
    """The ase.Atoms of a file, one after the other."""
    io = require("ase.io", "ase")
    try:
        if file.suffix == ".db":
            with require("ase.db", "ase").connect(file) as database:
                for row in database.select():
                    yield row.toatoms(add_additional_information=True)
        elif file.suffix == ".traj":
            with io.Trajectory(file) as trajectory:
                yield from trajectory
        else:
            yield from io.iread(file, index=":", format="extxyz")
    except (OSError, ValueError, KeyError, IndexError, AssertionError, StopIteration) as error:
        raise IrrepcError(
            f"read_frames: got {file}, which ASE cannot read ({type(error).__name__}: {error}); expected "
            "extended XYZ, an ASE database or an ASE trajectory; correct the file."
        ) from error
