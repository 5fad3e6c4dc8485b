"""Reads EquiformerV2 networks of the authors' code (fairchem-core 1.10): arguments and a state_dict become ours.

The file is a dict of two entries, without pickled classes: "config", the arguments of the backbone, and "state_dict",
its tensors and those of the heads for energy and forces. Names of modules differ, tensors do not: none is permuted or
scaled. Stored constants (Jd, mappings, grids) are left aside, and the names of activations, which the authors' code
does not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irrepc.errors import InputError
from irrepc.interop.plain_files import read_saved
from irrepc.models.equiformer_v2 import EquiformerV2, EquiformerV2Config

_CONSTANT = re.compile(
    r"(^|\.)(Jd_\d+|to_m|[lm]_harmonic|m_complex|expand_index|rotate_inv_rescale_cache|balance_degree_weight"
    r"|offset|(to|from)_grid_mat)$"
)
_HEAD = re.compile(r"^(?:.*\.)?(energy|force)_block\.")
_NAMES = (
    # ours, a pattern; the authors'
    (r"^embedding\.", "backbone.sphere_embedding."),
    (r"^degree\.", "backbone.edge_degree_embedding."),
    (r"^(blocks|norm|scalars)\.", r"backbone.\1."),
    (r"^energy\.", "energy.energy_block."),
    (r"^force\.", "force.force_block."),
    (r"\.attention\.", ".ga."),
    (r"\.feed_forward\.", ".ffn."),
    (r"\.scalars\.senders\.", ".source_embedding."),
    (r"\.scalars\.receivers\.", ".target_embedding."),
    (r"(norm(?:_\d)?)\.scalars\.", r"\1.norm_l0."),
    (r"(\.norm(?:_\d)?)\.(weight|bias)$", r"\1.affine_\2"),
    (r"\.(ga|force_block)\.norm\.affine_", r".\1.alpha_norm."),
    (r"\.(ga|force_block)\.dot$", r".\1.alpha_dot"),
    (r"\.(ga|force_block)\.projection\.", r".\1.proj."),
    (r"\.conv_(\d)\.(weight|bias)_0$", r".so2_conv_\1.fc_m0.\2"),
    (r"\.conv_(\d)\.weights\.(\d+)$", r".so2_conv_\1.so2_m_conv.\2.fc.weight"),
    (r"\.linear_(\d)\.", r".so3_linear_\1."),
    (r"\.activation\.function\.", ".grid_mlp."),
)
"""What depends on the configuration, the radial perceptrons and the gates of perceptrons, `official_name` says."""
_NEEDED = {
    "max_num_elements", "num_layers", "sphere_channels", "attn_hidden_channels", "num_heads", "attn_alpha_channels",
    "attn_value_channels", "ffn_hidden_channels", "edge_channels", "max_radius", "lmax_list", "mmax_list", "norm_type",
    "use_atom_edge_embedding", "share_atom_edge_embedding", "use_attn_renorm", "use_gate_act", "use_grid_mlp",
    "use_sep_s2_act",
}  # fmt: skip
_OPTIONAL = {
    "grid_resolution", "use_m_share_rad", "avg_num_nodes", "avg_degree", "alpha_drop", "drop_path_rate", "proj_drop",
}  # fmt: skip
_REFUSED = ("use_s2_act_attn", "use_energy_lin_ref", "load_energy_lin_ref")
_IGNORED = {
    "use_pbc", "use_pbc_single", "regress_forces", "otf_graph", "max_neighbors", "enforce_max_neighbors_strictly",
    "num_sphere_samples", "distance_function", "num_distance_basis", "attn_activation", "ffn_activation",
    "weight_init", "activation_checkpoint",
}  # fmt: skip


def load_equiformer_v2(path: str | Path, backend: str = "auto", *, dtype: torch.dtype = torch.float64) -> EquiformerV2:
    """Read such a file (`torch.save({"config": ..., "state_dict": ...})`) without running code from it.

    Raises InputError for a file that is none, and as `equiformer_v2_from`.
    """
    config, state = read_saved(path, "load_equiformer_v2", "save it so, from Python with the authors' code")
    return equiformer_v2_from(config, state, backend, dtype=dtype)


def equiformer_v2_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> EquiformerV2:
    """Our EquiformerV2 with the weights of the authors' of those arguments.

    The names of the heads are free in the authors' code: whatever comes before «energy_block» and «force_block».
    Raises InputError for an option that we do not have, and for tensors that are missing, left over or of another size.
    """
    left = {}
    for name, tensor in state.items():
        if not _CONSTANT.search(name):
            name = re.sub(r"^(module\.)+", "", name)
            left[_HEAD.sub(r"\1.\1_block.", name)] = tensor
    model = EquiformerV2(config_from(config), backend, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs = official_name(name, model.config)
            if theirs not in left or left[theirs].shape != parameter.shape:
                got = tuple(left[theirs].shape) if theirs in left else "nothing"
                raise InputError(
                    f"equiformer_v2: got {got} for {theirs}; expected {tuple(parameter.shape)}, by the arguments"
                )
            parameter.copy_(left.pop(theirs))
    if left:
        raise InputError(f"equiformer_v2: got tensors {sorted(left)}; expected none of these names, by the arguments")
    return model


def equiformer_v2_state(model: EquiformerV2) -> dict[str, Tensor]:
    """The weights under the authors' names, heads called «energy» and «force»: the reverse of `equiformer_v2_from`."""
    return {official_name(name, model.config): p.detach().clone() for name, p in model.named_parameters()}


