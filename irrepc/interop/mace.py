"""Reads MACE networks of the authors' package (mace-torch 0.3), and writes them back: a configuration and a state_dict.

Conventions of that package which this file turns into ours (the configuration: mace_config.py):
  * messages are sorted by irrep, and so are the columns of the last radial matrix and the rows of `linear`; ours stay
    one block a path, in the order of the paths;
  * U matrices are dense arrays over all ν factors; ours are summed over the permutations of the factors. They are
    read from the file, as are the numbers of couplings: there are two bases, and signs that depend on e3nn's version;
  * weights_max belongs to ν = correlation, weights.s to ν = correlation - 1 - s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from irrepc.algebra.irreps import Irreps
from irrepc.errors import InputError
from irrepc.frontend.contraction import trees
from irrepc.interop.mace_config import arguments_of, config_from
from irrepc.interop.nequip import rows_by_path
from irrepc.interop.pairs import Pair, read, written
from irrepc.interop.plain_files import read_arrays, read_settings
from irrepc.models.mace import MACE, Interaction, Readout
from irrepc.nn.contraction import SymmetricContraction, collapsed, spread
from irrepc.nn.linear import Linear
from irrepc.nn.pair import AgnesiTransform, ScreenedRepulsion, SoftTransform

_CONSTANT = ("output_mask", "_w3j_", "_zeroed")
# said by the configuration, or by tensors that are read by name before the rest
_KNOWN = (
    "atomic_numbers",
    "r_max",
    "num_interactions",
    "radial_embedding.bessel_fn.r_max",
    "radial_embedding.cutoff_fn.p",
    "radial_embedding.cutoff_fn.r_max",
    "pair_repulsion_fn.p",
    "heads",
)
_BOHR = 0.529  # Å, as the package rounds it in its repulsion
EXPORT = """import json, numpy, torch
from mace.tools.scripts_utils import extract_config_mace_model
model = torch.load("IN.model", map_location="cpu", weights_only=False)
arguments = extract_config_mace_model(model)
arguments["avg_num_neighbors"] = float(model.interactions[0].avg_num_neighbors)
kinds = (bool, int, float, list, type(None))
plain = lambda a: a.tolist() if hasattr(a, "tolist") else a if type(a) in kinds else str(a)
json.dump({name: plain(value) for name, value in arguments.items()}, open("OUT.json", "w"))
numpy.savez("OUT.npz", **{name: tensor.numpy() for name, tensor in model.state_dict().items()})
"""
"""For users: run where mace is installed, it writes what load_mace reads."""


class _Coupling(NamedTuple):
    """A U matrix: the name of theirs, and where ours is."""

    name: str
    layer: SymmetricContraction
    degree: int
    nu: int


def load_mace(
    tensors: str | Path, config: str | Path, backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> MACE:
    """Read a state_dict saved with numpy.savez and a configuration saved as JSON; no code of either is run.

    Raises FileNotFoundError, or InputError for files that are none (with the remedy), and as `mace_from`.
    """
    remedy = f"do, where mace is installed, put your file for IN and run:\n{EXPORT}"
    state, given = read_arrays(tensors, "load_mace", remedy), read_settings(config, "load_mace", remedy)
    return mace_from(given, state, backend, dtype=dtype)


def mace_from(
    config: Mapping[str, Any], state: Mapping[str, Tensor], backend: str = "auto", *, dtype: torch.dtype = torch.float64
) -> MACE:
    """Our MACE with the weights of mace's model of that configuration.

    Raises InputError for an option that we do not have, and for tensors that are missing, left over or of another size.
    """
    model = MACE(config_from(config, state), backend, dtype=dtype)
    left = {
        name: tensor
        for name, tensor in state.items()
        if tensor.numel() and name not in _KNOWN and not any(part in name for part in _CONSTANT)
    }
    read(_pairs(model), left, "mace")
    with torch.no_grad():
        for name, layer, degree, nu in _couplings(model):
            u = left.pop(name, torch.zeros(0))
            layer.coupling(degree, nu).copy_(collapsed(u.double(), layer.lmax, degree))
        # radii are those of all elements in their files, and left out of ours
        if isinstance(model.repulsion, ScreenedRepulsion) and (name := "pair_repulsion_fn.covalent_radii") in left:
            radii = left.pop(name).double()[list(model.species)]
            model.repulsion.reach.copy_(radii[:, None] + radii[None, :])
        transform, name = model.transform, "radial_embedding.distance_transform.covalent_radii"
        if isinstance(transform, AgnesiTransform | SoftTransform) and name in left:
            transform.radii.copy_(left.pop(name)[list(model.species)])
    for name in ("atomic_energies_fn.atomic_energies", "scale_shift.scale", "scale_shift.shift"):
        left.pop(name, None)  # they are in the configuration
    if left:
        raise InputError(f"mace: got tensors {sorted(left)}; expected none of these names in a plain MACE model")
    return model


def to_mace(model: MACE) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments and the state_dict of mace's ScaleShiftMACE that computes the same: train here, use there.

    Arguments are plain data: classes, irreps and the gate by name. The state_dict has all in which two models of these
    arguments differ: after load_state_dict(state, strict=False) only constants are missing. Its U matrices are
    symmetric in their factors, which changes no number.
    """
    config = model.config
    state, us = written(_pairs(model)), list(_couplings(model))
    for name, layer, degree, nu in us:
        state[name] = spread(layer.coupling(degree, nu).detach().cpu(), layer.lmax, degree, nu)
    count, heads = len(config.species), len(config.heads)
    cutoff = torch.tensor(config.cutoff, dtype=torch.float64)
    power = torch.tensor(config.cutoff_power, dtype=torch.int32)
    state |= {
        "atomic_numbers": torch.tensor(config.species),
        "num_interactions": torch.tensor(config.layers),
        "radial_embedding.cutoff_fn.p": power,
        **{name: cutoff.clone() for name in _KNOWN if name.endswith("r_max")},
    }
    if config.repulsion:
        state["pair_repulsion_fn.p"] = power.clone()
    scales, totals = (t.detach().cpu().view(heads, count) for t in model.scale_shift.buffers())
    shifts = torch.tensor(config.shifts or (0.0,) * heads, dtype=torch.float64)
    energies = totals - shifts[:, None]  # the model holds E0 + shift
    state["atomic_energies_fn.atomic_energies"] = energies if heads > 1 else energies[0]
    state["scale_shift.scale"] = scales[:, 0].clone() if heads > 1 else scales[0, 0].clone()
    state["scale_shift.shift"] = shifts if heads > 1 else shifts[0]
    reduced = any(u.layer.coupling(u.degree, u.nu).shape[1] < len(trees(config.lmax, u.degree, u.nu)) for u in us)
    return arguments_of(config) | {"use_reduced_cg": reduced}, state


