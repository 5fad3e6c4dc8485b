"""List: what lies on the shelf and in the cache, with the cost of each kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from irrepc.emit.manifest import NAME
from irrepc.emit.report import per_channel
from irrepc.emit.sources import source_digest
from irrepc.ir.kernel import Axes
from irrepc.runtime.store import cache_folder, shelf_folder

# A line of a banner's cost table: function (outputs), loop, mul, add, load, store.
_COST = re.compile(r"# {6,}(\w+) \(([\w, ]+)\) +per row(?: and ((?:\w+, )*\w+))? +(\d+) +(\d+) +(\d+) +(\d+)")


@dataclass(frozen=True, slots=True)
class Held:
    """One function, or one module of many; mul and add of the forward function for each row."""

    name: str
    backend: str
    mul: str
    add: str


def list_kernels(console: Console) -> None:
    """Print two tables: the shelf's packages, then the cache of today's sources."""
    shelf = shelf_folder()
    console.out(f"shelf  {shelf or 'none: no folder generated/'}", highlight=False)
    if shelf is not None:
        for manifest in sorted(shelf.glob(f"*/{NAME}")):
            content = json.loads(manifest.read_text(encoding="utf-8"))
            stale = "" if content["source"] == source_digest() else ", of other sources: not used"
            count = len(content["sha256"]) if (manifest.parent / "__init__.py").exists() else 0
            held = f"{count} files" if count else "hashes only"
            console.out(f"\n{manifest.parent.name}  {content['command']}  ({held}{stale})", highlight=False)
            console.print(_table(_of_manifest(content)))
    folder = cache_folder() / source_digest()
    console.out(f"cache  {folder}", highlight=False)
    console.print(_table(_of_cache(folder)))


def _table(held: Iterator[Held]) -> Table:
    table = Table("function", "backend", "mul", "add", box=box.SIMPLE, pad_edge=False)
    for row in held:
        table.add_row(escape(row.name), row.backend, row.mul, row.add)
    return table


def _of_manifest(content: dict[str, Any]) -> Iterator[Held]:
    """One line for each function, or for each file that holds more than two."""
    by_file: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kernel in content["kernels"]:
        for backend, path in kernel["files"].items():
            by_file.setdefault((backend, path), []).append(kernel)
    for (backend, path), kernels in by_file.items():
        if len(kernels) > 2:
            yield Held(f"{path}: {len(kernels)} functions and their derivatives", backend, "", "")
            continue
        for kernel in kernels:
            # columns: function, order, outputs, channel axes, mul, add, load, store
            lines = [line for line in kernel["cost"][backend] if line[1] == 0]
            axes = [_axes(line[3]) for line in lines]
            yield _held(kernel["function"], backend, axes, [line[4] for line in lines], [line[5] for line in lines])


def _of_cache(folder: Path) -> Iterator[Held]:
    """One line for each module, read off its banner."""
    for file in sorted(folder.glob("*/*.py")):
        banner = file.read_text(encoding="utf-8").split('\n"""', 1)[0].split("\n")
        costs = [match for line in banner if (match := _COST.match(line))]
        forward = [match for match in costs if match[1] == costs[0][1]]
        # the line after the command and a blank one: the function and its recipe
        recipe = next((line for line in banner[4:] if "(" in line), "").removeprefix("# ").partition(" ")[2].strip()
        axes = [_axes(match[3] or "") for match in forward]
        mul, add = [int(match[4]) for match in forward], [int(match[5]) for match in forward]
        yield _held(recipe, file.parent.name, axes, mul, add)


def _axes(text: str) -> Axes:
    return tuple(text.split(", ")) if text else ()


def _held(name: str, backend: str, axes: list[Axes], mul: list[int], add: list[int]) -> Held:
    return Held(name, backend, per_channel(zip(axes, mul, strict=True)), per_channel(zip(axes, add, strict=True)))
