"""Saves a model in one safe file, plain tensors and a JSON text, and loads it without running code from it."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Callable
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
from irrepc.models.tfn import TFN, TFNConfig
from irrepc.models.tfn_tasks import TFNEnergy

Network = NequIP | MACE | TFN | TFNEnergy | ESEN | DirectESEN | Equiformer | EquiformerV2
Config = NequIPConfig | MACEConfig | TFNConfig | ESENConfig | EquiformerConfig | EquiformerV2Config
_NETWORKS: dict[str, tuple[Callable[..., Network], type[Config]]] = {
    "NequIP": (NequIP, NequIPConfig),
    "MACE": (MACE, MACEConfig),
    "TFN": (TFN, TFNConfig),
    "Equiformer": (Equiformer, EquiformerConfig),
    "EquiformerV2": (EquiformerV2, EquiformerV2Config),
    "TFNEnergy": (TFNEnergy, TFNConfig),
    "ESEN": (ESEN, ESENConfig),
    "DirectESEN": (DirectESEN, ESENConfig),
}
_FORMAT = "irrepc model 1"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def save_model(model: Network, path: str | Path) -> None:
    """Write the configuration (JSON) and the weights of `model` to `path`, whole or not at all.

    Raises InputError for a class of model that this file does not list; OSError where the folder cannot be written.
    """
    name = type(model).__name__
    if name not in _NETWORKS:
        raise InputError(f"save_model: got a {name}; expected one of {', '.join(_NETWORKS)}; unwrap it")
    content = {
        "format": _FORMAT,
        "model": name,
        "config": json.dumps(asdict(model.config)),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "state_dict": {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()},
    }
    target = Path(path)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)  # a temporary file is for its owner alone
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


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
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
            raise InputError(
                f"load_model: got {path}, which torch cannot read as plain tensors ({type(error).__name__}); expected "
                "a file of save_model; copy it again, or save the model again"
            ) from error
    kind = content.get("format") if isinstance(content, dict) else type(content).__name__
    if kind != _FORMAT:
        raise InputError(f"load_model: got {path} of format {kind!r}; expected {_FORMAT!r}, as save_model writes it")
    name = content.get("model")
    if name not in _NETWORKS:
        raise InputError(f"load_model: got a model {name!r}; expected one of {', '.join(_NETWORKS)}")
    if content.get("dtype") not in _DTYPES:
        raise InputError(f"load_model: got weights of {content.get('dtype')!r}; expected {' or '.join(_DTYPES)}")
    network, config_type = _NETWORKS[name]
    config = _config(config_type, content.get("config"), path)
    model: Network = network(config, backend, dtype=_DTYPES[content["dtype"]])
    _fill(model, content.get("state_dict"), path)
    return model.to(device=device, dtype=dtype)


def _config(config_type: type[Config], text: Any, path: str | Path) -> Config:
    try:
        values: dict[str, Any] = dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"load_model: got settings that are no JSON in {path}: {error}; save the model again"
        ) from error
    known = {field.name for field in fields(config_type)}
    if unknown := sorted(values.keys() - known):
        raise InputError(f"load_model: got settings {unknown} in {path}; expected those of {config_type.__name__}")
    arguments: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        return config_type(**arguments)
    except TypeError as error:
        raise InputError(f"load_model: got settings of wrong types in {path}: {error}; save the model again") from error


def _fill(model: nn.Module, state: Any, path: str | Path) -> None:
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"load_model: got no state_dict of tensors in {path}; expected one; save the model again")
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    got = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if wanted != got:
        wrong = sorted(key for key in wanted.keys() | got.keys() if wanted.get(key) != got.get(key))
        raise InputError(
            f"load_model: got {path} whose tensors {', '.join(wrong[:5])} do not fit its settings; expected "
            f"{len(wanted)} tensors of the shapes they imply; the file is damaged or from another version"
        )
    model.load_state_dict(state)
