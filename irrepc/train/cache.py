"""A set of labelled frames with their neighbours in memory-mapped files, made once for each file and cutoff.

A folder holds one plain binary file for each array and `set.json`, which says their types and shapes. Its name carries
the hash of what it was made from (the bytes of the frames' file, the labels' names and units, the cutoff), so that a
changed file makes a new folder. It appears whole or not at all; two processes may make it at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from irrepc.errors import InputError, IrrepcError
from irrepc.nn.graph import Graph, Index, pairs_of
from irrepc.nn.neighbours import NeighbourList, neighbours, species_of
from irrepc.train.batches import Labelled
from irrepc.train.examine import Look, look, overlap
from irrepc.train.frames import Frame, forces_or_nan
from irrepc.train.labels import Labels
from irrepc.train.read import read_frames

FORMAT = "irrepc set 1"
_MARKER = "set.json"
# name: (type, numbers in a row); rows of frames, atoms and edges. NaN: this frame has no such label
_FRAMES = {"energy": ("f8", 1), "stress": ("f8", 9), "cell": ("f8", 9), "pbc": ("?", 3), "origin": ("i8", 1)}
_LOOKS = {"nearest": ("f8", 1), "spread": ("f8", 1), "unbalanced": ("f8", 1), "lonely": ("i8", 1)}
_ENDS = {"atoms": ("i8", 1), "edges": ("i8", 1)}  # of each frame, counted from the beginning of the set
_ATOMS = {"number": ("i2", 1), "position": ("f8", 3), "forces": ("f8", 3)}
_EDGES = {"sender": ("i4", 1), "receiver": ("i4", 1), "shift": ("i2", 3), "order": ("i4", 1)}
_ARRAYS = {**_FRAMES, **_LOOKS, **_ENDS, **_ATOMS, **_EDGES}


@dataclass(frozen=True, slots=True)
class Broken:
    """A frame that cannot be used, and why."""

    index: int  # in the files, from 0
    reason: str


class FrameSet:
    """Frames with their neighbours, read from a folder as they are asked for; it may be sent to another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        content = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise InputError(f"frame set: got {folder} of format {content.get('format')!r}; expected {FORMAT!r}")
        self.cutoff = float(content["cutoff"])
        self.source = str(content["source"])
        self.groups: tuple[str, ...] = tuple(content["groups"])
        self.broken = tuple(Broken(**entry) for entry in content["broken"])
        self._rows: dict[str, int] = content["rows"]

    def __reduce__(self) -> tuple[type[FrameSet], tuple[Path]]:
        return FrameSet, (self.folder,)

    def __len__(self) -> int:
        return self._rows["energy"]

    def __repr__(self) -> str:
        return f"FrameSet({len(self)} frames of {self.source}, cutoff {self.cutoff} Å)"

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, rows first; mapped, not read."""
        return {name: self._mapped(name) for name in _ARRAYS}

    def _mapped(self, name: str) -> NDArray[Any]:
        kind, width = _ARRAYS[name]
        shape = (self._rows[name], width) if width > 1 else (self._rows[name],)
        if not self._rows[name]:
            return np.zeros(shape, kind)  # a file without bytes cannot be mapped
        return np.memmap(self.folder / f"{name}.bin", kind, "r", shape=shape)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(frames,) numbers of atoms."""
        return np.diff(self.arrays["atoms"], prepend=0)

    @property
    def loads(self) -> NDArray[np.int64]:
        """(frames,) numbers of edges: what a frame costs."""
        return np.diff(self.arrays["edges"], prepend=0)

    @property
    def looks(self) -> list[Look]:
        """What was measured of each frame while the set was made."""
        columns = (self.arrays[name].tolist() for name in _LOOKS)
        return [Look(*row) for row in zip(*columns, strict=True)]

    def composition(self, index: int) -> NDArray[np.int64]:
        """(atoms,) atomic numbers of a frame."""
        return np.asarray(self.arrays["number"][self._span("atoms", index)], dtype=np.int64)

    def frame(self, index: int) -> Frame:
        """One frame, checked again as it is made."""
        rows, arrays = self._span("atoms", index), self.arrays
        forces, stress = arrays["forces"][rows], arrays["stress"][index].reshape(3, 3)
        pbc = arrays["pbc"][index]
        return Frame.of(
            self.composition(index),
            arrays["position"][rows],
            float(arrays["energy"][index]),
            None if np.isnan(forces).all() else forces,
            pbc=pbc.tolist(),
            cell=arrays["cell"][index].reshape(3, 3) if pbc.any() else None,
            stress=None if np.isnan(stress).all() else stress,
            where=f"{self.source}, frame {int(arrays['origin'][index])}",
        )

    def labelled(self, index: int, species: tuple[int, ...], dtype: torch.dtype) -> Labelled:
        """One frame as a graph with its labels; species: the model's atomic numbers.

        Raises InputError for elements that are not among them.
        """
        arrays, rows, edges = self.arrays, self._span("atoms", index), self._span("edges", index)
        atoms = rows.stop - rows.start

        def whole(name: str) -> torch.Tensor:
            return torch.from_numpy(arrays[name][edges].astype(np.int64))

        senders, receivers, order = whole("sender"), whole("receiver"), whole("order")
        steps = torch.arange(atoms + 1)
        positions = torch.from_numpy(np.array(arrays["position"][rows])).to(dtype)
        shifts = whole("shift")
        graph = Graph(
            positions,
            torch.from_numpy(species_of(arrays["number"][rows], species)),
            Index(senders, order, torch.searchsorted(senders[order], steps)),
            Index(receivers, torch.arange(len(receivers)), torch.searchsorted(receivers, steps)),
            shifts.to(dtype),
            torch.from_numpy(np.array(arrays["cell"][index]).reshape(1, 3, 3)).to(dtype),
            torch.zeros(atoms, dtype=torch.int64),
            pairs_of(senders, receivers, shifts, atoms),
        )
        return Labelled(
            graph,
            torch.tensor([float(arrays["energy"][index])], dtype=torch.float64),
            torch.from_numpy(np.array(arrays["forces"][rows])).to(dtype),
            torch.from_numpy(np.array(arrays["stress"][index]).reshape(1, 3, 3)).to(dtype),
            torch.tensor([int(arrays["origin"][index])]),
        )

    def _span(self, name: str, index: int) -> slice:
        ends = self.arrays[name]
        return slice(int(ends[index - 1]) if index else 0, int(ends[index]))