def columns_by_path(paths: Irreps) -> Tensor:
    """For each weight of `paths`, in their order, its column among the weights sorted by irrep (stable)."""
    order = sorted(range(len(paths)), key=lambda k: (paths[k].irrep.l, paths[k].irrep.p))
    starts, start = {}, 0
    for k in order:
        starts[k] = start
        start += paths[k].mul
    return torch.cat([torch.arange(starts[k], starts[k] + block.mul) for k, block in enumerate(paths)])


def _pairs(model: MACE) -> Iterator[Pair]:
    """Every tensor that has a counterpart of the same numbers."""

    def flat(name: str, ours: Tensor) -> Pair:
        return Pair(name, ours, (ours.numel(),))

    radial = "radial_embedding"
    roots = model.basis.roots
    yield Pair(f"{radial}.bessel_fn.bessel_weights", roots, tuple(roots.shape), None, model.cutoff / math.pi)
    yield Pair(f"{radial}.bessel_fn.prefactor", model.gain, (), None, model.cutoff / 2)
    yield flat("node_embedding.linear.weight", model.embedding)
    if isinstance(model.transform, AgnesiTransform | SoftTransform):
        names = ("q", "p", "a") if isinstance(model.transform, AgnesiTransform) else ("alpha",)
        for k, name in enumerate(names):
            yield Pair(f"{radial}.distance_transform.{name}", model.transform.constants[k], ())
    if isinstance(repulsion := model.repulsion, ScreenedRepulsion):
        yield Pair("pair_repulsion_fn.c", repulsion.amplitudes, (4,))
        yield Pair("pair_repulsion_fn.a_exp", repulsion.exponent, ())
        yield Pair("pair_repulsion_fn.a_prefactor", repulsion.length, (), None, _BOHR)
    for k, (layer, readout) in enumerate(zip(model.layers, model.readouts, strict=True)):
        assert isinstance(layer, Interaction)
        yield from _interaction_pairs(layer, f"interactions.{k}")
        yield from _contraction_pairs(layer.contraction, f"products.{k}.symmetric_contractions.contractions")
        yield flat(f"products.{k}.linear.weight", layer.product.weight)
        if isinstance(readout, Readout):
            yield flat(f"readouts.{k}.linear_1.weight", readout.linear_1.weight)
            yield flat(f"readouts.{k}.linear_2.weight", readout.linear_2.weight)
        else:
            assert isinstance(readout, Linear)
            yield flat(f"readouts.{k}.linear.weight", readout.weight)


def _interaction_pairs(layer: Interaction, name: str) -> Iterator[Pair]:
    yield Pair(f"{name}.linear_up.weight", layer.linear_up.weight, (layer.linear_up.weight_numel,))
    yield Pair(f"{name}.skip_tp.weight", layer.skip.weight, (layer.skip.weight_numel,))
    *hidden, last = layer.radial.weights
    for k, weight in enumerate(hidden):
        yield Pair(f"{name}.conv_tp_weights.layer{k}.weight", weight, tuple(weight.shape))
    columns = columns_by_path(layer.convolution.irreps_out)
    order = (torch.arange(last.shape[0])[:, None] * last.shape[1] + columns).reshape(-1)
    yield Pair(f"{name}.conv_tp_weights.layer{len(hidden)}.weight", last, tuple(last.shape), order)
    if layer.density is not None:
        weight = layer.density.weights[0]
        yield Pair(f"{name}.density_fn.layer0.weight", weight, tuple(weight.shape))
    rows = rows_by_path(torch.arange(layer.linear.weight_numel), layer.linear.irreps_in, layer.linear.irreps_out)
    yield Pair(f"{name}.linear.weight", layer.linear.weight, (layer.linear.weight_numel,), rows)


def _contraction_pairs(layer: SymmetricContraction, name: str) -> Iterator[Pair]:
    for (degree, nu), weight in zip(layer.keys, layer.weights, strict=True):
        place = "weights_max" if nu == layer.correlation else f"weights.{layer.correlation - 1 - nu}"
        yield Pair(f"{name}.{layer.degrees.index(degree)}.{place}", weight, tuple(weight.shape))


def _couplings(model: MACE) -> Iterator[_Coupling]:
    for k, layer in enumerate(model.layers):
        assert isinstance(layer, Interaction)
        for degree, nu in layer.contraction.keys:
            part = layer.contraction.degrees.index(degree)
            name = f"products.{k}.symmetric_contractions.contractions.{part}.U_matrix_{nu}"
            yield _Coupling(name, layer.contraction, degree, nu)
