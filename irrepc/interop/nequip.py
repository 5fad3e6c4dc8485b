"""Reads NequIP networks of the authors' package (nequip 0.19), and writes them back: a configuration and a state_dict.

The file is a dict of two entries, without pickled classes: "config", the arguments of nequip's NequIPGNNModel, and
"state_dict", its tensors. Conventions of that package which this file turns into ours:
  * elements by symbol, scale and shift as a dict of them;
  * the interaction's outputs are sorted by irrep and joined before linear_2; ours stay one block a path, so the rows of
    that weight are put into the order of the paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError, require
from irrepc.interop.pairs import Pair, read, written
from irrepc.interop.plain_files import read_saved
from irrepc.models.nequip import Interaction, NequIP, NequIPConfig
from irrepc.nn.pair import ScreenedRepulsion
from irrepc.nn.radial import ScalarMLP

_PREFIX = "model.func."
# stored beside the weights: masks and coupling coefficients, both constants
_CONSTANT = ("output_mask", "_w3j_")
_DEFAULTS: dict[str, Any] = {
    "parity": True,
    "radial_mlp_depth": 1,
    "radial_mlp_width": 128,
    "num_bessels": 8,
    "bessel_trainable": False,
    "polynomial_cutoff_p": 6,
    "per_edge_type_cutoff": None,
    "per_type_energy_scales": None,
    "per_type_energy_shifts": None,
    "per_type_energy_scales_trainable": False,
    "per_type_energy_shifts_trainable": False,
    "pair_potential": None,
    "readout_mlp_hidden_layers_depth": 0,
    "readout_mlp_hidden_layers_width": None,
    "readout_mlp_nonlinearity": "silu",
}
_ZBL = "nequip.nn.pair_potential.ZBL"
EXPORT = """import json, torch
from nequip.model.saved_models import ModelFromCheckpoint
from nequip.utils.global_state import set_global_state
set_global_state()
file = torch.load("IN.ckpt", map_location="cpu", weights_only=False)
config = json.loads(json.dumps(file["hyper_parameters"]["model"], default=dict))
model = ModelFromCheckpoint("IN.ckpt")["sole_model"]
torch.save({"config": config, "state_dict": {k: v.detach() for k, v in model.state_dict().items()}}, "OUT.pt")
"""
"""For users: run where nequip is installed, it writes what load_nequip reads."""
EXPORT_PACKAGE = """import torch, yaml
from nequip.model.saved_models.package import ModelFromPackage
from nequip.utils.global_state import set_global_state
set_global_state()
text = torch.package.PackageImporter("IN.nequip.zip").load_text("model", "config.yaml")
config = yaml.safe_load(text)["training_module"]["model"]
model = ModelFromPackage("IN.nequip.zip")["sole_model"]
torch.save({"config": config, "state_dict": {k: v.detach() for k, v in model.state_dict().items()}}, "OUT.pt")
"""
"""The same of a file of nequip-package."""


def load_nequip(path: str | Path, backend: str = "auto", *, dtype: torch.dtype = torch.float64) -> NequIP:
    """Read such a file (`torch.save({"config": ..., "state_dict": ...})`) without running code from it.

    Raises InputError for a file that is none (with the remedy), and as `nequip_from`.
    """
    remedy = f"do, where nequip is installed, put your file for IN and run:\n{EXPORT}"
    config, state = read_saved(path, "load_nequip", remedy)
    return nequip_from(config, state, backend, dtype=dtype)


def nequip_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> NequIP:
    """Our NequIP with the weights of nequip's model of that configuration.

    Raises InputError for an option that we do not have, and for tensors that are missing, left over or of another size.
    """
    model = NequIP(config_from(config), backend, dtype=dtype)
    left = {
        name[name.find(_PREFIX) + len(_PREFIX) :] if _PREFIX in name else name: tensor
        for name, tensor in state.items()
        if tensor.numel() and not any(part in name for part in _CONSTANT)
    }
    reciprocal = left.pop("edge_norm._rmax_recip", torch.zeros(1)).double().reshape(-1)
    cutoffs = torch.tensor(model.config.cutoffs or (model.cutoff,), dtype=torch.float64)
    if reciprocal.shape != cutoffs.shape or bool((reciprocal * cutoffs - 1).abs().max() > 1e-6):
        raise InputError(
            f"nequip: got 1 / r_max = {reciprocal.tolist()} in the tensors; expected that of {cutoffs.tolist()} Å"
        )
    for name in ("scales", "shifts"):  # one number may stand for all types
        full = f"per_type_energy_scale_shift.{name}"
        if full in left:
            left[full] = left[full].reshape(-1).expand(len(model.species))
        else:
            left[full] = getattr(model.scale_shift, name).detach()
    if isinstance(model.repulsion, ScreenedRepulsion):
        left.pop("pair_potential.atomic_numbers", None)  # said by the type names
    read(_pairs(model), left, "nequip")
    if left:
        raise InputError(f"nequip: got tensors {sorted(left)}; expected none of these names in a plain NequIP model")
    return model


def to_nequip(model: NequIP) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments and the state_dict of nequip's NequIPGNNModel that computes the same: train here, use there.

    The state_dict has all in which two models of these arguments differ: after load_state_dict(state, strict=False)
    only constants are missing. Scales and shifts are given, as ones and zeros where the configuration has none.
    """
    state = {_PREFIX + name: tensor for name, tensor in written(_pairs(model)).items()}
    cutoffs = torch.tensor(model.config.cutoffs or (model.cutoff,), dtype=torch.float64)
    state[f"{_PREFIX}edge_norm._rmax_recip"] = 1 / (cutoffs if model.config.cutoffs else cutoffs[0])
    return arguments_of(model.config), state


