"""Findings: what a demonstration measured, as values, as a few lines for the terminal, and as numbers for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from irrepc.models.nequip import NequIPConfig
from irrepc.train.dynamics import Trajectory
from irrepc.train.evaluate import Evaluation
from irrepc.train.fit import History
from irrepc.train.frames import ForceStatistics
from irrepc.train.symmetry import RotationError


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Everything the report tells."""

    package: str  # name of the folder of the emitted package
    manifest: Mapping[str, Any]  # its manifest.json
    files: Mapping[str, int]  # its files and their bytes
    config: NequIPConfig
    parameters: int
    training: Mapping[str, str]  # what was chosen for the training, for the table
    history: History
    provenance: str  # of the labels
    spread: Mapping[str, ForceStatistics]  # of the force labels, "train" and the test groups
    evaluations: Mapping[str, Evaluation]  # of the test groups
    rotations: Sequence[tuple[str, RotationError]]  # ("before", ...), ("after", ...)
    dynamics: Trajectory
    seconds: Mapping[str, float]  # of each step
    versions: Mapping[str, str]
    seed: int


def summary(findings: Findings) -> list[tuple[str, str]]:
    """The result in a few lines: (what, number)."""
    lines = []
    for group, evaluation in findings.evaluations.items():
        errors, spread = evaluation.errors, findings.spread[group]
        part = errors.force_mae / (1e3 * spread.mean_absolute)
        lines.append(
            (
                f"{group}: forces",
                f"MAE {errors.force_mae:.1f} meV/Å, {part:.1%} of the labels' mean |force| "
                f"{1e3 * spread.mean_absolute:.0f} meV/Å (RMSE {errors.force_rmse:.1f}, labels "
                f"{1e3 * spread.root_mean_square:.0f} meV/Å)",
            )
        )
        energy = f"MAE {errors.energy_mae:.2f} meV per atom (RMSE {errors.energy_rmse:.2f})"
        lines.append((f"{group}: energy", energy))
    run = findings.dynamics
    drift = f"{run.drift:+.3f} meV per atom and ps over {run.time[-1]:.1f} ps (± {run.wobble:.3f} meV per atom)"
    lines.append(("energy drift at constant energy", drift))
    for when, error in findings.rotations:
        if when == "after training":
            lines.append(
                (f"rotation error, {error.dtype}", f"forces {error.forces:.1e} eV/Å of {error.force_scale:.2f}")
            )
    return lines


def numbers(findings: Findings) -> dict[str, Any]:
    """Everything but the arrays, for demo.json."""
    run = findings.dynamics
    return {
        "format": "irrepc demo 1",
        "seed": findings.seed,
        "config": asdict(findings.config),
        "parameters": findings.parameters,
        "training": dict(findings.training),
        "steps": findings.history.steps,
        "epochs": [asdict(epoch) for epoch in findings.history.epochs],
        "force_labels": {group: asdict(spread) for group, spread in findings.spread.items()},
        "errors": {group: asdict(evaluation.errors) for group, evaluation in findings.evaluations.items()},
        "rotations": [{"when": when, **asdict(error)} for when, error in findings.rotations],
        "dynamics": {"ps": float(run.time[-1]), "drift_meV_atom_ps": run.drift, "wobble_meV_atom": run.wobble},
        "seconds": dict(findings.seconds),
        "versions": dict(findings.versions),
    }


def cost_rows(manifest: Mapping[str, Any], backend: str) -> list[tuple[str, str, str, str]]:
    """Function, order, multiplications and additions of each kernel; products of two irreps are summed."""
    totals: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    products = sum(kernel["function"].startswith("tensor_product") for kernel in manifest["kernels"])
    for kernel in manifest["kernels"]:
        single = not kernel["function"].startswith("tensor_product")
        name = kernel["function"] if single else f"{products} tensor products, together"
        for line in kernel["cost"][backend]:
            cost = dict(zip(manifest["cost_columns"], line, strict=True))
            total = totals.setdefault((name, str(cost["order"])), {"mul": {}, "add": {}})
            for kind, by_axes in total.items():
                by_axes[cost["channel axes"]] = by_axes.get(cost["channel axes"], 0) + cost[kind]
    return [(*key, _polynomial(total["mul"]), _polynomial(total["add"])) for key, total in totals.items()]


def _polynomial(by_axes: Mapping[str, int]) -> str:
    """Operations as a polynomial in the numbers of channels: "40 + 100·u"."""
    terms = ("·".join([f"{n:,}", *filter(None, axes.split(", "))]) for axes, n in by_axes.items() if n)
    return " + ".join(terms) or "0"
