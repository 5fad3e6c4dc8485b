"""A running average of weights (exponential moving average), which is what is validated and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """w̄ ← d w̄ + (1 - d) w, in which the first steps weigh less: d is at most step / (step + 9)."""

    def __init__(self, weights: list[torch.nn.Parameter], decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.values = [weight.detach().clone() for weight in weights]

    def update(self, weights: list[torch.nn.Parameter]) -> None:
        """Count the present weights in."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        with torch.no_grad():
            present = [weight.detach() for weight in weights]
            torch._foreach_lerp_(self.values, present, 1 - decay)

    @contextmanager
    def in_place(self, weights: list[torch.nn.Parameter]) -> Iterator[None]:
        """The model with the averaged weights, for as long as the block lasts."""
        present = [weight.detach().clone() for weight in weights]
        self.keep(weights)
        try:
            yield
        finally:
            _write(weights, present)

    def keep(self, weights: list[torch.nn.Parameter]) -> None:
        """Write the average into the model."""
        _write(weights, self.values)

    def state_dict(self) -> dict[str, int | list[Tensor]]:
        """The average and its steps."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, int | list[Tensor]]) -> None:
        """What `state_dict` gave, of the same weights."""
        values = state["values"]
        assert isinstance(values, list) and isinstance(state["steps"], int)
        self.steps = state["steps"]
        for value, saved in zip(self.values, values, strict=True):
            value.copy_(saved)


def _write(weights: list[torch.nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)
