"""The command line: arguments and printing; what a verb does stands in commands/, imported when the verb is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irrepc import __version__
from irrepc.errors import IrrepcError

BACKENDS = ("torch", "numba", "llvm", "cuda")
DEFAULT_LIMIT = 40_000


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
        except IrrepcError as error:
            raise Refusal(" ".join(str(error).split())) from error

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
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--compiled", is_flag=True, help="Run numba, llvm and, on a GPU, cuda modules: slow at first.")
def check(folder: Path | None, compiled: bool) -> None:
    """Make the packages in FOLDER (default: the shelf) again and compare; then test the emitted code itself.

    Exit status 1 when anything differs or fails.
    """
    from rich.console import Console

    from irrepc.commands.check import check as run

    if not run(folder, compiled, Console()):
        raise click.exceptions.Exit(1)


@main.command()
@click.option("--lmax", type=int, multiple=True, default=(2,), show_default=True, help="Degrees; may be repeated.")
@click.option("--edges", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--channels", type=click.IntRange(1), default=64, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads of every contender.  [all cores]")
@click.option("--repeats", type=click.IntRange(3), default=9, show_default=True, help="Rounds; medians are shown.")
def bench(lmax: tuple[int, ...], edges: int, channels: int, threads: int | None, repeats: int) -> None:
    """Time harmonics and convolution, their VJP and its VJP, against the roofline and the installed peers."""
    from rich.console import Console

    from irrepc.commands.bench import bench as run

    run(lmax, edges, channels, threads, repeats, Console())


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-report"), show_default=True)
@click.option("--quick", is_flag=True, help="Fewer steps: a look, not a result.")
def demo(out: Path, quick: bool) -> None:
    """Generate, prove, train on ethanol, run dynamics, and write a report into --out."""
    from irrepc.train.demo import run

    click.echo(run(out, quick))
