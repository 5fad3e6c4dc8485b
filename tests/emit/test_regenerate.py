"""The shelf is what today's sources emit: every package of recipes.toml is made again and compared."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from irrepc.commands.check_text import check_literals, check_tables, compare, read_files
from irrepc.commands.produce import Product, produce
from irrepc.commands.shelf import INDEX, RECIPES, Bundle, index_text, read_bundles, shelf_files
from irrepc.emit.manifest import NAME
from irrepc.errors import RecipeError

ROOT = Path(__file__).resolve().parents[2]
SHELF = ROOT / "generated"
LARGEST = 1_500_000
ADVICE = "if this is intended: make generated, then read the diff"
QUIET = Console(file=io.StringIO())

BUNDLES = read_bundles(SHELF)


@pytest.fixture(scope="module")
def products() -> dict[str, Product]:
    return {bundle.name: produce(bundle.planned, QUIET) for bundle in BUNDLES}


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda b: b.name)
def test_the_shelf_is_what_the_sources_emit(bundle: Bundle, products: dict[str, Product]) -> None:
    found = read_files(SHELF / bundle.name)
    failures = compare(found, shelf_files(bundle, products[bundle.name]), Path("generated") / bundle.name)
    assert not failures, "\n".join((*failures, ADVICE))


def test_the_index_is_what_the_sources_emit(products: dict[str, Product]) -> None:
    sizes = {name: {path: len(text.encode()) for path, text in p.files.items()} for name, p in products.items()}
    assert (SHELF / INDEX).read_text(encoding="utf-8") == index_text(BUNDLES, sizes), ADVICE


def test_the_shelf_holds_nothing_else() -> None:
    assert {p.name for p in SHELF.iterdir()} == {RECIPES, INDEX, *(bundle.name for bundle in BUNDLES)}


def test_lmax2_is_there_in_full_and_the_rest_is_hashes() -> None:
    assert {b.name: b.whole for b in BUNDLES} == {"lmax2": True, "lmax4": False}
    size = sum(p.stat().st_size for p in SHELF.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert size < LARGEST, f"generated/ holds {size:,} bytes"


def test_hashes_are_those_of_the_files(products: dict[str, Product]) -> None:
    for product in products.values():
        sums = json.loads(product.files[NAME])["sha256"]
        texts = {path: text for path, text in product.files.items() if path != NAME}
        assert sums == {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}


def test_every_number_on_the_shelf_is_rounded_once() -> None:
    count, failures = check_literals(read_files(SHELF / "lmax2"))
    assert not failures
    assert count > 150
    count, failures = check_tables((SHELF / "lmax2" / "clebsch_gordan.py").read_text(), 2)
    assert not failures
    assert count == 67


def test_ruff_has_nothing_to_say_about_the_shelf() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "generated"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "lmax2 = 3",
        "[lmax2]",
        "[lmax2]\nlmax = 3",
        "[lmax2]\nlmax = '2'",
        "[lmax2]\nlmax = 2\nwhole = 1",
        "[lmax2]\nlmax = 2\ncolour = 'red'",
        "[lmax2",
    ],
)
def test_bad_recipes_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / RECIPES).write_text(text)
    with pytest.raises(RecipeError, match="shelf: got"):
        read_bundles(tmp_path)


def test_no_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="with a table for each package"):
        read_bundles(tmp_path)
