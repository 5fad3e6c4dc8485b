"""Eval: what a model says of the structures of a file, and how far that is from their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from irrepc.commands.plots import plot_parity
from irrepc.commands.structures import (
    calculator,
    check_folder,
    check_structures,
    read_structures,
    voigt,
    write_structures,
    written,
)
from irrepc.errors import InputError

Float = NDArray[np.float64]
UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³"}


@dataclass(frozen=True, slots=True)
class Errors:
    """Differences between labels and answers, over all numbers of a kind."""

    count: int
    mae: float
    rmse: float
    largest: float

    @classmethod
    def of(cls, labels: Float, answers: Float) -> Errors:
        """Of two flat arrays of equal length, at least one number."""
        d = np.abs(answers - labels)
        return cls(len(d), float(d.mean()), float(np.sqrt(np.square(d).mean())), float(d.max()))


def evaluate(
    source: Path, model: str, out: Path | None, plot: Path | None, dtype: str | None, prefix: str, console: Console
) -> Mapping[str, Errors]:
    """Ask the model about every structure; write the answers to `out`, a parity plot to `plot`, errors to the console.

    prefix  of the labels' names, where they are not called energy, forces and stress ("REF_")
    Raises InputError before any number is computed where a structure or a file is not what it should be.
    """
    for path in (out, plot):
        if path is not None:
            check_folder(path)
    structures = read_structures(source)
    calc = calculator(model, dtype)
    check_structures(structures, calc.evaluator, source)
    labels = [_labels(atoms, prefix) for atoms in structures]
    if plot is not None and not any(labels):
        raise InputError(f"--plot: got {source} without labels; expected energies, forces or stresses to compare with")
    answers = []
    for atoms in track(structures, "evaluating", console=console, disable=not console.is_terminal, transient=True):
        calc.calculate(atoms, ["energy"])
        answers.append(dict(calc.results))
    if out is not None:
        write_structures(out, [written(a, r) for a, r in zip(structures, answers, strict=True)])
    pairs = _pairs(labels, answers, [len(atoms) for atoms in structures])
    errors = {name: Errors.of(*pair) for name, pair in pairs.items()}
    atoms_in_all = sum(len(atoms) for atoms in structures)
    console.out(f"{len(structures)} structures, {atoms_in_all} atoms" + ("" if out is None else f" -> {out}"))
    if not errors:
        for number, answer in enumerate(answers[:20]):
            force = float(np.abs(answer["forces"]).max())
            console.out(f"  {number:4} energy {answer['energy']:.6f} eV, largest force component {force:.6f} eV/Å")
        console.out("  no labels to compare with")
    for name, e in errors.items():
        console.out(
            f"  {name:7} MAE {e.mae:.3e}  RMSE {e.rmse:.3e}  largest {e.largest:.3e} {UNITS[name]}  ({e.count} numbers)"
        )
    if plot is not None:
        plot_parity(plot, pairs, UNITS)
        console.out(f"  parity  {plot}")
    return errors


def _labels(atoms: Any, prefix: str) -> dict[str, Any]:
    """Energy, forces and stress that the file holds, by name; raises InputError where one is not finite."""
    if prefix:
        held = {**atoms.info, **atoms.arrays}
        found = {name: held[prefix + name] for name in UNITS if prefix + name in held}
    else:
        results = getattr(atoms.calc, "results", {})
        found = {name: results[name] for name in UNITS if results.get(name) is not None}
    atoms.calc = None
    for name, value in found.items():
        if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            raise InputError(f"labels: got {name} that is not finite; expected numbers; leave that structure out")
    return found


def _pairs(
    labels: list[dict[str, Any]], answers: list[dict[str, Any]], atoms: list[int]
) -> dict[str, tuple[Float, Float]]:
    """Labels and answers of each kind, side by side, energies per atom."""
    parts: dict[str, tuple[list[Float], list[Float]]] = {name: ([], []) for name in UNITS}
    for label, answer, count in zip(labels, answers, atoms, strict=True):
        for name in label.keys() & answer.keys():
            both = [np.asarray(side[name], dtype=np.float64) for side in (label, answer)]
            if name == "energy":
                both = [np.atleast_1d(value) / count for value in both]
            elif name == "stress":
                both = [voigt(value) for value in both]
            for side, value in zip(parts[name], both, strict=True):
                side.append(value.reshape(-1))
    return {name: (np.concatenate(a), np.concatenate(b)) for name, (a, b) in parts.items() if a}
