"""The verbs that take structures of atoms: eval, relax and md; cli.py adds them to the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--model and --dtype."""
    dtype = click.option(
        "--dtype", type=click.Choice(("float32", "float64")), help="Of the arithmetic.  [that of the model]"
    )
    model = click.option(
        "--model", required=True, help="A file of irrepc, a deployed network, or what `irrepc convert` reads."
    )
    return model(dtype(command))


@click.command(name="eval")
@click.argument("structures", type=FILE)
@model_options
@click.option("-o", "--out", type=FILE, help="Write structures with energies, forces and stress.")
@click.option("--plot", type=FILE, help="Write a parity plot (PNG).")
@click.option("--labels", "prefix", default="", help='Prefix of the labels in the file, such as "REF_".')
def eval_(structures: Path, model: str, dtype: str | None, out: Path | None, plot: Path | None, prefix: str) -> None:
    """Energies, forces and stress of STRUCTURES, and errors where the file holds labels."""
    from rich.console import Console

    from irrepc.commands.eval import evaluate

    evaluate(structures, model, out, plot, dtype, prefix, Console(highlight=False))


@click.command()
@click.argument("structures", type=FILE)
@model_options
@click.option("-o", "--out", type=FILE, required=True, help="Write the relaxed structures.")
@click.option("--fmax", default=0.01, show_default=True, help="Largest force that is left, eV/Å.")
@click.option("--steps", type=click.IntRange(1), default=500, show_default=True)
@click.option("--optimizer", type=click.Choice(("fire", "lbfgs")), default="fire", show_default=True)
@click.option("--cell", is_flag=True, help="Relax the cell too.")
@click.option("--trajectory", type=FILE, help="Write every step (extended XYZ).")
def relax(
    structures: Path,
    model: str,
    dtype: str | None,
    out: Path,
    fmax: float,
    steps: int,
    optimizer: str,
    cell: bool,
    trajectory: Path | None,
) -> None:
    """Relax each of STRUCTURES.  Exit status 1 when one has not converged."""
    from rich.console import Console

    from irrepc.commands.relax import relax as run

    if not run(
        structures,
        out,
        model,
        fmax=fmax,
        steps=steps,
        optimizer=optimizer,
        cell=cell,
        trajectory=trajectory,
        dtype=dtype,
        console=Console(),
    ):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("structure", type=FILE, required=False)
@click.option("--model", help="A file of irrepc, a deployed network, or what `irrepc convert` reads.")
@click.option("--dtype", type=click.Choice(("float32", "float64")), help="Of the arithmetic.  [that of the model]")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Name of the run: .extxyz, .csv, .png, .restart.npz."
)
@click.option("--steps", type=click.IntRange(1), default=1000, show_default=True, help="In all, those before included.")
@click.option("--ensemble", type=click.Choice(("nve", "nvt")), default="nve", show_default=True)
@click.option("--timestep", default=0.5, show_default=True, help="fs")
@click.option("--temperature", type=float, help="K; draws velocities.  [nve: those of the file]")
@click.option("--friction", default=0.01, show_default=True, help="Of the Langevin bath (nvt), 1/fs.")
@click.option("--seed", default=0, show_default=True)
@click.option("--every", type=click.IntRange(1), default=10, show_default=True, help="Steps between records.")
@click.option("--save-every", type=click.IntRange(1), default=500, show_default=True, help="Steps between saves.")
@click.option("--restart", type=FILE, help="Go on with a saved run, with its own settings.")
def md(
    structure: Path | None,
    model: str | None,
    dtype: str | None,
    out: Path | None,
    steps: int,
    ensemble: str,
    timestep: float,
    temperature: float | None,
    friction: float,
    seed: int,
    every: int,
    save_every: int,
    restart: Path | None,
) -> None:
    """Molecular dynamics of STRUCTURE at constant energy (nve) or temperature (nvt).

    A run that was stopped goes on from its last save: irrepc md --restart NAME.restart.npz --steps 20000
    """
    from rich.console import Console

    from irrepc.commands.md import Settings, resume, start

    console = Console(highlight=False)
    if restart is not None:
        if structure is not None or model is not None or out is not None:
            raise click.UsageError("expected --restart with --steps alone; the run has its own settings")
        resume(restart, steps, console)
        return
    if structure is None or model is None or out is None:
        raise click.UsageError("expected STRUCTURE, --model and --out, or --restart")
    settings = Settings(model, dtype, ensemble, timestep, temperature, friction, seed, every, save_every)
    start(structure, out, settings, steps, console)
