"""The main job: kernels generated and proved, a network trained on quantum-chemistry labels, dynamics, and a report."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from irrepc.emit.module import Module
from irrepc.emit.package import Key, assemble, jobs
from irrepc.emit.plan import plan
from irrepc.errors import require
from irrepc.frontend.proofs import proofs
from irrepc.models.checkpoint import save_model
from irrepc.models.nequip import NequIP
from irrepc.train.configure import configure
from irrepc.train.data import Frames, ethanol, force_statistics, split
from irrepc.train.dynamics import Trajectory, run_nve
from irrepc.train.evaluate import evaluate
from irrepc.train.findings import Findings, summary
from irrepc.train.fit import Epoch, History, fit, warm_up
from irrepc.train.folder import whole_folder
from irrepc.train.report import MARKER, write_report
from irrepc.train.symmetry import RotationError, rotation_error
from irrepc.train.walk import Walk

_PACKAGES = ("numpy", "torch", "numba", "sympy", "ase", "vesin", "matplotlib")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the demonstration chooses; FULL is what is shown, QUICK takes the same walk for a test."""

    lmax: int  # of the emitted package
    backend: str  # of the trained network
    network: dict[str, Any]  # fields of NequIPConfig
    frames: tuple[int, int]  # for training and for validation
    tests: int  # frames of each test group
    epochs: int | None  # of training; None for as many as there is time for
    seconds: float  # for training
    finished: float  # seconds after the start by which training ends, should earlier steps have been slow
    batch_size: int
    learning_rate: float
    energy_weight: float
    averaging: float
    steps: int  # of dynamics, 0.5 fs each


FULL = Settings(
    lmax=4,
    backend="llvm",
    network={"cutoff": 4.5, "layers": 3, "lmax": 2, "parity": False, "features": (32, 32, 32), "embedding": 32}
    | {"radial_depth": 1, "radial_width": 32},
    frames=(550, 50),
    tests=100,
    epochs=None,
    seconds=150.0,
    finished=200.0,
    batch_size=10,
    learning_rate=0.06,
    energy_weight=10.0,
    averaging=0.997,
    steps=4000,
)
QUICK = Settings(
    lmax=1,
    backend="torch",
    network={"cutoff": 3.5, "layers": 2, "lmax": 1, "parity": False, "features": (4, 4), "embedding": 4}
    | {"radial_depth": 1, "radial_width": 8},
    frames=(30, 10),
    tests=10,
    epochs=6,
    seconds=15.0,
    finished=60.0,
    batch_size=5,
    learning_rate=0.02,
    energy_weight=10.0,
    averaging=0.9,
    steps=40,
)


def run(out: Path, quick: bool = False, *, seed: int = 0) -> Path:
    """Take the whole walk, write everything into the folder `out`, and return the path of its report.html.

    quick: the same walk with a tiny network and few frames, in seconds. `out` appears whole at the end or stays as it
    was; Ctrl-C during the training ends the training alone, and the walk goes on with the weights so far.
    Raises IrrepcError where `out` holds something that is not an older report, MissingExtraError where a package of
    irrepc[train] is missing.
    """
    for package, extra in (("ase", "ase"), ("vesin", "ase"), ("matplotlib", "plot")):
        require(package, extra)  # now, and not after minutes of work
    walk = Walk(Console(highlight=False))
    with whole_folder(Path(out), MARKER) as folder, _one_thread():
        findings = _findings(folder, QUICK if quick else FULL, seed, walk)
        with walk.step("report"):
            write_report(folder, findings)
    walk.console.print()
    for what, number in summary(findings):
        walk.console.print(f"  {what:32} {number}", soft_wrap=True)
    return Path(out) / "report.html"


