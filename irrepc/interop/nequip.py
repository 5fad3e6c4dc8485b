"""Reads NequIP networks of the authors' package (nequip 0.19): a configuration and a state_dict become our NequIP.

The file is a dict of two entries, without pickled classes: "config", the arguments of nequip's NequIPGNNEnergyModel,
and "state_dict", its tensors. Conventions of that package which this file turns into ours:
  * elements by symbol, scale and shift as a dict of them;
  * the interaction's outputs are sorted by irrep and joined before linear_2; ours stay one block a path, so the rows of
    that weight are put into the order of the paths.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError, require
from irrepc.models.nequip import Interaction, NequIP, NequIPConfig
from irrepc.nn.radial import ScalarMLP

_PREFIX = "model.func."
# stored beside the weights: masks and coupling coefficients, both constants
_CONSTANT = ("output_mask", "_w3j_")
_DEFAULTS: dict[str, Any] = {
    "parity": True,
    "radial_mlp_depth": 1,
    "radial_mlp_width": 128,
    "num_bessels": 8,
    "polynomial_cutoff_p": 6,
    "per_type_energy_scales": None,
    "per_type_energy_shifts": None,
    "readout_mlp_hidden_layers_depth": 0,
    "readout_mlp_hidden_layers_width": None,
    "readout_mlp_nonlinearity": "silu",
}


def load_nequip(path: str | Path, backend: str = "auto", *, dtype: torch.dtype = torch.float64) -> NequIP:
    """Read such a file (`torch.save({"config": ..., "state_dict": ...})`) without running code from it.

    Raises InputError for a file that is none, and as `nequip_from`.
    """
    with open(path, "rb") as file:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError, OSError) as error:
            raise InputError(
                f"load_nequip: got {path}, which torch cannot read as plain tensors ({type(error).__name__}); expected "
                "a dict of config and state_dict; save it so, from Python with nequip"
            ) from error
    if not isinstance(found, dict) or not {"config", "state_dict"} <= found.keys():
        raise InputError(f"load_nequip: got {path} without 'config' and 'state_dict'; expected a dict of both")
    return nequip_from(found["config"], found["state_dict"], backend, dtype=dtype)


def nequip_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> NequIP:
    """Our NequIP with the weights of nequip's model of that configuration.

    Raises InputError for an option that we do not have, and for tensors that are missing, left over or of another size.
    """
    model = NequIP(config_from(config), backend, dtype=dtype)
    left = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in state.items()
        if tensor.numel() and not any(part in name for part in _CONSTANT)
    }

    def take(name: str, like: Tensor) -> Tensor:
        if name not in left or left[name].numel() != like.numel():
            got = tuple(left[name].shape) if name in left else "nothing"
            raise InputError(f"nequip: got {got} for {name}; expected {like.numel()} numbers, by the configuration")
        return left.pop(name).reshape(like.shape)

    def fill(tensor: Tensor, name: str) -> None:
        tensor.copy_(take(name, tensor))

    def fill_mlp(mlp: ScalarMLP, name: str) -> None:
        for k, weight in enumerate(mlp.weights):  # nonlinearities stand between: 0, 2, 4, ...
            fill(weight, f"{name}.{2 * k}.weight")

    with torch.no_grad():
        fill(model.basis.roots, "bessel_encode.bessel_weights")
        reciprocal = float(take("edge_norm._rmax_recip", torch.zeros(1)))
        if abs(reciprocal * model.cutoff - 1) > 1e-6:
            raise InputError(f"nequip: got 1 / r_max = {reciprocal} in the tensors; expected that of {model.cutoff} Å")
        fill(model.embedding.weight, "type_embed.embed_module.weight")
        for k, layer in enumerate(model.layers):
            assert isinstance(layer, Interaction)
            name = f"layer{k}_convnet.conv"
            fill(layer.linear_1.weight, f"{name}.linear_1.weight")
            fill_mlp(layer.radial, f"{name}.edge_mlp.mlp")
            joined = take(f"{name}.linear_2.weight", layer.linear_2.weight)
            layer.linear_2.weight.copy_(rows_by_path(joined, layer.linear_2.irreps_in, layer.linear_2.irreps_out))
            if layer.self_connection is not None:
                fill(layer.self_connection.weight, f"{name}.sc.weight")
        fill_mlp(model.readout, "per_atom_energy_readout.mlp_module.mlp")
        for ours in ("scales", "shifts"):
            name = f"per_type_energy_scale_shift.{ours}"
            if name in left:
                fill(model.scale_shift.get_buffer(ours), name)
    if left:
        raise InputError(f"nequip: got tensors {sorted(left)}; expected none of these names in a plain NequIP model")
    return model


def config_from(config: Mapping[str, Any]) -> NequIPConfig:
    """The arguments of nequip's NequIPGNNEnergyModel as ours. Raises InputError for what we do not have."""
    given = {**_DEFAULTS, **config}
    missing = {"type_names", "r_max", "num_layers", "l_max", "num_features", "type_embed_num_features"} - given.keys()
    if missing:
        raise InputError(f"nequip: got a configuration without {', '.join(sorted(missing))}; expected all arguments")
    if given["readout_mlp_nonlinearity"] != "silu" or given.get("radial_mlp_nonlinearity", "silu") != "silu":
        raise InputError("nequip: got a perceptron without SiLU; expected radial and readout perceptrons with 'silu'")
    if isinstance(given.get("avg_num_neighbors"), Mapping):
        raise InputError("nequip: got avg_num_neighbors for each type; expected one number")
    names, lmax, features = tuple(given["type_names"]), int(given["l_max"]), given["num_features"]
    numbers = require("ase.data", "ase").atomic_numbers
    unknown = [n for n in names if n not in numbers]
    if unknown:
        raise InputError(f"nequip: got type names {unknown}; expected chemical symbols")

    def by_type(what: str) -> tuple[float, ...]:
        value = given[what]
        if isinstance(value, Mapping):
            return tuple(float(value[n]) for n in names)
        return () if value is None else (float(value),) * len(names)

    return NequIPConfig(
        species=tuple(int(numbers[n]) for n in names),
        cutoff=float(given["r_max"]),
        layers=int(given["num_layers"]),
        lmax=lmax,
        parity=bool(given["parity"]),
        features=(int(features),) * (lmax + 1) if isinstance(features, int) else tuple(int(f) for f in features),
        embedding=int(given["type_embed_num_features"]),
        bessels=int(given["num_bessels"]),
        cutoff_power=int(given["polynomial_cutoff_p"]),
        radial_depth=int(given["radial_mlp_depth"]),
        radial_width=int(given["radial_mlp_width"]),
        avg_num_neighbors=float(given.get("avg_num_neighbors") or 1.0),
        scales=by_type("per_type_energy_scales"),
        shifts=by_type("per_type_energy_shifts"),
        readout_depth=int(given["readout_mlp_hidden_layers_depth"]),
        readout_width=int(given["readout_mlp_hidden_layers_width"] or 0),
    )


def rows_by_path(weight: Tensor, paths: Irreps, irreps_out: Irreps) -> Tensor:
    """A flat Linear weight for sorted, joined inputs -> the same for `paths`, one block each, in their order.

    Within one irrep both have the paths in the same order, so the matrix (Σ mul, mul_out) of an irrep is cut into rows.
    """
    outputs = {block.irrep: block.mul for block in irreps_out}
    joined = paths.sort()[0].simplify()
    rest, matrices = weight, {}
    for block in joined:
        size = block.mul * outputs[block.irrep]
        matrices[block.irrep], rest = rest[:size].view(block.mul, -1), rest[size:]
    pieces = []
    for block in paths:
        matrix = matrices[block.irrep]
        pieces.append(matrix[: block.mul].reshape(-1))
        matrices[block.irrep] = matrix[block.mul :]
    return torch.cat(pieces)
