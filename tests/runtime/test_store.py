"""The store: cache hits, two processes, half-written and tampered files, folders that cannot be written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from irrepc.algebra.recipe import HarmonicsRecipe, read_product
from irrepc.emit.module import Entry, emit
from irrepc.errors import BackendError, StaleError
from irrepc.runtime import load, store

RECIPE = read_product("1o x 1o -> 0e")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and no module of an earlier test."""
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(store, "_on_shelf", lambda recipe, backend: None)
    before = set(sys.modules)
    store.load_module.cache_clear()
    yield tmp_path
    store.load_module.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("irrepc_"):
            del sys.modules[name]


def test_a_miss_emits_a_real_file_and_a_hit_leaves_it(cache: Path) -> None:
    module, name = store.load_module(RECIPE, "torch")
    assert module.__file__ is not None
    file = Path(module.__file__)
    assert file.is_relative_to(cache)
    assert callable(getattr(module, name))
    written = file.stat().st_mtime_ns
    store.load_module.cache_clear()
    del sys.modules[module.__name__]
    store.load_module(RECIPE, "torch")
    assert file.stat().st_mtime_ns == written
    assert not list(cache.rglob(".*.py.*")), "no temporary file is left"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kernel.py"
    store.write_atomically(file, "old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        store.write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kernel.py"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv(store.CACHE_VARIABLE, str(blocker / "below"))
    with pytest.raises(BackendError, match="set IRREPC_CACHE to a folder you can write"):
        store.load_module(RECIPE, "torch")


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match="got 'fast'; expected one of auto, torch, numba, llvm"):
        load.load(RECIPE, "fast")
    with pytest.raises(BackendError, match="got 'auto'; expected one of torch, numba, llvm"):
        store.load_module(RECIPE, "auto")


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    program = (
        "from irrepc.algebra.recipe import HarmonicsRecipe\n"
        "from irrepc.runtime.store import load_module\n"
        "print(load_module(HarmonicsRecipe(7), 'torch')[0].__file__)\n"
    )
    environment = {**os.environ, store.CACHE_VARIABLE: str(tmp_path)}
    workers = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    files = {worker.communicate()[0].strip() for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0]
    (file,) = files
    expected = emit(
        "spherical_harmonics.",
        (Entry("spherical_harmonics", HarmonicsRecipe(7)),),
        "torch",
        f"irrepc.runtime.load({str(HarmonicsRecipe(7))!r}, 'torch')",
    )
    assert Path(file).read_text(encoding="utf-8") == expected


def test_a_tampered_shelf_file_is_refused_and_a_foreign_one_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = emit("A coupling.", (Entry("coupling", RECIPE),), "torch", "a test")
    folder = tmp_path / "lmax1" / "torch"
    folder.mkdir(parents=True)
    (folder / "product.py").write_text(text, encoding="utf-8")
    manifest = {
        "source": store.source_digest(),
        "kernels": [{"recipe": str(RECIPE), "function": "coupling", "files": {"torch": "torch/product.py"}}],
        "sha256": {"torch/product.py": hashlib.sha256(text.encode()).hexdigest()},
    }
    (tmp_path / "lmax1" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(store, "shelf_folder", lambda: tmp_path)
    store._shelf_index.cache_clear()
    try:
        found = store._on_shelf(RECIPE, "torch")
        assert found is not None
        assert found[2] == "coupling"
        assert store._on_shelf(RECIPE, "numba") is None
        (folder / "product.py").write_text(text.replace("+", "-"), encoding="utf-8")
        with pytest.raises(StaleError, match="differs from its manifest"):
            store._on_shelf(RECIPE, "torch")
        store._shelf_index.cache_clear()
        (tmp_path / "lmax1" / "manifest.json").write_text(json.dumps({**manifest, "source": "another"}))
        assert store._on_shelf(RECIPE, "torch") is None
    finally:
        store._shelf_index.cache_clear()
