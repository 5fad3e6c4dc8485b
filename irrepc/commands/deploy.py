"""What `irrepc deploy` does: a saved network becomes a deployed one, and its errors are printed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from irrepc.deploy.compile import deploy as compiled
from irrepc.deploy.file import write_program
from irrepc.deploy.program import Program
from irrepc.models.checkpoint import load_model


def deploy(source: Path, target: Path, accuracy: float, dtype: str, closest: float, console: Console) -> Program:
    """Compile the network of a file of save_model, write it to `target`, print what is stated of it.

    Raises FileNotFoundError, or InputError for a file that holds no network, a network that cannot be deployed, and an
    accuracy that cannot be had.
    """
    model = load_model(source)
    program = compiled(model, accuracy=accuracy, dtype=dtype, closest=closest)
    write_program(target, program)
    table = Table(title=f"{target}: {program.metadata['network']}, {dtype}", show_header=False)
    for name, value in program.metadata.items():
        table.add_row(name.replace("_", " "), f"{value:.2e}" if isinstance(value, float) else str(value))
    table.add_row("size", f"{target.stat().st_size / 1e6:.1f} MB")
    console.print(table)
    return program