def config_from(config: Mapping[str, Any]) -> NequIPConfig:
    """The arguments of nequip's NequIPGNNModel as ours. Raises InputError for what we do not have."""
    given = {**_DEFAULTS, **config}
    missing = {"type_names", "r_max", "num_layers", "l_max", "num_features"} - given.keys()
    if missing:
        raise InputError(f"nequip: got a configuration without {', '.join(sorted(missing))}; expected all arguments")
    if given["readout_mlp_nonlinearity"] != "silu" or given.get("radial_mlp_nonlinearity", "silu") != "silu":
        raise InputError("nequip: got a perceptron without SiLU; expected radial and readout perceptrons with 'silu'")
    names, lmax, features = tuple(given["type_names"]), int(given["l_max"]), given["num_features"]
    numbers = require("ase.data", "ase").atomic_numbers
    unknown = [n for n in names if n not in numbers]
    if unknown:
        raise InputError(f"nequip: got type names {unknown}; expected chemical symbols")

    def by_type(value: Any) -> tuple[float, ...]:
        if isinstance(value, Mapping):
            if lost := [n for n in names if n not in value]:
                raise InputError(f"nequip: got numbers by type without {lost}; expected one for each of {list(names)}")
            return tuple(float(value[n]) for n in names)
        return () if value is None else (float(value),) * len(names)

    def cutoff(centre: str, neighbour: str) -> float:
        entry = (given["per_edge_type_cutoff"] or {}).get(centre, given["r_max"])
        return float(entry.get(neighbour, given["r_max"]) if isinstance(entry, Mapping) else entry)

    widths = (int(features),) * (lmax + 1) if isinstance(features, int) else tuple(int(f) for f in features)
    neighbors, pair = given.get("avg_num_neighbors"), given["pair_potential"]
    if pair is not None and (pair.get("_target_") != _ZBL or list(pair.get("chemical_species", names)) != list(names)):
        raise InputError(f"nequip: got pair potential {pair!r}; expected {_ZBL} of the elements {list(names)}")
    return NequIPConfig(
        species=tuple(int(numbers[n]) for n in names),
        cutoff=float(given["r_max"]),
        cutoffs=tuple(cutoff(a, b) for a in names for b in names) if given["per_edge_type_cutoff"] else (),
        layers=int(given["num_layers"]),
        lmax=lmax,
        parity=bool(given["parity"]),
        features=widths,
        embedding=int(given.get("type_embed_num_features") or widths[0]),
        bessels=int(given["num_bessels"]),
        trainable_bessels=bool(given["bessel_trainable"]),
        cutoff_power=int(given["polynomial_cutoff_p"]),
        radial_depth=int(given["radial_mlp_depth"]),
        radial_width=int(given["radial_mlp_width"]),
        avg_num_neighbors=1.0 if isinstance(neighbors, Mapping) else float(neighbors or 1.0),
        neighbors=by_type(neighbors) if isinstance(neighbors, Mapping) else (),
        scales=by_type(given["per_type_energy_scales"]),
        shifts=by_type(given["per_type_energy_shifts"]),
        trainable_scales=bool(given["per_type_energy_scales_trainable"]),
        trainable_shifts=bool(given["per_type_energy_shifts_trainable"]),
        repulsion=pair is not None,
        repulsion_power=int((pair or {}).get("polynomial_cutoff_p", 6)),
        readout_depth=int(given["readout_mlp_hidden_layers_depth"]),
        readout_width=int(given["readout_mlp_hidden_layers_width"] or widths[0]),
    )