def official_name(name: str, config: EquiformerV2Config) -> str:
    """Our name of a weight -> the authors'."""
    for ours, theirs in _NAMES:
        name = re.sub(ours, theirs, name)
    # radial weights by order belong to their first convolution, all others to the module
    by_order = config.radial == "order" and "edge_degree_embedding" not in name
    name = name.replace(".radial.", ".so2_conv_1.rad_func.net." if by_order else ".rad_func.net.")
    return name.replace(".gates.", ".scalar_mlp.0." if config.feed_forward.endswith("grid") else ".gating_linear.")


def config_from(config: Mapping[str, Any]) -> EquiformerV2Config:
    """The arguments of the authors' backbone as ours. Raises InputError for what we do not have."""
    given = dict(config)
    if refused := [name for name in _REFUSED if given.pop(name, False)]:
        raise InputError(f"equiformer_v2: got arguments {refused}; expected them absent or false, we do not have them")
    if unknown := sorted(given.keys() - _NEEDED - _OPTIONAL - _IGNORED):
        raise InputError(f"equiformer_v2: got arguments {unknown}; expected those of the authors' backbone")
    if missing := sorted(_NEEDED - given.keys()):
        raise InputError(f"equiformer_v2: got a configuration without {', '.join(missing)}; expected all arguments")
    if len(given["lmax_list"]) != 1 or len(given["mmax_list"]) != 1:
        raise InputError(
            f"equiformer_v2: got lmax {given['lmax_list']}, mmax {given['mmax_list']}; expected one resolution"
        )
    separable = bool(given["use_sep_s2_act"])
    activation = "gate" if given["use_gate_act"] else "separable_s2" if separable else "s2"
    on_grid = "separable_grid" if separable else "grid"
    shared = "shared" if given["share_atom_edge_embedding"] else "own"
    names = {
        "avg_degree": "neighbours", "avg_num_nodes": "atoms", "alpha_drop": "alpha_drop", "proj_drop": "proj_drop",
        "drop_path_rate": "path_drop",
    }  # fmt: skip
    numbers: dict[str, Any] = {o: float(given[t]) for t, o in names.items() if given.get(t) is not None}
    return EquiformerV2Config(
        species=tuple(range(int(given["max_num_elements"]))),
        cutoff=float(given["max_radius"]),
        layers=int(given["num_layers"]),
        channels=int(given["sphere_channels"]),
        hidden=int(given["attn_hidden_channels"]),
        heads=int(given["num_heads"]),
        alpha=int(given["attn_alpha_channels"]),
        value=int(given["attn_value_channels"]),
        feed_hidden=int(given["ffn_hidden_channels"]),
        edge_channels=int(given["edge_channels"]),
        lmax=int(given["lmax_list"][0]),
        mmax=int(given["mmax_list"][0]),
        norm=str(given["norm_type"]),
        activation=activation,
        feed_forward=on_grid if given["use_grid_mlp"] else activation,
        radial="degree" if given.get("use_m_share_rad") else "order",
        edge_embedding=shared if given["use_atom_edge_embedding"] else "none",
        renorm=bool(given["use_attn_renorm"]),
        grid=int(given.get("grid_resolution") or 0),
        **numbers,
    )
