"""Reads UMA networks of the authors' code (fairchem-core 2.24), experts merged: arguments and a state_dict.

The file is a dict of two entries, without pickled classes: "config", the arguments of the backbone, and "state_dict",
its tensors and those of the energy's head. What it shares with eSEN is read as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.interop import esen
from irrepc.interop.plain_files import read_saved
from irrepc.models.uma import UMA, UMAConfig

_KINDS = {"pos_emb": "waves", "lin_emb": "affine", "rand_emb": "table"}
_PARTS = {"frequencies": "W", "affine.weight": "lin_emb.weight", "affine.bias": "lin_emb.bias",
          "embedding.weight": "rand_emb.weight"}  # fmt: skip
_EXPERTS = ("routing_mlp.", "composition_embedding.")
_OWN = {"chg_spin_emb_type", "dataset_mapping", "use_dataset_embedding", "charge_balanced_channels",
        "spin_balanced_channels"}  # fmt: skip
_IGNORED = {
    "cs_emb_grad", "dataset_emb_grad", "dataset_list", "use_cuda_graph_wigner", "use_quaternion_wigner",
    "radius_pbc_version", "always_use_pbc", "edge_chunk_size", "execution_mode", "regress_hessian", "hessian_vmap",
    "direct_stress", "dataset",
}  # fmt: skip
_DATASETS = "backbone.dataset_embedding.dataset_emb_dict."


def load_uma(path: str | Path, backend: str = "auto", *, dtype: torch.dtype = torch.float64) -> UMA:
    """Read such a file (`torch.save({"config": ..., "state_dict": ...})`) without running code from it.

    Raises InputError for a file that is none, and as `uma_from`.
    """
    config, state = read_saved(path, "load_uma", "save it so, from Python with the authors' code, experts merged")
    return uma_from(config, state, backend, dtype=dtype)


def uma_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> UMA:
    """Our UMA with the weights of the authors' of those arguments, one energy head.

    Raises InputError for a mixture of experts, for an option that we do not have, and for tensors that are missing,
    left over or of another size.
    """
    tensors = esen.official_tensors(state)
    if any(part in name for name in tensors for part in _EXPERTS):
        raise InputError(
            "uma: got a mixture of experts; expected plain weights; merge the experts for your composition, charge, "
            "spin and data set with the authors' package (inference settings, merge_mole), then save the result"
        )
    if any(name.startswith("force.") for name in tensors):
        raise InputError("uma: got a head for forces; expected an energy whose gradient they are")
    settings = config_from(config)
    if settings.datasets:
        rows = [tensors[f"{_DATASETS}{_merged(config)[name]}.weight"] for name in settings.datasets]
        tensors = {name: t for name, t in tensors.items() if not name.startswith(_DATASETS)}
        tensors[_DATASETS] = torch.cat(rows)
    model = UMA(settings, backend, dtype=dtype)
    esen.fill(model, tensors, official_name)
    return model


def official_name(name: str) -> str:
    """Our name of a weight -> the authors'; the vectors of the data sets together have that of their folder."""
    for number in ("charge", "spin"):
        if name.startswith(f"systems.{number}."):
            return f"backbone.{number}_embedding.{_PARTS[name.removeprefix(f'systems.{number}.')]}"
    if name == "systems.dataset_embedding.weight":
        return _DATASETS
    if name.startswith("systems.mix."):
        return name.replace("systems.mix.", "backbone.mix_csd.")
    return esen.official_name(name)


def config_from(config: Mapping[str, Any]) -> UMAConfig:
    """The arguments of the authors' backbone as ours. Raises InputError for what we do not have."""
    given = {name: value for name, value in config.items() if name not in _OWN | _IGNORED}
    if "ff_type" not in given or "chg_spin_emb_type" not in config:
        raise InputError("uma: got a configuration without ff_type and chg_spin_emb_type; expected all arguments")
    kind = config["chg_spin_emb_type"]
    if kind not in _KINDS:
        raise InputError(f"uma: got chg_spin_emb_type {kind!r}; expected one of {', '.join(_KINDS)}")
    if given.pop("num_experts", 0):
        raise InputError("uma: got a mixture of experts; expected plain weights; merge them first (merge_mole)")
    given |= {"mlp_type": given.pop("ff_type"), "use_envelope": True}
    given.setdefault("distance_function", "gaussian")
    return UMAConfig(
        **asdict(esen.config_from(given)),
        embedding=_KINDS[kind],
        datasets=tuple(_merged(config)) if config.get("use_dataset_embedding", True) else (),
        charge_channels=_span(config.get("charge_balanced_channels")),
        spin_channels=_span(config.get("spin_balanced_channels")),
    )


def _merged(config: Mapping[str, Any]) -> dict[str, str]:
    """Which data set's vector a data set has."""
    named = config.get("dataset_list")
    mapping = {name: name for name in named} if named else config.get("dataset_mapping")
    if not mapping:
        raise InputError("uma: got no dataset_mapping; expected one, or use_dataset_embedding: False")
    return dict(mapping)


def _span(channels: list[int] | None) -> tuple[int, int]:
    """Neighbouring channels -> the first, and the one after the last."""
    if not channels:
        return 0, 0
    first, end = min(channels), max(channels) + 1
    if sorted(channels) != list(range(first, end)):
        raise InputError(f"uma: got balanced channels {channels}; expected neighbouring ones")
    return first, end