def frame_set(
    paths: Sequence[str | os.PathLike[str]],
    labels: Labels,
    *,
    cutoff: float,
    folder: Path,
    closest: float = 0.45,
    progress: Callable[[int], None] | None = None,
) -> FrameSet:
    """The set of the frames of some files, one after the other, out of `folder` where it was made before.

    cutoff: of the neighbours, Å. closest: atoms nearer than this part of the sum of their covalent radii make a frame
    broken; 0 for no such test. progress(frames) is called while the set is made. Broken frames are left out, and listed
    in `.broken`. Raises IrrepcError for a file that cannot be read and for one without a sound frame.
    """
    files = [Path(path) for path in paths]
    target = folder / f"{files[0].stem}-{_fingerprint(files, labels, cutoff, closest)}"
    if not (target / _MARKER).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder, prefix=f".{target.name}."))
        try:
            _write(unfinished, files, labels, cutoff, closest, progress)
            _take_place(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return FrameSet(target)


def _take_place(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:
        if not (target / _MARKER).is_file():  # else another process was faster, with the same content
            raise


def _fingerprint(files: Sequence[Path], labels: Labels, cutoff: float, closest: float) -> str:
    """Of everything a set is made from, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps([FORMAT, asdict(labels), cutoff, closest]).encode())
    for file in files:
        if not file.is_file():
            raise IrrepcError(f"frame set: got {file}, which is no file; expected a file of frames; check the path.")
        digest.update(json.dumps([file.name, file.stat().st_size]).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _write(
    folder: Path,
    files: Sequence[Path],
    labels: Labels,
    cutoff: float,
    closest: float,
    progress: Callable[[int], None] | None,
) -> None:
    groups: dict[str, int] = {}
    broken: list[Broken] = []
    rows = dict.fromkeys(_ARRAYS, 0)
    with ExitStack() as stack:
        streams = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in _ARRAYS}
        for origin, frame, pairs in _sound(files, labels, cutoff, closest, broken):
            groups.setdefault(frame.group, len(groups))
            for name, values in _rows(origin, frame, pairs).items():
                kind, width = _ARRAYS[name]
                array = np.asarray(values, dtype=kind).reshape(-1, width)
                if name in _ENDS:
                    array = array + rows["number" if name == "atoms" else "sender"]
                streams[name].write(np.ascontiguousarray(array, dtype=kind).tobytes())
                rows[name] += len(array)
            if progress is not None:
                progress(rows["energy"])
    if not rows["energy"]:
        first = f": {broken[0].reason}" if broken else ""
        raise IrrepcError(
            f"{files[0]}: got no sound frame{first}; expected one at least; correct the file or data.labels"
        )
    content = {
        "format": FORMAT,
        "source": " + ".join(file.name for file in files),
        "cutoff": cutoff,
        "labels": asdict(labels),
        "groups": list(groups),
        "broken": [asdict(entry) for entry in broken],
        "rows": rows,
    }
    (folder / _MARKER).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _sound(
    files: Sequence[Path], labels: Labels, cutoff: float, closest: float, broken: list[Broken]
) -> Iterator[tuple[int, Frame, NeighbourList]]:
    """Every sound frame with its place in the files and its neighbours; the others go to `broken`."""
    every = ((file, place, frame) for file in files for place, frame in enumerate(read_frames(file, labels)))
    for origin, (file, place, frame) in enumerate(every):
        if isinstance(frame, IrrepcError):
            broken.append(Broken(origin, str(frame)))
            continue
        try:
            pairs = neighbours(frame.positions, frame.cell, frame.pbc, cutoff=cutoff)
            complaint = overlap(frame, pairs, closest)
        except InputError as error:
            pairs, complaint = None, str(error)
        if pairs is None or complaint is not None:
            broken.append(Broken(origin, f"{file.name}, frame {place}: {complaint}"))
            continue
        yield origin, frame, pairs


def _rows(origin: int, frame: Frame, pairs: NeighbourList) -> dict[str, ArrayLike]:
    """What one frame adds to each array; in "atoms" and "edges", its own numbers of them before those it adds."""
    seen = look(frame, pairs)
    absent = np.full((3, 3), np.nan)
    return {
        "energy": [frame.energy],
        "stress": absent if frame.stress is None else frame.stress,
        "cell": np.zeros((3, 3)) if frame.cell is None else frame.cell,
        "pbc": list(frame.pbc),
        "origin": [origin],
        "nearest": [seen.nearest],
        "spread": [seen.spread],
        "unbalanced": [seen.unbalanced],
        "lonely": [seen.lonely],
        "atoms": [len(frame.numbers)],
        "edges": [len(pairs.senders)],
        "number": frame.numbers,
        "position": frame.positions,
        "forces": forces_or_nan(frame),
        "sender": pairs.senders,
        "receiver": pairs.receivers,
        "shift": pairs.shifts,
        "order": np.argsort(pairs.senders, kind="stable"),
    }
