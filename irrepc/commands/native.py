"""What `irrepc deploy --shared-library` and `irrepc lammps` do: libraries of C are built, and their use is printed."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from rich.console import Console

from irrepc.deploy.lammps_plugin import build_plugin, input_lines, installed_lammps, run_command
from irrepc.deploy.native import write_library
from irrepc.deploy.program import Program


def write_shared_library(program: Program, target: Path, cpu: str, console: Console) -> None:
    """Write a program as a shared library and print where it is.

    Raises BackendError as `irrepc.deploy.native.write_library`.
    """
    library, header = write_library(program, target, cpu=cpu)
    console.out(f"{library}  {library.stat().st_size / 1e6:.1f} MB, built for {cpu}", highlight=False)
    console.out(f"{header}  its C interface", highlight=False)


def write_plugin(folder: Path, console: Console) -> None:
    """Build the LAMMPS plugin into a folder and print what an input needs.

    Raises BackendError as `irrepc.deploy.lammps_plugin.build_plugin`.
    """
    plugin = build_plugin(folder)
    console.out(f"{plugin}  for LAMMPS {installed_lammps().version}", highlight=False)
    console.out("\nIn the input, with the elements of the atom types in their order:\n", highlight=False)
    for line in input_lines(Path("MODEL.so"), plugin, ("O", "H")):
        console.out(f"    {line}", highlight=False)
    console.out("\nOn two processes:\n", highlight=False)
    started = " ".join(run_command(2))
    console.out(f"    LD_LIBRARY_PATH={sysconfig.get_path('data')}/lib {started} -in INPUT", highlight=False)
