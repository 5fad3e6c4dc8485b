"""Bar: the training on the terminal, a bar that moves and one line for each validation."""

from __future__ import annotations

from typing import Any

import lightning
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from irrepc.train.history import Row
from irrepc.train.learner import Learner


class Bar(lightning.Callback):
    """Errors are those of validation: meV per atom and meV/Å, root mean square."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn(), TimeRemainingColumn())
        last = TextColumn("{task.fields[note]}")
        # a file gets the lines, not the bars
        self.progress = Progress(*columns, last, console=console, transient=True, disable=not console.is_terminal)
        self.task: TaskID | None = None

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Begin, where the training stands."""
        assert isinstance(module, Learner)
        if trainer.is_global_zero:
            self.progress.start()
            note = said(module.history.rows[-1]) if module.history.rows else "first epoch"
            done = trainer.global_step
            self.task = self.progress.add_task("train", total=module.rate.steps, completed=done, note=note)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move."""
        if self.task is not None:
            title = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.progress.update(self.task, completed=trainer.global_step, description=title)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """A line."""
        assert isinstance(module, Learner)
        if self.task is not None and module.history.rows:
            row = module.history.rows[-1]
            self.progress.update(self.task, note=said(row))
            marks = "  best" if module.history.waited == 0 else ""
            self.console.print(f"epoch {row['epoch']:5.0f}  {said(row)}  rate {row['rate']:.1e}{marks}", soft_wrap=True)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Leave no bar."""
        self.progress.stop()

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Nor here."""
        self.progress.stop()


def said(row: Row) -> str:
    """What one validation found."""
    names = (("energy", "E", "meV/atom", 2), ("forces", "F", "meV/Å", 1), ("stress", "σV/N", "meV", 2))
    parts = [
        f"{short} {row[key]:.{digits}f} {unit}"
        for name, short, unit, digits in names
        if (key := f"validation_{name}_rmse") in row
    ]
    return "  ".join(parts)
