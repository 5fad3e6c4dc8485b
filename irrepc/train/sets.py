"""The sets of a training: files made into frame sets, broken frames reported, and validation frames held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irrepc.errors import IrrepcError
from irrepc.train.cache import FrameSet, frame_set
from irrepc.train.examine import suspicions
from irrepc.train.settings import DataSettings
from irrepc.train.statistics import compositions

Int = NDArray[np.int64]
Say = Callable[[str], None]

_TOLD = 10_000  # frames, after which a long preparation says how far it is


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some frames of a set."""

    frames: FrameSet
    chosen: Int  # their places in the set

    def __len__(self) -> int:
        return len(self.chosen)


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """What is trained on, what chooses the best weights, and what is judged at the end."""

    train: Part
    validation: Part
    tests: dict[str, Part]
    energies: dict[int, float] | None  # eV, of lone atoms; None: fit them


def sets_of(settings: DataSettings, base: Path, cutoff: float, seed: int, say: Say) -> Sets:
    """Read every file of the settings; relative names start at `base`. say: lines for people, suspicions among them.

    Raises IrrepcError for files that cannot be read, and for broken frames unless data.broken is "skip".
    """

    def read(*names: str, judged: bool = False) -> FrameSet:
        labels = settings.labels
        if judged:  # what a test lacks is not judged
            labels = replace(labels, optional=("forces", "stress"))
        files, folder = [base / name for name in names], base / settings.cache

        def progress(done: int) -> None:
            if done % _TOLD == 0:
                say(f"{', '.join(names)}: neighbours of {done:,} frames found")

        found = frame_set(files, labels, cutoff=cutoff, folder=folder, closest=settings.closest, progress=progress)
        _report(found, settings.broken, say)
        return found

    frames = read(*settings.train)
    energies = _alone(settings, frames, read)
    mobile = np.flatnonzero(frames.sizes > 1) if settings.energies == "isolated" else np.arange(len(frames))
    if isinstance(settings.validation, str):
        held = read(settings.validation)
        train, validation = Part(frames, mobile), Part(held, np.arange(len(held)))
    else:
        train, validation = _held_out(frames, mobile, settings.validation, seed)
    _suspect(train, energies, say)
    tests = {name: read(file, judged=True) for name, file in settings.tests.items()}
    return Sets(train, validation, {name: Part(t, np.arange(len(t))) for name, t in tests.items()}, energies)


def _report(found: FrameSet, policy: str, say: Say) -> None:
    if not found.broken:
        return
    first = "\n".join(f"  {entry.reason}" for entry in found.broken[:5])
    more = f"\n  and {len(found.broken) - 5} more" if len(found.broken) > 5 else ""
    if policy == "stop":
        raise IrrepcError(
            f"{found.source}: got {len(found.broken)} frames that cannot be used; expected none; correct them, or set "
            f"data.broken: skip\n{first}{more}"
        )
    say(f"{found.source}: {len(found.broken)} frames cannot be used and are left out:\n{first}{more}")


def _held_out(frames: FrameSet, chosen: Int, wanted: float, seed: int) -> tuple[Part, Part]:
    """A random part, or number, of the frames for validation; the rest, in order, for training."""
    count = round(wanted * len(chosen)) if wanted < 1 else int(wanted)
    count = max(count, 1)
    if count >= len(chosen):
        raise IrrepcError(
            f"data.validation: got {wanted}, {count} of {len(chosen)} frames; expected some left for training; lower it"
        )
    drawn = np.random.default_rng(seed).permutation(len(chosen))
    return Part(frames, chosen[np.sort(drawn[count:])]), Part(frames, chosen[np.sort(drawn[:count])])


def _alone(settings: DataSettings, frames: FrameSet, read: Callable[[str], FrameSet]) -> dict[int, float] | None:
    """Energies of lone atoms, eV, as data.energies says."""
    if isinstance(settings.energies, dict):
        return settings.energies
    if settings.energies == "fit":
        return None
    source = read(settings.isolated) if settings.isolated else frames
    lone = np.flatnonzero(source.sizes == 1)
    found = {int(source.composition(int(i))[0]): float(source.arrays["energy"][i]) for i in lone}
    if not found:
        raise IrrepcError(
            f"data.energies: got isolated, but {source.source} has no frame of a lone atom; expected one for each "
            'species; name a file in data.isolated, or set data.energies: "fit"'
        )
    return found


def _suspect(train: Part, energies: dict[int, float] | None, say: Say) -> None:
    frames, chosen = train.frames, train.chosen
    species = sorted({int(z) for i in chosen for z in np.unique(frames.composition(int(i)))})
    counts, labels = compositions(frames, chosen, species), np.asarray(frames.arrays["energy"])[chosen]
    if energies is None or any(z not in energies for z in species):
        alone = np.linalg.lstsq(counts, labels, rcond=None)[0]
    else:
        alone = np.array([energies[z] for z in species])
    looks = frames.looks
    for line in suspicions([looks[int(i)] for i in chosen], (labels - counts @ alone) / counts.sum(1)):
        say(f"suspicious: {line}")
