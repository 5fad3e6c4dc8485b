"""Learner: a network, its loss, its optimiser and its running average, as Lightning's trainer drives them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import lightning
import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.models.checkpoint import Network
from irrepc.models.potential import DirectForces, predict
from irrepc.train.average import Average
from irrepc.train.batches import Labelled
from irrepc.train.history import History, Row
from irrepc.train.losses import QUANTITIES, Tally, TrainingError, Weights, differences, loss_of
from irrepc.train.rates import Plateau, Rate
from irrepc.train.settings import Settings

FORMAT = "irrepc training 1"


class Learner(lightning.LightningModule):
    """What one training is, but for its data.

    scale     eV/Å, root mean square of the force labels: the unit of the loss
    per_epoch steps of an epoch
    keep      called, on the first process, with the averaged weights in the network whenever they are the best so far

    Every step is a function of the settings, the data and its number: random numbers are seeded anew before each, the
    learning rate is computed from it, and batches follow from it, so that a checkpoint needs no state of a generator.
    """

    def __init__(
        self, model: Network, settings: Settings, *, scale: float, per_epoch: int, keep: Callable[[Network], None]
    ) -> None:
        super().__init__()
        loss, optimizer, run = settings.loss, settings.optimizer, settings.run
        self.model, self.settings, self.scale, self.keep = model, settings, scale, keep
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.average = Average(self.trained, optimizer.average)
        total = per_epoch * run.epochs
        self.rate = Rate(optimizer.schedule, round(optimizer.warm_up * total), total, optimizer.last)
        self.plateau = Plateau(optimizer.factor, optimizer.patience)
        self.late_from = total + 1 if loss.late is None else round(loss.late * total)
        self.stress = loss.stress > 0 or (loss.late is not None and loss.late_stress > 0)
        if self.stress and isinstance(model, DirectForces):
            raise InputError(f"loss.stress: got a weight for {type(model).__name__}; expected 0, it has no stress")
        self.history, self.train_tally, self.tally = History(), Tally(), Tally()
        self.started, self.before = time.perf_counter(), 0.0  # of this session; seconds of earlier ones
        self.wishes = [0.0, 0.0]  # a checkpoint, an end: what this process wishes
        self.granted = [False, False]  # what some process wished before this step, as all processes know it
        self._averaged = ExitStack()

    @property
    def stage(self) -> str:
        """ "late" once the late weights of the loss hold."""
        return "late" if self.global_step >= self.late_from else ""

    @property
    def weights(self) -> Weights:
        """Of the loss at this step."""
        loss = self.settings.loss
        if self.stage:
            return Weights(loss.late_energy, loss.late_forces, loss.late_stress)
        return Weights(loss.energy, loss.forces, loss.stress)

    @property
    def present_rate(self) -> float:
        """The learning rate of this step."""
        late = self.settings.loss.late_rate if self.stage else 1.0
        return self.settings.optimizer.rate * self.rate.at(self.global_step) * self.plateau.factor * late

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or AdamW; weights with two or more axes decay."""
        chosen = self.settings.optimizer
        flat = [w for w in self.trained if w.dim() < 2]
        wide = [w for w in self.trained if w.dim() >= 2]
        groups = [{"params": wide, "weight_decay": chosen.weight_decay}, {"params": flat, "weight_decay": 0.0}]
        kind = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
        return kind([g for g in groups if g["params"]], lr=chosen.rate, amsgrad=chosen.amsgrad, fused=True)

    def training_step(self, batch: Labelled, batch_idx: int) -> Tensor:
        """The loss of this process's part of the batch, times the number of processes, over which Lightning averages.

        Raises TrainingError, naming the frames, when it is not finite.
        """
        # as if (seed, step, process) were hashed: 2⁶⁴ / golden ratio spreads neighbouring numbers
        mixed = (self.settings.run.seed * 1_000_003 + self.global_step) * 4096 + self.global_rank
        torch.manual_seed(mixed * 0x9E3779B97F4A7C15 % 2**63)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"] = self.present_rate
        found = predict(self.model, batch.graph, stress=self.stress, create_graph=True)
        gaps = differences(found, batch)
        numbers = [float(gaps[name].numel()) if name in gaps else 0.0 for name in QUANTITIES]
        sums = self._over_processes(torch.tensor([*numbers, *self.wishes], dtype=torch.float64))
        counts = dict(zip(QUANTITIES, sums, strict=False))
        self.granted = [bool(wish) for wish in sums[len(QUANTITIES) :].tolist()]
        loss = loss_of(gaps, counts, self.weights, self.settings.loss.form, self.scale)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"train: got a loss of {loss.item()} in epoch {self.current_epoch + 1}, step {self.global_step}, "
                f"training frames {batch.origin.tolist()}; expected a finite number; look at these frames, or lower "
                "optimizer.rate"
            )
        self.train_tally.add(gaps)
        return loss * self.trainer.world_size

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which must be finite."""
        clip = self.settings.optimizer.clip or torch.inf
        norm = torch.nn.utils.clip_grad_norm_(self.trained, clip)
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"train: got a gradient that is not finite in epoch {self.current_epoch + 1}, step {self.global_step}; "
                "expected numbers; look for atoms that nearly coincide, or lower optimizer.rate"
            )

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """One step, counted into the running average."""
        super().optimizer_step(*arguments, **named)
        self.average.update(self.trained)

    def on_validation_epoch_start(self) -> None:
        """The averaged weights are what is validated."""
        self._averaged.enter_context(self.average.in_place(self.trained))
        self.tally.clear()

    def validation_step(self, batch: Labelled, batch_idx: int) -> None:
        """Count the errors of a batch."""
        self.tally.add(differences(predict(self.model, batch.graph, stress=self.stress), batch))

    def on_validation_epoch_end(self) -> None:
        """One row of the history; the averaged weights are kept when they are the best."""
        for tally in (self.train_tally, self.tally):
            tally.sums = self._over_processes(tally.sums)
        row: Row = {
            "epoch": self.current_epoch + 1,
            "step": self.global_step,
            "seconds": self.seconds,
            "rate": self.present_rate,
            **{f"train_{name}": value for name, value in self.train_tally.errors().items()},
            **{f"validation_{name}": value for name, value in self.tally.errors().items()},
        }
        row["objective"] = self._objective(self.tally.errors())
        self.train_tally.clear()
        if self.history.see(row, self.stage) and self.trainer.is_global_zero:
            self.keep(self.model)
        self._averaged.close()
        if self.settings.optimizer.schedule == "plateau":
            self.plateau.see(row["objective"])
        for logger in self.loggers:
            logger.log_metrics(row, self.global_step)
        patience = self.settings.run.patience
        if patience is not None and self.history.waited > patience:
            self.trainer.should_stop = True

    def _objective(self, errors: dict[str, float]) -> float:
        """What validation lowers: the present weights on the present form of the loss (Huber counts as absolute)."""
        square = self.settings.loss.form == "square"
        parts = []
        for name in QUANTITIES:
            size = errors.get(f"{name}_{'rmse' if square else 'mae'}", 0.0) / 1e3 / self.scale
            parts.append(getattr(self.weights, name) * (size**2 if square else size))
        return float(sum(parts))

    @property
    def seconds(self) -> float:
        """Of training so far, earlier sessions included."""
        return self.before + time.perf_counter() - self.started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What Lightning does not know of; plain data and tensors, so that reading it runs no code."""
        checkpoint["irrepc"] = {
            "format": FORMAT,
            "average": self.average.state_dict(),
            "plateau": self.plateau.state_dict(),
            "history": self.history.state_dict(),
            "tally": self._over_processes(self.train_tally.sums.clone()),
            "seconds": self.seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises InputError for a checkpoint that another program wrote."""
        state = checkpoint.get("irrepc", {})
        if state.get("format") != FORMAT:
            raise InputError(f"checkpoint: got format {state.get('format')!r}; expected {FORMAT!r}; train anew")
        self.average.load_state_dict(state["average"])
        self.plateau.load_state_dict(state["plateau"])
        self.history.load_state_dict(state["history"])
        if self.global_rank == 0:  # the sums are those of all processes
            self.train_tally.sums = state["tally"]
        self.before = state["seconds"]

    def _over_processes(self, values: Tensor) -> Tensor:
        """The sum over all processes, where there are several."""
        if self.trainer.world_size > 1:
            moved = values.to(self.device)
            torch.distributed.all_reduce(moved)
            return moved.cpu()
        return values
