"""Pictures of a training: parity, learning curve, energy drift, and the sparsity of exact couplings, as PNG bytes.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; no picture relies on colour alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import cycle, pairwise
from typing import Any

import numpy as np

from irrepc.errors import require
from irrepc.frontend.clebsch_gordan import triangles, w3j
from irrepc.train.dynamics import Trajectory
from irrepc.train.evaluate import Evaluation
from irrepc.train.fit import History

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
MARKS = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
_STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.size": 11,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def energy_parity(evaluations: Mapping[str, Evaluation]) -> bytes:
    """Relative energies per atom, model against label, with the differences below."""
    lowest = min(float((e.energy_labels / e.atoms).min()) for e in evaluations.values())
    pairs = {
        group: (1e3 * (e.energy_labels / e.atoms - lowest), 1e3 * (e.energies / e.atoms - lowest))
        for group, e in evaluations.items()
    }
    notes = {group: f"MAE {e.errors.energy_mae:.2f} meV" for group, e in evaluations.items()}
    return _parity(pairs, notes, "energy per atom above the lowest label", "meV", "meV", 1.0, "Energies", 14)


def force_parity(evaluations: Mapping[str, Evaluation]) -> bytes:
    """Force components, model against label, with the differences below."""
    known = {g: e for g, e in evaluations.items() if np.isfinite(e.force_labels).any()}
    rows = {group: np.isfinite(e.force_labels).all(1) for group, e in known.items()}
    pairs = {group: (e.force_labels[rows[group]].ravel(), e.forces[rows[group]].ravel()) for group, e in known.items()}
    notes = {group: f"MAE {e.errors.force_mae:.1f} meV/Å" for group, e in known.items()}
    return _parity(pairs, notes, "force component", "eV/Å", "meV/Å", 1e3, "Forces", 5)


def learning_curve(history: History, force_spread: float) -> bytes:
    """Errors of forces and energies over the epochs; force_spread: mean absolute label, meV/Å."""
    epochs = [e.number for e in history.epochs]
    with style():
        figure, axes = new_figure(10, 4.2, columns=2)
        sides = (
            (axes[0], "force_mae", "force MAE / meV/Å", "Forces"),
            (axes[1], "energy_mae", "energy MAE / meV per atom", "Energies"),
        )
        for axis, name, label, title in sides:
            for what, colour, line in (("train", GREY, "--"), ("validation", BLUE, "-")):
                values = [getattr(getattr(e, what), name) for e in history.epochs]
                mark = "o" if len(epochs) < 40 else ""
                axis.plot(epochs, values, line, color=colour, marker=mark, markersize=4, label=what)
            axis.set(xlabel="epoch", ylabel=label, title=title, yscale="log")
            plain_log(axis.yaxis)
        axes[0].axhline(force_spread, color=ORANGE, linestyle=":", label="mean |force| of the labels")
        axes[0].legend()
        axes[1].legend()
        return png(figure)


def energy_drift(run: Trajectory) -> bytes:
    """How the energy moves between its two kinds at first, and the total energy over the whole run."""
    early = run.time <= min(0.15, run.time[-1])
    potential, kinetic, total = (1e3 * (e - e.mean()) / run.atoms for e in (run.potential, run.kinetic, run.total))
    with style():
        figure, (above, below) = new_figure(10, 6.6, rows=2)
        above.plot(run.time[early], potential[early], "--", color=BLUE, label="potential")
        above.plot(run.time[early], kinetic[early], color=ORANGE, label="kinetic")
        above.plot(run.time[early], total[early], color="black", linewidth=2, label="total")
        above.set(xlabel="time / ps", ylabel="E − mean / meV per atom")
        above.set_title("Molecular dynamics at constant energy (velocity Verlet): the beginning")
        above.margins(x=0.01, y=0.3)
        above.legend(ncols=3, loc="upper right")
        below.plot(run.time, total, color="black", linewidth=0.5, label="total")
        line = np.polyval(np.polyfit(run.time, total, 1), run.time)
        below.plot(run.time, line, color=GREEN, linewidth=2.5, label=f"drift {run.drift:+.3f} meV per atom and ps")
        below.set(xlabel="time / ps", ylabel="E − mean / meV per atom", title="The whole run, enlarged")
        below.margins(x=0.01, y=0.3)
        below.legend(ncols=2, loc="upper right")
        return png(figure)


def coupling_sparsity(lmax: int) -> bytes:
    """Where the exact real couplings up to lmax are not zero, and which share of them is, degree by degree."""
    size = (lmax + 1) ** 2
    counts = np.zeros((size, size))
    shares = []
    for top in range(lmax + 1):
        fresh = [t for t in triangles(top) if max(t) == top]
        dense = sum((2 * a + 1) * (2 * b + 1) * (2 * c + 1) for a, b, c in triangles(top))
        shares.append(sum(len(w3j(*t)) for t in triangles(top)) / dense)
        for l1, l2, l3 in fresh:
            for i, j, _ in w3j(l1, l2, l3):
                counts[l1 * l1 + i, l2 * l2 + j] += 1
    with style():
        figure, (left, right) = new_figure(11, 5, columns=2, ratios=(1.25, 1))
        left.grid(False)
        image = left.imshow(counts, cmap="cividis", origin="lower")
        starts = [l * l for l in range(lmax + 2)]
        for start in starts[1:-1]:
            left.axhline(start - 0.5, color="white", linewidth=1)
            left.axvline(start - 0.5, color="white", linewidth=1)
        centres = [(a + b - 1) / 2 for a, b in pairwise(starts)]
        left.set_xticks(centres, [str(l) for l in range(lmax + 1)])
        left.set_yticks(centres, [str(l) for l in range(lmax + 1)])
        left.tick_params(length=0)
        left.set(xlabel="degree l₂ (inside a block: m₂ = −l₂ … l₂)", ylabel="degree l₁ (m₁ = −l₁ … l₁)")
        left.set_title("Non-zero w3j for each (l₁ m₁, l₂ m₂)")
        figure.colorbar(image, ax=left, label="non-zero entries over all (l₃ m₃)", shrink=0.9)
        bars = right.bar(range(lmax + 1), [100 * share for share in shares], color=BLUE)
        right.bar_label(bars, [f"{100 * share:.0f} %" for share in shares], padding=2)
        right.set_xticks(range(lmax + 1))
        right.grid(False, axis="x")
        right.set(xlabel="all couplings up to degree", ylabel="entries that are not zero / %", ylim=(0, 112))
        right.set_title("What unrolled code computes")
        return png(figure)


def _parity(
    pairs: Mapping[str, tuple[Any, Any]],
    notes: Mapping[str, str],
    quantity: str,
    unit: str,
    difference_unit: str,
    factor: float,
    title: str,
    mark_size: float,
) -> bytes:
    """The axes of the upper picture have the same ends; the lower one enlarges the differences by its own scale."""
    with style():
        figure, (above, below) = new_figure(6.6, 8.6, rows=2, ratios=(2.6, 1))
        both = np.concatenate([np.concatenate(pair) for pair in pairs.values()])
        margin = 0.04 * (both.max() - both.min())
        ends = (both.min() - margin, both.max() + margin)
        above.plot(ends, ends, color=GREY, linewidth=1, zorder=0)
        # the widest set first, so that it does not hide the others
        order = sorted(pairs, key=lambda group: -float(np.ptp(pairs[group][0])))
        for group, (colour, mark) in zip(order, cycle(MARKS), strict=False):
            label, answer = pairs[group]
            look = {"s": mark_size, "color": colour, "marker": mark, "alpha": 0.6, "linewidths": 0}
            above.scatter(label, answer, label=f"{group}: {notes[group]}", **look)
            below.scatter(label, factor * (answer - label), **look)
        above.set(ylabel=f"model / {unit}", title=f"{title}: model against label", xlim=ends, ylim=ends)
        legend = above.legend(loc="upper left", markerscale=(40 / mark_size) ** 0.5, handletextpad=0.2)
        for handle in legend.legend_handles:
            handle.set_alpha(1)
        below.axhline(0, color=GREY, linewidth=1, zorder=0)
        below.set(xlabel=f"label: {quantity} / {unit}", ylabel=f"model − label / {difference_unit}", xlim=ends)
        return png(figure)


def plain_log(axis: Any) -> None:
    """Ticks at 1, 2, 5, 10, … written as numbers: a curve rarely spans more than two decades."""
    ticker = require("matplotlib.ticker", "plot")
    axis.set_major_locator(ticker.LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def style() -> Any:
    """The look of all pictures, for a block."""
    return require("matplotlib", "plot").rc_context(_STYLE)


def new_figure(
    width: float, height: float, *, rows: int = 1, columns: int = 1, ratios: tuple[float, ...] | None = None
) -> tuple[Any, Any]:
    """A figure of its own (inches), that no global state of matplotlib knows, and its axes."""
    figure = require("matplotlib.figure", "plot").Figure(figsize=(width, height), layout="constrained")
    key = "height_ratios" if rows > 1 else "width_ratios"
    return figure, figure.subplots(rows, columns, gridspec_kw={key: ratios} if ratios else None)


def png(figure: Any) -> bytes:
    """The figure as a file's bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
