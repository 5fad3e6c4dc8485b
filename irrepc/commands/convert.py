"""Convert: a network from any source that irrepc reads, written as irrepc's own model file and read back."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from irrepc.errors import InputError
from irrepc.interop.sources import read_source
from irrepc.models.checkpoint import load_model, save_model
from irrepc.runtime.model_file import SUFFIX, file_digest

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def convert(source: str, out: Path | None, name: str, signs: str, dtype: str | None, console: Console) -> Path:
    """Write the network of `source` to `out` (its own name with .irrepc in this folder unless given); return where.

    Raises FileNotFoundError, or InputError as `irrepc.load_model`, or where the file read back is not the network.
    """
    found = read_source(source, "torch", name=name, signs=signs, dtype=DTYPES[dtype] if dtype else None)
    target = out or Path(f"{name or Path(source).stem}{SUFFIX}")
    if target.resolve() == Path(source).resolve():
        raise InputError(f"convert: got {target} as source and result; expected two files; do: -o ANOTHER{SUFFIX}")
    if not target.parent.is_dir():
        raise InputError(f"convert: got {target}, whose folder is not there; expected a folder that exists; make it")
    save_model(found.network, target, provenance=found.provenance)
    again = load_model(target, "torch").state_dict()
    if any(not torch.equal(tensor, again[key]) for key, tensor in found.network.state_dict().items()):
        raise InputError(f"convert: got other numbers out of {target} than went in; expected the same; check the disk")
    network = found.network
    weights = sum(p.numel() for p in network.parameters())
    real = str(next(network.parameters()).dtype).removeprefix("torch.")
    for title, text in (
        ("network", f"{type(network).__name__}, {weights:,} weights in {real}"),
        ("elements", f"{len(network.species)}, cutoff {network.cutoff:g} Å"),
        ("from", ", ".join(f"{key} {value}" for key, value in found.provenance.items()) or "unknown"),
        ("file", f"{target}, {target.stat().st_size:,} bytes, sha256 {file_digest(target)}"),
    ):
        console.out(f"  {title:10} {text}", highlight=False)
    return target
