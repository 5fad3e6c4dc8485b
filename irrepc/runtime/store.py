"""The store: from a recipe and a backend to a loaded module, on the shelf, in the cache, or emitted now.

Emitted text always lies in a real file, so tracebacks, debuggers, inspect and numba's cache work.  The key is the
recipe, the backend and a digest of the sources that shape the text, so that an edit never meets a stale file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import filelock

from irrepc.algebra.recipe import Recipe, digest
from irrepc.emit.module import Entry, check_backend, compose
from irrepc.emit.sources import source_digest
from irrepc.errors import BackendError, StaleError
from irrepc.runtime.cache import CACHE_VARIABLE as CACHE_VARIABLE
from irrepc.runtime.cache import cache_folder as cache_folder


def shelf_folder() -> Path | None:
    """The committed shelf: inside the installed package, or at the top of a checkout; None when there is none."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "_generated", package.parent / "generated"):
        if place.is_dir():
            return place
    return None


@lru_cache(maxsize=512)
def load_module(recipe: Recipe, backend: str) -> tuple[ModuleType, str]:
    """The module that holds a recipe's kernel for a backend, and the name of the function in it.

    Raises BackendError for an unknown backend or an unwritable cache, StaleError for a tampered shelf file.
    """
    check_backend(backend)
    found = _on_shelf(recipe, backend)
    if found is not None:
        return _import(found[0], found[1]), found[2]
    name = f"{recipe.name}_{digest(recipe)}"
    folder = cache_folder() / source_digest() / backend
    file = folder / f"{name}.py"
    if not file.exists():
        _emit_into(file, recipe, backend)
    return _import(file, f"irrepc_cache_{source_digest()}_{backend}_{name}"), recipe.name


def write_atomically(file: Path, text: str) -> None:
    """Write a file whole or not at all: into a neighbour first, then renamed over the old one."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _emit_into(file: Path, recipe: Recipe, backend: str) -> None:
    """Emit one recipe's module; two processes that want the same file wait for each other."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(file.parent / f".{file.stem}.lock", timeout=600):
            if not file.exists():
                command = f"irrepc.runtime.load({str(recipe)!r}, {backend!r})"
                module = compose(f"{recipe.name}.", (Entry(recipe.name, recipe),), backend, command)
                for suffix, text in module.companions:
                    write_atomically(file.with_suffix(suffix), text)
                # The folder's name has a digest of this text: what lies there already is the same.
                for name, text in module.shared:
                    if not file.with_name(name).exists():
                        write_atomically(file.with_name(name), text)
                write_atomically(file, module.text)
    except OSError as error:
        raise BackendError(
            f"cache: got {error}; expected to write {file.parent}; set {CACHE_VARIABLE} to a folder you can write"
        ) from error


def _import(file: Path, name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise BackendError(f"import of {file}: got no loader; expected a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@lru_cache(maxsize=1)
def _shelf_index() -> dict[tuple[str, str], tuple[Path, str, str, str]]:
    """(recipe text, backend) -> (file, module name, function, sha256) of every shelf package made by these sources."""
    shelf = shelf_folder()
    index: dict[tuple[str, str], tuple[Path, str, str, str]] = {}
    for manifest in sorted(shelf.glob("*/manifest.json")) if shelf else []:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        if content["source"] != source_digest():
            continue
        for kernel in content["kernels"]:
            for backend, relative in kernel["files"].items():
                file = manifest.parent / relative
                if file.exists():
                    name = f"irrepc_shelf_{manifest.parent.name}_{relative.removesuffix('.py').replace('/', '_')}"
                    sha = content["sha256"][relative]
                    index[kernel["recipe"], backend] = (file, name, kernel["function"], sha)
    return index


def _on_shelf(recipe: Recipe, backend: str) -> tuple[Path, str, str] | None:
    found = _shelf_index().get((str(recipe), backend))
    if found is None:
        return None
    file, name, function, sha = found
    if hashlib.sha256(file.read_bytes()).hexdigest() != sha:
        raise StaleError(
            f"shelf: got {file} that differs from its manifest; expected the emitted text; "
            "run `irrepc check` and then `irrepc generate --shelf`"
        )
    return file, name, function
