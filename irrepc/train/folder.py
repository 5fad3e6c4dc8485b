"""A folder that appears whole or not at all, and that replaces nothing but an older one of its kind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irrepc.errors import IrrepcError


@contextmanager
def whole_folder(target: Path, marker: str) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which takes its place when the block ends well.

    marker: the file by which a folder of this kind is known. Raises IrrepcError, before anything is written, where
    `target` is there and is neither empty nor of this kind, and where it cannot be written; after an error or an
    interrupt in the block the old folder is as it was.
    """
    _expect_ours(target, marker)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise IrrepcError(f"folder: got {target}, which cannot be made ({error}); choose another place") from error
    try:
        made = unfinished / "new"
        made.mkdir()
        yield made
        _expect_ours(target, marker)  # it may have changed in the meantime
        if target.exists():
            target.rename(unfinished / "old")
        made.rename(target)
    finally:
        old = unfinished / "old"
        if old.exists() and not target.exists():  # interrupted between the two renames
            old.rename(target)
        shutil.rmtree(unfinished)


def _expect_ours(target: Path, marker: str) -> None:
    if not target.exists() or (target / marker).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise IrrepcError(
            f"folder: got {target}, which holds something else; expected a new or empty folder, or one with the file "
            f"{marker}; choose another place, or move it away"
        )
