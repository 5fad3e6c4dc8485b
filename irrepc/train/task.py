"""Task: what a training consists of, made from its settings: frames, statistics, network, batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from irrepc.errors import InputError
from irrepc.models.checkpoint import Network, load_model
from irrepc.models.potential import predict
from irrepc.train.batches import join
from irrepc.train.losses import Weights, counts_of, differences, loss_of
from irrepc.train.networks import freeze, make_network, refit_energies
from irrepc.train.order import Batches, Graphs, batches_of
from irrepc.train.sets import Part, Sets, sets_of
from irrepc.train.settings import Settings
from irrepc.train.statistics import Statistics, statistics

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a training consists of."""

    settings: Settings
    sets: Sets
    found: Statistics
    model: Network
    train: Graphs
    validation: Graphs

    def steps_per_epoch(self, parts: int) -> int:
        """Of all processes together."""
        run = self.settings.run
        return len(batches_of(self.train.loads, run.batch, seed=run.seed, epoch=0, parts=parts))


def make_task(settings: Settings, found: Statistics | None, say: Say) -> Task:
    """Read the frames, make the network. found: statistics of an earlier session; None: made anew.

    Raises IrrepcError as `sets_of`, `make_network` and `freeze` do, and where stress is wanted and not there.
    """
    chosen = settings.model
    cutoff = chosen.cutoff if chosen.start is None else load_model(chosen.start).cutoff
    sets = sets_of(settings.data, Path(), cutoff, settings.run.seed, say)
    fresh = found is None
    found = statistics(sets.train.frames, sets.train.chosen, sets.energies) if found is None else found
    model = make_network(chosen, found, settings.run.seed)
    train, validation = graphs_of(sets.train, model), graphs_of(sets.validation, model)
    loss = settings.loss
    wanted = {
        "forces": loss.forces > 0 or (loss.late is not None and loss.late_forces > 0),
        "stress": loss.stress > 0 or (loss.late is not None and loss.late_stress > 0),
    }
    for name, part in (("data.train", sets.train), ("data.validation", sets.validation)):
        for label, array in (("forces", "spread"), ("stress", "stress")):
            values = part.frames.arrays[array][part.chosen]
            if wanted[label] and not np.isfinite(values).any():
                raise InputError(
                    f"loss.{label}: got a weight > 0, and no {label} in {name} ({part.frames.source}); expected some; "
                    f"set data.labels.{label}, or the weight to 0"
                )
    say(f"{len(train)} frames for training, {len(validation)} for validation; elements {list(found.species)}")
    say(
        f"{found.neighbours:.1f} neighbours within {cutoff} Å, rms force {1e3 * found.force_scale:.0f} meV/Å, energies "
        f"without lone atoms ± {1e3 * found.rest_scale:.1f} meV per atom"
    )
    if chosen.start is not None and chosen.refit_energies and fresh:
        moves = refit_energies(model, train)
        kept = ", ".join(f"{z}: {move:+.4f}" for z, move in moves.items() if z in found.species)
        say(f"energies of species moved by {kept} eV")
    left = freeze(model, chosen.frozen)
    total = sum(weight.numel() for weight in model.parameters())
    say(f"{type(model).__name__}: {total:,} weights" + (f", {left:,} of them trained" if left < total else ""))
    return Task(settings, sets, found, model, train, validation)


def graphs_of(part: Part, model: Network) -> Graphs:
    """Frames of a part as a model sees them."""
    dtype = next(model.parameters()).dtype
    return Graphs(part.frames, part.chosen, tuple(model.species), dtype)


def unused_weights(task: Task) -> list[str]:
    """Names of trained weights that the loss does not reach; kernels are compiled on the way."""
    model, stress = task.model, task.settings.loss.stress > 0
    batch = join([task.train[k] for k in range(min(2, len(task.train)))])
    found = predict(model, batch.graph, stress=stress, create_graph=True)
    gaps = differences(found, batch)
    loss = loss_of(gaps, counts_of(gaps), Weights(1.0, 1.0, 1.0), "square", 1.0)
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, [weight for _, weight in named], allow_unused=True)
    return [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]


class FrameBatches(lightning.LightningDataModule):
    """The batches of this process, for Lightning's trainer."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def train_dataloader(self) -> Batches:
        """Drawn anew in every epoch."""
        run, loads, (part, parts) = self.task.settings.run, self.task.train.loads, self._place()

        def plan(epoch: int) -> list[NDArray[np.int64]]:
            return batches_of(loads, run.batch, seed=run.seed, epoch=epoch, parts=parts)

        made = Batches(self.task.train, plan, part=part, parts=parts, workers=self.task.settings.data.workers)
        assert self.trainer is not None
        made.given = self.trainer.global_step  # Lightning restores a loader only in the middle of an epoch
        return made

    def val_dataloader(self) -> Batches:
        """The same in every validation."""
        (part, parts), size = self._place(), self.task.settings.run.validation_batch
        fixed = batches_of(self.task.validation.loads, size, seed=0, epoch=0, parts=parts)
        return Batches(self.task.validation, lambda epoch: fixed, part=part, parts=parts)

    def _place(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size


def located(settings: Settings, base: Path) -> Settings:
    """The same with absolute paths, where relative ones started at `base`."""

    def whole(name: str) -> str:
        return str((base / name).resolve())

    data, model = settings.data, settings.model
    return replace(
        settings,
        data=replace(
            data,
            train=tuple(whole(name) for name in data.train),
            validation=whole(data.validation) if isinstance(data.validation, str) else data.validation,
            tests={name: whole(file) for name, file in data.tests.items()},
            isolated=None if data.isolated is None else whole(data.isolated),
            cache=whole(data.cache),
        ),
        model=replace(model, start=None if model.start is None else whole(model.start)),
    )
