"""Keeper: writes checkpoints so that a training that is stopped, or killed, goes on from the same bits."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from irrepc.errors import IrrepcError
from irrepc.train.history import write_table
from irrepc.train.learner import Learner

CHECKPOINT = "last.ckpt"


class StoppedError(IrrepcError):
    """The training was asked to end; a checkpoint is written and it can be resumed."""


class Keeper(Checkpoint):
    """Saves at the end of validated epochs, every so many minutes, and when the training is asked to stop.

    A wish to stop (a signal, the time limit) travels with the next step's sums to all processes, so that all save and
    stop after the same step. The file is replaced as a whole: a kill leaves the older one.
    """

    def __init__(self, folder: Path, every_minutes: float, minutes: float | None) -> None:
        self.folder, self.every = folder, 60 * every_minutes
        self.limit = None if minutes is None else 60 * minutes
        self.asked = False  # by a signal
        self._start = self._saved = time.monotonic()

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """The last epoch is validated whatever its number."""
        if trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs - 1:
            trainer.check_val_every_n_epoch = 1

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Say what this process wishes."""
        assert isinstance(module, Learner)
        now = time.monotonic()
        late = self.limit is not None and now - self._start > self.limit
        module.wishes = [float(now - self._saved > self.every), float(self.asked or late)]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Grant it; after the last step of an epoch the end of the epoch does."""
        assert isinstance(module, Learner)
        save, stop = module.granted
        if (save or stop) and batch_idx + 1 < trainer.num_training_batches:
            self._save(trainer, module)
            self._stop(stop, trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Save after a validation, which stands in the history now, and where it is wished."""
        assert isinstance(module, Learner)
        save, stop = module.granted
        rows = module.history.rows
        if save or stop or (rows and rows[-1]["epoch"] == trainer.current_epoch + 1):
            self._save(trainer, module)
        self._stop(stop, trainer)

    def _save(self, trainer: lightning.Trainer, module: Learner) -> None:
        self._saved = time.monotonic()
        unfinished = self.folder / f".{CHECKPOINT}.new"
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, self.folder / CHECKPOINT)
            write_table(module.history.rows, self.folder / "metrics.csv")

    def _stop(self, stop: bool, trainer: lightning.Trainer) -> None:
        if stop:
            raise StoppedError(
                f"train: stopped after step {trainer.global_step}; do: irrepc train --resume {self.folder}"
            )


@contextmanager
def signals_to(keeper: Keeper) -> Iterator[None]:
    """While the block runs the first SIGINT (Ctrl-C) or SIGTERM asks for a stop, a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen to signals
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if keeper.asked:
            raise KeyboardInterrupt
        keeper.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
