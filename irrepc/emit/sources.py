"""Sources: a digest of everything that shapes emitted text, so that a change never meets a stale file."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from irrepc.emit.templates import template_root

SHAPING = ("algebra", "ir", "frontend", "emit")
TRAVELLING = ("ops.py", "arrays.py", "tensors.py", "operands.py")
"""The files of runtime/ that travel with every package: together they stand alone, and are copied as they are."""
NVRTC = "nvrtc.py"
"""The file that travels beside modules of the cuda backend, likewise."""


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Sixteen hexadecimal digits of four floors, the templates and what lies beside every CUDA module."""
    package = _package()
    files = [f for floor in SHAPING for f in sorted((package / floor).glob("*.py"))]
    files.append(package / "runtime" / NVRTC)
    files += sorted(template_root().rglob("*.jinja"))
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.parent.name}/{file.name}".encode())
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def travelling_text(name: str) -> str:
    """The source of a file that travels, read and not imported: this floor does not know torch."""
    return (_package() / "runtime" / name).read_text(encoding="utf-8")


def _package() -> Path:
    return Path(__file__).resolve().parents[1]
