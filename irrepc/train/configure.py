"""configure: what a network should know of its training set before the first step, put into its configuration."""

from __future__ import annotations

from typing import Any

import numpy as np

from irrepc.models.nequip import NequIPConfig
from irrepc.nn.neighbours import neighbours
from irrepc.train.frames import Frames, expect_frames, force_statistics, reference_energies


def configure(frames: Frames, *, cutoff: float, **settings: Any) -> NequIPConfig:
    """A NequIPConfig for these frames; `settings` are its other fields.

    Taken from the frames: the species, the mean number of neighbours within `cutoff` (Å), the shifts (reference
    energies, eV) and the scale of the energies: the root mean square of the force components times 1 Å, so that a
    fresh network of unit variance gives forces of about the right size (Batzner 2022, methods).
    Raises IrrepcError for no frames, and InputError as NequIPConfig does.
    """
    expect_frames(frames, "configure")
    pairs = [len(neighbours(f.positions, f.cell, f.pbc, cutoff=cutoff).receivers) / len(f.numbers) for f in frames]
    spread, energies = force_statistics(frames).root_mean_square, reference_energies(frames)
    return NequIPConfig(
        species=frames.species,
        cutoff=cutoff,
        avg_num_neighbors=max(float(np.mean(pairs)), 1.0),
        scales=(spread or 1.0,) * len(energies),
        shifts=tuple(energies.values()),
        **settings,
    )
