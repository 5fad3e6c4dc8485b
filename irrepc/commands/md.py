"""Md: molecular dynamics of one structure, logged, saved, and continued from where it was saved as if never stopped."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from irrepc.commands.plots import plot_energies
from irrepc.commands.structures import calculator, check_folder, check_structures, read_structures
from irrepc.errors import InputError, require
from irrepc.runtime.model_file import file_digest, write_whole

COLUMNS = ("step", "time_ps", "temperature_K", "potential_eV", "kinetic_eV", "total_eV")
ENSEMBLES = ("nve", "nvt")


@dataclass(frozen=True, slots=True)
class Settings:
    """What defines a run, and is kept with it.

    model          file or name; sha256 of the file, none for a name
    ensemble       "nve" (velocity Verlet) or "nvt" (Langevin)
    timestep       fs
    temperature    K, of the first velocities and of the bath; none: velocities of the file, nve only
    friction       1/fs, of the bath
    seed           of the first velocities and of the bath
    every          steps between records of log and trajectory
    save_every     steps between saves
    """

    model: str
    dtype: str | None
    ensemble: str = "nve"
    timestep: float = 0.5
    temperature: float | None = None
    friction: float = 0.01
    seed: int = 0
    every: int = 10
    save_every: int = 500
    sha256: str | None = None

    def __post_init__(self) -> None:
        rules = (
            ("ensemble", self.ensemble in ENSEMBLES, " or ".join(ENSEMBLES)),
            ("timestep", 0 < self.timestep < 100, "a number in (0, 100) (fs)"),
            ("temperature", self.temperature is None or 0 <= self.temperature < 1e6, "a number >= 0 (K)"),
            ("friction", 0 <= self.friction < np.inf, "a number >= 0 (1/fs)"),
            ("every", self.every >= 1, "an integer >= 1"),
            ("save_every", self.save_every >= 1, "an integer >= 1"),
        )
        for name, kept, expected in rules:
            if not kept:
                raise InputError(f"md: got {name} = {getattr(self, name)!r}; expected {expected}")
        if self.ensemble == "nvt" and self.temperature is None:
            raise InputError("md: got nvt without a temperature; expected that of the bath; do: --temperature 300")


@dataclass(frozen=True, slots=True)
class Files:
    """Where a run lives: its name with .extxyz, .csv, .restart.npz and .png."""

    trajectory: Path
    log: Path
    restart: Path
    plot: Path

    @classmethod
    def of(cls, name: Path) -> Files:
        """The files of a run; raises InputError where their folder is not there."""
        check_folder(name)
        return cls(*(name.with_name(name.name + end) for end in (".extxyz", ".csv", ".restart.npz", ".png")))


def start(source: Path, out: Path, settings: Settings, steps: int, console: Console) -> float:
    """Run the first structure of a file for `steps` steps; return the drift of its total energy, eV per atom and ps.

    Raises InputError before the first step where the structure, a file or a setting is not what it should be.
    """
    files = Files.of(out)
    for path in (files.restart, files.log, files.trajectory):
        if path.exists():
            raise InputError(
                f"md: got {path}, which is there already; expected a new run; do: -o ANOTHER, or --restart"
            )
    atoms = read_structures(source, "0")[0]
    if atoms.constraints:
        raise InputError(f"md: got {source} with constraints, which a saved run does not keep; expected none")
    if Path(settings.model).is_file():
        settings = replace(settings, sha256=file_digest(settings.model))
    calc = calculator(settings.model, settings.dtype)
    check_structures([atoms], calc.evaluator, source)
    atoms.calc = calc
    generator = np.random.default_rng(settings.seed)
    if settings.temperature is not None:
        _warm(atoms, settings.temperature, generator)
    files.log.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    files.trajectory.touch()
    return _run(atoms, settings, files, generator, 0, steps, console)


def resume(restart: Path, steps: int, console: Console) -> float:
    """Go on with a saved run up to `steps` steps in all: the same numbers as without the stop.

    Raises InputError for a file that is none, a model that has changed, and a run that is done.
    """
    if not restart.name.endswith(".restart.npz"):
        raise InputError(f"--restart: got {restart}; expected the file NAME.restart.npz of a run")
    files = Files.of(restart.with_name(restart.name.removesuffix(".restart.npz")))
    atoms, settings, generator, done, sizes = _load(restart)
    if settings.sha256 is not None and (
        not Path(settings.model).is_file() or file_digest(settings.model) != settings.sha256
    ):
        raise InputError(
            f"--restart: got a run of {settings.model}, which is not there or has changed since; expected the file of "
            f"sha256 {settings.sha256}; put it back, or start a new run"
        )
    if done >= steps:
        raise InputError(
            f"--restart: got {steps} steps of a run that has {done}; expected more; do: --steps {2 * done}"
        )
    for path, size in zip((files.log, files.trajectory), sizes, strict=True):
        if not path.is_file() or path.stat().st_size < size:
            raise InputError(f"--restart: got {path} shorter than when the run was saved; expected it as it was left")
        with open(path, "r+b") as file:  # what was written after the save is computed again
            file.truncate(size)
    atoms.calc = calculator(settings.model, settings.dtype)
    return _run(atoms, settings, files, generator, done, steps, console)


def _warm(atoms: Any, kelvin: float, generator: np.random.Generator) -> None:
    """Velocities of Maxwell and Boltzmann; the whole neither moves nor, where nothing is periodic, turns."""
    boltzmann, units = require("ase.md.velocitydistribution", "ase"), require("ase.units", "ase")
    spread = np.sqrt(units.kB * kelvin * atoms.get_masses())[:, None]
    atoms.set_momenta(generator.normal(size=atoms.positions.shape) * spread)
    boltzmann.Stationary(atoms, preserve_temperature=False)
    if not atoms.pbc.any():
        boltzmann.ZeroRotation(atoms, preserve_temperature=False)


def _run(
    atoms: Any,
    settings: Settings,
    files: Files,
    generator: np.random.Generator,
    done: int,
    steps: int,
    console: Console,
) -> float:
    """Steps done + 1 ... steps; return the drift."""
    write = require("ase.io", "ase").write
    dynamics = _dynamics(atoms, settings, generator)
    dynamics.nsteps = done
    columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
    with (
        open(files.log, "a", encoding="utf-8") as log,
        open(files.trajectory, "a", encoding="utf-8") as trajectory,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("md", total=steps, completed=done)

        def record() -> None:
            potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
            time, kelvin = dynamics.nsteps * settings.timestep * 1e-3, float(atoms.get_temperature())
            numbers = (time, kelvin, potential, kinetic, potential + kinetic)
            log.write(",".join((str(dynamics.nsteps), *(repr(number) for number in numbers))) + "\n")
            write(trajectory, atoms, format="extxyz", write_results=True)
            bar.update(task, completed=dynamics.nsteps, description=f"{kelvin:6.0f} K {potential + kinetic:.6f} eV")

        def save() -> None:
            log.flush()
            trajectory.flush()
            sizes = (files.log.stat().st_size, files.trajectory.stat().st_size)
            _save(files.restart, atoms, settings, generator, dynamics.nsteps, sizes)

        _drive(dynamics, settings, steps, record, save)
    return _conclude(files, len(atoms), console)


def _drive(dynamics: Any, settings: Settings, steps: int, record: Callable[[], None], save: Callable[[], None]) -> None:
    """Take the steps, with records and saves at their multiples and a save at the end."""
    if dynamics.nsteps == 0:
        record()
    while dynamics.nsteps < steps:
        ahead = [n - dynamics.nsteps % n for n in (settings.every, settings.save_every)]
        dynamics.run(min(*ahead, steps - dynamics.nsteps))
        if dynamics.nsteps % settings.every == 0:
            record()
        if dynamics.nsteps % settings.save_every == 0 or dynamics.nsteps == steps:
            save()


def _dynamics(atoms: Any, settings: Settings, generator: np.random.Generator) -> Any:
    units = require("ase.units", "ase")
    timestep = settings.timestep * units.fs
    if settings.ensemble == "nve":
        return require("ase.md.verlet", "ase").VelocityVerlet(atoms, timestep)
    langevin = require("ase.md.langevin", "ase").Langevin
    friction = settings.friction / units.fs
    return langevin(atoms, timestep, temperature_K=settings.temperature, friction=friction, fixcm=False, rng=generator)


def _save(
    path: Path, atoms: Any, settings: Settings, generator: np.random.Generator, step: int, sizes: tuple[int, int]
) -> None:
    words = {"settings": asdict(settings), "generator": generator.bit_generator.state, "step": step, "sizes": sizes}
    made = io.BytesIO()
    own = {"masses": atoms.get_masses()} if atoms.has("masses") else {}
    np.savez(
        made,
        **own,
        words=np.array(json.dumps(words)),
        numbers=atoms.numbers,
        positions=atoms.positions,
        momenta=atoms.get_momenta(),
        cell=np.asarray(atoms.cell),
        pbc=atoms.pbc,
    )
    write_whole(path, made.getvalue())


def _load(path: Path) -> tuple[Any, Settings, np.random.Generator, int, tuple[int, int]]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        words = json.loads(str(arrays["words"]))
        settings, generator = Settings(**words["settings"]), np.random.default_rng()
        generator.bit_generator.state = words["generator"]
        names = ("numbers", "positions", "momenta", "masses", "cell", "pbc")
        atoms = require("ase", "ase").Atoms(**{name: arrays[name] for name in names if name in arrays})
        step, sizes = int(words["step"]), words["sizes"]
        return atoms, settings, generator, step, (int(sizes[0]), int(sizes[1]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"--restart: got {path}, which is no saved run ({type(error).__name__}: {error}); expected NAME.restart.npz"
        ) from error


def _conclude(files: Files, atoms: int, console: Console) -> float:
    """Print what the run was, plot it, and return its drift, eV per atom and ps."""
    rows = np.loadtxt(files.log, delimiter=",", skiprows=1, ndmin=2)
    time, kelvin, total = rows[:, 1], rows[:, 2], rows[:, 5] / atoms
    drift = float(np.polyfit(time, total, 1)[0]) if len(rows) > 2 else 0.0
    console.out(
        f"{int(rows[-1, 0])} steps, {time[-1]:.3f} ps, {kelvin.mean():.0f} K on average; total energy moves by "
        f"{drift:.2e} eV per atom and ps, {np.ptp(total):.2e} eV per atom from end to end",
        highlight=False,
    )
    plot_energies(files.plot, time, total, kelvin, drift)
    console.out(f"  {files.trajectory}, {files.log}, {files.plot}, {files.restart}", highlight=False)
    return drift
