"""Learning rates: what each step takes of the largest one, as a function of the step, or of what validation found."""

from __future__ import annotations

import math
from dataclasses import dataclass

SCHEDULES = ("cosine", "exponential", "constant", "plateau")


@dataclass(frozen=True, slots=True)
class Rate:
    """The learning rate over its largest.

    schedule  "cosine": falls to `last` along half a wave; "exponential": falls to `last` by equal factors; "constant";
              "plateau": times `factor` after `patience` validations without a better result
    warm_up   steps in which it rises from a tenth: Adam's first steps know no variance yet
    steps     of the whole training
    """

    schedule: str
    warm_up: int
    steps: int
    last: float

    def at(self, step: int) -> float:
        """Of this step, from 0; a plateau's factor is not in it."""
        if step < self.warm_up:
            return 0.1 + 0.9 * step / self.warm_up
        part = min((step - self.warm_up) / max(self.steps - self.warm_up, 1), 1.0)
        match self.schedule:
            case "cosine":
                return self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * part))
            case "exponential":
                return float(self.last**part)
            case _:
                return 1.0


class Plateau:
    """A factor that falls when validation no longer gets better."""

    def __init__(self, factor: float, patience: int) -> None:
        self.fall, self.patience = factor, patience
        self.best, self.waited, self.factor = math.inf, 0, 1.0

    def see(self, value: float) -> None:
        """One validation's result; smaller is better."""
        if value < self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.waited, self.factor = 0, self.factor * self.fall

    def state_dict(self) -> dict[str, float]:
        """What it has seen."""
        return {"best": self.best, "waited": self.waited, "factor": self.factor}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """What `state_dict` gave."""
        self.best, self.waited, self.factor = state["best"], int(state["waited"]), state["factor"]