def _findings(folder: Path, settings: Settings, seed: int, walk: Walk) -> Findings:
    manifest, files = _generate(folder, settings.lmax, walk)
    train, validation = split(ethanol("train"), settings.frames, seed)
    tests = {name: ethanol(name).select(range(settings.tests)) for name in ("test_300K", "test_500K")}
    config = configure(train, **settings.network)
    model = NequIP(config, settings.backend, seed=seed)
    with walk.step("compile the kernels") as move:
        move(0.0, f"backend {settings.backend}, three orders of each kernel")
        warm_up(model, train)
    few = train.select(range(min(10, len(train))))
    before = _rotations(model, few, seed, walk, "before training")
    history, budget = _train(model, train, validation, settings, seed, walk)
    save_model(model, folder / "model.pt")
    with walk.step("test trajectories"):
        evaluations = {name: evaluate(model, frames) for name, frames in tests.items()}
    after = _rotations(model, few, seed, walk, "after training")
    run = _dynamics(model, tests["test_300K"], settings.steps, seed, walk)
    return Findings(
        package=f"lmax{settings.lmax}",
        manifest=manifest,
        files=files,
        config=config,
        parameters=sum(weight.numel() for weight in model.parameters()),
        training={
            "frames": f"{settings.frames[0]} for training, {settings.frames[1]} held out of the same trajectories",
            "optimizer": f"Adam, learning rate up to {settings.learning_rate}, batches of {settings.batch_size}",
            "running average of the weights": f"{settings.averaging} kept at each step",
            "weight of the energy in the loss": f"{settings.energy_weight} (forces 1)",
            "budget": f"{budget:.0f} s on one thread" + (f", {settings.epochs} epochs" if settings.epochs else ""),
            "backend": f"{settings.backend}, float32",
        },
        history=history,
        provenance=train.provenance,
        spread={name: force_statistics(frames) for name, frames in {"train": train, **tests}.items()},
        evaluations=evaluations,
        rotations=(*before, *after),
        dynamics=run,
        seconds=walk.seconds,
        versions=_versions(),
        seed=seed,
    )


def _generate(folder: Path, lmax: int, walk: Walk) -> tuple[dict[str, Any], dict[str, int]]:
    """Prove and emit a package into the folder; its manifest, and the bytes of its files."""
    with walk.step("prove and generate") as move:
        planned = plan(lmax)
        proved = []
        for proof in proofs(lmax):
            proved.append(proof())
            move(0.0, f"proved: {proved[-1].name}")
        modules: dict[Key, Module] = {}
        every = jobs(planned)
        done, whole = 0, sum(job.part.terms for job in every)
        for job in every:
            move(done / whole, job.part.name)
            modules |= job.run()
            done += job.part.terms
        texts = assemble(planned, modules, proved)
        for name, text in texts.items():
            path = folder / planned.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        checked = sum(proof.checked for proof in proved)
        move(1.0, f"{planned.name}: {len(texts)} files, {len(proved)} proofs of {checked:,} identities")
    return json.loads(texts["manifest.json"]), {name: len(text.encode()) for name, text in texts.items()}


def _train(
    model: NequIP, train: Frames, validation: Frames, settings: Settings, seed: int, walk: Walk
) -> tuple[History, float]:
    """Train; the history, and the seconds that there were for it."""
    left = settings.finished - (time.perf_counter() - walk.start)
    budget = min(settings.seconds, max(left, settings.seconds / 3))
    with walk.step("train") as move:

        def progress(part: float, epoch: Epoch | None) -> None:
            move(part, _said(epoch))

        history = fit(
            model,
            train,
            validation,
            epochs=settings.epochs,
            seconds=budget,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            energy_weight=settings.energy_weight,
            averaging=settings.averaging,
            seed=seed,
            progress=progress,
        )
    if history.stopped == "interrupt":
        walk.console.print("training ended by hand; going on with the weights so far (Ctrl-C again leaves)")
    return history, budget


def _said(epoch: Epoch | None) -> str:
    if epoch is None:
        return "first epoch"
    errors = epoch.validation
    return f"epoch {epoch.number}  F {errors.force_mae:.1f} meV/Å  E {errors.energy_mae:.2f} meV/atom"


def _rotations(
    model: NequIP, frames: Frames, seed: int, walk: Walk, when: str
) -> tuple[tuple[str, RotationError], tuple[str, RotationError]]:
    """The rotation error in float32, and in float64 by the torch text of the same kernels, which needs no compiling."""
    with walk.step(f"rotations, {when}") as move:
        single = rotation_error(model, frames, seed=seed)
        wide = NequIP(model.config, "torch", dtype=torch.float64)
        wide.load_state_dict(model.state_dict())
        double = rotation_error(wide, frames, seed=seed)
        move(1.0, f"forces {single.forces:.1e} eV/Å in float32, {double.forces:.1e} in float64")
    return (when, single), (when, double)


def _dynamics(model: NequIP, frames: Frames, steps: int, seed: int, walk: Walk) -> Trajectory:
    with walk.step("dynamics, 300 K") as move:
        run = run_nve(model, frames[0], steps=steps, seed=seed, progress=lambda step: move(step / steps, ""))
        move(1.0, f"{run.time[-1]:.2f} ps, drift {run.drift:+.3f} meV per atom and ps")
    return run


def _versions() -> dict[str, str]:
    from irrepc import __version__

    found = {"irrepc": __version__, "python": platform.python_version()}
    found |= {name: version(name) for name in _PACKAGES}
    return found | {"processor": f"{platform.machine()}, {os.cpu_count()} cores"}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Batches of small molecules are too little work to be shared out: a second thread makes a step slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
