"""fit: weights of a network from labelled frames; a plain loop that can be read in one go.

Adam, a learning rate that warms up and then falls along a cosine, clipped gradients, and a running average of the
weights, which is what is validated and what the model is left with.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.models.checkpoint import Network
from irrepc.models.potential import energy_and_forces
from irrepc.train.average import Average
from irrepc.train.batches import join, label
from irrepc.train.evaluate import Errors, evaluate
from irrepc.train.frames import Frames, force_statistics
from irrepc.train.losses import Tally, TrainingError, Weights, counts_of, differences, loss_of
from irrepc.train.rates import Rate

Progress = Callable[[float, "Epoch | None"], None]

_BUDGET = 1_000_000  # in these parts the schedule counts what is used of the epochs or of the time
_WARM_UP = 20_000  # of them, in which the learning rate rises: Adam's first steps know no variance yet
_LAST = 0.01  # of the learning rate, where the cosine ends


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one pass over the training frames brought."""

    number: int  # from 1
    seconds: float  # since the start of the training
    learning_rate: float  # of the last step
    train: Errors  # of the weights as they were at each batch
    validation: Errors  # of the averaged weights


@dataclass(frozen=True, slots=True)
class History:
    """All epochs, and why there were no more: "budget" or "interrupt"."""

    epochs: tuple[Epoch, ...]
    steps: int
    stopped: str


def fit(
    model: Network,
    train: Frames,
    validation: Frames,
    *,
    epochs: int | None = None,
    seconds: float | None = None,
    batch_size: int = 10,
    learning_rate: float = 0.01,
    energy_weight: float = 1.0,
    force_weight: float = 1.0,
    averaging: float = 0.99,
    max_norm: float = 10.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> History:
    """Fit `model` in place, for a number of epochs or of seconds, whichever ends first; at least one is given.

    The loss is energy_weight · <(ΔE / atoms)²> / s² + force_weight · <ΔF²> / s², with s the root mean square of the
    training forces (eV, eV/Å). averaging: what the running average of the weights keeps at each step; max_norm: the
    largest norm of the gradient. progress(part, epoch) is called after every batch with the part of the budget that is
    used and the last finished epoch. With `epochs` alone the same arguments give the same weights on one machine.

    An interrupt (Ctrl-C) ends the training as if its budget were used up: the model holds the averaged weights so far.
    Raises TrainingError, which names the batch, when the loss is not finite (the model then holds the averaged weights
    too); InputError for an impossible argument; IrrepcError for no frames or elements that the model does not know.
    """
    _check(epochs, seconds, batch_size, learning_rate, averaging)
    singles, scale = label(train, model), force_statistics(train).root_mean_square or 1.0
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    average = Average(weights, averaging)
    schedule, parts = Rate("cosine", _WARM_UP, _BUDGET, _LAST), Weights(energy_weight, force_weight)
    generator = np.random.default_rng(seed)
    done: list[Epoch] = []
    steps, start, part, stopped = 0, time.perf_counter(), 0.0, "budget"
    per_epoch = math.ceil(len(singles) / batch_size)
    try:
        while part < 1.0:
            tally = Tally()
            for batch in np.array_split(generator.permutation(len(singles)), per_epoch):
                rate = learning_rate * schedule.at(round(part * schedule.steps))
                optimizer.param_groups[0]["lr"] = rate
                batched = join([singles[int(i)] for i in batch])
                found = energy_and_forces(model, batched.graph, create_graph=True)
                gaps = differences(found, batched)
                loss = loss_of(gaps, counts_of(gaps), parts, "square", scale)
                _expect_finite(loss, len(done) + 1, batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(weights, max_norm)
                optimizer.step()
                average.update(weights)
                tally.add(gaps)
                steps += 1
                elapsed = time.perf_counter() - start
                part = max(steps / (per_epoch * epochs) if epochs else 0.0, elapsed / seconds if seconds else 0.0)
                if progress is not None:
                    progress(min(part, 1.0), done[-1] if done else None)
                if part >= 1.0:
                    break
            with average.in_place(weights):
                validated = evaluate(model, validation, batch_size=5 * batch_size).errors
            done.append(Epoch(len(done) + 1, time.perf_counter() - start, rate, Errors.read(tally), validated))
    except KeyboardInterrupt:
        stopped = "interrupt"
    finally:
        average.keep(weights)
    if progress is not None:
        progress(min(part, 1.0), done[-1] if done else None)
    return History(tuple(done), steps, stopped)


def warm_up(model: Network, frames: Frames) -> float:
    """One step's arithmetic without the step, so that kernels are compiled before a clock runs; its seconds."""
    start = time.perf_counter()
    batched = join(label(frames, model)[:2])
    gaps = differences(energy_and_forces(model, batched.graph, create_graph=True), batched)
    loss = loss_of(gaps, counts_of(gaps), Weights(), "square", 1.0)
    torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    return time.perf_counter() - start


def _expect_finite(loss: Tensor, epoch: int, batch: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    if not bool(torch.isfinite(loss)):
        raise TrainingError(
            f"fit: got a loss of {loss.item()} in epoch {epoch}, training frames {batch.tolist()}; expected a finite "
            "number; look at these frames, or lower the learning rate"
        )


def _check(epochs: int | None, seconds: float | None, batch_size: int, learning_rate: float, averaging: float) -> None:
    if epochs is None and seconds is None:
        raise InputError("fit: got neither epochs nor seconds; expected one of them; say how long to train")
    for name, value, kept, expected in (
        ("epochs", epochs, epochs is None or epochs >= 1, "an integer >= 1"),
        ("seconds", seconds, seconds is None or seconds > 0, "a number > 0"),
        ("batch_size", batch_size, batch_size >= 1, "an integer >= 1"),
        ("learning_rate", learning_rate, 0 < learning_rate < math.inf, "a finite number > 0"),
        ("averaging", averaging, 0 <= averaging < 1, "a number from 0 to below 1"),
    ):
        if not kept:
            raise InputError(f"fit: got {name} = {value!r}; expected {expected}")
