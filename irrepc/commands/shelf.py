"""Shelf: the committed packages, named in recipes.toml, as files; the larger ones as a manifest of hashes only."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from irrepc.commands.generate import show_omitted, show_proofs
from irrepc.commands.produce import Product, produce
from irrepc.commands.write import write_package
from irrepc.emit.manifest import NAME
from irrepc.emit.plan import DEFAULT_BACKENDS, LIMIT, Plan, plan
from irrepc.emit.templates import render
from irrepc.errors import RecipeError
from irrepc.runtime.store import shelf_folder, write_atomically

RECIPES = "recipes.toml"
INDEX = "README.md"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One package of the shelf; whole is False when only its manifest is kept."""

    planned: Plan
    whole: bool

    @property
    def name(self) -> str:
        """Its folder."""
        return self.planned.name


def read_bundles(shelf: Path) -> tuple[Bundle, ...]:
    """What recipes.toml asks for, in its order.

    Raises RecipeError when the file is missing or says something else than a degree, irreps, backends, limit, whole.
    """
    file = shelf / RECIPES
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"shelf: got {error}; expected {file} with a table for each package") from error
    return tuple(_bundle(name, values) for name, values in content.items())


def shelf_files(bundle: Bundle, product: Product) -> dict[str, str]:
    """The files of a bundle that are committed."""
    return product.files if bundle.whole else {NAME: product.files[NAME]}


def index_text(bundles: tuple[Bundle, ...], sizes: dict[str, dict[str, int]]) -> str:
    """The text of README.md; sizes are the characters of every emitted file of each bundle."""
    rows = []
    for bundle in bundles:
        planned, files = bundle.planned, sizes[bundle.name]
        functions = sum(3 * len(part.entries) for part in planned.parts)
        text = f"{sum(files.values()) / 1e6:.1f} MB in {len(files)} files"
        kept = "in full" if bundle.whole else "hashes only"
        rows.append((f"[{bundle.name}]({bundle.name})", f"`{planned.command}`", str(functions), text, kept))
    return render("package/shelf.md.jinja", rows=rows)


def write_shelf(console: Console) -> Path:
    """Write every package of the shelf anew and its index; return the shelf's folder.

    Raises RecipeError when there is no shelf, OutputError when it cannot be written.
    """
    shelf = shelf_folder()
    if shelf is None:
        raise RecipeError("shelf: got no folder generated/; expected a checkout of irrepc with one; do: run it there")
    bundles = read_bundles(shelf)
    sizes = {}
    for bundle in bundles:
        product = produce(bundle.planned, console)
        sizes[bundle.name] = {path: len(text.encode()) for path, text in product.files.items()}
        write_package(shelf_files(bundle, product), shelf / bundle.name, console.out)
        show_proofs(product, console)
        show_omitted(bundle.planned, console)
        console.out(f"{shelf / bundle.name}: {'in full' if bundle.whole else 'hashes only'}", highlight=False)
    write_atomically(shelf / INDEX, index_text(bundles, sizes))
    return shelf


def _bundle(name: str, values: object) -> Bundle:
    usual = {"irreps": None, "backends": list(DEFAULT_BACKENDS), "limit": LIMIT, "whole": True}
    match {**usual, **values} if isinstance(values, dict) else {}:
        case {
            "lmax": int(lmax),
            "irreps": None | str() as irreps,
            "backends": list(backends),
            "limit": int(limit),
            "whole": bool(whole),
            **others,
        } if not others and name == f"lmax{lmax}":
            planned = plan(lmax, irreps=irreps, backends=tuple(map(str, backends)), limit=limit)
            return Bundle(planned, whole)
    raise RecipeError(
        f"shelf: got [{name}] with {values}; expected a table called lmax<L> with lmax and, where wanted, irreps "
        "(text), backends (list), limit (number) and whole (true or false)"
    )
