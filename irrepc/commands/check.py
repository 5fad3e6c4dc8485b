"""Check: a package is what today's sources emit, and its code computes what the kernels mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console

from irrepc.commands.check_numbers import Report, check_derivatives, check_equivariance, check_values
from irrepc.commands.check_text import check_literals, check_tables, compare, read_files
from irrepc.commands.emitted import Functions, has_device, load_functions
from irrepc.commands.produce import produce
from irrepc.commands.shelf import INDEX, RECIPES, index_text, read_bundles
from irrepc.emit.manifest import NAME
from irrepc.emit.plan import Plan, plan
from irrepc.errors import IrrepcError, RecipeError
from irrepc.runtime.store import shelf_folder

LATE = {"llvm": "", "cuda": " where there is a CUDA device"}
"""The backends that do not run without being compiled, and what else they need."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and every failure."""

    name: str
    result: str
    failures: tuple[str, ...] = ()


def check(folder: Path | None, compiled: bool, console: Console) -> bool:
    """Check every package in the folder (or the folder, if it is one) and print what was found; True when all is well.

    folder    None for the shelf
    compiled  run numba, llvm and, where there is a device, cuda modules; else numba as plain Python, the others not
    Raises RecipeError when there is no package.
    """
    place = folder or shelf_folder()
    if place is None or not place.is_dir():
        raise RecipeError(
            f"check: got {folder or 'no shelf'}; expected the folder of a package, or of packages, or a saved network"
        )
    packages = [place] if (place / NAME).is_file() else sorted(m.parent for m in place.glob(f"*/{NAME}"))
    if not packages:
        raise RecipeError(f"check: got {place}, which holds no {NAME}; expected a package, or packages in it")
    holds = True
    sizes: dict[str, dict[str, int]] = {}
    for package in packages:
        console.out(str(package), style="bold", highlight=False)
        for finding in check_package(package, compiled, console, sizes):
            holds &= _say(finding, console)
    if (place / RECIPES).is_file():
        console.out(str(place), style="bold", highlight=False)
        holds &= _say(_check_shelf(place, sizes), console)
    return holds


def check_package(
    package: Path, compiled: bool, console: Console, sizes: dict[str, dict[str, int]]
) -> Iterator[Finding]:
    """Look at one package; `sizes` gets how many bytes each of its files has when emitted today."""
    try:
        planned = read_plan(package)
    except (OSError, ValueError, KeyError, TypeError, IrrepcError) as error:
        yield Finding("manifest", "", (f"{package / NAME}: {type(error).__name__}: {error}",))
        return
    start = perf_counter()
    product = produce(planned, console)
    sizes[package.name] = {path: len(text.encode()) for path, text in product.files.items()}
    found = read_files(package)
    whole = set(found) != {NAME}
    wanted = product.files if whole else {NAME: product.files[NAME]}
    what = f"{len(wanted)} files" if whole else f"{NAME}, the hashes of {len(product.files) - 1} files,"
    seconds = f"{perf_counter() - start:.1f} s"
    said = f"{what} as these sources emit them, proved anew ({seconds})"
    yield Finding("text", said, compare(found, wanted, package))
    if not whole:
        return
    constants, failures = check_literals(found)
    yield Finding("literals", f"{constants} constants are the doubles nearest to their exact values", failures)
    if planned.tables:
        count, failures = check_tables(found.get("clebsch_gordan.py", ""), planned.lmax)
        yield Finding("couplings", f"{count} entries are exact, their decimals the nearest doubles", failures)
    yield from _run_code(package, planned, compiled)


def read_plan(package: Path) -> Plan:
    """The plan that a manifest says its package was made by."""
    content = json.loads((package / NAME).read_text(encoding="utf-8"))
    return plan(
        content["lmax"], irreps=content["irreps"], backends=tuple(content["backends"]), limit=content["limit"]
    )


def _run_code(package: Path, planned: Plan, compiled: bool) -> Iterator[Finding]:
    runnable = [b for b in planned.backends if b not in LATE or (compiled and (b != "cuda" or has_device()))]
    for backend in planned.backends:
        if backend not in runnable:
            yield Finding(backend, f"not run; --compiled runs it{LATE[backend]}")
    failures: list[str] = []
    functions = []
    for part in planned.parts:
        for backend in runnable:
            try:
                functions.append(load_functions(package, part, backend, compiled))
            except Exception as error:  # whatever a broken module raises is what is to be reported
                failures.append(f"{backend}/{part.name}.py: {type(error).__name__}: {error}")
    how = " and ".join(runnable)
    yield Finding("modules", f"{len(functions)} modules of {how} load", tuple(failures))
    checks: tuple[tuple[str, str, Callable[[list[Functions]], Report]], ...] = (
        ("values", "functions equal their kernels, interpreted exactly at random integers", check_values),
        ("equivariance", "functions commute with a rotation and with inversion", check_equivariance),
        ("derivatives", "functions are the derivative of the order below", check_derivatives),
    )
    for name, what, run in checks:
        count, worst, found = run(functions)
        yield Finding(name, f"{count} {what} (largest relative error {worst:.0e})", found)


def _check_shelf(shelf: Path, sizes: dict[str, dict[str, int]]) -> Finding:
    bundles = read_bundles(shelf)
    names = {bundle.name for bundle in bundles}
    held = {m.parent.name for m in shelf.glob(f"*/{NAME}")}
    failures = [f"{shelf / name}: in {RECIPES} and not there" for name in sorted(names - held)]
    failures += [f"{shelf / name}: there and not in {RECIPES}" for name in sorted(held - names)]
    if not failures:
        text = index_text(bundles, sizes)
        index = (shelf / INDEX).read_text(encoding="utf-8") if (shelf / INDEX).is_file() else ""
        failures += compare({INDEX: index}, {INDEX: text}, shelf)
        for bundle in bundles:
            whole = (shelf / bundle.name / "__init__.py").is_file()
            if whole != bundle.whole:
                failures.append(f"{shelf / bundle.name}: whole is {whole}; {RECIPES} says {bundle.whole}")
    return Finding("shelf", f"{len(bundles)} packages and {INDEX} as {RECIPES} says", tuple(failures))


def _say(finding: Finding, console: Console) -> bool:
    if not finding.failures:
        console.out(f"  ✓ {finding.name:13} {finding.result}", highlight=False)
        return True
    console.out(f"  ✗ {finding.name:13} {len(finding.failures)} failures", style="red", highlight=False)
    for text in finding.failures[:5]:
        console.out("\n".join(f"      {line}" for line in text.split("\n")), highlight=False)
    return False
