"""Produce: the files of a package with progress, large ones in several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from irrepc.emit.module import Module
from irrepc.emit.package import Job, Key, assemble, jobs
from irrepc.emit.plan import Plan
from irrepc.frontend.proof import Proof
from irrepc.frontend.proofs import proofs

PARALLEL = 10_000
"""Terms of all modules together from which other processes pay: each takes 0.2 s to begin."""

Advance = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Product:
    """A package as text, and what it was made of."""

    planned: Plan
    files: dict[str, str]
    modules: dict[Key, Module]
    proofs: tuple[Proof, ...]


def produce(planned: Plan, console: Console) -> Product:
    """Prove, compose and assemble a package.

    Raises ProofError when a derivation is wrong.
    """
    statements = proofs(planned.lmax)
    todo = jobs(planned)
    with _progress(console, planned.name, len(statements) + len(todo)) as advance:
        proved = []
        for prove_one in statements:
            proved.append(prove_one())
            advance(f"proved {proved[-1].name}")
        modules = compose_all(todo, advance)
    return Product(planned, assemble(planned, modules, proved), modules, tuple(proved))


def compose_all(todo: tuple[Job, ...], advance: Advance) -> dict[Key, Module]:
    """Run the jobs, in processes of their own when that is quicker; the result does not depend on it."""
    workers = min(len(os.sched_getaffinity(0)), len(todo))
    modules: dict[Key, Module] = {}
    if workers < 2 or sum(job.part.terms for job in todo) < PARALLEL:
        for job in todo:
            modules |= job.run()
            advance(f"emitted {job.part.name}")
        return modules
    # A fresh process and no fork: this one may run threads (torch, the progress bar).  Derivations make no cycles, and
    # looking for some costs a fifth of the time.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=gc.disable) as pool:
        running = {pool.submit(job.run): job for job in todo}
        for future in as_completed(running):
            modules |= future.result()
            advance(f"emitted {running[future].part.name}")
    return modules


@contextmanager
def _progress(console: Console, name: str, total: int) -> Iterator[Advance]:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.fields[name]}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, name=name)
        yield lambda what: bar.update(task, advance=1, description=what)
