"""load_model: a network from whatever file, folder or name it is found in, told apart by contents, never by trust.

Own files, checkpoints of SevenNet, and the plain exports of MACE, NequIP, eSEN, EquiformerV2 and Equiformer. Pickles
with classes, TorchScript and packages are programs: they are named, with the script that turns them into plain data
where their package is installed, and not opened.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irrepc import __version__
from irrepc.errors import InputError
from irrepc.interop import mace, nequip, sevennet
from irrepc.interop.equiformer import equiformer_from
from irrepc.interop.equiformer_v2 import equiformer_v2_from
from irrepc.interop.esen import esen_from
from irrepc.interop.plain_files import ENTRIES, read_arrays, read_settings
from irrepc.models import checkpoint
from irrepc.models.checkpoint import Network, is_first_version
from irrepc.runtime.model_file import file_digest, is_model_file, read_model_file

READ = (
    "a file of irrepc, a checkpoint, folder or wheel of sevenn, or the plain export of a MACE, NequIP, eSEN, "
    "EquiformerV2 or Equiformer"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A network and where it comes from: plain data, for the header of a model file."""

    network: Network
    provenance: Mapping[str, Any]


def load_model(
    source: str | Path,
    backend: str = "auto",
    *,
    name: str = "",
    signs: str = "",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Network:
    """The network that a file, folder or name holds, in evaluation mode, without running code from it or a network.

    source   a path, or the name of a published network ("sevennet-0") that an installed sevenn brings
    name     which network, where a folder or wheel holds several
    signs    of the e3nn that trained an Equiformer, "e3nn-0.4" or "e3nn-0.5": its files do not tell
    dtype    of the arithmetic; that of the file unless given

    Raises FileNotFoundError, or InputError that names what was found and says what to do.
    """
    return read_source(source, backend, name=name, signs=signs, device=device, dtype=dtype).network


def read_source(
    source: str | Path,
    backend: str = "auto",
    *,
    name: str = "",
    signs: str = "",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Source:
    """As `load_model`, with the provenance."""
    place, name = _located(source, name)
    if place.is_dir() or place.suffix == ".whl":
        found = _sevennet(sevennet.checkpoint_bytes(place, name), place, backend, dtype)
    elif not place.is_file():
        raise FileNotFoundError(f"load_model: got {place}, which is not there; expected {READ}, or a name")
    elif is_model_file(place):
        network = checkpoint.load_model(place, backend, dtype=dtype)
        found = Source(network, read_model_file(place).provenance)
    elif place.suffix in (".npz", ".json"):
        found = _arrays(place, backend, signs, dtype)
    elif zipfile.is_zipfile(place):
        found = _archive(place, backend, dtype)
    else:
        raise InputError(f"load_model: got {place}, {_kind_of(place)}; expected {READ}")
    return Source(found.network.to(device=device).eval(), found.provenance)


def _located(source: str | Path, name: str) -> tuple[Path, str]:
    """A path and the name in it; a published network's own name is looked up in an installed sevenn."""
    wanted = str(source).lower()
    wanted = sevennet.SYNONYMS.get(wanted, wanted)
    if wanted not in sevennet.PUBLISHED or Path(source).exists():
        return Path(source), name
    package = importlib.util.find_spec("sevenn")  # looks for the folder, imports nothing of it
    places = list(package.submodule_search_locations or ()) if package is not None else []
    if not places:
        raise InputError(
            f"load_model: got {str(source)!r}, which the package sevenn brings, and none is installed; expected its "
            "wheel otherwise; do: pip download --no-deps sevenn, and give the wheel with this name"
        )
    return Path(places[0]), wanted


def _archive(path: Path, backend: str, dtype: torch.dtype | None) -> Source:
    """A zip file that torch wrote: of plain data it is read, of anything else named."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    tops = {part for inside in names for part in inside.split("/")[:2]}
    if any(inside.endswith(".data/extern_modules") for inside in names):
        raise InputError(
            f"load_model: got {path}, a torch package, which is a program; expected plain tensors; do, where nequip is "
            f"installed, put your file for IN and run:\n{nequip.EXPORT_PACKAGE}"
        )
    if "code" in tops or "constants.pkl" in tops or any("aotinductor" in inside for inside in names):
        raise InputError(
            f"load_model: got {path}, a compiled program of torch; expected weights: the file it was compiled from"
        )
    if not any(inside.endswith("data.pkl") for inside in names):
        raise InputError(f"load_model: got {path}, a zip file of {sorted(tops)[:4]}; expected {READ}")
    classes = sorted(
        name for name in torch.serialization.get_unsafe_globals_in_checkpoint(path) if not name.startswith("numpy.")
    )
    if classes:
        raise InputError(
            f"load_model: got {path}, a pickle of {_some(classes)}; expected {READ}; "
            f"{_remedy({name.split('.')[0] for name in classes})}"
        )
    content = path.read_bytes()
    try:
        with torch.serialization.safe_globals(list(sevennet.PLAIN)):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"load_model: got {path}, which torch cannot read ({type(error).__name__}); expected {READ}, whole"
        ) from error
    if is_first_version(found):
        return Source(checkpoint.load_model(path, backend, dtype=dtype), {"source": path.name})
    if isinstance(found, dict) and {"config", "model_state_dict"} <= found.keys():
        return _sevennet(content, path, backend, dtype)
    if isinstance(found, dict) and set(ENTRIES) <= found.keys():
        config, state = found[ENTRIES[0]], found[ENTRIES[1]]
        kind, network = _plain(config, state, backend, dtype, path)
        return Source(network, _provenance(path, kind, file_digest(path)))
    if isinstance(found, dict) and "pytorch-lightning_version" in found:
        # plain, but which of its weights are the averaged ones only nequip knows
        raise InputError(f"load_model: got {path}, a checkpoint of Lightning; expected {READ}; {_remedy({'nequip'})}")
    keys = f"a dict of {_some([str(k) for k in found])}" if isinstance(found, dict) else f"a {type(found).__name__}"
    raise InputError(f"load_model: got {path}, {keys}; expected {READ}: a dict of config and state_dict")


def _plain(config: Any, state: Any, backend: str, dtype: torch.dtype | None, path: Path) -> tuple[str, Network]:
    """A network of arguments and tensors, by the arguments that only it has."""
    if not isinstance(config, Mapping) or not isinstance(state, Mapping):
        raise InputError(f"load_model: got {path} whose config or state_dict is no dict; expected two dicts")
    real = dtype or _own_dtype(state)
    if "type_names" in config:
        return "plain export of nequip", nequip.nequip_from(config, state, backend, dtype=real)
    if "num_interactions" in config or "hidden_irreps" in config:
        return "plain export of mace", mace.mace_from(config, state, backend, dtype=real)
    if "lmax_list" in config:
        return "plain export of EquiformerV2", equiformer_v2_from(config, state, backend, dtype=real)
    if "mmax" in config and "sphere_channels" in config:
        return "plain export of eSEN", esen_from(config, state, backend, dtype=real)
    raise InputError(f"load_model: got {path} with arguments {_some([str(k) for k in config])}; expected {READ}")


def _arrays(path: Path, backend: str, signs: str, dtype: torch.dtype | None) -> Source:
    """NAME.npz of tensors and NAME.json of arguments."""
    tensors, settings = path.with_suffix(".npz"), path.with_suffix(".json")
    for file in (tensors, settings):
        if not file.is_file():
            raise InputError(
                f"load_model: got {path} without {file.name} beside it; expected tensors and arguments, which you "
                f"get where mace is installed: put your file for IN and run:\n{mace.EXPORT}"
            )
    state = read_arrays(tensors, "load_model", "write it again")
    config = read_settings(settings, "load_model", "write it again")
    if isinstance(config, Mapping) and "irreps_node_embedding" in config:
        if not signs:
            raise InputError(
                f"load_model: got {path}, an Equiformer, without the signs of its couplings; expected them, as no "
                'tensor tells; do: signs="e3nn-0.4" (all published weights) or signs="e3nn-0.5" (trained later)'
            )
        real = dtype or _own_dtype(state)
        kind, network = "plain export of Equiformer", equiformer_from(config, state, backend, signs=signs, dtype=real)
        return Source(network, _provenance(tensors, kind, file_digest(tensors)) | {"signs": signs})
    kind, found = _plain(config, state, backend, dtype, path)
    return Source(found, _provenance(tensors, kind, file_digest(tensors)) | {"settings_sha256": file_digest(settings)})


def _sevennet(content: bytes, path: Path, backend: str, dtype: torch.dtype | None) -> Source:
    config, state = sevennet.read_checkpoint(content, str(path))
    network = sevennet.sevennet_from(config, state, backend, dtype=dtype or _own_dtype(state))
    kind = f"checkpoint of sevenn {config.get('version', '(unknown version)')}"
    return Source(network, _provenance(path, kind, hashlib.sha256(content).hexdigest()))


def _provenance(path: Path, kind: str, digest: str) -> dict[str, Any]:
    return {"source": path.name, "kind": kind, "sha256": digest, "converted_by": f"irrepc {__version__}"}


def _own_dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    """That of the largest tensor: single constants may have another."""
    floats = [tensor for tensor in state.values() if isinstance(tensor, Tensor) and tensor.is_floating_point()]
    if not floats:
        raise InputError("load_model: got a state_dict without numbers; expected weights")
    found = max(floats, key=Tensor.numel).dtype
    return found if found in (torch.float32, torch.float64) else torch.float32


def _remedy(packages: set[str]) -> str:
    """What turns a pickle with classes of these packages into plain data."""
    for package, script in (("mace", mace.EXPORT), ("nequip", nequip.EXPORT)):
        if package in packages:
            return f"do, where {package} is installed, put your file for IN and run:\n{script}"
    return "write its arguments and its state_dict as plain data where its package is installed"


def _kind_of(path: Path) -> str:
    """What a file that is no archive looks like."""
    with open(path, "rb") as file:
        start = file.read(16)
    if not start:
        return "an empty file"
    if start[:1] == b"\x80":
        return "a pickle, which is a program"
    if start[:4] == b"PK\x03\x04":
        return "a zip file that is cut short"
    if start[8:9] == b"{":
        return "a safetensors file that irrepc did not write"
    return "a text" if start.isascii() else "a file of an unknown format"


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
