"""The model file: tensors and a JSON header in one safetensors file, written whole, read and checked without torch.

The metadata of the file are four strings:

    format   "irrepc"
    version  of this layout; a file of a newer one is refused, unknown names in the header are passed over
    header   JSON: kind, architecture, config, dtype, species, units, conventions, provenance
    sha256   of the header's text and of all tensors

Version 1 was a file of torch.save, which irrepc.models.load_model still reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from irrepc.errors import InputError

FORMAT, VERSION = "irrepc", 2
SUFFIX = ".irrepc"
UNITS = {"length": "Å", "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³, tension positive"}
CONVENTIONS = {
    "basis": "real, polar axis y, degree 1 is x, y, z",
    "couplings": "unit norm, signs of e3nn >= 0.5",
    "layout": "ir_mul: blocks in order, component slow, channel fast",
    "edges": "from the centre to the neighbour",
}
Array = NDArray[Any]
_TYPES = {"<f8": "F64", "<f4": "F32", "<i8": "I64", "<i4": "I32", "|i1": "I8", "|u1": "U8", "|b1": "BOOL"}
_NEEDED = ("kind", "architecture", "config", "dtype", "species", "units", "conventions")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What one file holds.

    kind          "network" (weights of a network), or what another writer calls its own contents
    architecture  which network, "NequIP"
    config        its configuration: plain data
    dtype         of its arithmetic, "float32" or "float64"; single tensors may have another
    species       atomic numbers, in the order in which the model counts them
    tensors       name -> array
    provenance    where the numbers come from: plain data (source, its sha256, ...)
    units         of what goes in and comes out
    conventions   of the irreps
    """

    kind: str
    architecture: str
    config: Mapping[str, Any]
    dtype: str
    species: tuple[int, ...]
    tensors: Mapping[str, Array]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=lambda: dict(UNITS))
    conventions: Mapping[str, str] = field(default_factory=lambda: dict(CONVENTIONS))


def is_model_file(path: str | Path) -> bool:
    """Whether a file begins as ours do, whole or not: a safetensors file with our format among its metadata."""
    with open(path, "rb") as file:
        start = file.read(9)
        if len(start) < 9 or start[8:] != b"{":
            return False
        size = int.from_bytes(start[:8], "little")
        head = file.read(min(size, 1 << 20))
    return b'"__metadata__"' in head and f'"format":"{FORMAT}"'.encode() in head


def write_model_file(path: str | Path, content: ModelFile) -> None:
    """Write the file whole or not at all.

    Raises OSError where the folder cannot be written, InputError for tensors of a type that the file does not have.
    """
    header = json.dumps(
        {
            "kind": content.kind,
            "architecture": content.architecture,
            "config": dict(content.config),
            "dtype": content.dtype,
            "species": list(content.species),
            "units": dict(content.units),
            "conventions": dict(content.conventions),
            "provenance": dict(content.provenance),
        },
        ensure_ascii=False,  # an infinite cutoff is written as Infinity, which Python's reader takes
    )
    tensors = {name: np.ascontiguousarray(array) for name, array in content.tensors.items()}
    # ascontiguousarray makes a row of a scalar
    tensors = {name: array.reshape(content.tensors[name].shape) for name, array in tensors.items()}
    words = {"format": FORMAT, "version": str(VERSION), "header": header, "sha256": _digest(header, tensors)}
    write_whole(path, _bytes(tensors, words))


