"""One training from settings to report: everything it leaves lies in one folder, from which it can be resumed.

settings.yaml    all settings, defaults included, with absolute paths
statistics.json  of the training frames, which the network was made for
last.ckpt        Lightning's checkpoint: weights, average, optimiser, history (plain tensors and numbers)
model.pt         the network with the averaged weights that validation found best, for load_model
metrics.csv      one row for each validation; logs/ the same for TensorBoard
report.html      what came out, with errors.json
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from irrepc.errors import InputError, IrrepcError
from irrepc.models.checkpoint import Network, load_model, save_model
from irrepc.train.bar import Bar
from irrepc.train.configuration import read_settings, write_settings
from irrepc.train.evaluate import evaluate
from irrepc.train.keeper import CHECKPOINT, Keeper, signals_to
from irrepc.train.learner import Learner
from irrepc.train.settings import RunSettings, Settings
from irrepc.train.statistics import read_statistics, write_statistics
from irrepc.train.task import FrameBatches, Task, graphs_of, located, make_task, unused_weights
from irrepc.train.training_report import Outcome, write_training_report

SETTINGS, STATISTICS, MODEL = "settings.yaml", "statistics.json", "model.pt"


def train(settings: Settings, folder: Path, console: Console, *, base: Path = Path()) -> Path:
    """Train as the settings say and leave everything in `folder`, which is new or empty; the path of its report.

    base: where relative paths of the settings start. Under torchrun, or with several devices, every process calls this.
    Raises StoppedError when the training was asked to end (Ctrl-C, SIGTERM, run.minutes): a checkpoint is written then.
    TrainingError when the loss is not finite; IrrepcError for settings, frames or a folder that do not fit.
    """
    whole = located(settings, base)
    if is_first():
        if folder.exists() and any(folder.iterdir()):
            raise IrrepcError(
                f"train: got {folder}, which is not empty; expected a new folder; choose another, or do: irrepc train "
                f"--resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_settings(whole, folder / SETTINGS)
    return _train(whole, folder, console)


def resume(folder: Path, console: Console) -> Path:
    """Go on with a training that was stopped or killed, from its last checkpoint; the path of its report.

    On a CPU the weights that come out are, bit for bit, those of a training that was never stopped.
    Raises as `train`, and IrrepcError where `folder` holds no training.
    """
    if not (folder / SETTINGS).is_file():
        raise IrrepcError(f"train: got {folder} without {SETTINGS}; expected the folder of a training; check the path")
    return _train(read_settings(folder / SETTINGS), folder, console)


def _train(settings: Settings, folder: Path, console: Console) -> Path:
    run, first = settings.run, is_first()
    say = (lambda line: console.print(line, soft_wrap=True, markup=False)) if first else (lambda line: None)
    with _threads(run.threads), _quiet():
        torch.set_float32_matmul_precision(run.matmul)
        known = folder / STATISTICS
        checkpoint = folder / CHECKPOINT if (folder / CHECKPOINT).is_file() else None
        task = make_task(settings, read_statistics(known) if checkpoint else None, say)
        if first and checkpoint is None:
            write_statistics(task.found, known)
        unused = unused_weights(task)

        def keep(model: Network) -> None:
            save_model(model, folder / MODEL)

        parts = run.devices * run.nodes
        learner = Learner(
            task.model, settings, scale=task.found.force_scale, per_epoch=task.steps_per_epoch(parts), keep=keep
        )
        keeper = Keeper(folder, run.checkpoint_minutes, run.minutes)
        trainer = lightning.Trainer(
            accelerator=_accelerator(run),
            devices=run.devices,
            num_nodes=run.nodes,
            strategy=DDPStrategy(find_unused_parameters=bool(unused)) if parts > 1 else "auto",
            max_epochs=run.epochs,
            check_val_every_n_epoch=run.validate_every,
            callbacks=[Bar(console), keeper],
            logger=TensorBoardLogger(folder, name=None, version="logs") if run.tensorboard else False,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            inference_mode=False,  # forces are derivatives
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        with signals_to(keeper):
            trainer.fit(learner, datamodule=FrameBatches(task), ckpt_path=checkpoint, weights_only=True)
        if not trainer.is_global_zero:
            return folder / "report.html"
        return _report(task, learner, folder, say)


def _report(task: Task, learner: Learner, folder: Path, say: object) -> Path:
    run, stress = task.settings.run, learner.stress
    model = load_model(folder / MODEL, task.settings.model.backend, device=learner.device)
    sets = {"validation": task.sets.validation, **task.sets.tests}
    found = {
        name: evaluate(model, graphs_of(part, model), batch_size=run.validation_batch, stress=stress)
        for name, part in sets.items()
    }
    return write_training_report(folder, Outcome(task.settings, task.found, model, learner.history.rows, found))


def is_first() -> bool:
    """Whether this is the first of all processes, as those who start them (torchrun, Lightning, Slurm) tell."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return int(next((os.environ[name] for name in names if name in os.environ), "0")) == 0


def _accelerator(run: RunSettings) -> str:
    if run.device == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device: got cuda; expected a GPU that torch sees; set it to cpu or auto")
    return "cuda" if run.device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's notes on what hardware there is, and its advice on things that are meant as they are, unsaid."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # what Lightning advises (loaders without workers, epochs of few steps) and what it does that torch advises
            # against is not for the user to change
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        logger.setLevel(before)
