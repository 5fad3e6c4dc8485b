"""Saves a network in one safe file (irrepc/runtime/model_file.py) and loads it without running code from it.

Files of the first version, dicts of torch.save, are still read.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from irrepc.errors import InputError
from irrepc.models.equiformer import Equiformer
from irrepc.models.equiformer_config import EquiformerConfig
from irrepc.models.equiformer_v2 import EquiformerV2, EquiformerV2Config
from irrepc.models.esen import ESEN, DirectESEN, ESENConfig
from irrepc.models.mace import MACE, MACEConfig
from irrepc.models.nequip import NequIP, NequIPConfig
from irrepc.models.sevennet import SevenNet, SevenNetConfig
from irrepc.models.tfn import TFN, TFNConfig
from irrepc.models.tfn_tasks import TFNEnergy
from irrepc.runtime.model_file import ModelFile, is_model_file, read_model_file, write_model_file

Network = NequIP | SevenNet | MACE | TFN | TFNEnergy | ESEN | DirectESEN | Equiformer | EquiformerV2
Config = NequIPConfig | SevenNetConfig | MACEConfig | TFNConfig | ESENConfig | EquiformerConfig | EquiformerV2Config
_NETWORKS: dict[str, tuple[Callable[..., Network], type[Config]]] = {
    "NequIP": (NequIP, NequIPConfig),
    "SevenNet": (SevenNet, SevenNetConfig),
    "MACE": (MACE, MACEConfig),
    "TFN": (TFN, TFNConfig),
    "Equiformer": (Equiformer, EquiformerConfig),
    "EquiformerV2": (EquiformerV2, EquiformerV2Config),
    "TFNEnergy": (TFNEnergy, TFNConfig),
    "ESEN": (ESEN, ESENConfig),
    "DirectESEN": (DirectESEN, ESENConfig),
}
_FIRST = "irrepc model 1"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def save_model(model: Network, path: str | Path, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the configuration and the weights of `model` to `path`, whole or not at all.

    provenance  where the weights come from, as plain data
    Raises InputError for a class of model that this file does not list; OSError where the folder cannot be written.
    """
    name = type(model).__name__
    if name not in _NETWORKS:
        raise InputError(f"save_model: got a {name}; expected one of {', '.join(_NETWORKS)}; unwrap it")
    tensors = {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}
    content = ModelFile(
        kind="network",
        architecture=name,
        config=asdict(model.config),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        species=model.config.species,
        tensors=tensors,
        provenance=provenance or {},
    )
    write_model_file(path, content)


def load_model(
    path: str | Path,
    backend: str = "auto",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Network:
    """Read what `save_model` wrote, in its own dtype unless another is asked for.

    Raises FileNotFoundError, or InputError for a file that is damaged, of another kind, or from another version.
    """
    if is_model_file(path):
        content = read_model_file(path, "network")
        state = {key: torch.from_numpy(array) for key, array in content.tensors.items()}
        model = _network(content.architecture, content.config, content.dtype, state, backend, path)
    else:
        model = _first_version(path, backend)
    return model.to(device=device, dtype=dtype)


def is_first_version(content: Any) -> bool:
    """Whether a dict of torch.save is a saved network of the first version."""
    return isinstance(content, dict) and str(content.get("format", "")).startswith("irrepc model ")


def _first_version(path: str | Path, backend: str) -> Network:
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
            raise InputError(
                f"load_model: got {path}, which torch cannot read as plain tensors ({type(error).__name__}); expected "
                "a file of save_model; copy it again, or save the model again"
            ) from error
    kind = content.get("format") if isinstance(content, dict) else type(content).__name__
    if kind != _FIRST:
        raise InputError(
            f"load_model: got {path} of format {kind!r}; expected one that save_model writes; irrepc.load_model reads "
            "those of other packages"
        )
    try:
        config = dict(json.loads(content.get("config")))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"load_model: got settings that are no JSON in {path}: {error}; save the model again"
        ) from error
    return _network(content.get("model"), config, content.get("dtype"), content.get("state_dict"), backend, path)


def _network(name: Any, config: Mapping[str, Any], dtype: Any, state: Any, backend: str, path: str | Path) -> Network:
    """The network of this name with these weights."""
    if name not in _NETWORKS:
        raise InputError(
            f"load_model: got a model {name!r} in {path}; expected one of {', '.join(_NETWORKS)}; "
            "another may need a newer irrepc"
        )
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"load_model: got no state_dict of tensors in {path}; expected one; save the model again")
    if dtype not in _DTYPES:
        raise InputError(f"load_model: got weights of {dtype!r} in {path}; expected {' or '.join(_DTYPES)}")
    network, config_type = _NETWORKS[name]
    model: Network = network(_config(config_type, config, path), backend, dtype=_DTYPES[dtype])
    _fill(model, state, path)
    return model


def _config(config_type: type[Config], values: Mapping[str, Any], path: str | Path) -> Config:
    known = {field.name for field in fields(config_type)}
    if unknown := sorted(values.keys() - known):
        raise InputError(
            f"load_model: got settings {unknown} in {path}; expected those of {config_type.__name__}; "
            "install a newer irrepc"
        )
    arguments: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        return config_type(**arguments)
    except TypeError as error:
        raise InputError(f"load_model: got settings of wrong types in {path}: {error}; save the model again") from error


def _fill(model: nn.Module, state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    got = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if wanted != got:
        wrong = sorted(key for key in wanted.keys() | got.keys() if wanted.get(key) != got.get(key))
        raise InputError(
            f"load_model: got {path} whose tensors {', '.join(wrong[:5])} do not fit its settings; expected "
            f"{len(wanted)} tensors of the shapes they imply; the file is damaged or from another version"
        )
    model.load_state_dict(state)