def read_model_file(path: str | Path, kind: str | None = None) -> ModelFile:
    """Read and check a file; `kind` is the one the caller can use.

    Raises FileNotFoundError, or InputError for a file that is cut short, altered, of another kind, unit, convention or
    format, or newer than this irrepc.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"model file: got {path}, which is not there; expected a file that irrepc wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            words = file.metadata() or {}
            header = _header(path, words)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, TypeError) as error:
        raise _broken(path, error) from error
    if _digest(words["header"], tensors) != words.get("sha256"):
        raise InputError(
            f"model file: got {path}, whose contents do not have the checksum written beside them; expected them "
            "unchanged; copy it again, or convert the model again"
        )
    found = _content(path, header, tensors)
    if kind is not None and found.kind != kind:
        raise InputError(f"model file: got {path} of kind {found.kind!r}; expected {kind!r}")
    return found


def read_kind(path: str | Path) -> str:
    """The kind of a file, without its tensors. Raises InputError as `read_model_file`, but for altered tensors."""
    try:
        with safe_open(path, framework="numpy") as file:
            return str(_header(path, file.metadata() or {}).get("kind"))
    except (SafetensorError, OSError, TypeError) as error:
        raise _broken(path, error) from error


def file_digest(path: str | Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: str | Path, content: bytes) -> None:
    """Write bytes to `path`, whole or not at all: a reader sees the old file or the new one."""
    target = Path(path)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # a temporary file is for its owner alone
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def _broken(path: str | Path, error: Exception) -> InputError:
    return InputError(
        f"model file: got {path}, which cannot be read ({error}); expected a whole file that irrepc wrote; "
        "it is cut short or altered: copy it again, or convert the model again"
    )


def _bytes(tensors: Mapping[str, Array], words: Mapping[str, str]) -> bytes:
    """The safetensors format: eight bytes of length, a JSON of places, the numbers. Equal contents give equal bytes,
    which the package's own writer does not (its metadata come in no order)."""
    places: dict[str, Any] = {"__metadata__": dict(words)}
    start, data = 0, []
    for name in sorted(tensors, key=lambda n: (-tensors[n].dtype.itemsize, n)):  # aligned, as the format asks for
        array = tensors[name].astype(tensors[name].dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in _TYPES:
            raise InputError(f"model file: got {name} of {array.dtype}; expected one of {', '.join(_TYPES)}")
        stop = start + array.nbytes
        places[name] = {"dtype": _TYPES[array.dtype.str], "shape": list(array.shape), "data_offsets": [start, stop]}
        data.append(array.tobytes())
        start = stop
    text = json.dumps(places, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *data))


def _header(path: str | Path, words: Mapping[str, str]) -> dict[str, Any]:
    if words.get("format") != FORMAT:
        raise InputError(
            f"model file: got {path}, a safetensors file without irrepc's header; expected one that irrepc wrote; "
            "do: irrepc convert SOURCE -o FILE"
        )
    version = words.get("version", "")
    if not version.isdecimal() or int(version) > VERSION:
        raise InputError(
            f"model file: got {path} of version {version!r}; expected {VERSION} or older; install a newer irrepc"
        )
    try:
        return dict(json.loads(words["header"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"model file: got {path} with a header that is no JSON ({error}); expected it as irrepc wrote it; "
            "copy it again, or convert the model again"
        ) from error


def _content(path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, Array]) -> ModelFile:
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise InputError(f"model file: got {path} without {', '.join(missing)}; expected them in its header")
    for name, ours in (("units", UNITS), ("conventions", CONVENTIONS)):
        given = dict(header[name])
        wrong = [key for key, value in ours.items() if given.get(key) != value]
        if wrong:
            raise InputError(
                f"model file: got {path} with {name} {[given.get(key) for key in wrong]} of {wrong}; expected "
                f"{[ours[key] for key in wrong]}; convert the model again"
            )
    return ModelFile(
        kind=str(header["kind"]),
        architecture=str(header["architecture"]),
        config=dict(header["config"]),
        dtype=str(header["dtype"]),
        species=tuple(int(z) for z in header["species"]),
        tensors=dict(tensors),
        provenance=dict(header.get("provenance", {})),
        units=dict(header["units"]),
        conventions=dict(header["conventions"]),
    )


def _digest(header: str, tensors: Mapping[str, Array]) -> str:
    """Of the header and of every tensor with its name, dtype and shape, in the order of the names."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
