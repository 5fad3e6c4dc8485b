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
from rich.table import Table

from irrepc.emit.manifest import NAME
from irrepc.emit.report import per_channel
from irrepc.emit.sources import source_digest
from irrepc.runtime.store import cache_folder, shelf_folder

# A line of a banner's cost table: function (outputs), loop, mul, add, load, store.
_COST = re.compile(r"# {6,}(\w+) \(([\w, ]+)\) +per row(?: and ((?:\w+, )*\w+))? +(\d+) +(\d+) +(\d+) +(\d+)")


@dataclass(frozen=True, slots=True)
class Held:
    """One function in one place."""

    place: str
    function: str
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
    table = Table("recipe or function", "backend", "mul", "add", box=box.SIMPLE, pad_edge=False)
    for row in held:
        table.add_row(row.function, row.backend, row.mul, row.add)
    return table


def _of_manifest(content: dict[str, Any]) -> Iterator[Held]:
    """One line for each kernel: its forward cost."""
    for kernel in content["kernels"]:
        for backend, path in kernel["files"].items():
            forward = [(tuple(axes.split(", ")) if axes else (), mul, add) for f, o, _, axes, mul, add, *_ in kernel["cost"][backend] if o == 0 and f == kernel["function"]]
            yield Held(
                path,
                kernel["function"],
                backend,
                per_channel((axes, mul) for axes, mul, _ in forward),
                per_channel((axes, add) for axes, _, add in forward),
            )


def _of_cache(folder: Path) -> Iterator[Held]:
    """One line for each module, read off its banner."""
    for file in sorted(folder.glob("*/*.py")):
        banner = file.read_text(encoding="utf-8").split('\n"""', 1)[0]
        costs = [m for line in banner.split("\n") if (m := _COST.match(line))]
        forward = [m for m in costs if m[1] == costs[0][1]]
        axes = [tuple(m[3].split(", ")) if m[3] else () for m in forward]
        recipe = next((line for line in banner.split("\n")[4:] if "(" in line), "").removeprefix("# ")
        yield Held(
            file.name,
            recipe.partition(" ")[2].strip(),
            file.parent.name,
            per_channel(zip(axes, (int(m[4]) for m in forward), strict=True)),
            per_channel(zip(axes, (int(m[5]) for m in forward), strict=True)),
        )
