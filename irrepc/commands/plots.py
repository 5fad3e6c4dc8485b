"""Plots of runs: parity of labels and answers, and energies over time, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from irrepc.errors import require

Float = NDArray[np.float64]
BLUE, ORANGE = "#0072B2", "#D55E00"


def plot_parity(path: Path, pairs: Mapping[str, tuple[Float, Float]], units: Mapping[str, str]) -> None:
    """One panel for each quantity: labels along x, answers along y; pairs of flat arrays of equal length."""
    matplotlib = require("matplotlib", "plot")
    matplotlib.use("Agg")
    figure, axes = require("matplotlib.pyplot", "plot").subplots(1, len(pairs), figsize=(4.2 * len(pairs), 4))
    for axis, (name, (labels, answers)) in zip(np.atleast_1d(axes), pairs.items(), strict=True):
        ends = [float(min(labels.min(), answers.min())), float(max(labels.max(), answers.max()))]
        axis.plot(ends, ends, color="black", linewidth=0.8)
        axis.plot(labels, answers, ".", color=BLUE, markersize=3, alpha=0.6)
        axis.set(xlabel=f"label / {units[name]}", ylabel=f"model / {units[name]}", title=name)
    _write(figure, path)


def plot_energies(path: Path, time: Float, total: Float, temperature: Float, drift: float) -> None:
    """Total energy (eV per atom, from its mean) with its line, and the temperature below; time in ps."""
    matplotlib = require("matplotlib", "plot")
    matplotlib.use("Agg")
    figure, (above, below) = require("matplotlib.pyplot", "plot").subplots(2, 1, figsize=(8, 6), sharex=True)
    above.plot(time, 1e3 * (total - total.mean()), color=BLUE, linewidth=0.8)
    above.plot(time, 1e3 * drift * (time - time.mean()), color=ORANGE, label=f"{drift:.2e} eV per atom and ps")
    above.set(ylabel="total energy − mean / meV per atom", title="Energy over the run")
    above.legend()
    below.plot(time, temperature, color=BLUE, linewidth=0.8)
    below.set(xlabel="time / ps", ylabel="temperature / K")
    _write(figure, path)


def _write(figure: object, path: Path) -> None:
    pyplot = require("matplotlib.pyplot", "plot")
    figure.tight_layout()  # type: ignore[attr-defined]
    figure.savefig(path, dpi=120)  # type: ignore[attr-defined]
    pyplot.close(figure)
