"""Files of labelled frames: our own .npz, what ASE reads, and the ethanol set that is shipped.

NumPy only; ASE is asked for when one of its files is read, and not before.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irrepc.errors import IrrepcError
from irrepc.train.frames import (
    ForceStatistics,
    Frame,
    Frames,
    expect_frames,
    force_statistics,
    reference_energies,
    split,
)
from irrepc.train.labels import Labels
from irrepc.train.read import read_frames

__all__ = [
    "ForceStatistics",
    "Frame",
    "Frames",
    "ethanol",
    "force_statistics",
    "load_frames",
    "reference_energies",
    "save_frames",
    "split",
]

_FORMAT = "irrepc frames 1"


def ethanol(group: str = "train") -> Frames:
    """The shipped set: ethanol from Langevin trajectories, labelled with GFN2-xTB (see `.provenance`).

    Groups: "train" (300, 400 and 500 K together), "test_300K" and "test_500K" (each a trajectory of its own), and
    "isolated_atoms" (H, C and O alone at the same level of theory, for `reference_energies`).
    Good for tests and demonstrations, not for chemistry: this semi-empirical method puts the gauche conformer 67 meV
    below anti, so that anti frames are few (54 of 600). Made by `examples/make_ethanol_dataset.py`.
    """
    with as_file(files("irrepc.train").joinpath("data", "ethanol_gfn2.npz")) as path:
        return load_frames(path).group(group)


def load_frames(path: str | os.PathLike[str], labels: Labels | None = None) -> Frames:
    """Read frames from our own .npz (`save_frames`), extended XYZ, an ASE database or trajectory (these need ASE).

    labels: names and units; without, `energy` (eV), `forces` (eV/Å) and, where there is one, `stress` (eV/Å³).
    `config_type` becomes the group. A lone atom needs no forces, since they vanish. Nothing is unpickled.
    Raises IrrepcError, with the file and the frame's index (from 0), for a missing label, a value that is not finite, a
    wrong shape, and for an empty or unreadable file; MissingExtraError where ASE is missing.
    """
    file = Path(path)
    if file.suffix == ".npz" and file.is_file():
        frames = _read_npz(file)
        expect_frames(frames, f"load_frames: {file}")
        return frames
    found = []
    for frame in read_frames(file, labels or Labels()):
        if isinstance(frame, IrrepcError):
            raise frame
        found.append(frame)
    return Frames(tuple(found), f"file {file.name}")


def save_frames(path: str | os.PathLike[str], frames: Frames) -> None:
    """Write frames as .npz: plain arrays laid end to end, no pickle, the same bytes for the same frames.

    The file appears whole or not at all: it is written beside `path` under another name and then renamed.
    Raises IrrepcError where there are no frames and where the suffix is not .npz.
    """
    file = Path(path)
    expect_frames(frames, "save_frames")
    if file.suffix != ".npz":
        raise IrrepcError(f"save_frames: got {file}, of suffix {file.suffix!r}; expected .npz; rename it.")
    absent = np.full((3, 3), np.nan)  # in the file only: a frame without a cell or a stress, as without forces
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(_FORMAT),
        "provenance": np.array(frames.provenance),
        "atoms": np.array([len(frame.numbers) for frame in frames], dtype=np.int64),
        "numbers": np.concatenate([frame.numbers for frame in frames]),
        "positions": np.concatenate([frame.positions for frame in frames]),
        "energy": frames.energies,
        "forces": frames.forces,
        "pbc": np.array([frame.pbc for frame in frames]),
        "cell": np.stack([absent if frame.cell is None else frame.cell for frame in frames]),
        "stress": np.stack([absent if frame.stress is None else frame.stress for frame in frames]),
        "group": np.array([frame.group for frame in frames]),
    }
    handle, unfinished = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
        os.chmod(unfinished, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(unfinished, file)
    except BaseException:
        os.unlink(unfinished)
        raise


def _read_npz(file: Path) -> Frames:
    fields = ("provenance", "atoms", "numbers", "positions", "energy", "forces", "pbc", "cell", "stress", "group")
    try:
        # Opened here: when the contents are no archive, NumPy raises without closing what it opened.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise IrrepcError(
            f"load_frames: got {file}, which NumPy cannot read ({error}); expected a .npz of plain arrays; write it "
            "again with save_frames."
        ) from error
    missing = [name for name in fields if name not in arrays]
    if missing or str(arrays.get("format")) != _FORMAT:
        raise IrrepcError(
            f"load_frames: got {file} with the arrays {sorted(arrays)} and format {arrays.get('format')}; expected "
            f"format {_FORMAT!r} with {', '.join(fields)}; write it with save_frames, or use extended XYZ."
        )
    arrays = {name: np.atleast_1d(array) for name, array in arrays.items()}
    atoms = arrays["atoms"]
    count, total = len(atoms), int(atoms.sum())
    for name in fields[1:]:
        expected = total if name in ("numbers", "positions", "forces") else count
        if len(arrays[name]) != expected:
            raise IrrepcError(
                f"load_frames: got {file} with {len(arrays[name])} rows of {name!r}; expected {expected}, since "
                f"{count} frames have {total} atoms; write it again with save_frames."
            )
    starts = np.cumsum(atoms) - atoms
    frames = []
    for index, (start, size) in enumerate(zip(starts, atoms, strict=True)):
        rows = slice(start, start + size)
        stress = arrays["stress"][index]
        frames.append(
            Frame.of(
                numbers=arrays["numbers"][rows],
                positions=arrays["positions"][rows],
                energy=arrays["energy"][index],
                forces=None if np.isnan(arrays["forces"][rows]).all() else arrays["forces"][rows],
                pbc=np.atleast_1d(arrays["pbc"][index]).tolist(),
                cell=arrays["cell"][index],
                stress=None if np.isnan(stress).all() else stress,
                group=str(arrays["group"][index]),
                where=f"load_frames: {file}, frame {index}",
            )
        )
    return Frames(tuple(frames), str(arrays["provenance"][0]))
