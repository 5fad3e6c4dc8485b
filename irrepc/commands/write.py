"""Write: a package into its folder, whole or not at all, one process at a time."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import filelock

from irrepc.emit.manifest import NAME
from irrepc.errors import IrrepcError

WAIT = 600.0
"""Seconds that a process waits for another one that writes the same folder."""


class OutputError(IrrepcError, OSError):
    """A folder that cannot be written, or that holds something else than an emitted package."""


def check_target(target: Path) -> None:
    """Refuse, before any work is done, a folder that could not be replaced by a package.

    Raises OutputError when the target holds files but no manifest of irrepc, or when it could not be made.
    """
    if target.is_dir() and any(target.iterdir()) and not is_package(target):
        raise OutputError(
            f"generate: got {target}, which holds files but no {NAME} of irrepc; expected a package or nothing; "
            "do: choose another --out, or empty the folder"
        )
    if target.exists() and not target.is_dir():
        raise OutputError(f"generate: got {target}, a file; expected a folder or nothing; do: choose another --out")
    parent = _nearest_folder(target.parent)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"generate: got {parent}; expected a folder that can be written; do: choose another --out")


def is_package(folder: Path) -> bool:
    """True for a folder with a manifest that irrepc wrote."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "irrepc" in content and "sha256" in content


def write_package(files: Mapping[str, str], target: Path, say: Callable[[str], None] = print) -> None:
    """Put the files (relative path -> text) into the target folder in place of what it held.

    They are written into a neighbouring folder first, which then takes the target's place: an interrupted call leaves
    the old package as it was.  A second process on the same machine waits; `say` tells its user.
    Raises OutputError as check_target, for a full disk, and for a folder that another process keeps for too long.
    """
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target, say):
            _recover(target)
            check_target(target)
            _replace(files, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"generate: got {error}; expected to write {target}; do: choose another --out") from error


@contextmanager
def _lock(target: Path, say: Callable[[str], None]) -> Iterator[None]:
    # Beside the target a lock file would stay behind: removing one that others may hold is not safe.
    place = Path(tempfile.gettempdir()) / f"irrepc-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    lock = filelock.FileLock(place / f"{sha256(str(target.resolve()).encode()).hexdigest()[:24]}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"waiting for another process that writes {target}")
        try:
            lock.acquire(timeout=WAIT)
        except filelock.Timeout as error:
            raise OutputError(
                f"generate: got no turn at {target} in {WAIT:.0f} s; expected the other process to finish; "
                "do: see what it is doing"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _recover(target: Path) -> None:
    """Bring back the old package if a process ended between the two renames of `_replace`."""
    aside = _aside(target)
    if aside.is_dir() and not target.exists():
        os.replace(aside, target)
    for left in target.parent.glob(f".{target.name}.new-*"):
        shutil.rmtree(left)


def _replace(files: Mapping[str, str], target: Path) -> None:
    new = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.new-"))
    try:
        new.chmod(0o755)
        for path, text in files.items():
            file = new / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        aside = _aside(target)
        if aside.exists():
            shutil.rmtree(aside)
        if target.exists():
            os.replace(target, aside)
        try:
            os.replace(new, target)
        except BaseException:
            if aside.exists():
                os.replace(aside, target)
            raise
        if aside.exists():
            shutil.rmtree(aside)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _aside(target: Path) -> Path:
    """Where the old package stands while the new one takes its place."""
    return target.parent / f".{target.name}.old"


def _nearest_folder(path: Path) -> Path:
    """The path, or its nearest ancestor that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
