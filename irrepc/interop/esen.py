"""Reads eSEN networks of the authors' code (fairchem-core 1.10): arguments and a state_dict become our ESEN.

The file is a dict of two entries, without pickled classes: "config", the arguments of the backbone and "direct_forces",
and "state_dict", its tensors. Names of modules differ, tensors do not: none is permuted or scaled but for the
frequencies of the Bessel functions, which ours count in π. Stored constants (Jd_*, mappings, grids) are left aside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irrepc.errors import InputError
from irrepc.interop.plain_files import read_saved
from irrepc.models.esen import ESEN, DirectESEN, ESENConfig

_CONSTANT = re.compile(
    r"(^|\.)(Jd_\d+|wigner_data\..*|to_m|l_harmonic|m_harmonic|m_complex|expand_index|balance_degree_weight|offset|(to|from)_grid_mat)$"
)
_HEADS = re.compile(r"^(?!backbone\.)(?:\w+\.)*energy_block\.")
_FORCE = re.compile(r"^(?:heads?\.)?\w+\.linear\.(weight|bias)$")
_NAMES = (
    # ours, a pattern; the authors'
    (r"^backbone\.embedding\.", "backbone.sphere_embedding."),
    (r"^backbone\.senders\.", "backbone.source_embedding."),
    (r"^backbone\.receivers\.", "backbone.target_embedding."),
    (r"^backbone\.basis\.functions\.roots$", "backbone.distance_expansion.rbf.frequencies"),
    (r"^backbone\.degree_radial\.", "backbone.edge_degree_embedding.rad_func.net."),
    (r"\.edge_wise\.radial\.", ".edge_wise.so2_conv_1.rad_func.net."),
    (r"\.edge_wise\.conv_(\d)\.(weight|bias)_0$", r".edge_wise.so2_conv_\1.fc_m0.\2"),
    (r"\.edge_wise\.conv_(\d)\.weights\.(\d+)$", r".edge_wise.so2_conv_\1.so2_m_conv.\2.fc.weight"),
    (r"\.atom_wise\.gates\.", ".atom_wise.scalar_mlp.0."),
    (r"\.atom_wise\.linear_(\d)\.", r".atom_wise.so3_linear_\1."),
    (r"\.scalars\.(weight|bias)$", r".norm_l0.\1"),
    (r"^energy\.", "energy.energy_block."),
    (r"^force\.", "force.linear."),
)
"""Where the norms' weights stand is said below: «affine_weight» and «affine_bias»."""
_NEEDED = {
    "max_num_elements", "sphere_channels", "hidden_channels", "edge_channels", "num_layers", "lmax", "mmax", "cutoff",
    "num_distance_basis", "norm_type", "act_type", "mlp_type", "distance_function", "use_envelope",
}  # fmt: skip
_IGNORED = {
    "otf_graph", "regress_forces", "regress_stress", "max_neighbors", "use_pbc", "use_pbc_single",
    "direct_forces", "activation_checkpointing", "num_sphere_samples",
}  # fmt: skip


def load_esen(path: str | Path, backend: str = "auto", *, dtype: torch.dtype = torch.float64) -> ESEN | DirectESEN:
    """Read such a file (`torch.save({"config": ..., "state_dict": ...})`) without running code from it.

    Raises InputError for a file that is none, and as `esen_from`.
    """
    config, state = read_saved(path, "load_esen", "save it so, from Python with the authors' code")
    return esen_from(config, state, backend, dtype=dtype)


def esen_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> ESEN | DirectESEN:
    """Our eSEN with the weights of the authors' of those arguments: DirectESEN where a force head is among them.

    The names of the heads are free in the authors' code: whatever comes before «energy_block» and «linear».
    Raises InputError for an option that we do not have, and for tensors that are missing, left over or of another size.
    """
    left = official_tensors(state)
    direct = any(name.startswith("force.") for name in left)
    model = (DirectESEN if direct else ESEN)(config_from(config), backend, dtype=dtype)
    fill(model, left, official_name)
    return model


def official_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' weights without stored constants, their heads called «energy» and «force»."""
    found = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        if not _CONSTANT.search(name):
            head = _HEADS.sub("energy.energy_block.", name)
            found[head if name.startswith("backbone.") else _FORCE.sub(r"force.linear.\1", head)] = tensor
    return found


def fill(model: nn.Module, tensors: Mapping[str, Tensor], names: Callable[[str], str]) -> None:
    """Copy the authors' tensors into the weights of `model`; `names` takes our name of a weight to theirs.

    Raises InputError for tensors that are missing, left over or of another size.
    """
    left = dict(tensors)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs = names(name)
            if theirs not in left or left[theirs].shape != parameter.shape:
                got = tuple(left[theirs].shape) if theirs in left else "nothing"
                wanted = tuple(parameter.shape)
                raise InputError(f"weights: got {got} for {theirs}; expected {wanted}, by the arguments")
            value = left.pop(theirs).to(torch.float64)
            parameter.copy_(value / math.pi if theirs.endswith("rbf.frequencies") else value)
    if left:
        raise InputError(f"weights: got tensors {sorted(left)}; expected none of these names, by the arguments")


def esen_state(model: ESEN | DirectESEN) -> dict[str, Tensor]:
    """The weights under the authors' names, heads called «energy» and «force»: the reverse of `esen_from`."""
    out = {}
    for name, parameter in model.named_parameters():
        theirs = official_name(name)
        value = parameter.detach().clone()
        out[theirs] = value * math.pi if theirs.endswith("rbf.frequencies") else value
    return out


def official_name(name: str) -> str:
    """Our name of a weight -> the authors'."""
    name = name.removeprefix("potential.")
    parts = name.split(".")
    if any(part in ("norm", "norm_1", "norm_2") for part in parts) and parts[-2] != "scalars":
        return ".".join((*parts[:-1], f"affine_{parts[-1]}"))
    if ".atom_wise.layers." in name:  # nonlinearities stand between: 0, 2, 4
        return re.sub(r"\.layers\.(\d)\.", lambda m: f".grid_mlp.{2 * int(m[1])}.", name)
    for ours, theirs in _NAMES:
        name, found = re.subn(ours, theirs, name)
        if found:
            break
    return name


def config_from(config: Mapping[str, Any]) -> ESENConfig:
    """The arguments of the authors' backbone as ours. Raises InputError for what we do not have."""
    given = dict(config)
    if unknown := sorted(given.keys() - _NEEDED - _IGNORED - {"grid_resolution"}):
        raise InputError(f"esen: got arguments {unknown}; expected those of the authors' eSEN backbone")
    if missing := sorted(_NEEDED - given.keys()):
        raise InputError(f"esen: got a configuration without {', '.join(missing)}; expected all arguments")
    return ESENConfig(
        species=tuple(range(int(given["max_num_elements"]))),
        cutoff=float(given["cutoff"]),
        layers=int(given["num_layers"]),
        channels=int(given["sphere_channels"]),
        hidden=int(given["hidden_channels"]),
        edge_channels=int(given["edge_channels"]),
        lmax=int(given["lmax"]),
        mmax=int(given["mmax"]),
        norm=str(given["norm_type"]),
        activation=str(given["act_type"]),
        feed_forward=str(given["mlp_type"]),
        basis=str(given["distance_function"]),
        basis_size=int(given["num_distance_basis"]),
        envelope=bool(given["use_envelope"]),
        grid=int(given.get("grid_resolution") or 0),
    )
