"""What training lowers and what people read: the loss of a batch, and errors that add up over batches and processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from irrepc.errors import IrrepcError
from irrepc.models.potential import Prediction
from irrepc.train.batches import Labelled

QUANTITIES = ("energy", "forces", "stress")
FORMS = ("square", "huber", "absolute")


class TrainingError(IrrepcError):
    """A training that cannot go on."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each part of the loss counts."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 0.0


def differences(found: Prediction, batch: Labelled) -> dict[str, Tensor]:
    """Answers minus labels, where there are labels; 1-D each.

    energy: eV per atom, float64; forces: components, eV/Å; stress, where it was computed: components times volume per
    atom, eV, so that it is of the size of an energy per atom whatever the cell.
    """
    atoms = torch.bincount(batch.graph.batch, minlength=batch.graph.num_graphs)
    parts = {
        "energy": ((found.energy - batch.energy) / atoms, batch.energy),
        "forces": (found.forces - batch.forces, batch.forces),
    }
    if found.stress is not None:
        volume = torch.linalg.det(batch.graph.cell.double()).abs() / atoms
        parts["stress"] = ((found.stress - batch.stress) * volume.to(batch.stress)[:, None, None], batch.stress)
    return {name: gap[~torch.isnan(label)] for name, (gap, label) in parts.items()}


def counts_of(gaps: dict[str, Tensor]) -> dict[str, Tensor]:
    """How many differences of each kind there are, where one process has the whole batch."""
    return {name: torch.tensor(float(gap.numel()), dtype=torch.float64) for name, gap in gaps.items()}


def loss_of(gaps: dict[str, Tensor], counts: dict[str, Tensor], weights: Weights, form: str, scale: float) -> Tensor:
    """Σ_q weight_q · mean_q(f(gap / scale)), float64.

    counts: how many gaps of each kind the whole batch has, on all processes; the sums here are over this one, so that
    the losses of all processes add up to that of the whole batch, however it was dealt out.
    form: "square", "huber" (a square up to 0.5, then a line), "absolute".
    scale: eV/Å and eV, the root mean square of the force labels: gaps become pure numbers.
    """
    total = next(iter(gaps.values())).new_zeros((), dtype=torch.float64)
    for name, gap in gaps.items():
        weight = getattr(weights, name)
        if not weight or not gap.numel():
            continue
        size = gap.double() / scale
        match form:
            case "square":
                terms = size.square()
            case "huber":
                terms = torch.where(size.abs() <= 0.5, size.square(), size.abs() - 0.25)
            case _:
                terms = size.abs()
        total = total + weight * terms.sum() / counts[name]
    return total


class Tally:
    """Sums of errors from which means follow: of absolute values, of squares, and how many; float64."""

    def __init__(self) -> None:
        self.sums = torch.zeros(len(QUANTITIES), 3, dtype=torch.float64)

    def add(self, gaps: dict[str, Tensor]) -> None:
        """Count these differences in."""
        for name, gap in gaps.items():
            gap = gap.detach().double()
            row = torch.stack([gap.abs().sum(), gap.square().sum(), gap.new_tensor(gap.numel())])
            self.sums[QUANTITIES.index(name)] += row.cpu()

    def errors(self) -> dict[str, float]:
        """{energy_mae, energy_rmse, forces_mae, ...} in meV per atom and meV/Å, of the quantities that occurred."""
        found = {}
        for name, (absolute, squares, count) in zip(QUANTITIES, self.sums.tolist(), strict=True):
            if count:
                found[f"{name}_mae"] = 1e3 * absolute / count
                found[f"{name}_rmse"] = 1e3 * math.sqrt(squares / count)
        return found

    def clear(self) -> None:
        """Begin again."""
        self.sums.zero_()