def arguments_of(config: NequIPConfig) -> dict[str, Any]:
    """The arguments of nequip's NequIPGNNModel of that configuration, as plain data."""
    symbols = require("ase.data", "ase").chemical_symbols
    names, count = [symbols[z] for z in config.species], len(config.species)

    def by_type(values: tuple[float, ...], default: float) -> dict[str, float]:
        return dict(zip(names, values or (default,) * count, strict=True))

    cutoffs = None
    if config.cutoffs:
        rows = [config.cutoffs[k * count : (k + 1) * count] for k in range(count)]
        cutoffs = {name: by_type(row, 0.0) for name, row in zip(names, rows, strict=True)}
    pair = {"_target_": _ZBL, "units": "metal", "chemical_species": names}
    return {
        "type_names": names,
        "r_max": config.cutoff,
        "per_edge_type_cutoff": cutoffs,
        "num_layers": config.layers,
        "l_max": config.lmax,
        "parity": config.parity,
        "num_features": list(config.features),
        "type_embed_num_features": config.embedding,
        "num_bessels": config.bessels,
        "bessel_trainable": config.trainable_bessels,
        "polynomial_cutoff_p": config.cutoff_power,
        "radial_mlp_depth": config.radial_depth,
        "radial_mlp_width": config.radial_width,
        "avg_num_neighbors": by_type(config.neighbors, 1.0) if config.neighbors else config.avg_num_neighbors,
        "per_type_energy_scales": by_type(config.scales, 1.0),
        "per_type_energy_shifts": by_type(config.shifts, 0.0),
        "per_type_energy_scales_trainable": config.trainable_scales,
        "per_type_energy_shifts_trainable": config.trainable_shifts,
        "pair_potential": pair | {"polynomial_cutoff_p": float(config.repulsion_power)} if config.repulsion else None,
        "readout_mlp_hidden_layers_depth": config.readout_depth,
        "readout_mlp_hidden_layers_width": config.readout_width,
    }


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


def _pairs(model: NequIP) -> Iterator[Pair]:
    """Every tensor that has a counterpart of the same numbers."""

    def perceptron(mlp: ScalarMLP, name: str) -> Iterator[Pair]:
        for k, weight in enumerate(mlp.weights):  # nonlinearities stand between: 0, 2, 4, ...
            yield Pair(f"{name}.{2 * k}.weight", weight, tuple(weight.shape))

    yield Pair("bessel_encode.bessel_weights", model.basis.roots, (1, model.basis.size))
    yield Pair("type_embed.embed_module.weight", model.embedding.weight, tuple(model.embedding.weight.shape))
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, Interaction)
        name, first, second = f"layer{k}_convnet.conv", layer.linear_1, layer.linear_2
        yield Pair(f"{name}.linear_1.weight", first.weight, (first.weight_numel,))
        yield from perceptron(layer.radial, f"{name}.edge_mlp.mlp")
        rows = rows_by_path(torch.arange(second.weight_numel), second.irreps_in, second.irreps_out)
        yield Pair(f"{name}.linear_2.weight", second.weight, (second.weight_numel,), rows)
        if layer.self_connection is not None:
            yield Pair(f"{name}.sc.weight", layer.self_connection.weight, (layer.self_connection.weight_numel,))
    yield from perceptron(model.readout, "per_atom_energy_readout.mlp_module.mlp")
    for ours in ("scales", "shifts"):
        yield Pair(f"per_type_energy_scale_shift.{ours}", getattr(model.scale_shift, ours), (len(model.species), 1))
    if isinstance(model.repulsion, ScreenedRepulsion):
        yield Pair("pair_potential._qqr2exesquare", model.repulsion.coulomb, (), None, 2.0)  # theirs is halved
