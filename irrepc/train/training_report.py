"""The report of a training: one page with its settings, curves and errors, and the errors as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from irrepc.models.checkpoint import Network
from irrepc.train.evaluate import Evaluation
from irrepc.train.history import Row, write_table, write_whole
from irrepc.train.html import document, figure, table
from irrepc.train.pictures import energy_parity, force_parity
from irrepc.train.settings import Settings
from irrepc.train.statistics import Statistics
from irrepc.train.training_pictures import error_by_element, error_by_force, history_curve, symbol

REPORT, ERRORS = "report.html", "errors.json"


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a training came to."""

    settings: Settings
    found: Statistics
    model: Network
    rows: Sequence[Row]
    evaluations: Mapping[str, Evaluation]  # "validation" and the tests


def write_training_report(folder: Path, outcome: Outcome) -> Path:
    """Write report.html, errors.json and metrics.csv; the page's path. Needs irrepc[plot]."""
    write_table(list(outcome.rows), folder / "metrics.csv")
    write_whole(folder / ERRORS, json.dumps(error_numbers(outcome.evaluations), indent=1) + "\n")
    write_whole(folder / REPORT, training_page(outcome))
    return folder / REPORT


def error_numbers(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Errors of every set as plain data: meV per atom, meV/Å; null where there are no labels."""
    return {
        name: {
            "frames": len(e.atoms),
            **{key: _known(value) for key, value in asdict(e.errors).items()},
            "energy_rmse_per_frame": _known(e.energy_rmse_per_frame),
            "relative_energy_rmse": _known(e.relative_energy_rmse),
            "stress_rmse": _known(e.stress_rmse),
            "force_rmse_by_element": {symbol(z): _known(rmse) for z, (_, _, rmse) in e.by_element().items()},
            "force_rmse_by_force": [[low, high, count, rmse] for low, high, count, rmse in e.by_force()],
        }
        for name, e in evaluations.items()
    }


def error_rows(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, ...]]:
    """Set, frames, energy MAE and RMSE per atom, RMSE of whole frames, force MAE and RMSE, part of the rms label."""
    rows = []
    for name, e in evaluations.items():
        errors, known = e.errors, e.force_labels[np.isfinite(e.force_labels)]
        part = errors.force_rmse / 1e3 / np.sqrt(np.square(known).mean()) if known.size else np.nan
        numbers = (errors.energy_mae, errors.energy_rmse, e.energy_rmse_per_frame, errors.force_mae, errors.force_rmse)
        cells = (f"{value:.2f}" if np.isfinite(value) else "–" for value in numbers)
        rows.append((name, str(len(e.atoms)), *cells, f"{part:.1%}" if np.isfinite(part) else "–"))
    return rows


ERROR_COLUMNS = ("set", "frames", "E MAE", "E RMSE", "E RMSE of a frame", "F MAE", "F RMSE", "of rms F")


def training_page(outcome: Outcome) -> str:
    """The page's text."""
    found, settings, evaluations = outcome.found, outcome.settings, outcome.evaluations
    forced = {name: e for name, e in evaluations.items() if np.isfinite(e.force_labels).any()}
    weights = sum(weight.numel() for weight in outcome.model.parameters())
    facts = [
        ("network", f"{type(outcome.model).__name__}, {weights:,} weights"),
        ("elements", " ".join(map(symbol, found.species))),
        ("training frames", f"{found.frames:,}"),
        ("neighbours of an atom", f"{found.neighbours:.1f}"),
        ("rms force label", f"{1e3 * found.force_scale:.0f} meV/Å"),
    ]
    if outcome.rows:
        last = outcome.rows[-1]
        facts.append(("trained", f"{last['epoch']:.0f} epochs, {last['step']:,.0f} steps, {last['seconds']:,.0f} s"))
    curve = "<p>No epoch was validated.</p>"
    if outcome.rows:
        curve = figure(history_curve(outcome.rows), "Training errors are those of the moving weights.")
    pictures = [figure(energy_parity(evaluations), "Energies: model against label.")]
    if forced:
        pictures.insert(0, figure(force_parity(forced), "Forces: model against label."))
    classes = []
    if forced:
        classes = [
            '<div class="pair">',
            figure(error_by_element(forced), "Forces on atoms of each element."),
            figure(error_by_force(forced), "Classes of equally many atoms."),
            "</div>",
        ]
    sections = [
        "<h1>irrepc train</h1>",
        "<p>Energies in meV per atom (of a frame: meV), forces in meV/Å, of the averaged weights that validation found "
        "best.</p>",
        table(ERROR_COLUMNS, error_rows(evaluations), numbers=7),
        table(("", ""), facts),
        "<h2>Learning curve</h2>",
        curve,
        "<h2>Model against label</h2>",
        f'<div class="pair">{"".join(pictures)}</div>',
        *classes,
        "<h2>Settings</h2>",
        f"<pre>{escape(json.dumps(asdict(settings), indent=1, ensure_ascii=False))}</pre>",
        f"<pre>{escape(str(outcome.model.config))}</pre>",
    ]
    return document("irrepc train", sections)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
