"""Modules: some named recipes -> the text of one Python file for one backend, orders 0, 1 and 2 of each kernel.

Pure: nothing is written here, and the same recipes give the same bytes in every process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from irrepc.algebra.recipe import Recipe
from irrepc.emit.costs import CostLine, Traffic, cost_lines, cost_table, traffic
from irrepc.emit.cuda_module import Launched, cuda_function, cuda_launches, cuda_table, cuda_text
from irrepc.emit.llvm_module import llvm_functions, llvm_texts
from irrepc.emit.numba_text import numba_function
from irrepc.emit.printer import Constants
from irrepc.emit.sources import NVRTC, travelling_text
from irrepc.emit.templates import render, template_hash
from irrepc.emit.torch_text import torch_function
from irrepc.emit.views import shape, spec, width
from irrepc.errors import BackendError
from irrepc.frontend.derive import derive
from irrepc.ir.block import Block, schedule, split, split_by_index
from irrepc.ir.kernel import Kernel
from irrepc.ir.passes import optimise
from irrepc.ir.text import kernel_hash
from irrepc.ir.vjp import vjp

BACKENDS = ("torch", "numba", "llvm", "cuda")
RULE = "─" * 100
ORDERS = 3
"""Forward, its VJP and the VJP of that: what force training needs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A function of a module and the recipe it computes."""

    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Module:
    """The text of a file and what is to be said about it: the hash of each entry's kernel, and its costs and traffic.

    companions  (suffix, text) of files that stand beside it under the same name
    shared      (name, text) of files that stand beside it and serve all modules of the folder
    """

    text: str
    companions: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...]
    hashes: tuple[str, ...]
    costs: tuple[CostLine, ...]
    traffic: tuple[Traffic, ...]


def check_backend(backend: str) -> str:
    """Return the name if it is a backend; raise BackendError naming those there are."""
    if backend not in BACKENDS:
        raise BackendError(f"backend: got {backend!r}; expected one of {', '.join(BACKENDS)}")
    return backend


@lru_cache(maxsize=256)
def kernels(entry: Entry) -> tuple[Kernel, ...]:
    """Forward, VJP and VJP of the VJP, named after the entry, before any pass."""
    orders = [replace(derive(entry.recipe), name=entry.name)]
    for _ in range(ORDERS - 1):
        orders.append(vjp(orders[-1]))
    return tuple(orders)


@lru_cache(maxsize=256)
def scheduled(entry: Entry) -> tuple[tuple[Block, ...], ...]:
    """For each order the scheduled parts as loops over rows want them, the same for every backend but cuda."""
    return tuple(tuple(schedule(optimise(part)) for part in split(kernel)) for kernel in kernels(entry))


@lru_cache(maxsize=256)
def scheduled_by_index(entry: Entry) -> tuple[tuple[Block, ...], ...]:
    """For each order the scheduled parts as very many threads want them, for cuda."""
    return tuple(tuple(schedule(optimise(part)) for part in split_by_index(kernel)) for kernel in kernels(entry))


def emit(title: str, entries: tuple[Entry, ...], backend: str, command: str) -> str:
    """The text of a module.

    title    its docstring, one sentence
    command  how a reader makes it again
    Raises BackendError for an unknown backend.
    """
    return compose(title, entries, backend, command).text


def compose(title: str, entries: tuple[Entry, ...], backend: str, command: str) -> Module:
    """The text of a module with its hashes and costs; arguments and errors as `emit`."""
    check_backend(backend)
    by_entry = {entry: kernels(entry) for entry in entries}
    everything = [k for ks in by_entry.values() for k in ks]
    cut = scheduled_by_index if backend == "cuda" else scheduled
    parts_of = [parts for entry in entries for parts in cut(entry)]
    launched: list[Launched] = []
    if backend == "torch":
        constants = Constants.of(block.kernel for parts in parts_of for block in parts)
        functions = [torch_function(k, b, constants) for k, b in zip(everything, parts_of, strict=True)]
        module_constants = constants.lines()
    elif backend == "cuda":
        launched = [cuda_launches(k, b) for k, b in zip(everything, parts_of, strict=True)]
        functions = [cuda_function(k, p) for k, p in zip(everything, launched, strict=True)]
        module_constants = ()
    else:
        write = numba_function if backend == "numba" else llvm_functions
        functions = [write(k, b) for k, b in zip(everything, parts_of, strict=True)]
        module_constants = ()
    launches = tuple(launch for of_kernel in launched for launch in of_kernel.launches)
    template = f"{backend}/module.py.jinja"
    costs = tuple(
        line
        for i, (kernel, parts) in enumerate(zip(everything, parts_of, strict=True))
        for line in cost_lines(kernel.name, i % ORDERS, parts)
    )
    hashes = tuple(kernel_hash(by_entry[entry][0]) for entry in entries)
    banner = _banner(by_entry, hashes, costs, template, command)
    text = render(
        template,
        banner=banner,
        title=title,
        indexed=any(k.indices for k in everything),
        constants=module_constants,
        exported=[f'"{f.name}"' for f in functions],
        spec=[f'"{entry.name}": {spec(by_entry[entry][0])},' for entry in entries],
        functions=functions,
        table=cuda_table(launches),
    )
    companions: dict[str, str] = {}
    if backend == "llvm":
        companions = llvm_texts(tuple(zip(functions, parts_of, strict=True)), banner)
    elif backend == "cuda":
        companions = {".cu": cuda_text(launches, banner)}
    moved = tuple(traffic(k, i % ORDERS) for i, k in enumerate(everything))
    shared = ((NVRTC, travelling_text(NVRTC)),) if backend == "cuda" else ()
    return Module(text, tuple(companions.items()), shared, hashes, costs, moved)


def _banner(
    by_entry: dict[Entry, tuple[Kernel, ...]],
    hashes: tuple[str, ...],
    costs: tuple[CostLine, ...],
    template: str,
    command: str,
) -> list[str]:
    """Where the file comes from, what it means and what it costs."""
    lines = [*head(command)]
    for (entry, orders), kernel in zip(by_entry.items(), hashes, strict=True):
        forward = orders[0]
        lines.append("")
        lines.append(f"{entry.name:12} {entry.recipe}")
        lines.append(f"  {forward.doc}" if forward.doc and forward.doc != str(entry.recipe) else "")
        operands = "; ".join(shape(o) for o in forward.inputs)
        outputs = "; ".join(f"{o.name} ({o.rows}, {width(o)})" for o in forward.outputs)
        lines.append(f"  {operands} -> {outputs}")
        lines.append(f"  kernel {kernel}")
    lines = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    lines += [
        "",
        "conventions  real basis, m = -l ... l, polar axis y (e3nn >= 0.5); w3j of unit norm;",
        "             rows of (component, channel), channels fast",
        f"source       irrepc/frontend, templates/{template} {template_hash(template)}",
    ]
    title, *rows = cost_table(costs)
    lines += [f"cost         {title}", *(" " * 13 + row for row in rows), RULE]
    return as_comment(lines)


def head(command: str) -> tuple[str, ...]:
    """How every banner begins."""
    return (RULE, "Generated by irrepc: do not edit; change the recipe, then run", f"  {command}")


def as_comment(lines: Iterable[str]) -> list[str]:
    """Lines of a Python comment."""
    return [f"# {line}".rstrip() for line in lines]
